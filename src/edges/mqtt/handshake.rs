//! The beginning of a connection: CONNECT, authentication, CONNACK.

use std::borrow::Cow;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tidings_protocol::mqtt::{
    Auth, ConnAck, Connect, Packet, Properties, PropertiesBuilder, Property, QoS, ReasonCode,
    Version, decode, fixed_header,
};
use tidings_protocol::topic;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Edge;
use super::farewell::{Fault, TOO_MANY_USER_PROPERTIES};
use crate::access::{AuthError, Principal, Step};
use crate::broker::{Broker, Ending, Open, OpenError, Opened};
use crate::store::until_durable;

/// A connection that was let in.
pub struct Accepted {
    pub opened: Opened,
    pub principal: Principal,
    pub version: Version,
    /// Whether the client wants to be told why (Request Problem Information) [MQTT-3.1.2-29].
    pub explain: bool,
    pub packet_size_max: usize,
    /// The method of enhanced authentication, for authenticating again.
    pub method: Option<Box<str>>,
    /// The Session Expiry Interval that the client named.
    pub expiry_secs: u32,
    /// CONNACK, to be sent first.
    pub answer: Vec<u8>,
    /// What was read beyond CONNECT.
    pub rest: BytesMut,
}

/// Why a connection was not let in.
pub enum Refusal {
    /// The network failed, or what came was not worth an answer.
    Gone,
    /// CONNACK with a reason; in version 3 only where a return code exists for it.
    Refused {
        version: Version,
        explain: bool,
        /// The longest packet that the client accepts.
        packet_size_max: usize,
        fault: Fault,
        client_id: Box<str>,
    },
}

/// Limit for packets to a client that named none.
const PACKET_SIZE_UNLIMITED: usize = tidings_protocol::mqtt::PACKET_SIZE_MAX;

/// How long a connection that is taken over may take to handle what its client sent before.
const TAKEOVER_PATIENCE: Duration = Duration::from_secs(1);

const NOT_CONNECT: Fault = Fault::new(
    ReasonCode::ProtocolError,
    "[MQTT-3.1.0-1]",
    "the first packet must be CONNECT",
);

/// Reads CONNECT, finds out who it is, and opens the session.
pub async fn handshake<S>(stream: &mut S, edge: &Arc<Edge>) -> Result<Accepted, Refusal>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    let packet = read_packet(
        stream,
        &mut buffer,
        edge.broker.mqtt().connect_packet_size_max,
    )
    .await
    .map_err(|fault| refuse_unread(fault, &buffer))?;
    let version = Connect::peek_version(&packet).unwrap_or(Version::V311);
    let refuse = |fault: Fault| Refusal::Refused {
        version,
        explain: true,
        packet_size_max: PACKET_SIZE_UNLIMITED,
        fault,
        client_id: "".into(),
    };
    let header = fixed_header(&packet, usize::MAX)
        .map_err(|error| refuse(error.into()))?
        .ok_or(Refusal::Gone)?;
    let connect = match decode(version, header, &packet) {
        Ok(Packet::Connect(connect)) => connect,
        Ok(_) => return Err(Refusal::Gone),
        Err(error) => return Err(refuse(error.into())),
    };
    Greeting { edge, connect }.answer(stream, buffer).await
}

/// Nothing that came could be understood: who does not even send CONNECT gets no answer.
fn refuse_unread(fault: Option<Fault>, buffer: &[u8]) -> Refusal {
    match fault {
        Some(fault) if fault != NOT_CONNECT => Refusal::Refused {
            version: Connect::peek_version(buffer).unwrap_or(Version::V311),
            explain: true,
            packet_size_max: PACKET_SIZE_UNLIMITED,
            fault,
            client_id: "".into(),
        },
        Some(fault) => {
            tracing::debug!(clause = fault.clause, "connection ended: {}", fault.message);
            Refusal::Gone
        }
        None => Refusal::Gone,
    }
}

/// Reads one packet; memory grows with what arrives, not with what is announced.
async fn read_packet<S>(
    stream: &mut S,
    buffer: &mut BytesMut,
    size_max: usize,
) -> Result<BytesMut, Option<Fault>>
where
    S: AsyncRead + Unpin,
{
    loop {
        if let Some(&first) = buffer.first()
            && first >> 4 != 1
            && first >> 4 != 15
            && first >> 4 != 14
        {
            return Err(Some(NOT_CONNECT));
        }
        if let Some(header) = fixed_header(buffer, size_max).map_err(|error| Some(error.into()))? {
            let len = header.total_len();
            if buffer.len() >= len {
                return Ok(buffer.split_to(len));
            }
        }
        if buffer.capacity() - buffer.len() < 256 {
            buffer.reserve(1024);
        }
        match stream.read_buf(buffer).await {
            Ok(0) | Err(_) => return Err(None),
            Ok(_) => {}
        }
    }
}

/// A CONNECT that is to be answered.
struct Greeting<'a> {
    edge: &'a Arc<Edge>,
    connect: Connect<'a>,
}

impl Greeting<'_> {
    fn explain(&self) -> bool {
        self.connect.properties.request_problem_information() != Some(false)
    }

    fn refuse(&self, fault: Fault) -> Refusal {
        Refusal::Refused {
            version: self.connect.version,
            explain: self.explain(),
            packet_size_max: packet_size_max(&self.connect.properties),
            fault,
            client_id: self.connect.client_id.into(),
        }
    }

    async fn answer<S>(self, stream: &mut S, mut buffer: BytesMut) -> Result<Accepted, Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connect = &self.connect;
        let broker = &self.edge.broker;
        let (client_id, assigned) = self.client_id().map_err(|fault| self.refuse(fault))?;
        self.check_will().map_err(|fault| self.refuse(fault))?;
        if connect.properties.user_property_count() > broker.limits().user_properties_max {
            return Err(self.refuse(TOO_MANY_USER_PROPERTIES));
        }
        let method = connect.properties.authentication_method();
        let (principal, last_data) = match method {
            Some(method) => {
                self.exchange(stream, &mut buffer, method, &client_id)
                    .await?
            }
            None => {
                let principal = self.identify(&client_id).await;
                let principal = principal.map_err(|error| self.refuse(auth_fault(error)))?;
                (principal, None)
            }
        };
        if broker.stats.clients_connected.get() as usize >= broker.limits().connections_max {
            return Err(self.refuse(TOO_MANY_CONNECTIONS));
        }
        let terms = Terms::of(connect, broker.mqtt());
        let vacant = poll_fn(|cx| broker.poll_vacant(&client_id, &principal, cx.waker()));
        // Whoever has not let go by then is cut off.
        let _ = tokio::time::timeout(TAKEOVER_PATIENCE, vacant).await;
        let opened = broker
            .open(&Open {
                client_id: &client_id,
                principal: principal.clone(),
                clean_start: connect.clean_start,
                expiry_secs: terms.expiry_secs,
                will: connect.will.as_ref(),
                version: connect.version,
                receive_maximum: terms.receive_maximum,
                packet_size_max: terms.packet_size_max,
                topic_alias_maximum: terms.topic_alias_maximum,
                silence_max: u64::from(terms.keep_alive_secs) * 1500,
            })
            .map_err(|error| self.refuse(open_fault(error)))?;
        // CONNACK says that the session is there: so it must be [MQTT-3.2.2-2].
        let mut opening = Opening(Some((broker, &opened)));
        if let Err(error) = until_durable(broker.store(), opened.ticket).await {
            tracing::error!(%error, "a session could not be kept");
            return Err(self.refuse(STORE_FAILED));
        }
        opening.0 = None;
        drop(opening);
        let mut answer = Vec::new();
        let assigned = assigned.then_some(&*client_id);
        self.connack(
            &terms,
            &opened,
            assigned,
            method,
            last_data.as_deref(),
            &mut answer,
        );
        tracing::debug!(
            client = %client_id,
            version = connect.version.as_str(),
            present = opened.present,
            "connected"
        );
        Ok(Accepted {
            opened,
            principal,
            version: connect.version,
            explain: self.explain(),
            packet_size_max: terms.packet_size_max,
            method: method.map(Into::into),
            expiry_secs: terms.expiry_secs,
            answer,
            rest: buffer,
        })
    }

    /// The Client Identifier, made up if the client left that to us [MQTT-3.1.3-6].
    fn client_id(&self) -> Result<(Cow<'_, str>, bool), Fault> {
        let connect = &self.connect;
        if !connect.client_id.is_empty() {
            return Ok((Cow::Borrowed(connect.client_id), false));
        }
        let allowed = self.edge.broker.mqtt().allow_zero_length_client_id;
        match connect.version {
            // 3.1 asks for 1 to 23 characters.
            Version::V31 => Err(Fault::new(
                ReasonCode::ClientIdentifierNotValid,
                "[MQTT 3.1 §3.1]",
                "the Client Identifier is empty",
            )),
            Version::V311 if !connect.clean_start => Err(Fault::new(
                ReasonCode::ClientIdentifierNotValid,
                "[MQTT311-3.1.3-8]",
                "an empty Client Identifier needs a clean session",
            )),
            _ if !allowed => Err(Fault::new(
                ReasonCode::ClientIdentifierNotValid,
                "",
                "this server does not assign Client Identifiers",
            )),
            _ => Ok((Cow::Owned(make_client_id()), true)),
        }
    }

    fn check_will(&self) -> Result<(), Fault> {
        let Some(will) = &self.connect.will else {
            return Ok(());
        };
        let mqtt = self.edge.broker.mqtt();
        if will.qos.as_u8() > mqtt.max_qos {
            return Err(Fault::new(
                ReasonCode::QoSNotSupported,
                "[MQTT-3.2.2-12]",
                "the will's QoS is higher than this server offers",
            ));
        }
        if will.retain && !mqtt.retain_available {
            return Err(Fault::new(
                ReasonCode::RetainNotSupported,
                "[MQTT-3.2.2-13]",
                "this server retains no messages",
            ));
        }
        if will.properties.user_property_count() > self.edge.broker.limits().user_properties_max {
            return Err(TOO_MANY_USER_PROPERTIES);
        }
        topic::name_is_valid(will.topic, &self.edge.broker.topic_limits()).map_err(|error| {
            Fault::new(
                ReasonCode::TopicNameInvalid,
                "[MQTT-3.1.3-11]",
                error.as_str(),
            )
        })
    }

    async fn identify(&self, client_id: &str) -> Result<Principal, AuthError> {
        let access = &self.edge.access;
        match (self.connect.username, self.connect.password) {
            (Some(user), password) => {
                access
                    .password(client_id, user, password.unwrap_or_default())
                    .await
            }
            (None, Some(_)) if !access.anonymous_allowed() => Err(AuthError::BadCredentials),
            (None, _) => access.anonymous(client_id),
        }
    }

    /// Enhanced authentication: AUTH back and forth until the method is satisfied
    /// (MQTT 5 §4.12).
    async fn exchange<S>(
        &self,
        stream: &mut S,
        buffer: &mut BytesMut,
        method: &str,
        client_id: &str,
    ) -> Result<(Principal, Option<Vec<u8>>), Refusal>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let Some(mut exchange) = self.edge.access.begin(method, client_id) else {
            return Err(self.refuse(Fault::new(
                ReasonCode::BadAuthenticationMethod,
                "[MQTT-4.12.0-1]",
                "this server does not offer that authentication method",
            )));
        };
        let mut data = self
            .connect
            .properties
            .authentication_data()
            .unwrap_or_default()
            .to_vec();
        loop {
            match exchange.step(&data) {
                Step::Done { principal, data } => {
                    return Ok((principal, (!data.is_empty()).then_some(data)));
                }
                Step::Failed(error) => return Err(self.refuse(auth_fault(error))),
                Step::Continue(challenge) => {
                    let mut packet = Vec::new();
                    auth_packet(
                        ReasonCode::ContinueAuthentication,
                        method,
                        &challenge,
                        &mut packet,
                    );
                    stream.write_all(&packet).await.map_err(|_| Refusal::Gone)?;
                    data = self.next_auth(stream, buffer, method).await?;
                }
            }
        }
    }

    /// The client's next AUTH; nothing else but DISCONNECT may come now [MQTT-4.12.0-4].
    async fn next_auth<S>(
        &self,
        stream: &mut S,
        buffer: &mut BytesMut,
        method: &str,
    ) -> Result<Vec<u8>, Refusal>
    where
        S: AsyncRead + Unpin,
    {
        let size_max = self.edge.broker.mqtt().connect_packet_size_max;
        let packet = read_packet(stream, buffer, size_max)
            .await
            .map_err(|fault| fault.map_or(Refusal::Gone, |fault| self.refuse(fault)))?;
        let header = fixed_header(&packet, usize::MAX)
            .map_err(|error| self.refuse(error.into()))?
            .ok_or(Refusal::Gone)?;
        match decode(Version::V5, header, &packet) {
            Ok(Packet::Auth(auth)) => auth_data(&auth, ReasonCode::ContinueAuthentication, method)
                .map_err(|fault| self.refuse(fault)),
            Ok(Packet::Disconnect(_)) => Err(Refusal::Gone),
            Ok(_) => Err(self.refuse(Fault::new(
                ReasonCode::ProtocolError,
                "[MQTT-3.1.2-30]",
                "only AUTH or DISCONNECT may follow while authenticating",
            ))),
            Err(error) => Err(self.refuse(error.into())),
        }
    }

    fn connack(
        &self,
        terms: &Terms,
        opened: &Opened,
        assigned: Option<&str>,
        method: Option<&str>,
        data: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) {
        let mqtt = self.edge.broker.mqtt();
        let asked = &self.connect.properties;
        let mut properties = PropertiesBuilder::new();
        if self.connect.version.is_v5() {
            if asked.session_expiry_interval().unwrap_or(0) != terms.expiry_secs {
                properties.push(Property::SessionExpiryInterval(terms.expiry_secs));
            }
            properties.push(Property::ReceiveMaximum(mqtt.receive_maximum.get()));
            if let Some(qos) = QoS::from_u8(mqtt.max_qos)
                && qos < QoS::ExactlyOnce
            {
                properties.push(Property::MaximumQoS(qos));
            }
            if !mqtt.retain_available {
                properties.push(Property::RetainAvailable(false));
            }
            properties.push(Property::MaximumPacketSize(mqtt.max_packet_size as u32));
            if let Some(assigned) = assigned {
                properties.push(Property::AssignedClientIdentifier(assigned));
            }
            if mqtt.topic_alias_maximum > 0 {
                properties.push(Property::TopicAliasMaximum(mqtt.topic_alias_maximum));
            }
            if terms.keep_alive_secs != self.connect.keep_alive_secs {
                properties.push(Property::ServerKeepAlive(terms.keep_alive_secs));
            }
            let client_id = opened.session.client_id();
            let response = format!("response/{client_id}");
            if asked.request_response_information() == Some(true)
                && !topic::has_wildcard(client_id)
                && response.len() <= usize::from(u16::MAX)
            {
                properties.push(Property::ResponseInformation(&response));
            }
            if let Some(method) = method {
                properties.push(Property::AuthenticationMethod(method));
            }
            if let Some(data) = data {
                properties.push(Property::AuthenticationData(data));
            }
        }
        ConnAck {
            session_present: opened.present,
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        }
        .encode(self.connect.version, out);
    }
}

/// A session that was opened for a connection which is not answered yet. If it never is, because
/// the store failed or the time is up, the session is told.
struct Opening<'a>(Option<(&'a Broker, &'a Opened)>);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some((broker, opened)) = self.0 {
            broker.close(&opened.session, opened.epoch, Ending::Lost);
        }
    }
}

/// What a connection gets of what it asked for.
struct Terms {
    expiry_secs: u32,
    receive_maximum: u16,
    packet_size_max: usize,
    topic_alias_maximum: u16,
    keep_alive_secs: u16,
}

impl Terms {
    fn of(connect: &Connect<'_>, mqtt: &crate::config::MqttConfig) -> Terms {
        let asked = &connect.properties;
        let expiry_max = mqtt.session_expiry_max.as_secs();
        let expiry_secs = match connect.version {
            Version::V5 => bounded(asked.session_expiry_interval().unwrap_or(0), expiry_max),
            _ if connect.clean_start => 0,
            _ => bounded(u32::MAX, expiry_max),
        };
        let keep_alive_max = mqtt
            .keep_alive_max
            .map(|maximum| u16::try_from(maximum.as_secs()).unwrap_or(u16::MAX));
        let keep_alive_secs = match (connect.keep_alive_secs, keep_alive_max) {
            (asked, None) => asked,
            (0, Some(maximum)) => maximum,
            (asked, Some(maximum)) => asked.min(maximum),
        };
        Terms {
            expiry_secs,
            receive_maximum: asked
                .receive_maximum()
                .unwrap_or(mqtt.inflight_max.get())
                .max(1),
            packet_size_max: packet_size_max(asked),
            topic_alias_maximum: asked
                .topic_alias_maximum()
                .unwrap_or(0)
                .min(mqtt.topic_alias_maximum_out),
            keep_alive_secs,
        }
    }
}

fn packet_size_max(asked: &Properties<'_>) -> usize {
    asked
        .maximum_packet_size()
        .map_or(PACKET_SIZE_UNLIMITED, |size| size as usize)
}

/// A Session Expiry Interval within the server's maximum in seconds.
pub fn bounded(asked: u32, maximum: u64) -> u32 {
    u32::try_from(maximum).map_or(asked, |maximum| asked.min(maximum))
}

fn make_client_id() -> String {
    let mut random = [0; 12];
    getrandom::fill(&mut random).expect("the operating system has random numbers");
    random
        .iter()
        .fold(String::from("auto-"), |id, byte| format!("{id}{byte:02x}"))
}

/// Appends an AUTH packet.
pub fn auth_packet(reason: ReasonCode, method: &str, data: &[u8], out: &mut Vec<u8>) {
    let mut properties = PropertiesBuilder::new();
    properties.push(Property::AuthenticationMethod(method));
    if !data.is_empty() {
        properties.push(Property::AuthenticationData(data));
    }
    Auth {
        reason,
        properties: properties.as_properties(),
    }
    .encode(Version::V5, out);
}

/// The data of an AUTH that must have this reason, and the method of the CONNECT
/// [MQTT-4.12.0-5].
pub fn auth_data(auth: &Auth<'_>, reason: ReasonCode, method: &str) -> Result<Vec<u8>, Fault> {
    if auth.properties.authentication_method() != Some(method) {
        return Err(Fault::new(
            ReasonCode::ProtocolError,
            "[MQTT-4.12.0-5]",
            "the Authentication Method must stay the one of CONNECT",
        ));
    }
    if auth.reason != reason {
        return Err(Fault::new(
            ReasonCode::ProtocolError,
            "[MQTT-4.12.0-3]",
            "this is not the step of the authentication that must follow",
        ));
    }
    Ok(auth
        .properties
        .authentication_data()
        .unwrap_or_default()
        .to_vec())
}

const TOO_MANY_CONNECTIONS: Fault = Fault::new(
    ReasonCode::ServerBusy,
    "",
    "the limit of connections is reached; try again later",
);

const STORE_FAILED: Fault = Fault::new(
    ReasonCode::ServerUnavailable,
    "",
    "the server cannot store sessions any more",
);

/// What refusals of [`crate::access`] are in MQTT.
pub fn auth_fault(error: AuthError) -> Fault {
    let (reason, clause) = match error {
        AuthError::BadCredentials | AuthError::Token(_) => {
            (ReasonCode::BadUserNameOrPassword, "[MQTT-3.1.4-2]")
        }
        AuthError::NotAuthorized => (ReasonCode::NotAuthorized, "[MQTT-3.1.4-2]"),
        AuthError::Busy => (ReasonCode::ServerBusy, ""),
        AuthError::Malformed(_) => (ReasonCode::NotAuthorized, "[MQTT-4.12.0-4]"),
    };
    Fault {
        reason,
        clause,
        message: Cow::Owned(error.to_string()),
    }
}

fn open_fault(error: OpenError) -> Fault {
    let reason = match error {
        OpenError::TooManySessions => ReasonCode::QuotaExceeded,
        OpenError::ForeignSession => ReasonCode::NotAuthorized,
        OpenError::ShuttingDown => ReasonCode::ServerUnavailable,
    };
    Fault {
        reason,
        clause: "",
        message: Cow::Owned(error.to_string()),
    }
}

impl Refusal {
    /// Tells the client in its protocol's words, if it has any for this.
    pub async fn say<S: AsyncWrite + Unpin>(&self, stream: &mut S, peer: &str) {
        let Refusal::Refused {
            version,
            explain,
            packet_size_max,
            fault,
            client_id,
        } = self
        else {
            return;
        };
        tracing::info!(
            client = &**client_id,
            address = peer,
            clause = fault.clause,
            reason = %fault.reason,
            "connection refused: {}",
            fault.message
        );
        let malformed = matches!(
            fault.reason,
            ReasonCode::MalformedPacket | ReasonCode::ProtocolError | ReasonCode::PacketTooLarge
        );
        if !version.is_v5() && malformed {
            // Version 3 has no return code for it: the connection is closed, nothing is said
            // [MQTT311-4.8.0-1].
            return;
        }
        let mut properties = PropertiesBuilder::new();
        // [MQTT-3.2.2-19]
        if *explain && fault.message.len() + 16 <= *packet_size_max {
            properties.push(Property::ReasonString(&fault.message));
        }
        let mut packet = Vec::new();
        ConnAck {
            session_present: false,
            reason: fault.reason,
            properties: properties.as_properties(),
        }
        .encode(*version, &mut packet);
        // If it does not even take this, there is nobody to tell.
        let _ = stream.write_all(&packet).await;
        let _ = stream.shutdown().await;
    }
}
