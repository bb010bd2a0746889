//! CONNECT (MQTT 5 §3.1): the only packet that says which version it is of.

use super::fixed_header::CONNECT;
use super::properties::Allowed;
use super::reader::Reader;
use super::{Properties, ProtocolError, QoS, ReasonCode, Version, writer};

const RESERVED: u8 = 0b0000_0001;
const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_QOS_SHIFT: u8 = 3;
const WILL_QOS: u8 = 0b0001_1000;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

const PROTOCOL_NAME: ProtocolError = ProtocolError::new(
    ReasonCode::UnsupportedProtocolVersion,
    "[MQTT-3.1.2-1] [MQTT311-3.1.2-1]",
    "the Protocol Name is neither MQTT nor MQIsdp",
);
const PROTOCOL_LEVEL: ProtocolError = ProtocolError::new(
    ReasonCode::UnsupportedProtocolVersion,
    "[MQTT-3.1.2-2] [MQTT311-3.1.2-2]",
    "the protocol version is none of 3.1 (MQIsdp, 3), 3.1.1 (MQTT, 4) and 5.0 (MQTT, 5)",
);
const RESERVED_FLAG: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.1.2-3] [MQTT311-3.1.2-3]",
    "the reserved bit of the Connect Flags is set",
);
const WILL_QOS_3: ProtocolError =
    ProtocolError::malformed("[MQTT-3.1.2-12] [MQTT311-3.1.2-14]", "the Will QoS is 3");
const WILL_QOS_WITHOUT_WILL: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.1.2-11] [MQTT311-3.1.2-13]",
    "the Will QoS is set although there is no Will",
);
const WILL_RETAIN_WITHOUT_WILL: ProtocolError = ProtocolError::malformed(
    "[MQTT-3.1.2-13] [MQTT311-3.1.2-15]",
    "Will Retain is set although there is no Will",
);
const WILL_TOPIC_EMPTY: ProtocolError = ProtocolError::malformed(
    "[MQTT-4.7.3-1] [MQTT311-4.7.3-1]",
    "the Will Topic is empty",
);
const PASSWORD_WITHOUT_USER_NAME: ProtocolError = ProtocolError::malformed(
    "[MQTT311-3.1.2-22]",
    "there is a password without a user name, which MQTT allows only from version 5",
);
const CLIENT_ID_EMPTY: ProtocolError = ProtocolError::new(
    ReasonCode::ClientIdentifierNotValid,
    "[MQTT311-3.1.3-8]",
    "the Client Identifier is empty, which needs Clean Session (MQTT 3.1.1) or MQTT 5",
);
const AUTHENTICATION_DATA_ALONE: ProtocolError = ProtocolError::protocol(
    "[MQTT5 §3.1.2.11.10]",
    "there is Authentication Data without an Authentication Method",
);

/// The request to open a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version of this and all further packets of the connection.
    pub version: Version,
    /// Clean Start; in MQTT 3 Clean Session, which also ends the Session with the connection.
    pub clean_start: bool,
    /// Keep Alive; 0 turns it off.
    pub keep_alive_secs: u16,
    /// May be empty: the server then chooses. Not bounded to the 23 characters of MQTT 3.1, since
    /// clients never cared and MQTT 3.1.1 lets a server allow more.
    pub client_id: &'a str,
    /// What to publish when the connection ends without DISCONNECT.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password: any bytes.
    pub password: Option<&'a [u8]>,
    /// The properties, empty in MQTT 3.
    pub properties: Properties<'a>,
}

/// A Will Message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Will<'a> {
    /// The Quality of Service to publish it with.
    pub qos: QoS,
    /// Whether to publish it as a Retained Message.
    pub retain: bool,
    /// A Topic Name: neither empty nor with wildcards.
    pub topic: &'a str,
    /// Any bytes.
    pub payload: &'a [u8],
    /// The Will Properties, empty in MQTT 3.
    pub properties: Properties<'a>,
}

impl<'a> Connect<'a> {
    /// Reads no more than Protocol Name and Protocol Level. With this a server can answer a
    /// CONNECT that [`decode`](super::decode) refuses in the form that its client understands.
    ///
    /// `packet` is the whole packet; `None` if it is no CONNECT of a version that exists here.
    pub fn peek_version(packet: &[u8]) -> Option<Version> {
        let header = super::fixed_header(packet, super::PACKET_SIZE_MAX).ok()??;
        let body = packet.get(header.header_len..)?;
        if !header.is_connect() {
            return None;
        }
        read_version(&mut Reader::new(body)).ok()
    }

    pub(crate) fn decode(body: &'a [u8]) -> Result<Connect<'a>, ProtocolError> {
        let mut reader = Reader::new(body);
        let version = read_version(&mut reader)?;
        let flags = reader.u8()?;
        check_flags(version, flags)?;
        let keep_alive_secs = reader.u16()?;
        let properties = Properties::read(&mut reader, version, &Allowed::CONNECT)?;
        if properties.authentication_data().is_some()
            && properties.authentication_method().is_none()
        {
            return Err(AUTHENTICATION_DATA_ALONE);
        }
        let client_id = reader.string()?;
        let clean_start = flags & CLEAN_START != 0;
        let client_id_may_be_empty = match version {
            Version::V31 => false,
            Version::V311 => clean_start,
            Version::V5 => true,
        };
        if client_id.is_empty() && !client_id_may_be_empty {
            return Err(CLIENT_ID_EMPTY);
        }
        let will = match flags & WILL {
            0 => None,
            _ => Some(Will::decode(version, flags, &mut reader)?),
        };
        // MQTT 3.1 §3.1: a field that the flags announce may be missing at the end of the packet.
        let announced = |flag, reader: &Reader<'_>| {
            flags & flag != 0 && !(version == Version::V31 && reader.is_empty())
        };
        let username = match announced(USER_NAME, &reader) {
            true => Some(reader.string()?),
            false => None,
        };
        let password = match announced(PASSWORD, &reader) {
            true => Some(reader.binary()?),
            false => None,
        };
        reader.finish()?;
        Ok(Connect {
            version,
            clean_start,
            keep_alive_secs,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    /// Appends the packet, in its own version.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let version = self.version;
        let will_flags = self.will.map_or(0, |will| {
            let retain = if will.retain { WILL_RETAIN } else { 0 };
            WILL | will.qos.as_u8() << WILL_QOS_SHIFT | retain
        });
        let flags = will_flags
            | if self.clean_start { CLEAN_START } else { 0 }
            | if self.username.is_some() {
                USER_NAME
            } else {
                0
            }
            | if self.password.is_some() { PASSWORD } else { 0 };
        writer::packet(out, CONNECT << 4, |out| {
            writer::string(out, version.protocol_name());
            out.extend_from_slice(&[version.protocol_level(), flags]);
            writer::u16(out, self.keep_alive_secs);
            self.properties.write(version, out);
            writer::string(out, self.client_id);
            if let Some(will) = &self.will {
                will.properties.write(version, out);
                writer::string(out, will.topic);
                writer::binary(out, will.payload);
            }
            if let Some(username) = self.username {
                writer::string(out, username);
            }
            if let Some(password) = self.password {
                writer::binary(out, password);
            }
        });
    }
}

impl<'a> Will<'a> {
    fn decode(
        version: Version,
        flags: u8,
        reader: &mut Reader<'a>,
    ) -> Result<Will<'a>, ProtocolError> {
        let qos = QoS::from_u8((flags & WILL_QOS) >> WILL_QOS_SHIFT).ok_or(WILL_QOS_3)?;
        let properties = Properties::read(reader, version, &Allowed::WILL)?;
        let topic = reader.topic_name()?;
        if topic.is_empty() {
            return Err(WILL_TOPIC_EMPTY);
        }
        let payload = reader.binary()?;
        Ok(Will {
            qos,
            retain: flags & WILL_RETAIN != 0,
            topic,
            payload,
            properties,
        })
    }
}

/// Name and level first: they decide how to read all that follows.
fn read_version(reader: &mut Reader<'_>) -> Result<Version, ProtocolError> {
    let name = reader.binary()?;
    let level = reader.u8();
    match (name, level) {
        (b"MQTT", Ok(5)) => Ok(Version::V5),
        (b"MQTT", Ok(4)) => Ok(Version::V311),
        (b"MQIsdp", Ok(3)) => Ok(Version::V31),
        (b"MQTT" | b"MQIsdp", Ok(_)) => Err(PROTOCOL_LEVEL),
        (b"MQTT" | b"MQIsdp", Err(truncated)) => Err(truncated),
        _ => Err(PROTOCOL_NAME),
    }
}

/// MQTT 3.1 says of the reserved bit, and of Will QoS and Will Retain without a Will, that they
/// are disregarded; the later versions want them to be 0.
fn check_flags(version: Version, flags: u8) -> Result<(), ProtocolError> {
    if version != Version::V31 {
        if flags & RESERVED != 0 {
            return Err(RESERVED_FLAG);
        }
        if flags & WILL == 0 && flags & WILL_QOS != 0 {
            return Err(WILL_QOS_WITHOUT_WILL);
        }
        if flags & WILL == 0 && flags & WILL_RETAIN != 0 {
            return Err(WILL_RETAIN_WITHOUT_WILL);
        }
    }
    if flags & WILL != 0 && flags & WILL_QOS == WILL_QOS {
        return Err(WILL_QOS_3);
    }
    if !version.is_v5() && flags & PASSWORD != 0 && flags & USER_NAME == 0 {
        return Err(PASSWORD_WITHOUT_USER_NAME);
    }
    Ok(())
}

impl std::fmt::Debug for Connect<'_> {
    /// The password stays out of logs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_secs", &self.keep_alive_secs)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &self.password.map(|_| "…"))
            .field("properties", &self.properties)
            .finish()
    }
}
