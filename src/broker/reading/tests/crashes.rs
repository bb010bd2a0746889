//! Random histories that crash again and again, at any append: what a stream has is delivered, in
//! its order, once if it is of QoS 2, and a second time only where DUP says so if it is of QoS 1.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use tidings_protocol::mqtt::PacketId;

use super::*;
use crate::broker::outgoing::Acknowledgement;
use crate::broker::tests::kit::{Got, qos};

#[derive(Clone, Debug)]
enum Step {
    /// A message of this QoS, for the subscription or not.
    Publish(u8, bool),
    Commit,
    Collect,
    /// The receiver answers so many of the packets that it got.
    Answer(usize),
    Reconnect,
    Leave,
    /// Of what is not durable, this part of 8 survives.
    Crash(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u8..3, prop::bool::weighted(0.8)).prop_map(|(qos, wanted)| Step::Publish(qos, wanted)),
        5 => Just(Step::Commit),
        8 => Just(Step::Collect),
        6 => (1usize..6).prop_map(Step::Answer),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Leave),
        1 => (0usize..9).prop_map(Step::Crash),
    ]
}

struct World {
    broker: &'static Broker,
    store: Arc<SlowStore>,
    client: Option<Client<'static>>,
    /// Of each message for the subscription its QoS, and the append that it is in; none once it is
    /// lost.
    published: Vec<(u8, Option<Ticket>)>,
    first: HashSet<usize>,
    last: Option<usize>,
    unreleased: HashSet<u16>,
    answers: VecDeque<(Acknowledgement, u16)>,
    releases: VecDeque<(Ticket, u16)>,
}

impl World {
    fn connect(&mut self, present: bool) -> Result<(), TestCaseError> {
        self.leave();
        let setup = Setup::persistent(Version::V5).window(4);
        let client = Client::connect(self.broker, "c", setup);
        prop_assert_eq!(client.present, present);
        self.client = Some(client);
        Ok(())
    }

    fn leave(&mut self) {
        if let Some(client) = self.client.take() {
            client.close(Ending::Lost);
        }
        self.answers.clear();
        self.releases.clear();
    }

    fn publish(&mut self, level: u8, wanted: bool) {
        let topic = if wanted { "s/a" } else { "s/b" };
        let payload = self.published.len().to_string();
        let ticket = say(self.broker, topic, qos(level), &payload);
        if wanted {
            self.published.push((level, Some(ticket)));
        }
    }

    fn collect(&mut self) -> Result<(), TestCaseError> {
        let Some(client) = &mut self.client else {
            return Ok(());
        };
        // Nothing is sent before CONNACK.
        if client.ticket > self.store.durable() {
            return Ok(());
        }
        for got in client.collect() {
            match got {
                Got::Publish(message) => {
                    let number: usize = message.text().parse().expect("a number");
                    let (level, ticket) = self.published[number];
                    let ticket = ticket.expect("it was visible, so it is there for good");
                    prop_assert!(ticket <= self.store.durable(), "{} is not durable", number);
                    prop_assert_eq!(message.qos, level);
                    let known = match message.id {
                        Some(id) if level == 2 => !self.unreleased.insert(id),
                        _ => false,
                    };
                    if self.first.insert(number) {
                        // It may be marked as sent before all the same: nobody knows what was
                        // read of what was written to a connection that ended.
                        prop_assert!(!known, "{} is new", number);
                        prop_assert!(self.last.is_none_or(|last| last < number), "order");
                        self.last = Some(number);
                    } else {
                        prop_assert!(level > 0 && message.dup, "{} comes again", number);
                        prop_assert!(level == 1 || known, "{} twice", number);
                    }
                    match (level, message.id) {
                        (1, Some(id)) => self.answers.push_back((Acknowledgement::Ack, id)),
                        (2, Some(id)) => self.answers.push_back((Acknowledgement::Received, id)),
                        _ => {}
                    }
                }
                Got::Release(id) => self.released(id),
            }
        }
        while let Some((_, id)) = self
            .releases
            .pop_front_if(|(ticket, _)| *ticket <= self.store.durable())
        {
            self.released(id);
        }
        Ok(())
    }

    fn released(&mut self, id: u16) {
        self.unreleased.remove(&id);
        self.answers.push_back((Acknowledgement::Complete, id));
    }

    fn answer(&mut self, count: usize) {
        let Some(client) = &self.client else { return };
        for _ in 0..count {
            let Some((what, id)) = self.answers.pop_front() else {
                return;
            };
            let packet_id = PacketId::new(id).expect("not 0");
            let (session, epoch) = (&client.session, client.epoch);
            let known = &[(what, packet_id)];
            let ticket = self
                .broker
                .acknowledge(session, epoch, known, &mut Vec::new());
            if what == Acknowledgement::Received {
                self.releases.push_back((ticket, id));
            }
        }
    }

    fn crash(&mut self, part: usize) -> Result<(), TestCaseError> {
        // Its connection ends with the broker.
        self.client = None;
        self.leave();
        let (all, durable) = self.store.appends();
        let count = durable + (all - durable) * part / 8;
        (self.broker, self.store) = again(&self.store, count);
        for (_, ticket) in &mut self.published {
            // Those that are there are in the store that goes on, which is durable.
            *ticket = ticket
                .filter(|it| it.0 <= count as u64)
                .map(|_| Ticket::default());
        }
        self.connect(true)
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Publish(qos, wanted) => self.publish(qos, wanted),
            Step::Commit => self.store.commit(),
            Step::Collect => self.collect()?,
            Step::Answer(count) => self.answer(count),
            Step::Reconnect => self.connect(true)?,
            Step::Leave => self.leave(),
            Step::Crash(part) => self.crash(part)?,
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_replay_loses_and_doubles_nothing(
        before in prop::collection::vec(0u8..3, 0..12),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let (broker, store) = started();
        let mut world = World {
            broker,
            store,
            client: None,
            published: Vec::new(),
            first: HashSet::new(),
            last: None,
            unreleased: HashSet::new(),
            answers: VecDeque::new(),
            releases: VecDeque::new(),
        };
        for level in before {
            world.publish(level, true);
        }
        world.connect(false)?;
        let client = world.client.as_ref().expect("it connected");
        client.subscribe("$replay/earliest/s/a", QoS::ExactlyOnce);
        world.store.commit();
        for step in &steps {
            world.step(step)?;
        }
        if world.client.is_none() {
            world.connect(true)?;
        }
        for _ in 0..1000 {
            world.store.commit();
            world.collect()?;
            let (all, durable) = world.store.appends();
            if world.answers.is_empty() && world.releases.is_empty() && all == durable {
                break;
            }
            world.answer(usize::MAX);
        }
        let missing: BTreeSet<usize> = (0..world.published.len())
            .filter(|&number| {
                let (level, ticket) = world.published[number];
                level > 0 && ticket.is_some() && !world.first.contains(&number)
            })
            .collect();
        prop_assert_eq!(missing, BTreeSet::new());
        let session = &world.client.as_ref().expect("connected").session;
        prop_assert!(session.lock().outgoing.is_empty());
        prop_assert_eq!(world.broker.stats.queued_bytes.get(), 0);
    }
}
