//! What these tests share: a broker, clients without a stream, and packets taken apart.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::task::Waker;

use tidings_protocol::mqtt::{
    Packet, PacketId, Properties, Property, QoS, ReasonCode, RetainHandling, SubscriptionOptions,
    Version, Will, decode, fixed_header,
};

use crate::access::{Access, Principal};
use crate::broker::outbox::Outbox;
use crate::broker::outgoing::Acknowledgement;
use crate::broker::session::{Closing, Session};
use crate::broker::stats::{DROPS, Drop};
use crate::broker::{
    Broker, Ending, Open, OpenError, Publication, Published, Refused, Request, RouteCache, Run,
};
use crate::config::{Config, LimitsConfig};
use crate::store::{MemoryStore, Recovered, SlowStore, Store, Ticket};

static CONFIG: LazyLock<Config> = LazyLock::new(Config::default);
static ACCESS: LazyLock<Access> =
    LazyLock::new(|| Access::new(&CONFIG).expect("the defaults are in order"));

/// Somebody who may do everything.
pub(crate) fn principal(client_id: &str) -> Principal {
    ACCESS.anonymous(client_id).expect("anonymous clients may")
}

/// A broker with the default settings.
pub(crate) fn broker() -> Broker {
    broker_with(|_| ())
}

/// A broker with other limits.
pub(crate) fn broker_with(change: impl FnOnce(&mut LimitsConfig)) -> Broker {
    let Config {
        mqtt, mut limits, ..
    } = CONFIG.clone();
    change(&mut limits);
    let (store, _) = MemoryStore::new();
    Broker::new(mqtt, limits, Arc::new(store))
}

/// A broker that goes on with what a store kept. Brokers that follow each other in a test live to
/// its end, so that what was connected to one of them may still say something.
pub(crate) fn restored(store: Arc<dyn Store>, recovered: Recovered) -> &'static Broker {
    restored_with(store, recovered, |_| ())
}

/// The same with other limits.
pub(crate) fn restored_with(
    store: Arc<dyn Store>,
    recovered: Recovered,
    change: impl FnOnce(&mut LimitsConfig),
) -> &'static Broker {
    let Config {
        mqtt, mut limits, ..
    } = CONFIG.clone();
    change(&mut limits);
    let (broker, _) = Broker::restore(mqtt, limits, store, recovered, &ACCESS);
    broker.tick();
    Box::leak(Box::new(broker))
}

/// A broker over a store whose disk is as slow as the test wants it.
pub(crate) fn slow_broker() -> (&'static Broker, Arc<SlowStore>) {
    let store = Arc::new(SlowStore::new());
    (restored(store.clone(), Recovered::default()), store)
}

/// A broker that was started again after a crash that the first `count` appends survived.
pub(crate) fn crashed(store: &SlowStore, count: usize) -> (&'static Broker, Arc<SlowStore>) {
    let (store, recovered) = store.crashed(count);
    let store = Arc::new(store);
    (restored(store.clone(), recovered), store)
}

/// What was dropped, by reason; nothing for those with a count of 0.
pub(crate) fn drops(broker: &Broker) -> Vec<(Drop, u64)> {
    DROPS
        .into_iter()
        .map(|(reason, _)| (reason, broker.stats.dropped_for(reason)))
        .filter(|&(_, count)| count > 0)
        .collect()
}

pub(crate) const GOODBYE: Ending = Ending::Goodbye {
    with_will: false,
    expiry_secs: None,
};

/// Ends the session along with the connection.
pub(crate) const FAREWELL: Ending = Ending::Goodbye {
    with_will: false,
    expiry_secs: Some(0),
};

/// What a CONNECT would say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub version: Version,
    pub clean_start: bool,
    pub expiry_secs: u32,
    pub receive_maximum: u16,
    pub packet_size_max: usize,
    pub topic_alias_maximum: u16,
    /// It has a will without delay, of QoS 1, to the topic "will".
    pub will: bool,
}

impl Setup {
    /// A session that ends with its connection.
    pub(crate) fn new(version: Version) -> Setup {
        Setup {
            version,
            clean_start: true,
            expiry_secs: 0,
            receive_maximum: 65_535,
            packet_size_max: usize::MAX,
            topic_alias_maximum: 0,
            will: false,
        }
    }

    /// A session that outlives its connection.
    pub(crate) fn persistent(version: Version) -> Setup {
        Setup {
            clean_start: false,
            expiry_secs: 1000,
            ..Setup::new(version)
        }
    }

    pub(crate) fn window(self, receive_maximum: u16) -> Setup {
        Setup {
            receive_maximum,
            ..self
        }
    }
}

/// One packet that the broker sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    Publish(Received),
    Release(u16),
}

/// A PUBLISH with its parts in order of meaning rather than of bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub dup: bool,
    pub qos: u8,
    pub retain: bool,
    /// What the alias stands for, if there is one.
    pub topic: String,
    pub id: Option<u16>,
    pub alias: Option<u16>,
    pub expiry: Option<u32>,
    pub identifiers: Vec<u32>,
    /// All other properties, in order.
    pub properties: Vec<String>,
    pub payload: Vec<u8>,
    /// Bytes of the packet.
    pub len: usize,
}

impl Received {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload of text")
    }
}

/// A connected client.
pub(crate) struct Client<'b> {
    broker: &'b Broker,
    pub session: Arc<Session>,
    pub epoch: u64,
    pub present: bool,
    /// What its CONNACK waits for.
    pub ticket: Ticket,
    pub version: Version,
    principal: Principal,
    aliases: HashMap<u16, String>,
    routes: RouteCache,
}

impl<'b> Client<'b> {
    pub(crate) fn connect(broker: &'b Broker, id: &str, setup: Setup) -> Client<'b> {
        Client::try_connect(broker, id, setup).expect("let in")
    }

    pub(crate) fn try_connect(
        broker: &'b Broker,
        id: &str,
        setup: Setup,
    ) -> Result<Client<'b>, OpenError> {
        let principal = principal(id);
        let will = Will {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: "will",
            properties: Properties::EMPTY,
            payload: b"gone",
        };
        let opened = broker.open(&Open {
            client_id: id,
            principal: principal.clone(),
            clean_start: setup.clean_start,
            expiry_secs: setup.expiry_secs,
            will: setup.will.then_some(&will),
            version: setup.version,
            receive_maximum: setup.receive_maximum,
            packet_size_max: setup.packet_size_max,
            topic_alias_maximum: setup.topic_alias_maximum,
            silence_max: 0,
        })?;
        Ok(Client {
            broker,
            session: opened.session,
            epoch: opened.epoch,
            present: opened.present,
            ticket: opened.ticket,
            version: setup.version,
            principal,
            aliases: HashMap::new(),
            routes: RouteCache::default(),
        })
    }

    pub(crate) fn subscribe(&self, filter: &str, qos: QoS) {
        assert_eq!(
            self.subscribe_with(filter, options(qos), 0),
            ReasonCode::granted(qos)
        );
    }

    pub(crate) fn subscribe_with(
        &self,
        filter: &str,
        options: SubscriptionOptions,
        identifier: u32,
    ) -> ReasonCode {
        let request = Request {
            filter,
            options,
            identifier,
        };
        match self.broker.subscribe(&self.session, self.epoch, request) {
            Ok((qos, _)) => ReasonCode::granted(qos),
            Err(error) => error.reason(),
        }
    }

    pub(crate) fn unsubscribe(&self, filter: &str) -> ReasonCode {
        self.broker.unsubscribe(&self.session, self.epoch, filter).0
    }

    /// Publishes one message.
    pub(crate) fn publish(&mut self, topic: &str, qos: QoS, payload: &str) {
        self.publish_run(topic, &[publication(qos, payload.as_bytes())])
            .expect("accepted");
    }

    /// Publishes a Retained Message.
    pub(crate) fn retain(&mut self, topic: &str, payload: &[u8]) -> Result<usize, Refused> {
        let mut publication = publication(QoS::AtLeastOnce, payload);
        publication.retain = true;
        self.publish_run(topic, &[publication])
    }

    /// Publishes a run; answers how many sessions and groups it matched.
    pub(crate) fn publish_run(
        &mut self,
        topic: &str,
        publications: &[Publication<'_>],
    ) -> Result<usize, Refused> {
        Ok(self.publish_kept(topic, publications, false)?.matched)
    }

    /// Publishes a run in the name of a session that outlives its connection, or does not.
    pub(crate) fn publish_kept(
        &mut self,
        topic: &str,
        publications: &[Publication<'_>],
        publisher_is_kept: bool,
    ) -> Result<Published, Refused> {
        let mut batch = self.broker.batch();
        let route = batch.route(&self.principal, topic, &mut self.routes)?;
        let run = Run {
            topic,
            publications,
            publisher: self.session.number(),
            publisher_is_kept,
            bell: None,
        };
        batch.publish(&route, &run)
    }

    /// The broker that it is connected to.
    pub(crate) fn broker(&self) -> &'b Broker {
        self.broker
    }

    /// Everything that the broker has for this client now, Retained Messages included.
    pub(crate) fn collect(&mut self) -> Vec<Got> {
        self.try_collect().expect("still connected")
    }

    /// The same, or why the connection must end.
    pub(crate) fn try_collect(&mut self) -> Result<Vec<Got>, Closing> {
        let mut got = Vec::new();
        for _ in 0..100_000 {
            let mut out = Outbox::default();
            let waiting =
                self.broker
                    .collect(&self.session, self.epoch, &mut out, Waker::noop())?;
            self.take(&out, &mut got);
            if waiting.page {
                self.broker.load_page(&self.session, self.epoch);
            }
            let again = waiting.messages
                || waiting.page
                || waiting.replays && self.broker.replay(&self.session, self.epoch)
                || waiting.readings && self.broker.pull(&self.session, self.epoch, Waker::noop());
            if !again {
                return Ok(got);
            }
        }
        panic!("the broker says again and again that there is more");
    }

    /// The PUBLISH packets, where nothing else is expected.
    pub(crate) fn messages(&mut self) -> Vec<Received> {
        self.collect()
            .into_iter()
            .map(|got| match got {
                Got::Publish(received) => received,
                Got::Release(id) => panic!("PUBREL {id}"),
            })
            .collect()
    }

    /// The payloads of [`Client::messages`].
    pub(crate) fn payloads(&mut self) -> Vec<String> {
        let messages = self.messages();
        messages.iter().map(|m| m.text().to_owned()).collect()
    }

    /// Hands in one acknowledgement; false if it fits nothing in flight.
    pub(crate) fn acknowledge(&self, what: Acknowledgement, id: u16) -> bool {
        let mut unknown = Vec::new();
        let id = PacketId::new(id).expect("not 0");
        self.broker
            .acknowledge(&self.session, self.epoch, &[(what, id)], &mut unknown);
        unknown.is_empty()
    }

    /// Completes what was received.
    pub(crate) fn complete(&self, message: &Received) {
        match (message.qos, message.id) {
            (0, None) => {}
            (1, Some(id)) => assert!(self.acknowledge(Acknowledgement::Ack, id)),
            (2, Some(id)) => {
                assert!(self.acknowledge(Acknowledgement::Received, id));
                assert!(self.acknowledge(Acknowledgement::Complete, id));
            }
            other => panic!("{other:?}"),
        }
    }

    /// Collects and completes until nothing is left.
    pub(crate) fn drain(&mut self) -> Vec<Received> {
        let mut all = Vec::new();
        loop {
            let got = self.collect();
            if got.is_empty() {
                return all;
            }
            for got in got {
                match got {
                    Got::Publish(received) => {
                        self.complete(&received);
                        all.push(received);
                    }
                    Got::Release(id) => assert!(self.acknowledge(Acknowledgement::Complete, id)),
                }
            }
        }
    }

    pub(crate) fn close(&self, ending: Ending) {
        self.broker.close(&self.session, self.epoch, ending);
    }

    fn take(&mut self, out: &Outbox, got: &mut Vec<Got>) {
        let bytes = bytes_of(out);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = fixed_header(rest, usize::MAX)
                .expect("a valid header")
                .expect("a whole header");
            let (packet, after) = rest.split_at(header.total_len());
            rest = after;
            match decode(self.version, header, packet).expect("a valid packet") {
                Packet::Publish(publish) => {
                    let mut received = Received {
                        dup: publish.dup,
                        qos: publish.qos.as_u8(),
                        retain: publish.retain,
                        topic: publish.topic.to_owned(),
                        id: publish.packet_id.map(PacketId::get),
                        payload: publish.payload.to_vec(),
                        len: packet.len(),
                        ..Received::default()
                    };
                    for property in publish.properties {
                        match property {
                            Property::TopicAlias(alias) => received.alias = Some(alias),
                            Property::MessageExpiryInterval(s) => received.expiry = Some(s),
                            Property::SubscriptionIdentifier(identifier) => {
                                received.identifiers.push(identifier);
                            }
                            other => received.properties.push(format!("{other:?}")),
                        }
                    }
                    if let Some(alias) = received.alias {
                        if received.topic.is_empty() {
                            received.topic = self.aliases[&alias].clone();
                        } else {
                            self.aliases.insert(alias, received.topic.clone());
                        }
                    }
                    got.push(Got::Publish(received));
                }
                Packet::PubRel(ack) => got.push(Got::Release(ack.packet_id.get())),
                other => panic!("a {} from the broker's core", other.name()),
            }
        }
    }
}

/// All that is to be written.
pub(crate) fn bytes_of(out: &Outbox) -> Vec<u8> {
    let mut slices = vec![std::io::IoSlice::new(&[]); 4096];
    let filled = out.slices(&mut slices);
    let bytes: Vec<u8> = slices[..filled]
        .iter()
        .flat_map(|slice| slice.iter().copied())
        .collect();
    assert_eq!(bytes.len(), out.len());
    bytes
}

/// A subscription with this QoS and nothing special.
pub(crate) fn options(qos: QoS) -> SubscriptionOptions {
    SubscriptionOptions {
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

/// A message without properties.
pub(crate) fn publication(qos: QoS, payload: &[u8]) -> Publication<'_> {
    Publication {
        qos,
        retain: false,
        properties: Properties::EMPTY,
        payload,
        packet_id: None,
        shared_payload: None,
    }
}

pub(crate) fn qos(value: u8) -> QoS {
    QoS::from_u8(value).expect("0 to 2")
}
