//! The PUBLISH packets of one read: gathered into runs of equal topics, routed, acknowledged.

use std::sync::Arc;

use bytes::Bytes;
use tidings_protocol::mqtt::{AckKind, PacketId, Publish, QoS, ReasonCode};
use tidings_protocol::topic;

use super::answers::Answer;
use super::farewell::{Farewell, Fault, TOO_MANY_USER_PROPERTIES};
use super::inbound::Client;
use crate::broker::link::Received;
use crate::broker::stats::Drop as Dropped;
use crate::broker::{Batch, Publication, Refused, Run};
use crate::store::Ticket;

/// A Topic Name: in the read buffer, or what an alias stands for.
enum Topic<'d> {
    Borrowed(&'d str),
    Aliased(Arc<str>),
}

impl Topic<'_> {
    fn as_str(&self) -> &str {
        match self {
            Topic::Borrowed(topic) => topic,
            Topic::Aliased(topic) => topic,
        }
    }
}

/// Publications that were read and are not routed yet: all to the same topic.
#[derive(Default)]
pub(super) struct Publishes<'d> {
    topic: Option<Topic<'d>>,
    publications: Vec<Publication<'d>>,
    ids: Vec<Option<PacketId>>,
}

const SUBSCRIPTION_IDENTIFIER: Fault = Fault::new(
    ReasonCode::ProtocolError,
    "[MQTT-3.3.4-6]",
    "a client must not send a Subscription Identifier in PUBLISH",
);
const QOS_TOO_HIGH: Fault = Fault::new(
    ReasonCode::QoSNotSupported,
    "[MQTT-3.2.2-11]",
    "the QoS is higher than the Maximum QoS that CONNACK named",
);
const NO_RETAIN: Fault = Fault::new(
    ReasonCode::RetainNotSupported,
    "[MQTT-3.2.2-14]",
    "CONNACK said that this server retains no messages",
);
const TOO_MANY_UNRELEASED: Fault = Fault::new(
    ReasonCode::ReceiveMaximumExceeded,
    "[MQTT-3.3.4-8]",
    "more QoS 2 messages are unreleased than Receive Maximum allows",
);
const NOT_UTF8: Fault = Fault::new(
    ReasonCode::PayloadFormatInvalid,
    "[MQTT5 §3.3.2.3.2]",
    "the payload is not the UTF-8 that its Payload Format Indicator declares",
);
const NOT_AUTHORIZED: Fault = Fault::new(
    ReasonCode::NotAuthorized,
    "[MQTT311-3.3.5-2]",
    "no right to publish to this topic, and MQTT 3 has no other way to say so",
);
const RETAINED_FULL: Fault = Fault::new(
    ReasonCode::QuotaExceeded,
    "[MQTT311-3.3.5-2]",
    "the limit of retained messages is reached, and MQTT 3 has no other way to say so",
);

const STORE_FULL: Fault = Fault::new(
    ReasonCode::QuotaExceeded,
    "[MQTT311-3.3.5-2]",
    "the store takes no more messages, and MQTT 3 has no other way to say so",
);

impl<'d> Publishes<'d> {
    /// Takes in a PUBLISH. What cannot go into the run that is being gathered has it routed first.
    pub(super) fn add(
        &mut self,
        client: &mut Client,
        batch: &mut Batch<'_>,
        publish: &Publish<'d>,
        shared_payload: Option<&'d Bytes>,
    ) -> Result<(), Farewell> {
        let topic = self.resolve(client, publish)?;
        let mqtt = client.edge.broker.mqtt();
        if publish.qos.as_u8() > mqtt.max_qos {
            return Err(QOS_TOO_HIGH.into());
        }
        if publish.retain && !mqtt.retain_available {
            return Err(NO_RETAIN.into());
        }
        let mut fault = None;
        if !publish.properties.is_empty() && Self::check_properties(client, publish)? {
            fault = Some((NOT_UTF8, Dropped::PayloadFormat));
        }
        let alone = publish.retain || publish.payload.len() >= crate::broker::SHARED_PAYLOAD_MIN;
        let same = self
            .topic
            .as_ref()
            .is_some_and(|known| known.as_str() == topic.as_str());
        if !same || alone {
            self.route(client, batch)?;
            if !same {
                match topic::name_is_valid(topic.as_str(), &client.topic_limits) {
                    Ok(()) => self.topic = Some(topic),
                    Err(error) => {
                        let reason = ReasonCode::TopicNameInvalid;
                        let invalid = Fault::new(reason, "[MQTT-3.3.2-1]", error.as_str());
                        fault = Some((invalid, Dropped::TopicInvalid));
                    }
                }
            }
        }
        if publish.qos == QoS::ExactlyOnce
            && let Some(id) = publish.packet_id
        {
            let maximum = client.receive_maximum;
            let broker = &client.edge.broker;
            match broker.receive(&client.session, client.epoch, id, maximum) {
                Ok(Received::New) => {}
                Ok(Received::Duplicate) => {
                    self.route(client, batch)?;
                    // The first PUBREC may still be waiting; this one goes out behind it.
                    let ticket = client.last_ticket;
                    client.reply(AckKind::PubRec, id, ReasonCode::Success, ticket);
                    return Ok(());
                }
                Ok(Received::TooMany) => {
                    self.route(client, batch)?;
                    return Err(TOO_MANY_UNRELEASED.into());
                }
                Err(why) => return Err(Farewell::Closing(why)),
            }
        }
        if let Some((fault, dropped)) = fault {
            self.route(client, batch)?;
            if publish.packet_id.is_none() {
                // There is no acknowledgement that could say it.
                batch.refused(dropped, 1);
                return Err(fault.into());
            }
            return refuse(
                client,
                batch,
                publish.packet_id,
                publish.qos,
                &fault,
                dropped,
            );
        }
        self.publications.push(Publication {
            qos: publish.qos,
            retain: publish.retain,
            properties: publish.properties,
            payload: publish.payload,
            packet_id: publish
                .packet_id
                .filter(|_| publish.qos == QoS::ExactlyOnce),
            shared_payload,
        });
        self.ids.push(publish.packet_id);
        if alone {
            self.route(client, batch)?;
        }
        Ok(())
    }

    fn resolve(&self, client: &mut Client, publish: &Publish<'d>) -> Result<Topic<'d>, Farewell> {
        match publish.properties.topic_alias() {
            None => Ok(Topic::Borrowed(publish.topic)),
            Some(alias) => {
                let maximum = client.edge.broker.mqtt().topic_alias_maximum;
                let topic = client.aliases.get_or_insert_default().resolve(
                    alias,
                    publish.topic,
                    maximum,
                )?;
                Ok(Topic::Aliased(topic))
            }
        }
    }

    /// What a PUBLISH with properties is checked for; true if its payload is not what it says.
    fn check_properties(client: &Client, publish: &Publish<'_>) -> Result<bool, Farewell> {
        if publish.subscription_identifiers().next().is_some() {
            return Err(SUBSCRIPTION_IDENTIFIER.into());
        }
        let broker = &client.edge.broker;
        if publish.properties.user_property_count() > broker.limits().user_properties_max {
            return Err(TOO_MANY_USER_PROPERTIES.into());
        }
        Ok(broker.mqtt().validate_utf8_payload
            && publish.properties.payload_format_indicator() == Some(1)
            && std::str::from_utf8(publish.payload).is_err())
    }

    /// Routes what was gathered, and acknowledges it.
    pub(super) fn route(
        &mut self,
        client: &mut Client,
        batch: &mut Batch<'_>,
    ) -> Result<(), Farewell> {
        if self.publications.is_empty() {
            return Ok(());
        }
        let result = self.publish(client, batch);
        let stats = &client.edge.broker.stats;
        stats.publish_received.add(self.publications.len() as u64);
        self.publications.clear();
        self.ids.clear();
        result
    }

    fn publish(&self, client: &mut Client, batch: &mut Batch<'_>) -> Result<(), Farewell> {
        let topic = self.topic.as_ref().expect("a run has a topic").as_str();
        let bell = client.answers.bell();
        let run = Run {
            topic,
            publications: &self.publications,
            publisher: client.session.number(),
            publisher_is_kept: client.expiry_secs > 0,
            bell: Some(&bell),
        };
        let routes = client.routes.get_or_insert_default();
        let published = batch
            .route(&client.principal, topic, routes)
            .and_then(|route| batch.publish(&route, &run));
        match published {
            Ok(published) => {
                let reason = if published.matched == 0 && client.version.is_v5() {
                    ReasonCode::NoMatchingSubscribers
                } else {
                    ReasonCode::Success
                };
                for (index, publication) in self.publications.iter().enumerate() {
                    let Some(id) = self.ids[index] else { continue };
                    let kind = match publication.qos {
                        QoS::ExactlyOnce => AckKind::PubRec,
                        _ => AckKind::PubAck,
                    };
                    let answer = Answer::Ack(kind, id, reason);
                    client.answer(answer, published.ticket, batch.message(index));
                }
                Ok(())
            }
            Err(refused) => {
                let (fault, dropped) = match refused {
                    Refused::NotAuthorized => (&NOT_AUTHORIZED, Dropped::PublishDenied),
                    Refused::RetainedFull => (&RETAINED_FULL, Dropped::RetainedFull),
                    Refused::StoreFull => (&STORE_FULL, Dropped::StoreFull),
                };
                for (publication, id) in self.publications.iter().zip(&self.ids) {
                    refuse(client, batch, *id, publication.qos, fault, dropped)?;
                }
                Ok(())
            }
        }
    }
}

/// Tells the client that a publication was not accepted: in version 5 with its acknowledgement, in
/// version 3 by closing the connection, since an acknowledgement there says that all is well
/// [MQTT311-3.3.5-2]. QoS 0 is counted only: there is no answer to it.
fn refuse(
    client: &mut Client,
    batch: &mut Batch<'_>,
    id: Option<PacketId>,
    qos: QoS,
    fault: &Fault,
    dropped: Dropped,
) -> Result<(), Farewell> {
    batch.refused(dropped, 1);
    if let Some(id) = id {
        if !client.version.is_v5() {
            return Err(fault.clone().into());
        }
        let kind = if qos == QoS::ExactlyOnce {
            client
                .edge
                .broker
                .release(&client.session, client.epoch, id);
            AckKind::PubRec
        } else {
            AckKind::PubAck
        };
        client.reply(kind, id, fault.reason, Ticket::default());
    }
    Ok(())
}
