//! Random histories that crash again and again, at any append: what publishers were told is kept
//! is delivered, and what is of QoS 2 is delivered once.
//!
//! The clients follow the standard: they remember which QoS 2 messages they have received until
//! they are released, and a publisher whose session is kept sends again what was not acknowledged.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use tidings_protocol::mqtt::{PacketId, QoS, Version};

use super::kit::{Client, Got, Setup, crashed, publication, qos, slow_broker};
use crate::broker::link::Received;
use crate::broker::outgoing::Acknowledgement;
use crate::broker::{Broker, Ending, Publication};
use crate::store::{SlowStore, Store, Ticket};

const RECEIVERS: usize = 2;
/// The first one's session ends with its connection.
const PUBLISHERS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Publish(usize, Vec<u8>),
    /// A publisher reads its answers, and goes on with QoS 2.
    Settle(usize),
    Collect(usize),
    /// A receiver answers so many of the packets that it got.
    Answer(usize, usize),
    /// The connection ends and another one begins.
    Reconnect(usize),
    Leave(usize),
    Commit,
    /// Of what is not durable, this part of 8 survives.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..RECEIVERS;
    prop_oneof![
        6 => (0..PUBLISHERS, proptest::collection::vec(1u8..3, 1..4))
            .prop_map(|(who, run)| Step::Publish(who, run)),
        3 => (0..PUBLISHERS).prop_map(Step::Settle),
        6 => who.clone().prop_map(Step::Collect),
        6 => (who.clone(), 1usize..4).prop_map(|(who, count)| Step::Answer(who, count)),
        1 => who.clone().prop_map(Step::Reconnect),
        1 => who.prop_map(Step::Leave),
        4 => Just(Step::Commit),
        1 => (0usize..9).prop_map(Step::Crash),
    ]
}

struct Receiver {
    id: String,
    client: Option<Client<'static>>,
    /// QoS 2 messages that were received and not released [MQTT-4.3.3-10].
    unreleased: HashSet<u16>,
    /// What is to be answered.
    answers: VecDeque<(Acknowledgement, u16)>,
    /// PUBREL that the broker gives once its store has the ticket.
    releases: VecDeque<(Ticket, u16)>,
    /// What was delivered to the application, in order.
    delivered: Vec<u32>,
}

/// How far a publication is, as its publisher knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Published,
    Received,
}

struct Publisher {
    id: String,
    kept: bool,
    client: Client<'static>,
    next_id: u16,
    /// By the order in which they were published: Packet Identifier, QoS, how far.
    flight: BTreeMap<u32, (u16, u8, Stage)>,
    answers: VecDeque<(Ticket, u32, Stage)>,
}

struct World {
    broker: &'static Broker,
    store: Arc<SlowStore>,
    receivers: Vec<Receiver>,
    publishers: Vec<Publisher>,
    next: u32,
    /// Publisher and QoS of each number.
    published: HashMap<u32, (usize, u8)>,
    acknowledged: HashSet<u32>,
}

impl Receiver {
    fn connect(&mut self, broker: &'static Broker, present: bool) -> Result<(), TestCaseError> {
        self.lose();
        let setup = Setup::persistent(Version::V5).window(3);
        let client = Client::connect(broker, &self.id, setup);
        prop_assert_eq!(client.present, present, "session present");
        self.client = Some(client);
        Ok(())
    }

    fn lose(&mut self) {
        self.client = None;
        self.answers.clear();
        self.releases.clear();
    }

    fn leave(&mut self) {
        if let Some(client) = &self.client {
            client.close(Ending::Lost);
        }
        self.lose();
    }

    /// Takes in what arrives; true if anything did.
    fn collect(&mut self, store: &SlowStore) -> Result<bool, TestCaseError> {
        let Some(client) = &mut self.client else {
            return Ok(false);
        };
        let mut got = client.collect();
        while let Some(&(ticket, id)) = self.releases.front()
            && ticket <= store.durable()
        {
            self.releases.pop_front();
            got.push(Got::Release(id));
        }
        let any = !got.is_empty();
        for got in got {
            match got {
                Got::Publish(message) => {
                    let number = message.text().parse().expect("a number");
                    let id = message.id.expect("QoS 1 or 2");
                    if message.qos == 1 {
                        self.delivered.push(number);
                        self.answers.push_back((Acknowledgement::Ack, id));
                    } else {
                        if self.unreleased.insert(id) {
                            prop_assert!(!self.delivered.contains(&number), "{} twice", number);
                            self.delivered.push(number);
                        }
                        self.answers.push_back((Acknowledgement::Received, id));
                    }
                }
                Got::Release(id) => {
                    self.unreleased.remove(&id);
                    self.answers.push_back((Acknowledgement::Complete, id));
                }
            }
        }
        Ok(any)
    }

    fn answer(&mut self, broker: &Broker, count: usize) -> bool {
        let Some(client) = &self.client else {
            return false;
        };
        let mut any = false;
        for (what, id) in self.answers.drain(..count.min(self.answers.len())) {
            any = true;
            let mut unknown = Vec::new();
            let packet_id = PacketId::new(id).expect("not 0");
            let acknowledged = [(what, packet_id)];
            let ticket =
                broker.acknowledge(&client.session, client.epoch, &acknowledged, &mut unknown);
            assert!(unknown.is_empty(), "{what:?} {id} fits nothing");
            if what == Acknowledgement::Received {
                self.releases.push_back((ticket, id));
            }
        }
        any
    }
}

impl Publisher {
    fn connect(id: &str, kept: bool, broker: &'static Broker) -> Client<'static> {
        let setup = match kept {
            true => Setup::persistent(Version::V5),
            false => Setup::new(Version::V5),
        };
        Client::connect(broker, id, setup)
    }

    /// Sends publications, for the first time or again.
    fn send(&mut self, broker: &Broker, numbers: &[u32]) {
        let mut fresh = Vec::new();
        for &number in numbers {
            let (id, value, _) = self.flight[&number];
            let packet_id = PacketId::new(id).expect("not 0");
            if value == 2 {
                let session = &self.client.session;
                let received = broker.receive(session, self.client.epoch, packet_id, 1000);
                if received == Ok(Received::Duplicate) {
                    let last = Ticket::default();
                    self.answers.push_back((last, number, Stage::Published));
                    continue;
                }
                assert_eq!(received, Ok(Received::New));
            }
            fresh.push((number, value, packet_id));
        }
        let texts: Vec<String> = fresh.iter().map(|it| it.0.to_string()).collect();
        let publications: Vec<Publication<'_>> = fresh
            .iter()
            .zip(&texts)
            .map(|(&(_, value, packet_id), text)| Publication {
                packet_id: (value == 2).then_some(packet_id),
                ..publication(qos(value), text.as_bytes())
            })
            .collect();
        if publications.is_empty() {
            return;
        }
        let published = self.client.publish_kept("t", &publications, self.kept);
        let ticket = published.expect("accepted").ticket;
        let answers = fresh.iter().map(|it| (ticket, it.0, Stage::Published));
        self.answers.extend(answers);
    }

    /// Reads answers as far as there are any; true if that was so.
    fn settle(&mut self, store: &SlowStore, acknowledged: &mut HashSet<u32>) -> bool {
        let mut any = false;
        while let Some(&(ticket, number, stage)) = self.answers.front()
            && ticket <= store.durable()
        {
            any = true;
            self.answers.pop_front();
            let (id, value, _) = self.flight[&number];
            acknowledged.insert(number);
            if value == 2 && stage == Stage::Published {
                self.flight.insert(number, (id, value, Stage::Received));
                self.release(number);
            } else {
                self.flight.remove(&number);
            }
        }
        any
    }

    fn release(&mut self, number: u32) {
        let Client { session, epoch, .. } = &self.client;
        let id = PacketId::new(self.flight[&number].0).expect("not 0");
        let ticket = self.client.broker().release(session, *epoch, id);
        let answer = (ticket.unwrap_or_default(), number, Stage::Received);
        self.answers.push_back(answer);
    }
}

impl World {
    fn new() -> Result<World, TestCaseError> {
        let (broker, store) = slow_broker();
        let mut world = World {
            broker,
            receivers: (0..RECEIVERS)
                .map(|number| Receiver {
                    id: format!("receiver{number}"),
                    client: None,
                    unreleased: HashSet::new(),
                    answers: VecDeque::new(),
                    releases: VecDeque::new(),
                    delivered: Vec::new(),
                })
                .collect(),
            publishers: (0..PUBLISHERS)
                .map(|number| {
                    let id = format!("publisher{number}");
                    let kept = number > 0;
                    Publisher {
                        client: Publisher::connect(&id, kept, broker),
                        id,
                        kept,
                        next_id: 0,
                        flight: BTreeMap::new(),
                        answers: VecDeque::new(),
                    }
                })
                .collect(),
            store,
            next: 0,
            published: HashMap::new(),
            acknowledged: HashSet::new(),
        };
        for receiver in &mut world.receivers {
            receiver.connect(broker, false)?;
            let client = receiver.client.as_ref().expect("connected");
            client.subscribe("t", QoS::ExactlyOnce);
        }
        world.store.commit();
        Ok(world)
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Publish(who, run) => {
                let publisher = &mut self.publishers[*who];
                let numbers: Vec<u32> = (self.next..).take(run.len()).collect();
                for (&number, &value) in numbers.iter().zip(run) {
                    publisher.next_id += 1;
                    let publication = (publisher.next_id, value, Stage::Published);
                    publisher.flight.insert(number, publication);
                    self.published.insert(number, (*who, value));
                }
                self.next += run.len() as u32;
                publisher.send(self.broker, &numbers);
            }
            Step::Settle(who) => {
                self.publishers[*who].settle(&self.store, &mut self.acknowledged);
            }
            Step::Collect(who) => {
                self.receivers[*who].collect(&self.store)?;
            }
            Step::Answer(who, count) => {
                self.receivers[*who].answer(self.broker, *count);
            }
            Step::Reconnect(who) => {
                // CONNACK waits for the store.
                self.receivers[*who].connect(self.broker, true)?;
                self.store.commit();
            }
            Step::Leave(who) => self.receivers[*who].leave(),
            Step::Commit => self.store.commit(),
            Step::Crash(eighths) => {
                let (appended, durable) = self.store.appends();
                self.crash(durable + (appended - durable) * eighths / 8)?;
            }
        }
        Ok(())
    }

    fn crash(&mut self, count: usize) -> Result<(), TestCaseError> {
        (self.broker, self.store) = crashed(&self.store, count);
        for receiver in &mut self.receivers {
            receiver.lose();
            receiver.connect(self.broker, true)?;
        }
        for publisher in &mut self.publishers {
            publisher.answers.clear();
            publisher.client = Publisher::connect(&publisher.id, publisher.kept, self.broker);
            prop_assert_eq!(publisher.client.present, publisher.kept);
            if !publisher.kept {
                publisher.flight.clear();
                continue;
            }
            let flight: Vec<_> = publisher.flight.iter().map(|(&n, it)| (n, it.2)).collect();
            for (number, stage) in flight {
                match stage {
                    Stage::Published => publisher.send(self.broker, &[number]),
                    Stage::Received => publisher.release(number),
                }
            }
        }
        self.store.commit();
        Ok(())
    }

    /// Everybody does what is left to do.
    fn finish(mut self) -> Result<(), TestCaseError> {
        for receiver in &mut self.receivers {
            if receiver.client.is_none() {
                receiver.connect(self.broker, true)?;
            }
        }
        loop {
            self.store.commit();
            let mut busy = false;
            for publisher in &mut self.publishers {
                busy |= publisher.settle(&self.store, &mut self.acknowledged);
            }
            for receiver in &mut self.receivers {
                busy |= receiver.collect(&self.store)?;
                busy |= receiver.answer(self.broker, usize::MAX);
            }
            if !busy {
                break;
            }
        }
        for receiver in &self.receivers {
            let mut first: Vec<u32> = Vec::new();
            for &number in &receiver.delivered {
                if !first.contains(&number) {
                    first.push(number);
                }
            }
            let lost: Vec<_> = self
                .acknowledged
                .iter()
                .filter(|number| !first.contains(number))
                .collect();
            prop_assert!(lost.is_empty(), "{}: {:?} are lost", receiver.id, lost);
            let mut last = HashMap::new();
            for number in first {
                let before = last.insert(self.published[&number], number);
                prop_assert!(before < Some(number), "{:?} before {}", before, number);
            }
            prop_assert!(receiver.unreleased.is_empty(), "{:?}", receiver.unreleased);
        }
        let kept = self.published.iter().filter(|(_, it)| it.0 > 0);
        for (number, _) in kept {
            prop_assert!(self.acknowledged.contains(number), "{} is open", number);
        }
        prop_assert_eq!(self.broker.stats.queued_bytes.get(), 0);
        prop_assert_eq!(self.broker.stats.held_bytes.get(), 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    /// What was acknowledged is delivered, QoS 2 once, and everything in order.
    #[test]
    fn what_was_acknowledged_survives_crashes(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new()?;
        for step in &steps {
            world.step(step)?;
        }
        world.finish()?;
    }
}
