//! Random histories: a few clients connect, subscribe, publish, acknowledge late, vanish and come
//! back, as the dice say, while a model on the test's side knows what must be true of everything
//! that arrives:
//!
//! - no message of QoS 1 or 2 that was acknowledged to its publisher is lost for a session that it
//!   was meant for;
//! - QoS 2 arrives exactly once, QoS 1 twice only if it was sent again;
//! - each publisher's messages on a topic arrive in their order, through all reconnects;
//! - DUP is set on what is sent again and on nothing else, and what is sent again keeps its Packet
//!   Identifier and order;
//! - Packet Identifiers in flight are unique, and never more than Receive Maximum.
//!
//! A failure prints its seed; `TIDINGS_HISTORY_SEED=<seed>` repeats that history alone, and
//! `TIDINGS_HISTORY_SECONDS` says for how long new ones are tried (8).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::harness::*;

const STEPS: usize = 120;
const TOPICS: [&str; 3] = ["t/0", "t/1", "u"];
const FILTERS: [&str; 6] = ["t/0", "t/1", "u", "t/+", "t/#", "#"];

/// Histories that once found something stay here.
const KEPT_SEEDS: [u64; 3] = [1, 2, 3];

/// splitmix64: small, and the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }
}

fn matches(filter: &str, topic: &str) -> bool {
    filter == topic
        || filter == "#"
        || ((filter == "t/+" || filter == "t/#") && topic.starts_with("t/"))
}

/// A message and what is known of its way to the broker.
struct Message {
    publisher: usize,
    topic: &'static str,
    qos: u8,
    acknowledged: bool,
    /// It was given to the broker a second time, so QoS 1 may deliver it a second time.
    sent_again: bool,
    /// The step at which it was first sent.
    step: usize,
}

/// A session that must get a message, as far as is known: `None` once that became uncertain.
struct Duty {
    message: usize,
    client: usize,
    session: usize,
    qos: Option<u8>,
}

struct Outgoing {
    id: u16,
    message: usize,
    released: bool,
}

/// The message that an identifier last stood for.
struct Received {
    message: usize,
    /// Its place among all that was received.
    order: usize,
    /// Whether an acknowledgement was sent, which may have been lost with its connection.
    acknowledged: bool,
}

struct Actor {
    version: Version,
    connection: Option<Client>,
    /// Counts the sessions that this client has had.
    session: usize,
    session_exists: bool,
    persistent: bool,
    /// The step at which this connection began, and whether the session is older than it.
    connected_at: usize,
    resumed: bool,
    receive_maximum: usize,
    subscriptions: BTreeMap<&'static str, u8>,
    ever_subscribed: BTreeSet<&'static str>,
    outgoing: VecDeque<Outgoing>,
    next_id: u16,
    to_acknowledge: VecDeque<Packet>,
    in_flight: HashSet<u16>,
    incoming_qos_2: HashSet<u16>,
    received: HashMap<u16, Received>,
    redelivered_up_to: usize,
    receipts: usize,
    /// For each message of this session, the QoS of each time that it was delivered.
    delivered: HashMap<usize, Vec<u8>>,
    /// For each publisher and topic, the last message delivered for the first time with QoS 1 or 2.
    last: HashMap<(usize, &'static str), usize>,
}

impl Actor {
    fn new(version: Version) -> Actor {
        Actor {
            version,
            connection: None,
            session: 0,
            session_exists: false,
            persistent: false,
            connected_at: 0,
            resumed: false,
            receive_maximum: 1024,
            subscriptions: BTreeMap::new(),
            ever_subscribed: BTreeSet::new(),
            outgoing: VecDeque::new(),
            next_id: 0,
            to_acknowledge: VecDeque::new(),
            in_flight: HashSet::new(),
            incoming_qos_2: HashSet::new(),
            received: HashMap::new(),
            redelivered_up_to: 0,
            receipts: 0,
            delivered: HashMap::new(),
            last: HashMap::new(),
        }
    }

    fn granted(&self, topic: &str) -> Option<u8> {
        self.subscriptions
            .iter()
            .filter(|(filter, _)| matches(filter, topic))
            .map(|(_, qos)| *qos)
            .max()
    }

    fn answered(&mut self, id: u16) {
        if let Some(received) = self.received.get_mut(&id) {
            received.acknowledged = true;
        }
    }

    fn forget_session(&mut self) {
        self.session += 1;
        self.session_exists = false;
        self.subscriptions.clear();
        self.ever_subscribed.clear();
        self.outgoing.clear();
        self.incoming_qos_2.clear();
        self.received.clear();
        self.delivered.clear();
        self.last.clear();
    }
}

struct World {
    broker: Broker,
    dice: Dice,
    actors: Vec<Actor>,
    messages: Vec<Message>,
    duties: Vec<Duty>,
    step: usize,
    history: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> World {
        let versions = [Version::V5, Version::V311, Version::V5, Version::V31];
        World {
            broker: Broker::with(r#"sys.interval = "0s""#).await,
            dice: Dice(seed),
            actors: versions.map(Actor::new).into(),
            messages: Vec::new(),
            duties: Vec::new(),
            step: 0,
            history: Vec::new(),
        }
    }

    fn say(&mut self, line: String) {
        self.history.push(format!("{:4} {line}", self.step));
    }

    fn fail(&self, problem: &str) -> ! {
        let from = self.history.len().saturating_sub(150);
        panic!(
            "{problem}\nhistory, last lines:\n{}",
            self.history[from..].join("\n")
        );
    }

    async fn run(&mut self) {
        for step in 0..STEPS {
            self.step = step;
            let client = self.dice.below(self.actors.len());
            if self.actors[client].connection.is_none() {
                self.connect(client).await;
                continue;
            }
            match self.dice.below(100) {
                0..4 => self.connect(client).await,
                4..22 => self.subscribe(client).await,
                22..27 => self.unsubscribe(client).await,
                27..60 => self.publish(client).await,
                60..74 => drop(self.read(client).await),
                74..88 => self.acknowledge_some(client).await,
                88..91 => self.leave(client, "disconnects").await,
                91..95 => self.leave(client, "loses its network").await,
                95..98 => self.leave(client, "vanishes").await,
                _ => self.duplicate_last(client).await,
            }
        }
        self.finish().await;
    }

    async fn connect(&mut self, client: usize) {
        let clean = self.dice.percent(12);
        let persistent = self.dice.percent(75);
        let receive_maximum = [1, 2, 5, 20, 1024][self.dice.below(5)];
        self.connect_as(client, clean, persistent, receive_maximum)
            .await;
    }

    async fn connect_as(
        &mut self,
        client: usize,
        clean: bool,
        persistent: bool,
        receive_maximum: u16,
    ) {
        let version = self.actors[client].version;
        // What another connection finds of a session that ends with its own is left open: see
        // session.rs.
        let clean = match version {
            Version::V5 => clean || !self.actors[client].persistent,
            _ => !persistent,
        };
        let mut connect = Connect::new(version, &format!("client {client}"));
        connect.clean_start = clean;
        if version == Version::V5 {
            connect = connect.property(Property::ReceiveMaximum(receive_maximum));
            connect = connect.session_expiry(if persistent { 3600 } else { 0 });
        }
        let expected =
            self.actors[client].session_exists && self.actors[client].persistent && !clean;
        self.say(format!(
            "{client} connects, clean {clean}, persistent {persistent}, window {receive_maximum}"
        ));
        let connection = self.broker.connect(connect).await;
        if version != Version::V31 && connection.connack.session_present != expected {
            self.fail(&format!(
                "session present is {}",
                connection.connack.session_present
            ));
        }
        if !expected {
            self.end_session(client);
        }
        let step = self.step;
        let actor = &mut self.actors[client];
        actor.connection = Some(connection);
        actor.session_exists = true;
        actor.persistent = persistent;
        actor.connected_at = step;
        actor.resumed = expected;
        actor.receive_maximum = if version == Version::V5 {
            usize::from(receive_maximum)
        } else {
            1024
        };
        actor.to_acknowledge.clear();
        actor.in_flight.clear();
        actor.redelivered_up_to = 0;
        self.resend(client).await;
    }

    /// Everything of this client's that is not complete is sent again, in order. [MQTT-4.4.0-1]
    async fn resend(&mut self, client: usize) {
        let mut packets = Vec::new();
        for outgoing in &self.actors[client].outgoing {
            let message = &mut self.messages[outgoing.message];
            packets.push(if outgoing.released {
                Packet::PubRel(Ack::new(outgoing.id))
            } else {
                message.sent_again = true;
                publish(message, outgoing).dup().into()
            });
        }
        if !packets.is_empty() {
            self.say(format!("{client} sends {} again", packets.len()));
            self.connection(client).send_all(packets).await;
        }
    }

    fn connection(&mut self, client: usize) -> &mut Client {
        self.actors[client]
            .connection
            .as_mut()
            .expect("only called for connected clients")
    }

    fn end_session(&mut self, client: usize) {
        // What it had not completed may or may not have reached the broker.
        for outgoing in &self.actors[client].outgoing {
            self.duties.retain(|duty| {
                duty.message != outgoing.message || self.messages[duty.message].acknowledged
            });
        }
        self.duties.retain(|duty| duty.client != client);
        self.actors[client].forget_session();
    }

    /// A change of subscriptions makes uncertain what happens to messages that are on their way
    /// just now.
    fn become_uncertain(&mut self, client: usize) {
        for duty in self.duties.iter_mut().filter(|duty| duty.client == client) {
            if !self.messages[duty.message].acknowledged {
                duty.qos = None;
            }
        }
    }

    async fn subscribe(&mut self, client: usize) {
        let filter = FILTERS[self.dice.below(FILTERS.len())];
        let qos = self.dice.below(3) as u8;
        self.say(format!("{client} subscribes to {filter} with QoS {qos}"));
        self.connection(client).subscribe_to(filter, qos).await;
        self.become_uncertain(client);
        self.actors[client].subscriptions.insert(filter, qos);
        self.actors[client].ever_subscribed.insert(filter);
    }

    async fn unsubscribe(&mut self, client: usize) {
        let Some((&filter, _)) = self.actors[client].subscriptions.iter().next() else {
            return;
        };
        self.say(format!("{client} unsubscribes from {filter}"));
        self.connection(client).unsubscribe(&[filter]).await;
        self.become_uncertain(client);
        self.actors[client].subscriptions.remove(filter);
    }

    async fn publish(&mut self, client: usize) {
        let topic = TOPICS[self.dice.below(TOPICS.len())];
        let mut packets = Vec::new();
        for _ in 0..=self.dice.below(6) {
            let qos = self.dice.below(3) as u8;
            let number = self.messages.len();
            self.messages.push(Message {
                publisher: client,
                topic,
                qos,
                acknowledged: false,
                sent_again: false,
                step: self.step,
            });
            let mut outgoing = Outgoing {
                id: 0,
                message: number,
                released: false,
            };
            if qos > 0 {
                let actor = &mut self.actors[client];
                outgoing.id = actor.next_id % 65_535 + 1;
                actor.next_id = outgoing.id;
                for (other, actor) in self
                    .actors
                    .iter()
                    .enumerate()
                    .filter(|(_, actor)| actor.session_exists)
                {
                    if let Some(granted) = actor.granted(topic) {
                        let qos = Some(granted.min(qos)).filter(|qos| *qos > 0);
                        self.duties.push(Duty {
                            message: number,
                            client: other,
                            session: actor.session,
                            qos,
                        });
                    }
                }
            }
            self.say(format!(
                "{client} publishes {number} on {topic} with QoS {qos}"
            ));
            packets.push(publish(&self.messages[number], &outgoing).into());
            if qos > 0 {
                self.actors[client].outgoing.push_back(outgoing);
            }
        }
        self.connection(client).send_all(packets).await;
    }

    /// Sends the last unfinished QoS 2 message a second time within the connection, which must
    /// change nothing.
    async fn duplicate_last(&mut self, client: usize) {
        let messages = &self.messages;
        let unfinished =
            |outgoing: &&Outgoing| !outgoing.released && messages[outgoing.message].qos == 2;
        let Some(outgoing) = self.actors[client].outgoing.iter().rev().find(unfinished) else {
            return;
        };
        let copy = publish(&self.messages[outgoing.message], outgoing).dup();
        self.say(format!("{client} repeats {copy:?}"));
        self.connection(client).send(copy).await;
    }

    /// Handles all that has arrived, up to a fence. Returns how much that was.
    async fn read(&mut self, client: usize) -> usize {
        self.connection(client)
            .send_all([Packet::PingReq, Packet::PingReq])
            .await;
        let (mut fences, mut count) = (2, 0);
        while fences > 0 {
            match self.connection(client).next().await {
                Packet::PingResp => fences -= 1,
                packet => {
                    count += 1;
                    self.say(format!("{client} gets {packet:?}"));
                    self.handle(client, packet).await;
                }
            }
        }
        count
    }

    async fn handle(&mut self, client: usize, packet: Packet) {
        match packet {
            Packet::Publish(publish) => self.receive(client, &publish),
            Packet::PubRel(ack) => {
                self.actors[client].incoming_qos_2.remove(&ack.packet_id);
                self.actors[client]
                    .to_acknowledge
                    .push_back(Packet::PubComp(Ack::new(ack.packet_id)));
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                let outgoing = &mut self.actors[client].outgoing;
                let found = outgoing
                    .iter()
                    .position(|outgoing| outgoing.id == ack.packet_id);
                if let Some(done) = found.and_then(|index| outgoing.remove(index)) {
                    self.messages[done.message].acknowledged = true;
                }
            }
            Packet::PubRec(ack) => {
                let found = self.actors[client]
                    .outgoing
                    .iter_mut()
                    .find(|outgoing| outgoing.id == ack.packet_id);
                let Some(outgoing) = found else { return };
                outgoing.released = true;
                self.messages[outgoing.message].acknowledged = true;
                self.connection(client)
                    .send(Packet::PubRel(Ack::new(ack.packet_id)))
                    .await;
            }
            other => self.fail(&format!("unexpected: {other:?}")),
        }
    }

    /// All the promises about one incoming PUBLISH.
    fn receive(&mut self, client: usize, publish: &Publish) {
        let number: usize = publish.text().parse().expect("the payload is a number");
        let message = &self.messages[number];
        let actor = &self.actors[client];
        let (id, qos) = (publish.packet_id, publish.qos);
        if publish.topic != message.topic {
            self.fail(&format!("message {number} was on {}", message.topic));
        }
        if !actor
            .ever_subscribed
            .iter()
            .any(|filter| matches(filter, &publish.topic))
        {
            self.fail("[MQTT-3.3.2-3] never subscribed to that");
        }
        if publish.dup && (!actor.resumed || message.step > actor.connected_at) {
            self.fail("[MQTT-3.3.1-1] DUP on what cannot have been sent before");
        }
        let before = actor.delivered.get(&number).map_or(0, Vec::len);
        if qos > 0 {
            if actor.in_flight.contains(&id) {
                self.fail("[MQTT-2.2.1-4] the identifier is in flight");
            }
            if actor.in_flight.len() >= actor.receive_maximum {
                self.fail("[MQTT-3.3.4-9] more than Receive Maximum");
            }
            let old = actor.received.get(&id);
            let same = old.is_some_and(|old| old.message == number);
            let redelivery = same && publish.dup;
            if redelivery && old.is_some_and(|old| old.order < actor.redelivered_up_to) {
                self.fail("[MQTT-4.6.0-1] sent again out of order");
            }
            if !redelivery && old.is_some_and(|old| !old.acknowledged) {
                self.fail(match same {
                    true => "[MQTT-3.3.1-1] sent again without DUP",
                    false => "the identifier belongs to another message still",
                });
            }
            if before > 0 && qos == 1 && !publish.dup && !message.sent_again {
                self.fail("a second copy that is no redelivery");
            }
        }
        let known_qos_2 = qos == 2 && actor.incoming_qos_2.contains(&id);
        if !known_qos_2 && before > 0 && qos == 2 {
            self.fail("[MQTT-4.3.3-10] QoS 2 twice");
        }
        let key = (message.publisher, message.topic);
        // A QoS 1 message that its publisher sent again is a new one to the broker, and takes its
        // place anew.
        let placed_anew = message.sent_again && message.qos == 1;
        if qos > 0 && before == 0 && !placed_anew {
            if actor.last.get(&key).is_some_and(|last| *last > number) {
                self.fail(&format!(
                    "[MQTT-4.6.0-5] {number} after {}",
                    actor.last[&key]
                ));
            }
            self.actors[client].last.insert(key, number);
        }
        let actor = &mut self.actors[client];
        if !known_qos_2 {
            actor.delivered.entry(number).or_default().push(qos);
        }
        if qos == 0 {
            return;
        }
        actor.in_flight.insert(id);
        actor.receipts += 1;
        let old = actor
            .received
            .get(&id)
            .filter(|old| old.message == number && publish.dup);
        let order = old.map_or(actor.receipts, |old| old.order);
        actor.redelivered_up_to = actor.redelivered_up_to.max(order);
        actor.received.insert(
            id,
            Received {
                message: number,
                order,
                acknowledged: false,
            },
        );
        if qos == 2 {
            actor.incoming_qos_2.insert(id);
        }
        actor.to_acknowledge.push_back(match qos {
            1 => Packet::PubAck(Ack::new(id)),
            _ => Packet::PubRec(Ack::new(id)),
        });
    }

    async fn acknowledge_some(&mut self, client: usize) {
        for _ in 0..=self.dice.below(8) {
            self.acknowledge_one(client).await;
        }
    }

    /// In the order in which they are due. [MQTT-4.6.0-2] [MQTT-4.6.0-3]
    async fn acknowledge_one(&mut self, client: usize) {
        let actor = &mut self.actors[client];
        let Some(packet) = actor.to_acknowledge.pop_front() else {
            return;
        };
        match &packet {
            Packet::PubAck(ack) => {
                actor.in_flight.remove(&ack.packet_id);
                actor.answered(ack.packet_id);
            }
            Packet::PubRec(ack) => actor.answered(ack.packet_id),
            Packet::PubComp(ack) => drop(actor.in_flight.remove(&ack.packet_id)),
            other => unreachable!("{other:?} is no acknowledgement"),
        }
        self.say(format!("{client} sends {packet:?}"));
        self.connection(client).send(packet).await;
    }

    async fn leave(&mut self, client: usize, how: &str) {
        self.say(format!("{client} {how}"));
        let connection = self.actors[client]
            .connection
            .take()
            .expect("only called for connected clients");
        match how {
            "disconnects" => connection.disconnect().await,
            "loses its network" => connection.lose().await,
            _ => drop(connection),
        }
        if !self.actors[client].persistent {
            self.end_session(client);
        }
    }

    /// Everybody who can comes back and takes all there is; then every duty must be done.
    async fn finish(&mut self) {
        self.step = STEPS;
        for client in 0..self.actors.len() {
            if self.actors[client].connection.is_none() && self.actors[client].session_exists {
                self.connect_as(client, false, true, 10).await;
            }
        }
        let end = Instant::now() + DEADLINE;
        let mut quiet = 0;
        while quiet < 3 {
            let mut busy = false;
            for client in 0..self.actors.len() {
                if self.actors[client].connection.is_some() {
                    busy |= self.read(client).await > 0;
                    while !self.actors[client].to_acknowledge.is_empty() {
                        self.acknowledge_one(client).await;
                        busy = true;
                    }
                }
            }
            let open = !self.open_duties().is_empty() || self.awaits_answers();
            quiet = if busy || (open && Instant::now() < end) {
                0
            } else {
                quiet + 1
            };
        }
        if let Some(problem) = self.open_duties().into_iter().next() {
            self.fail(&problem);
        }
        if self.awaits_answers() {
            self.fail("a publish was never acknowledged");
        }
    }

    fn awaits_answers(&self) -> bool {
        let awaits = |actor: &Actor| actor.connection.is_some() && !actor.outgoing.is_empty();
        self.actors.iter().any(awaits)
    }

    fn open_duties(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for duty in &self.duties {
            let (actor, message) = (&self.actors[duty.client], &self.messages[duty.message]);
            let Some(qos) = duty.qos else { continue };
            if !message.acknowledged || duty.session != actor.session || actor.connection.is_none()
            {
                continue;
            }
            let delivered = actor
                .delivered
                .get(&duty.message)
                .map_or(&[][..], Vec::as_slice);
            if delivered.is_empty()
                || delivered.iter().any(|got| *got != qos)
                || (qos == 2 && delivered.len() != 1)
            {
                problems.push(format!(
                    "client {} had to get {} of client {} with QoS {qos}, and got it with {delivered:?}",
                    duty.client, duty.message, message.publisher
                ));
            }
        }
        problems
    }
}

fn publish(message: &Message, outgoing: &Outgoing) -> Publish {
    Publish::new(message.topic, outgoing.message.to_string())
        .qos(message.qos)
        .id(outgoing.id)
}

async fn history(seed: u64) {
    println!("seed {seed}; TIDINGS_HISTORY_SEED={seed} repeats it");
    World::new(seed).await.run().await;
}

/// As many histories as fit into some seconds, from a seed that differs each time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_histories_keep_every_promise() {
    if let Ok(seed) = std::env::var("TIDINGS_HISTORY_SEED") {
        return history(seed.parse().expect("TIDINGS_HISTORY_SEED is a number")).await;
    }
    for seed in KEPT_SEEDS {
        history(seed).await;
    }
    let since_epoch = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let mut seed = since_epoch.as_nanos() as u64 % 1_000_000_000_000;
    let seconds = std::env::var("TIDINGS_HISTORY_SECONDS")
        .map_or(8, |text| text.parse().expect("a number of seconds"));
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < Duration::from_secs(seconds) {
        history(seed).await;
        seed += 1;
        count += 1;
    }
    println!("{count} histories");
}
