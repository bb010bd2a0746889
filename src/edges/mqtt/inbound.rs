//! What a client's packets do, one read's worth at a time.
//!
//! Everything here is synchronous: packets are decoded where they were read, handed to the broker,
//! and answered into the connection's own outbox.

use std::sync::Arc;

use bytes::Bytes;
use tidings_protocol::mqtt::{
    Ack, AckKind, Auth, Disconnect, Packet, PacketId, Properties, ProtocolError, ReasonCode,
    Version, decode, fixed_header,
};
use tidings_protocol::topic::TopicLimits;

use super::Edge;
use super::aliases::Aliases;
use super::answers::{Answer, Answers};
use super::farewell::{Farewell, Fault, TOO_MANY_USER_PROPERTIES};
use super::handshake::{auth_data, auth_fault, auth_packet, bounded};
use super::publishes::Publishes;
use crate::access::{Exchange, Principal, Step};
use crate::broker::outbox::Outbox;
use crate::broker::outgoing::Acknowledgement;
use crate::broker::session::{Closing, Session};
use crate::broker::{Batch, Ending, Message, RouteCache};
use crate::store::Ticket;

/// A connection's state, apart from its stream.
pub(super) struct Client {
    pub(super) edge: Arc<Edge>,
    pub(super) session: Arc<Session>,
    pub(super) epoch: u64,
    pub(super) principal: Principal,
    /// The broker's count of changes of rights when `principal` was right.
    pub(super) rights: u64,
    pub(super) version: Version,
    pub(super) explain: bool,
    pub(super) packet_size_max: usize,
    pub(super) method: Option<Box<str>>,
    pub(super) expiry_secs: u32,
    pub(super) receive_maximum: u16,
    pub(super) topic_limits: TopicLimits,
    /// What is to be written next.
    pub(super) out: Outbox,
    /// What has to wait before it is written.
    pub(super) answers: Answers,
    /// The latest ticket that an answer was given with.
    pub(super) last_ticket: Ticket,
    pub(super) packets_sent: u64,
    pub(super) aliases: Option<Box<Aliases>>,
    pub(super) routes: Option<Box<RouteCache>>,
    pub(super) exchange: Option<Box<dyn Exchange>>,
    /// How the session is to be closed.
    pub(super) ending: Ending,
}

const SECOND_CONNECT: Fault = Fault::new(
    ReasonCode::ProtocolError,
    "[MQTT-3.1.0-2]",
    "CONNECT was sent a second time",
);
const WRONG_DIRECTION: Fault = Fault::new(
    ReasonCode::ProtocolError,
    "[MQTT5 §2.1.2]",
    "only a server sends this packet",
);
const NO_METHOD: Fault = Fault::new(
    ReasonCode::ProtocolError,
    "[MQTT-4.12.0-7]",
    "AUTH needs an Authentication Method in CONNECT",
);
const EXPIRY_AFTER_NONE: Fault = Fault::new(
    ReasonCode::ProtocolError,
    "[MQTT-3.1.2-23]",
    "a session that began without Session Expiry Interval cannot be given one in DISCONNECT",
);
/// What is gathered while the packets of one read are gone through.
struct Turn<'a, 'd> {
    batch: Batch<'a>,
    publishes: Publishes<'d>,
    acknowledgements: Vec<(Acknowledgement, PacketId)>,
}

impl Client {
    /// Handles all complete packets at the beginning of `data`, and answers how many bytes they
    /// were.
    ///
    /// # Errors
    /// Why the connection ends. What came before the packet that caused it has been done.
    pub(super) fn packets(&mut self, data: &[u8]) -> Result<usize, Farewell> {
        self.read(data, None)
    }

    /// Handles one packet that has a buffer of its own: its payload is not copied any more.
    pub(super) fn packet(&mut self, packet: &Bytes) -> Result<(), Farewell> {
        self.read(packet, Some(packet)).map(|_| ())
    }

    fn read(&mut self, data: &[u8], shared: Option<&Bytes>) -> Result<usize, Farewell> {
        self.renew_rights()?;
        let edge = Arc::clone(&self.edge);
        let mut payload = Bytes::new();
        let mut turn = Turn {
            batch: edge.broker.batch(),
            publishes: Publishes::default(),
            acknowledgements: Vec::new(),
        };
        let mut at = 0;
        let mut packets = 0;
        let result = loop {
            let rest = &data[at..];
            let header = match fixed_header(rest, edge.broker.mqtt().max_packet_size) {
                Ok(Some(header)) if header.total_len() <= rest.len() => header,
                Ok(_) => break Ok(()),
                Err(error) => break Err(error.into()),
            };
            let packet = &rest[..header.total_len()];
            at += header.total_len();
            packets += 1;
            if header.is_connect() {
                break Err(SECOND_CONNECT.into());
            }
            let handled = decode(self.version, header, packet).map_err(Farewell::from);
            if let (Some(shared), Ok(Packet::Publish(publish))) = (shared, &handled) {
                payload = shared.slice_ref(publish.payload);
            }
            match handled {
                Ok(Packet::Publish(publish)) if shared.is_some() => {
                    // The payload's own reference lives for this call only, so the run does too.
                    let mut alone = Publishes::default();
                    let result = alone
                        .add(self, &mut turn.batch, &publish, Some(&payload))
                        .and_then(|()| alone.route(self, &mut turn.batch));
                    if let Err(farewell) = result {
                        break Err(farewell);
                    }
                }
                Ok(packet) => {
                    if let Err(farewell) = self.handle(&mut turn, packet) {
                        break Err(farewell);
                    }
                }
                Err(farewell) => break Err(farewell),
            }
        };
        edge.broker.stats.packets_received.add(packets);
        if packets > 0 {
            self.heard();
        }
        let routed = turn.publishes.route(self, &mut turn.batch);
        let acknowledged = self.acknowledge(&mut turn.acknowledgements);
        result.and(routed).and(acknowledged).map(|()| at)
    }

    /// The client has shown that it is alive.
    pub(super) fn heard(&self) {
        self.session.heard(self.edge.broker.clock.now());
    }

    fn handle<'d>(&mut self, turn: &mut Turn<'_, 'd>, packet: Packet<'d>) -> Result<(), Farewell> {
        match packet {
            Packet::Publish(publish) => {
                return turn.publishes.add(self, &mut turn.batch, &publish, None);
            }
            Packet::PubAck(ack) => {
                turn.acknowledgements
                    .push((Acknowledgement::Ack, ack.packet_id));
                return Ok(());
            }
            Packet::PubRec(ack) => {
                let what = if ack.reason.is_error() {
                    Acknowledgement::Refused
                } else {
                    Acknowledgement::Received
                };
                turn.acknowledgements.push((what, ack.packet_id));
                return Ok(());
            }
            Packet::PubComp(ack) => {
                turn.acknowledgements
                    .push((Acknowledgement::Complete, ack.packet_id));
                return Ok(());
            }
            _ => {}
        }
        // Everything else takes effect after what came before it.
        turn.publishes.route(self, &mut turn.batch)?;
        self.acknowledge(&mut turn.acknowledgements)?;
        match packet {
            Packet::PubRel(ack) => self.release(&ack),
            Packet::Subscribe(subscribe) => return self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => return self.unsubscribe(&unsubscribe),
            Packet::PingReq => {
                Packet::PingResp.encode(self.version, self.out.tail());
                self.packets_sent += 1;
            }
            Packet::Disconnect(disconnect) => return Err(self.goodbye(&disconnect)),
            Packet::Auth(auth) => return self.authenticate_again(&auth),
            Packet::Connect(_) => return Err(SECOND_CONNECT.into()),
            _ => return Err(WRONG_DIRECTION.into()),
        }
        Ok(())
    }

    /// Hands in acknowledgements, and answers each PUBREC with PUBREL [MQTT-4.3.3-4].
    fn acknowledge(
        &mut self,
        acknowledgements: &mut Vec<(Acknowledgement, PacketId)>,
    ) -> Result<(), Farewell> {
        if acknowledgements.is_empty() {
            return Ok(());
        }
        let mut unknown = Vec::new();
        let broker = &self.edge.broker;
        let ticket = broker.acknowledge(&self.session, self.epoch, acknowledgements, &mut unknown);
        for (index, &(what, id)) in acknowledgements.iter().enumerate() {
            let is_unknown = unknown.binary_search(&index).is_ok();
            if is_unknown {
                tracing::debug!(
                    client = %self.session.client_id(),
                    ?what,
                    packet_id = id.get(),
                    "acknowledgement of a message that is not in flight"
                );
            }
            if what == Acknowledgement::Received {
                let reason = if is_unknown {
                    ReasonCode::PacketIdentifierNotFound
                } else {
                    ReasonCode::Success
                };
                self.reply(AckKind::PubRel, id, reason, ticket);
            }
        }
        acknowledgements.clear();
        Ok(())
    }

    fn release(&mut self, ack: &Ack<'_>) {
        let broker = &self.edge.broker;
        let released = broker.release(&self.session, self.epoch, ack.packet_id);
        let reason = match released {
            Some(_) => ReasonCode::Success,
            None => ReasonCode::PacketIdentifierNotFound,
        };
        let ticket = released.unwrap_or_default();
        self.reply(AckKind::PubComp, ack.packet_id, reason, ticket);
    }

    pub(super) fn check_user_properties(&self, properties: Properties<'_>) -> Result<(), Farewell> {
        let maximum = self.edge.broker.limits().user_properties_max;
        if !properties.is_empty() && properties.user_property_count() > maximum {
            return Err(TOO_MANY_USER_PROPERTIES.into());
        }
        Ok(())
    }

    fn goodbye(&mut self, disconnect: &Disconnect<'_>) -> Farewell {
        let expiry = disconnect.properties.session_expiry_interval();
        if self.expiry_secs == 0 && expiry.is_some_and(|expiry| expiry > 0) {
            return EXPIRY_AFTER_NONE.into();
        }
        let expiry_max = self.edge.broker.mqtt().session_expiry_max.as_secs();
        self.ending = Ending::Goodbye {
            // Any reason but 0x00 leaves the will in force [MQTT-3.14.4-3].
            with_will: disconnect.reason != ReasonCode::NORMAL_DISCONNECTION,
            expiry_secs: expiry.map(|expiry| bounded(expiry, expiry_max)),
        };
        Farewell::Goodbye
    }

    /// AUTH on a connection that is authenticated: the client proves again who it is, as itself
    /// (MQTT 5 §4.12.1).
    fn authenticate_again(&mut self, auth: &Auth<'_>) -> Result<(), Farewell> {
        let Some(method) = self.method.clone() else {
            return Err(NO_METHOD.into());
        };
        let expected = match self.exchange {
            None => ReasonCode::ReAuthenticate,
            Some(_) => ReasonCode::ContinueAuthentication,
        };
        let data = auth_data(auth, expected, &method)?;
        let mut exchange = match self.exchange.take() {
            Some(exchange) => exchange,
            None => self
                .edge
                .access
                .begin(&method, self.session.client_id())
                .ok_or(NO_METHOD)?,
        };
        match exchange.step(&data) {
            Step::Continue(data) => {
                let reason = ReasonCode::ContinueAuthentication;
                auth_packet(reason, &method, &data, self.out.tail());
                self.exchange = Some(exchange);
            }
            Step::Done { principal, data } => {
                if principal.user() != self.principal.user() {
                    return Err(Fault::new(
                        ReasonCode::NotAuthorized,
                        "[MQTT5 §4.12.1]",
                        "a connection cannot become another user's",
                    )
                    .into());
                }
                auth_packet(ReasonCode::Success, &method, &data, self.out.tail());
                let broker = &self.edge.broker;
                broker.change_principal(&self.session, self.epoch, &principal);
                self.principal = principal;
                self.routes = None;
            }
            Step::Failed(error) => return Err(auth_fault(error).into()),
        }
        self.packets_sent += 1;
        Ok(())
    }

    /// Acknowledges something, once `ticket` is durable.
    pub(super) fn reply(
        &mut self,
        kind: AckKind,
        id: PacketId,
        reason: ReasonCode,
        ticket: Ticket,
    ) {
        self.answer(Answer::Ack(kind, id, reason), ticket, None);
    }

    /// Gives an answer once `ticket` is durable, or `message` needs not be kept any more.
    pub(super) fn answer(
        &mut self,
        answer: Answer,
        ticket: Ticket,
        message: Option<&Arc<Message>>,
    ) {
        let broker = &self.edge.broker;
        self.last_ticket = self.last_ticket.max(ticket);
        let (version, out) = (self.version, &mut self.out);
        self.answers
            .give(answer, ticket, message, broker, version, out);
        self.packets_sent += 1;
    }

    /// Takes over rights that were changed by a reload of the configuration.
    fn renew_rights(&mut self) -> Result<(), Farewell> {
        let rights = self.edge.broker.rights_generation();
        if rights == self.rights {
            return Ok(());
        }
        self.rights = rights;
        self.routes = None;
        let broker = &self.edge.broker;
        self.principal = broker
            .principal(&self.session, self.epoch)
            .ok_or(Farewell::Closing(Closing::TakenOver))?;
        Ok(())
    }
}

impl From<ProtocolError> for Box<Fault> {
    fn from(error: ProtocolError) -> Box<Fault> {
        Box::new(error.into())
    }
}
