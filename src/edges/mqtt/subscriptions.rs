//! SUBSCRIBE and UNSUBSCRIBE, and their answers.

use tidings_protocol::mqtt::{
    Properties, PropertiesBuilder, Property, ReasonCode, SubAck, Subscribe, UnsubAck, Unsubscribe,
    Version,
};

use super::answers::Answer;
use super::farewell::Farewell;
use super::inbound::Client;
use crate::broker::session::Closing;
use crate::broker::{Request, SubscribeError};
use crate::store::Ticket;

impl Client {
    pub(super) fn subscribe(&mut self, subscribe: &Subscribe<'_>) -> Result<(), Farewell> {
        self.check_user_properties(subscribe.properties)?;
        let identifier = subscribe.properties.subscription_identifier().unwrap_or(0);
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut why = None;
        let mut last = Ticket::default();
        for (filter, options) in subscribe.filters.iter() {
            let request = Request {
                filter,
                options,
                identifier,
            };
            let broker = &self.edge.broker;
            let reason = match broker.subscribe(&self.session, self.epoch, request) {
                Ok((qos, ticket)) => {
                    last = last.max(ticket);
                    ReasonCode::granted(qos)
                }
                Err(SubscribeError::TakenOver) => {
                    return Err(Farewell::Closing(Closing::TakenOver));
                }
                Err(error) => {
                    tracing::info!(
                        client = %self.session.client_id(),
                        filter,
                        reason = %error.reason(),
                        "subscription refused: {error}"
                    );
                    let reason = error.reason();
                    why.get_or_insert(error);
                    reason
                }
            };
            reasons.push(match self.version {
                Version::V5 => reason.as_u8(),
                // All that MQTT 3.1.1 has for a failure [MQTT311-3.9.3-2]. MQTT 3.1 has nothing,
                // but the clients that still speak it take this too.
                _ if reason.is_error() => ReasonCode::UnspecifiedError.as_u8(),
                _ => reason.as_u8(),
            });
        }
        let suback = |properties| {
            let mut packet = Vec::new();
            SubAck {
                packet_id: subscribe.packet_id,
                properties,
                reasons: &reasons,
            }
            .encode(self.version, &mut packet);
            packet
        };
        let mut packet = suback(Properties::EMPTY);
        if let Some(error) = why.filter(|_| self.explain && self.version.is_v5()) {
            // Of several there is room for the first.
            let mut more = PropertiesBuilder::new();
            more.push(Property::ReasonString(&error.to_string()));
            let told = suback(more.as_properties());
            // [MQTT-3.9.2-1]
            if told.len() <= self.packet_size_max {
                packet = told;
            }
        }
        self.answer(Answer::Packet(packet.into()), last, None);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>) -> Result<(), Farewell> {
        self.check_user_properties(unsubscribe.properties)?;
        let mut reasons = Vec::with_capacity(unsubscribe.filters.len());
        let mut last = Ticket::default();
        for filter in unsubscribe.filters.iter() {
            let broker = &self.edge.broker;
            let (reason, ticket) = broker.unsubscribe(&self.session, self.epoch, filter);
            last = last.max(ticket);
            if reason == ReasonCode::SessionTakenOver {
                return Err(Farewell::Closing(Closing::TakenOver));
            }
            reasons.push(reason.as_u8());
        }
        if !self.version.is_v5() {
            reasons.clear();
        }
        let mut packet = Vec::new();
        UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: Properties::EMPTY,
            reasons: &reasons,
        }
        .encode(self.version, &mut packet);
        self.answer(Answer::Packet(packet.into()), last, None);
        Ok(())
    }
}
