//! Random histories of a few sessions against a model that knows what each of them is owed.
//!
//! The model keeps for each session the messages that it is to receive, in the order in which they
//! were published, and what its client has seen of each. From that it says exactly which packet
//! may come next, so that a message that is lost, doubled, out of order, sent beyond the window or
//! under an identifier in use is found at the packet where it happens.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::{Index, select};
use tidings_protocol::mqtt::{QoS, ReasonCode, Version};
use tidings_protocol::topic;

use super::kit::{
    Client, FAREWELL, GOODBYE, Got, Received, Setup, broker_with, options, publication, qos,
    restored_with,
};
use crate::broker::outgoing::Acknowledgement;
use crate::broker::session::Closing;
use crate::broker::stats::Drop;
use crate::broker::{Broker, Ending};
use crate::store::MemoryStore;

const SUBSCRIBERS: usize = 3;
const PUBLISHERS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    Connect(usize, Setup),
    Close(usize, Ending),
    Subscribe(usize, &'static str, u8, u32),
    Unsubscribe(usize, &'static str),
    Publish(usize, &'static str, Vec<u8>),
    Collect(usize),
    /// One legal acknowledgement.
    Acknowledge(usize, Index, Answer),
    /// All that is legal, in the order in which it came.
    AcknowledgeAll(usize),
    /// An acknowledgement that fits nothing.
    Nonsense(usize, u16),
    /// What a connection that was taken over still says.
    Stale(usize),
    /// The broker is gone, and another one goes on with what the store kept.
    Restart,
}

/// How a client answers a QoS 2 message.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Good,
    Refused,
    /// PUBREC once more.
    Again,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..SUBSCRIBERS;
    let filter = select(vec!["t/a", "t/b", "t/+", "#", "t/#", "+/a"]);
    let name = select(vec!["t/a", "t/b", "u"]);
    let version = select(vec![Version::V31, Version::V311, Version::V5, Version::V5]);
    let window = select(vec![1, 2, 3, 65_535]);
    let expiry = select(vec![0, 1000, 1000, u32::MAX]);
    let setup = (version, any::<bool>(), expiry, window, 0u16..3).prop_map(
        |(version, clean_start, expiry_secs, receive_maximum, aliases)| Setup {
            version,
            // Clean starts are rare, or nothing would ever last.
            clean_start: clean_start && aliases == 1,
            expiry_secs,
            receive_maximum,
            packet_size_max: usize::MAX,
            topic_alias_maximum: if version == Version::V5 { aliases } else { 0 },
            will: false,
        },
    );
    let ending = select(vec![
        Ending::Lost,
        Ending::Lost,
        Ending::Lost,
        GOODBYE,
        GOODBYE,
        FAREWELL,
    ]);
    let answer = select(vec![
        Answer::Good,
        Answer::Good,
        Answer::Good,
        Answer::Refused,
        Answer::Again,
    ]);
    prop_oneof![
        3 => (who.clone(), setup).prop_map(|(who, setup)| Step::Connect(who, setup)),
        2 => (who.clone(), ending).prop_map(|(who, ending)| Step::Close(who, ending)),
        3 => (who.clone(), filter.clone(), 0u8..3, 0u32..3)
            .prop_map(|(who, filter, qos, id)| Step::Subscribe(who, filter, qos, id)),
        1 => (who.clone(), filter).prop_map(|(who, filter)| Step::Unsubscribe(who, filter)),
        8 => (0..PUBLISHERS, name, proptest::collection::vec(0u8..3, 1..4))
            .prop_map(|(who, topic, run)| Step::Publish(who, topic, run)),
        6 => who.clone().prop_map(Step::Collect),
        6 => (who.clone(), any::<Index>(), answer)
            .prop_map(|(who, which, answer)| Step::Acknowledge(who, which, answer)),
        2 => who.clone().prop_map(Step::AcknowledgeAll),
        1 => (who.clone(), 1u16..200).prop_map(|(who, id)| Step::Nonsense(who, id)),
        1 => who.prop_map(Step::Stale),
        1 => Just(Step::Restart),
    ]
}

/// Where a message of QoS 1 or 2 is, as the client can know it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// It is to be sent, again if it was seen before.
    Waiting,
    /// The client has it, and has not answered on this connection.
    Seen,
    /// The client said PUBREC; PUBREL is to be sent again.
    Unreleased,
    /// The client said PUBREC, and has its PUBREL.
    Released,
}

#[derive(Clone, Debug)]
struct Owed {
    number: u32,
    topic: &'static str,
    qos: u8,
    identifiers: Vec<u32>,
    place: Place,
    /// The Packet Identifier, once the client has seen it.
    id: Option<u16>,
    /// A connection has ended since it was published, so DUP may be set.
    survived: bool,
}

impl Owed {
    fn in_flight(&self) -> bool {
        matches!(self.place, Place::Seen | Place::Released)
    }
}

/// What the model knows of one session.
#[derive(Default)]
struct Model {
    persistent: bool,
    /// It was begun to outlive its connection, so the store knows it.
    kept: bool,
    subscriptions: BTreeMap<&'static str, (u8, u32)>,
    owed: VecDeque<Owed>,
    /// QoS 0 that was sent to this connection.
    owed_now: VecDeque<Owed>,
    window: usize,
    v5: bool,
}

struct Subscriber<'b> {
    id: String,
    client: Option<Client<'b>>,
    /// A connection that lost its session to another.
    old: Option<Client<'b>>,
    session: Option<Model>,
    /// Messages that its sessions were still owed when they ended.
    ended: u64,
    /// QoS 0 that came while it was away.
    missed: u64,
}

/// All of it.
struct World {
    broker: &'static Broker,
    store: Arc<MemoryStore>,
    subscribers: Vec<Subscriber<'static>>,
    publishers: Vec<Client<'static>>,
    next: u32,
    /// Mailboxes are small: QoS 0 may be dropped.
    tight: bool,
}

impl<'b> Subscriber<'b> {
    /// The connection ends or is taken over; the session stays if it may.
    fn cut(&mut self) {
        let Some(model) = &mut self.session else {
            return;
        };
        model.owed_now.clear();
        for owed in &mut model.owed {
            owed.survived = true;
            owed.place = match owed.place {
                Place::Waiting | Place::Seen => Place::Waiting,
                Place::Unreleased | Place::Released => Place::Unreleased,
            };
        }
        if !model.persistent {
            self.end();
        }
    }

    fn end(&mut self) {
        let ended = self.session.take();
        self.ended += ended.map_or(0, |model| model.owed.len() as u64);
    }

    fn connect(&mut self, broker: &'b Broker, setup: Setup) -> Result<(), TestCaseError> {
        let client = Client::connect(broker, &self.id, setup);
        if let Some(mut old) = self.client.replace(client) {
            prop_assert_eq!(old.try_collect(), Err(Closing::TakenOver));
            self.old = Some(old);
            self.cut();
        }
        if setup.clean_start {
            self.end();
        }
        let client = self.client.as_ref().expect("just connected");
        prop_assert_eq!(client.present, self.session.is_some());
        let model = self.session.get_or_insert_with(|| Model {
            kept: setup.expiry_secs > 0,
            ..Model::default()
        });
        model.persistent = setup.expiry_secs > 0;
        model.window = usize::from(setup.receive_maximum);
        model.v5 = setup.version == Version::V5;
        Ok(())
    }

    fn close(&mut self, ending: Ending) {
        let Some(client) = self.client.take() else {
            return;
        };
        client.close(ending);
        if let (
            Ending::Goodbye {
                expiry_secs: Some(0),
                ..
            },
            Some(model),
        ) = (ending, &mut self.session)
        {
            model.persistent = false;
        }
        self.cut();
    }

    /// The broker was restarted: what is counted is counted anew.
    fn restart(&mut self) {
        let connected = self.client.take().is_some();
        self.old = None;
        (self.ended, self.missed) = (0, 0);
        let Some(model) = &self.session else {
            return;
        };
        // What a connection sent that ended with the broker is not known to the store.
        let may_be_sent = |owed: &Owed| owed.survived || owed.id.is_some() || connected;
        let may_be_sent: Vec<bool> = model.owed.iter().map(may_be_sent).collect();
        let kept = model.kept;
        self.cut();
        if !kept {
            self.ended = 0;
        }
        for (owed, may_be_sent) in self
            .session
            .iter_mut()
            .flat_map(|it| &mut it.owed)
            .zip(may_be_sent)
        {
            owed.survived = may_be_sent;
        }
    }

    /// What a publication means for this session.
    fn owe(&mut self, number: u32, topic: &'static str, published: u8) {
        let Some(model) = &mut self.session else {
            return;
        };
        let mut granted = None;
        let mut identifiers = Vec::new();
        for (filter, &(qos, identifier)) in &model.subscriptions {
            if topic::matches(filter, topic) {
                granted = granted.max(Some(qos));
                if identifier > 0 {
                    identifiers.push(identifier);
                }
            }
        }
        let Some(granted) = granted else { return };
        identifiers.sort_unstable();
        let owed = Owed {
            number,
            topic,
            qos: published.min(granted),
            identifiers,
            place: Place::Waiting,
            id: None,
            survived: false,
        };
        if owed.qos > 0 {
            model.owed.push_back(owed);
        } else if self.client.is_some() {
            model.owed_now.push_back(owed);
        } else {
            self.missed += 1;
        }
    }

    fn collect(&mut self, tight: bool) -> Result<usize, TestCaseError> {
        let (Some(client), Some(model)) = (&mut self.client, &mut self.session) else {
            return Ok(0);
        };
        let got = client.try_collect();
        prop_assert!(got.is_ok(), "{:?}", got);
        let got = got.expect("just looked at");
        let count = got.len();
        for got in got {
            match got {
                Got::Publish(received) if received.qos == 0 => model.take_qos0(&received, tight)?,
                Got::Publish(received) => model.take(&received)?,
                Got::Release(id) => model.take_release(id)?,
            }
        }
        prop_assert!(
            tight || model.owed_now.is_empty(),
            "QoS 0 lost: {:?}",
            model.owed_now
        );
        model.owed_now.clear();
        let flying = model.owed.iter().filter(|owed| owed.in_flight()).count();
        if flying < model.window {
            let waits = model.owed.iter().find(|owed| !owed.in_flight());
            prop_assert!(
                waits.is_none(),
                "not sent although there is room: {:?}",
                waits
            );
        }
        Ok(count)
    }

    /// Every acknowledgement that is legal now: the place, and whether it is the first half.
    fn legal(&self) -> Vec<usize> {
        let Some(model) = self.session.as_ref().filter(|_| self.client.is_some()) else {
            return Vec::new();
        };
        (0..model.owed.len())
            .filter(|&at| model.owed[at].in_flight())
            .collect()
    }

    fn acknowledge(&mut self, at: usize, answer: Answer) -> Result<(), TestCaseError> {
        let (Some(client), Some(model)) = (&self.client, &mut self.session) else {
            return Ok(());
        };
        let owed = &mut model.owed[at];
        let id = owed.id.expect("seen");
        let what = match (owed.qos, owed.place, answer) {
            (1, Place::Seen, _) => Acknowledgement::Ack,
            (2, Place::Seen, Answer::Refused) => Acknowledgement::Refused,
            (2, Place::Seen, _) | (2, Place::Released, Answer::Again) => Acknowledgement::Received,
            (2, Place::Released, _) => Acknowledgement::Complete,
            other => panic!("{other:?}"),
        };
        prop_assert!(client.acknowledge(what, id), "{:?} for {:?}", what, owed);
        if what == Acknowledgement::Received {
            // The edge answers it with PUBREL at once.
            owed.place = Place::Released;
        } else {
            model.owed.remove(at);
        }
        Ok(())
    }

    fn acknowledge_all(&mut self) -> Result<(), TestCaseError> {
        loop {
            let legal = self.legal();
            let Some(&first) = legal.first() else {
                return Ok(());
            };
            self.acknowledge(first, Answer::Good)?;
        }
    }

    /// Acknowledgements that do not fit what is in flight, or nothing that is, change nothing.
    fn nonsense(&self, id: u16) -> Result<(), TestCaseError> {
        let (Some(client), Some(model)) = (&self.client, &self.session) else {
            return Ok(());
        };
        // What the broker sent and the client did not look at yet is not known here.
        let all_seen = model.owed.iter().all(|owed| owed.in_flight());
        let owed = model
            .owed
            .iter()
            .find(|owed| owed.id == Some(id) && owed.in_flight());
        let wrong = match owed.map(|owed| (owed.qos, owed.place)) {
            Some((1, _)) => vec![
                Acknowledgement::Received,
                Acknowledgement::Complete,
                Acknowledgement::Refused,
            ],
            Some((_, Place::Seen)) => vec![Acknowledgement::Ack, Acknowledgement::Complete],
            Some(_) => vec![Acknowledgement::Ack, Acknowledgement::Refused],
            None if all_seen => vec![
                Acknowledgement::Ack,
                Acknowledgement::Received,
                Acknowledgement::Refused,
                Acknowledgement::Complete,
            ],
            None => Vec::new(),
        };
        for what in wrong {
            prop_assert!(
                !client.acknowledge(what, id),
                "{:?} {} for {:?}",
                what,
                id,
                owed
            );
        }
        Ok(())
    }

    /// An old connection has no say any more.
    fn stale(&mut self) -> Result<(), TestCaseError> {
        let Some(mut old) = self.old.take() else {
            return Ok(());
        };
        for id in 1..20 {
            old.acknowledge(Acknowledgement::Ack, id);
            old.acknowledge(Acknowledgement::Received, id);
        }
        let granted = old.subscribe_with("u", options(QoS::AtLeastOnce), 0);
        prop_assert_eq!(granted, ReasonCode::SessionTakenOver);
        prop_assert_eq!(old.unsubscribe("#"), ReasonCode::SessionTakenOver);
        old.close(FAREWELL);
        prop_assert_eq!(old.try_collect(), Err(Closing::TakenOver));
        Ok(())
    }
}

impl Model {
    fn agrees(&self, owed: &Owed, received: &Received) -> Result<(), TestCaseError> {
        prop_assert_eq!(received.text(), owed.number.to_string());
        prop_assert_eq!(received.topic.as_str(), owed.topic);
        prop_assert_eq!(received.qos, owed.qos);
        prop_assert!(!received.retain);
        let mut identifiers = received.identifiers.clone();
        identifiers.sort_unstable();
        let expected = if self.v5 {
            owed.identifiers.as_slice()
        } else {
            &[]
        };
        prop_assert_eq!(identifiers.as_slice(), expected);
        Ok(())
    }

    fn take_qos0(&mut self, received: &Received, tight: bool) -> Result<(), TestCaseError> {
        prop_assert_eq!(received.id, None);
        loop {
            let Some(owed) = self.owed_now.pop_front() else {
                return Err(TestCaseError::fail(format!("not owed: {received:?}")));
            };
            if tight && received.text() != owed.number.to_string() {
                continue;
            }
            return self.agrees(&owed, received);
        }
    }

    /// The position of what must come next.
    fn next(&self) -> Option<usize> {
        self.owed.iter().position(|owed| !owed.in_flight())
    }

    fn take(&mut self, received: &Received) -> Result<(), TestCaseError> {
        let Some(at) = self.next() else {
            return Err(TestCaseError::fail(format!("not owed: {received:?}")));
        };
        let id = received.id.expect("QoS 1 and 2 have one");
        let clash = self
            .owed
            .iter()
            .any(|owed| owed.number != self.owed[at].number && owed.id == Some(id));
        prop_assert!(!clash, "identifier {} is in use", id);
        let owed = &self.owed[at];
        prop_assert_eq!(owed.place, Place::Waiting, "PUBLISH after PUBREC");
        self.agrees(owed, received)?;
        prop_assert!(owed.survived || !received.dup, "DUP on a first delivery");
        if owed.id.is_some() {
            prop_assert!(received.dup, "no DUP on {:?}", owed);
            prop_assert_eq!(owed.id, Some(id));
        }
        let owed = &mut self.owed[at];
        owed.id = Some(id);
        owed.place = Place::Seen;
        self.window_holds()
    }

    fn take_release(&mut self, id: u16) -> Result<(), TestCaseError> {
        let Some(at) = self.next() else {
            return Err(TestCaseError::fail(format!("not owed: PUBREL {id}")));
        };
        let owed = &mut self.owed[at];
        prop_assert_eq!((owed.place, owed.id), (Place::Unreleased, Some(id)));
        owed.place = Place::Released;
        self.window_holds()
    }

    fn window_holds(&self) -> Result<(), TestCaseError> {
        let flying = self.owed.iter().filter(|owed| owed.in_flight()).count();
        prop_assert!(
            flying <= self.window,
            "{} in flight of {}",
            flying,
            self.window
        );
        Ok(())
    }
}

/// A broker that goes on with what the store has.
fn start(store: &Arc<MemoryStore>, tight: bool) -> &'static Broker {
    restored_with(store.clone(), store.recovered(), |limits| {
        if tight {
            limits.mailbox_messages_max = 2;
        }
    })
}

fn connect_publishers(broker: &'static Broker) -> Vec<Client<'static>> {
    (0..PUBLISHERS)
        .map(|number| {
            let id = format!("publisher{number}");
            Client::connect(broker, &id, Setup::new(Version::V5))
        })
        .collect()
}

impl World {
    fn new(tight: bool) -> World {
        let store = Arc::new(MemoryStore::new().0);
        let broker = start(&store, tight);
        World {
            broker,
            store,
            subscribers: (0..SUBSCRIBERS)
                .map(|number| Subscriber {
                    id: format!("subscriber{number}"),
                    client: None,
                    old: None,
                    session: None,
                    ended: 0,
                    missed: 0,
                })
                .collect(),
            publishers: connect_publishers(broker),
            next: 0,
            tight,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match step {
            Step::Connect(who, setup) => self.subscribers[*who].connect(self.broker, *setup),
            Step::Close(who, ending) => {
                self.subscribers[*who].close(*ending);
                Ok(())
            }
            Step::Subscribe(who, filter, granted, identifier) => {
                let subscriber = &mut self.subscribers[*who];
                let (Some(client), Some(model)) = (&subscriber.client, &mut subscriber.session)
                else {
                    return Ok(());
                };
                let answer = client.subscribe_with(filter, options(qos(*granted)), *identifier);
                prop_assert_eq!(answer, ReasonCode::granted(qos(*granted)));
                model.subscriptions.insert(filter, (*granted, *identifier));
                Ok(())
            }
            Step::Unsubscribe(who, filter) => {
                let subscriber = &mut self.subscribers[*who];
                let (Some(client), Some(model)) = (&subscriber.client, &mut subscriber.session)
                else {
                    return Ok(());
                };
                let expected = match model.subscriptions.remove(filter) {
                    Some(_) => ReasonCode::Success,
                    None => ReasonCode::NoSubscriptionExisted,
                };
                prop_assert_eq!(client.unsubscribe(filter), expected);
                Ok(())
            }
            Step::Publish(who, topic, run) => {
                let first = self.next;
                self.next += run.len() as u32;
                let texts: Vec<String> = (first..self.next).map(|n| n.to_string()).collect();
                let publications: Vec<_> = run
                    .iter()
                    .zip(&texts)
                    .map(|(&value, text)| publication(qos(value), text.as_bytes()))
                    .collect();
                let matched = self.publishers[*who].publish_run(topic, &publications);
                let listening = |subscriber: &&Subscriber<'_>| {
                    let filters = subscriber
                        .session
                        .iter()
                        .flat_map(|model| model.subscriptions.keys());
                    filters
                        .into_iter()
                        .any(|filter| topic::matches(filter, topic))
                };
                let expected = self.subscribers.iter().filter(listening).count();
                prop_assert_eq!(matched, Ok(expected));
                for (number, &value) in (first..).zip(run) {
                    for subscriber in &mut self.subscribers {
                        subscriber.owe(number, topic, value);
                    }
                }
                Ok(())
            }
            Step::Collect(who) => self.subscribers[*who].collect(self.tight).map(|_| ()),
            Step::Acknowledge(who, which, answer) => {
                let subscriber = &mut self.subscribers[*who];
                let legal = subscriber.legal();
                if legal.is_empty() {
                    return Ok(());
                }
                subscriber.acknowledge(*which.get(&legal), *answer)
            }
            Step::AcknowledgeAll(who) => self.subscribers[*who].acknowledge_all(),
            Step::Nonsense(who, id) => self.subscribers[*who].nonsense(*id),
            Step::Stale(who) => self.subscribers[*who].stale(),
            Step::Restart => {
                self.broker = start(&self.store, self.tight);
                self.publishers = connect_publishers(self.broker);
                for subscriber in &mut self.subscribers {
                    subscriber.restart();
                }
                Ok(())
            }
        }
    }

    /// Everybody who is still owed anything gets it; then nothing is left anywhere.
    fn finish(mut self, drain: bool) -> Result<(), TestCaseError> {
        for subscriber in &mut self.subscribers {
            if drain && subscriber.session.is_some() {
                subscriber.connect(self.broker, Setup::persistent(Version::V5).window(2))?;
                while subscriber.collect(self.tight)? > 0 || !subscriber.legal().is_empty() {
                    subscriber.acknowledge_all()?;
                }
                let model = subscriber.session.as_ref().expect("it is there");
                prop_assert!(model.owed.is_empty(), "{:?}", model.owed);
            }
        }
        let sessions = self
            .subscribers
            .iter()
            .filter(|s| s.session.is_some())
            .count();
        prop_assert_eq!(self.broker.session_count(), sessions + PUBLISHERS);
        if drain {
            prop_assert_eq!(self.broker.stats.queued_bytes.get(), 0);
        }
        for subscriber in &mut self.subscribers {
            let setup = Setup {
                clean_start: true,
                ..Setup::new(Version::V5)
            };
            subscriber.connect(self.broker, setup)?;
            subscriber.close(GOODBYE);
        }
        let stats = &self.broker.stats;
        let ended: u64 = self.subscribers.iter().map(|s| s.ended).sum();
        let missed: u64 = self.subscribers.iter().map(|s| s.missed).sum();
        prop_assert_eq!(stats.dropped_for(Drop::SessionEnded), ended);
        prop_assert_eq!(stats.dropped_for(Drop::Absent), missed);
        let slow = stats.dropped_for(Drop::SlowReceiver);
        prop_assert!(self.tight || slow == 0);
        prop_assert_eq!(stats.dropped_total(), ended + missed + slow);
        prop_assert_eq!(self.broker.stats.queued_bytes.get(), 0);
        prop_assert_eq!(self.broker.session_count(), PUBLISHERS);
        prop_assert_eq!(self.broker.table.count(), 0);
        prop_assert_eq!(self.broker.stats.clients_connected.get(), PUBLISHERS as u64);
        for publisher in &mut self.publishers {
            prop_assert!(publisher.collect().is_empty());
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// At least once, exactly once, in order, within the window, DUP only where it belongs.
    #[test]
    fn sessions_get_what_they_are_owed(
        steps in proptest::collection::vec(step(), 1..250),
        tight in any::<bool>(),
        drain in any::<bool>(),
    ) {
        let mut world = World::new(tight);
        for who in 0..SUBSCRIBERS {
            world.step(&Step::Connect(who, Setup::persistent(Version::V5).window(2)))?;
            world.step(&Step::Subscribe(who, "t/+", 2, 0))?;
        }
        for step in &steps {
            world.step(step)?;
        }
        world.finish(drain)?;
    }
}

/// More messages than there are Packet Identifiers, past one that stays in flight.
#[test]
fn identifiers_go_around() {
    let broker = broker_with(|_| ());
    let mut client = Client::connect(&broker, "c", Setup::persistent(Version::V311).window(600));
    client.subscribe("t", QoS::AtLeastOnce);
    let mut publisher = Client::connect(&broker, "publisher", Setup::new(Version::V5));
    publisher.publish("t", QoS::AtLeastOnce, "slow");
    let slow = client.messages().remove(0);
    let run: Vec<_> = (0..500)
        .map(|_| publication(QoS::AtLeastOnce, b"x"))
        .collect();
    let mut ids = Vec::new();
    for round in 0..140 {
        publisher.publish_run("t", &run).expect("accepted");
        if round % 2 == 0 {
            // Half of the time they wait for each other.
            publisher.publish_run("t", &run).expect("accepted");
        }
        for received in client.drain() {
            let id = received.id.expect("QoS 1");
            assert_ne!(Some(id), slow.id);
            ids.push(id);
        }
    }
    assert_eq!(ids.len(), 500 * 210);
    for window in ids.windows(2) {
        let next = window[0] % 65_535 + 1;
        assert!(window[1] == next || Some(next) == slow.id, "{window:?}");
    }
    client.complete(&slow);
    assert_eq!(broker.stats.queued_bytes.get(), 0);
}
