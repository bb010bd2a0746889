//! What the benchmarks of the broker's core share: a broker, clients without a stream.

// Each benchmark is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::sync::Arc;
use std::task::Waker;

use tidings::access::{Access, Principal};
use tidings::broker::outbox::Outbox;
use tidings::broker::outgoing::Acknowledgement;
use tidings::broker::session::Session;
use tidings::broker::topics::{Subscriber, SubscriptionTable, Terms};
use tidings::broker::{Broker, Ending, Open, Publication, Request, RouteCache, Run};
use tidings::config::Config;
use tidings::store::{MemoryStore, Store};
use tidings_protocol::mqtt::{
    PacketId, Properties, QoS, ReasonCode, RetainHandling, SubscriptionOptions, Version,
};

pub const PAYLOAD: [u8; 64] = [b'x'; 64];

/// A broker, and somebody who lets everyone in.
pub struct Bed {
    pub broker: Broker,
    access: Access,
}

impl Bed {
    /// Over a store in memory.
    pub fn new() -> Bed {
        let (store, _) = MemoryStore::new();
        Bed::over(Arc::new(store))
    }

    /// Without the limits that a benchmark would run into.
    pub fn over(store: Arc<dyn Store>) -> Bed {
        let mut config = Config::default();
        let access = Access::new(&config).expect("the defaults are in order");
        config.limits.sessions_max = usize::MAX;
        config.limits.subscriptions_max = usize::MAX;
        config.limits.mailbox_bytes_max = 1 << 30;
        config.limits.mailbox_messages_max = 1 << 30;
        config.limits.subscriptions_per_session_max = usize::MAX;
        config.limits.memory_queue_bytes_max = u64::MAX;
        config.limits.retained_messages_max = usize::MAX;
        config.limits.retained_bytes_max = u64::MAX;
        let Config { mqtt, limits, .. } = config;
        Bed {
            broker: Broker::new(mqtt, limits, store),
            access,
        }
    }

    /// A client that is connected until [`Client::leave`].
    pub fn client(&self, id: &str, kind: Kind) -> Client {
        let principal = self.access.anonymous(id).expect("anonymous clients may");
        let opened = self
            .broker
            .open(&Open {
                client_id: id,
                principal: principal.clone(),
                clean_start: false,
                expiry_secs: if kind.durable { 3600 } else { 0 },
                will: None,
                version: Version::V5,
                receive_maximum: kind.window,
                packet_size_max: usize::MAX,
                topic_alias_maximum: 0,
                silence_max: 0,
            })
            .expect("let in");
        Client {
            session: opened.session,
            epoch: opened.epoch,
            principal,
            routes: RouteCache::default(),
            out: Outbox::default(),
            acknowledged: 0,
        }
    }

    /// The same client on a new connection.
    pub fn client_again(&self, before: &Client, id: &str, kind: Kind) -> Client {
        let again = self.client(id, kind);
        assert_eq!(again.session.number(), before.session.number());
        Client {
            acknowledged: before.acknowledged,
            ..again
        }
    }

    /// Connected sessions.
    pub fn sessions(&self, count: usize) -> Vec<Arc<Session>> {
        (0..count)
            .map(|index| self.client(&format!("session{index}"), Kind::CLEAN).session)
            .collect()
    }
}

/// What a CONNECT would say.
#[derive(Clone, Copy)]
pub struct Kind {
    /// The session outlives its connection.
    pub durable: bool,
    /// Receive Maximum.
    pub window: u16,
}

impl Kind {
    pub const CLEAN: Kind = Kind {
        durable: false,
        window: u16::MAX,
    };
    pub const DURABLE: Kind = Kind {
        durable: true,
        window: u16::MAX,
    };
}

pub struct Client {
    pub session: Arc<Session>,
    epoch: u64,
    principal: Principal,
    routes: RouteCache,
    out: Outbox,
    /// Messages of QoS 1 so far: the next Packet Identifier follows from it.
    acknowledged: u64,
}

impl Client {
    pub fn subscribe(&self, broker: &Broker, filter: &str, qos: QoS) {
        let request = Request {
            filter,
            options: SubscriptionOptions {
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::DoNotSend,
            },
            identifier: 0,
        };
        let result = broker.subscribe(&self.session, self.epoch, request);
        let granted = result.map(|(granted, _)| granted);
        assert_eq!(granted, Ok(qos), "{filter}");
    }

    pub fn unsubscribe(&self, broker: &Broker, filter: &str) {
        let (reason, _) = broker.unsubscribe(&self.session, self.epoch, filter);
        assert_eq!(reason, ReasonCode::Success, "{filter}");
    }

    /// Publishes as a connection does with what one read brought; answers how many it matched.
    pub fn publish(
        &mut self,
        broker: &Broker,
        topic: &str,
        publications: &[Publication<'_>],
    ) -> usize {
        let mut batch = broker.batch();
        let route = batch
            .route(&self.principal, topic, &mut self.routes)
            .expect("allowed");
        let run = Run {
            topic,
            publications,
            publisher: self.session.number(),
            publisher_is_kept: false,
            bell: None,
        };
        batch.publish(&route, &run).expect("taken").matched
    }

    /// Takes what waits, as a connection does before it writes; answers how many bytes that was.
    pub fn collect(&mut self, broker: &Broker) -> usize {
        let waiting = broker.collect(&self.session, self.epoch, &mut self.out, Waker::noop());
        assert!(waiting.is_ok(), "taken over");
        let bytes = self.out.len();
        self.out.clear();
        bytes
    }

    /// The same from any thread.
    pub fn collect_into(&self, broker: &Broker, out: &mut Outbox) {
        let waiting = broker.collect(&self.session, self.epoch, out, Waker::noop());
        assert!(waiting.is_ok(), "taken over");
    }

    /// Acknowledges the next `count` messages of QoS 1 in one go, as a connection does with what
    /// one read brought.
    pub fn acknowledge(&mut self, broker: &Broker, count: usize) {
        let mut acknowledgements = [(Acknowledgement::Ack, PacketId::MIN); 64];
        let mut unknown = Vec::new();
        let mut left = count;
        while left > 0 {
            let now = left.min(acknowledgements.len());
            for entry in &mut acknowledgements[..now] {
                entry.1 = packet_id(self.acknowledged);
                self.acknowledged += 1;
            }
            broker.acknowledge(
                &self.session,
                self.epoch,
                &acknowledgements[..now],
                &mut unknown,
            );
            left -= now;
        }
        assert!(unknown.is_empty(), "not in flight");
    }

    /// Leaves without saying goodbye to the session.
    pub fn leave(&self, broker: &Broker) {
        let ending = Ending::Goodbye {
            with_will: false,
            expiry_secs: None,
        };
        broker.close(&self.session, self.epoch, ending);
    }
}

/// The Packet Identifier of the message with this number, counted from 0.
pub fn packet_id(number: u64) -> PacketId {
    PacketId::new((number % 65_535) as u16 + 1).expect("above 0")
}

/// A message without properties.
pub fn publication(qos: QoS) -> Publication<'static> {
    Publication {
        qos,
        retain: false,
        properties: Properties::EMPTY,
        payload: &PAYLOAD,
        packet_id: None,
        shared_payload: None,
    }
}

/// What a table of subscriptions is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filters {
    /// No wildcard.
    Exact,
    /// A single-level wildcard in the middle.
    Plus,
    /// A multi-level wildcard at the end.
    Hash,
    /// No wildcard, shared; ten members in each group.
    Shared,
}

/// Members of a Shared Subscription.
const MEMBERS: usize = 10;

impl Filters {
    pub const ALL: [Filters; 4] = [
        Filters::Exact,
        Filters::Plus,
        Filters::Hash,
        Filters::Shared,
    ];

    /// As it is printed.
    pub fn name(self) -> &'static str {
        match self {
            Filters::Exact => "exact",
            Filters::Plus => "plus",
            Filters::Hash => "hash",
            Filters::Shared => "shared",
        }
    }

    /// The filter of the subscription with this number, without `$share`. Levels branch as in a
    /// real topic tree: 256 sensors in a room, 16 rooms on a floor.
    pub fn filter(self, number: usize) -> String {
        match self {
            Filters::Exact => topic(number),
            Filters::Plus => {
                let (building, room, sensor) = place(number);
                format!("site/{building}/+/{room}/sensor{sensor}")
            }
            Filters::Hash => format!("{}/#", topic(number)),
            Filters::Shared => topic(number / MEMBERS),
        }
    }

    /// As a client writes it.
    pub fn written(self, number: usize) -> String {
        let filter = self.filter(number);
        match self {
            Filters::Shared => format!("$share/group/{filter}"),
            _ => filter,
        }
    }

    /// A topic that the subscription with this number matches, and no other but the members of
    /// its group.
    pub fn topic(self, number: usize) -> String {
        match self {
            Filters::Shared => topic(number / MEMBERS),
            _ => topic(number),
        }
    }
}

fn place(number: usize) -> (usize, usize, usize) {
    (number / 4096, number / 256 % 16, number % 256)
}

fn topic(number: usize) -> String {
    let (building, room, sensor) = place(number);
    format!("site/{building}/room/{room}/sensor{sensor}")
}

/// Puts the subscription with this number into a table.
pub fn put(table: &SubscriptionTable, filters: Filters, number: usize, session: &Arc<Session>) {
    let filter: Arc<str> = filters.filter(number).into();
    put_filter(table, filters, &filter, session);
}

pub fn put_filter(
    table: &SubscriptionTable,
    filters: Filters,
    filter: &Arc<str>,
    session: &Arc<Session>,
) {
    let subscriber = |through| Subscriber {
        session: Arc::clone(session),
        terms: Terms {
            qos: QoS::AtLeastOnce,
            retain_as_published: false,
            through,
        },
        no_local: false,
    };
    match filters {
        Filters::Shared => {
            table.join("group", filter, |group| {
                subscriber(Some(Arc::new(tidings::broker::outgoing::Through {
                    identifiers: None,
                    shared_as: group.tag(),
                    group: Some(tidings::broker::outgoing::GroupRef(group)),
                })))
            });
        }
        _ => table.subscribe(filter, subscriber(None), false),
    }
}

/// A table with `count` subscriptions of these sessions in turn.
pub fn table(filters: Filters, count: usize, sessions: &[Arc<Session>]) -> SubscriptionTable {
    let table = SubscriptionTable::default();
    for number in 0..count {
        put(&table, filters, number, &sessions[number % sessions.len()]);
    }
    table
}
