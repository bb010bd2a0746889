//! The property section of a packet: a validated slice that is read when asked.
//!
//! Decoding checks every property once and keeps the slice and a set of the identifiers that occur
//! in it. A getter for a property that is absent, the usual case, is one test of a bit.

use super::property::{self as id, Property};
use super::reader::Reader;
use super::{ProtocolError, QoS, Version, writer};

const SECTION_TOO_LONG: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §2.2.2.1]",
    "the Property Length reaches past the end of the packet",
);
const PROPERTY_TOO_LONG: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §2.2.2.1]",
    "a property reaches past the end of the property section",
);
const NOT_ALLOWED: ProtocolError = ProtocolError::malformed(
    "[MQTT5 §2.2.2.2]",
    "a property is not allowed in this packet",
);
const DUPLICATE: ProtocolError = ProtocolError::protocol(
    "[MQTT5 §2.2.2.2]",
    "a property that may occur once occurs more than once",
);

/// A set of property identifiers; the largest, 42, fits into 64 bits.
const fn set(identifiers: &[u8]) -> u64 {
    let mut bits = 0;
    let mut index = 0;
    while index < identifiers.len() {
        bits |= 1 << identifiers[index];
        index += 1;
    }
    bits
}

/// Which properties a packet may carry, and which of them more than once (MQTT 5 table 2-4).
pub(crate) struct Allowed {
    any: u64,
    repeated: u64,
}

impl Allowed {
    const fn new(identifiers: &[u8]) -> Allowed {
        let user = set(&[id::USER_PROPERTY]);
        Allowed {
            any: set(identifiers) | user,
            repeated: user,
        }
    }

    pub(crate) const CONNECT: Allowed = Allowed::new(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REQUEST_PROBLEM_INFORMATION,
        id::REQUEST_RESPONSE_INFORMATION,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::MAXIMUM_PACKET_SIZE,
    ]);
    pub(crate) const WILL: Allowed = Allowed::new(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::WILL_DELAY_INTERVAL,
    ]);
    pub(crate) const CONNACK: Allowed = Allowed::new(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::ASSIGNED_CLIENT_IDENTIFIER,
        id::SERVER_KEEP_ALIVE,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::RESPONSE_INFORMATION,
        id::SERVER_REFERENCE,
        id::REASON_STRING,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::MAXIMUM_QOS,
        id::RETAIN_AVAILABLE,
        id::MAXIMUM_PACKET_SIZE,
        id::WILDCARD_SUBSCRIPTION_AVAILABLE,
        id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
        id::SHARED_SUBSCRIPTION_AVAILABLE,
    ]);
    /// A server's PUBLISH may carry several Subscription Identifiers (MQTT 5 §3.3.2.3.8).
    pub(crate) const PUBLISH: Allowed = {
        let mut allowed = Allowed::new(&[
            id::PAYLOAD_FORMAT_INDICATOR,
            id::MESSAGE_EXPIRY_INTERVAL,
            id::CONTENT_TYPE,
            id::RESPONSE_TOPIC,
            id::CORRELATION_DATA,
            id::SUBSCRIPTION_IDENTIFIER,
            id::TOPIC_ALIAS,
        ]);
        allowed.repeated |= set(&[id::SUBSCRIPTION_IDENTIFIER]);
        allowed
    };
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
    pub(crate) const ACK: Allowed = Allowed::new(&[id::REASON_STRING]);
    pub(crate) const SUBSCRIBE: Allowed = Allowed::new(&[id::SUBSCRIPTION_IDENTIFIER]);
    pub(crate) const UNSUBSCRIBE: Allowed = Allowed::new(&[]);
    pub(crate) const DISCONNECT: Allowed = Allowed::new(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::SERVER_REFERENCE,
        id::REASON_STRING,
    ]);
    pub(crate) const AUTH: Allowed = Allowed::new(&[
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REASON_STRING,
    ]);
}

/// What a server changes when it forwards a message: these are not forwarded as they came.
const PER_HOP: u64 = set(&[
    id::TOPIC_ALIAS,
    id::MESSAGE_EXPIRY_INTERVAL,
    id::SUBSCRIPTION_IDENTIFIER,
]);

/// The properties of a packet, without the length in front. Empty in MQTT 3.
#[derive(Clone, Copy, Default)]
pub struct Properties<'a> {
    bytes: &'a [u8],
    present: u64,
}

impl<'a> Properties<'a> {
    /// No properties.
    pub const EMPTY: Properties<'static> = Properties {
        bytes: &[],
        present: 0,
    };

    /// Reads length and properties, and checks them for a packet that may carry `allowed`.
    #[inline]
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        version: Version,
        allowed: &Allowed,
    ) -> Result<Properties<'a>, ProtocolError> {
        if !version.is_v5() {
            return Ok(Properties::EMPTY);
        }
        if reader.peek() == Some(0) {
            reader.u8()?;
            return Ok(Properties::EMPTY);
        }
        Properties::read_some(reader, allowed)
    }

    fn read_some(
        reader: &mut Reader<'a>,
        allowed: &Allowed,
    ) -> Result<Properties<'a>, ProtocolError> {
        let len = reader.variable()?;
        let bytes = reader.bytes(len as usize).map_err(|_| SECTION_TOO_LONG)?;
        let mut section = Reader::new(bytes);
        let mut present = 0;
        while let Some(identifier) = section.peek() {
            let bit = 1_u64.checked_shl(u32::from(identifier)).unwrap_or(0);
            if present & bit & !allowed.repeated != 0 {
                return Err(DUPLICATE);
            }
            if allowed.any & bit == 0 {
                return Err(if KNOWN & bit == 0 {
                    id::UNKNOWN_PROPERTY
                } else {
                    NOT_ALLOWED
                });
            }
            // A field that is cut off here is cut off by the section, not by the packet.
            Property::read(&mut section).map_err(|error| match error {
                super::reader::TRUNCATED => PROPERTY_TOO_LONG,
                error => error,
            })?;
            present |= bit;
        }
        Ok(Properties { bytes, present })
    }

    /// Properties from bytes that [`as_bytes`](Properties::as_bytes) gave earlier, for instance
    /// from a message that was stored. They are not validated again: reading stops at the first
    /// that is damaged.
    pub fn from_stored(bytes: &'a [u8]) -> Properties<'a> {
        let present = PropertyIter {
            rest: Reader::new(bytes),
        }
        .fold(0, |present, property| present | 1 << property.identifier());
        Properties { bytes, present }
    }

    /// The encoded properties, without the length in front.
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// True if there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All properties in the order in which they came.
    #[inline]
    pub fn iter(&self) -> PropertyIter<'a> {
        PropertyIter {
            rest: Reader::new(self.bytes),
        }
    }

    /// All User Properties in their order: name and value.
    pub fn user_properties(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        self.of(id::USER_PROPERTY)
            .filter_map(|property| match property {
                Property::UserProperty(name, value) => Some((name, value)),
                _ => None,
            })
    }

    /// How many User Properties there are: a peer decides, so a server bounds it.
    pub fn user_property_count(&self) -> usize {
        self.user_properties().count()
    }

    /// All Subscription Identifiers. Only a server's PUBLISH may carry more than one.
    pub fn subscription_identifiers(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.of(id::SUBSCRIPTION_IDENTIFIER)
            .filter_map(|property| match property {
                Property::SubscriptionIdentifier(identifier) => Some(identifier),
                _ => None,
            })
    }

    /// True if these properties go to subscribers as they are: see [`forwardable`].
    ///
    /// [`forwardable`]: Properties::forwardable
    #[inline]
    pub const fn is_forwardable(&self) -> bool {
        self.present & PER_HOP == 0
    }

    /// The properties of a PUBLISH that a server forwards unaltered and in order: all except
    /// Topic Alias, Message Expiry Interval and Subscription Identifier [MQTT-3.3.2-4]
    /// [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20].
    ///
    /// When none of these three occurs the answer is the same slice, otherwise `scratch` holds it.
    #[inline]
    pub fn forwardable<'b>(&self, scratch: &'b mut PropertiesBuilder) -> Properties<'b>
    where
        'a: 'b,
    {
        if self.is_forwardable() {
            return *self;
        }
        scratch.clear();
        self.write_forwardable(&mut scratch.buf);
        scratch.present = self.present & !PER_HOP;
        scratch.as_properties()
    }

    /// Appends the [`forwardable`](Properties::forwardable) properties, without a length in front.
    pub fn write_forwardable(&self, out: &mut Vec<u8>) {
        if self.is_forwardable() {
            out.extend_from_slice(self.bytes);
            return;
        }
        // Whole properties are copied as bytes: nothing is decoded and encoded again.
        let mut reader = Reader::new(self.bytes);
        loop {
            let before = reader.rest();
            let Ok(property) = Property::read(&mut reader) else {
                return;
            };
            if PER_HOP & 1 << property.identifier() == 0 {
                out.extend_from_slice(&before[..before.len() - reader.rest().len()]);
            }
        }
    }

    /// True if a property with this identifier occurs.
    #[inline]
    pub const fn contains(&self, identifier: u8) -> bool {
        identifier < 64 && self.present & 1 << identifier != 0
    }

    #[inline]
    fn of(&self, identifier: u8) -> PropertyIter<'a> {
        let bytes = if self.contains(identifier) {
            self.bytes
        } else {
            &[]
        };
        PropertyIter {
            rest: Reader::new(bytes),
        }
    }

    /// Appends the length and the properties: nothing at all in MQTT 3, which has none.
    #[inline]
    pub(crate) fn write(&self, version: Version, out: &mut Vec<u8>) {
        if version.is_v5() {
            writer::variable(out, self.bytes.len());
            out.extend_from_slice(self.bytes);
        }
    }
}

const KNOWN: u64 = Allowed::CONNECT.any
    | Allowed::WILL.any
    | Allowed::CONNACK.any
    | Allowed::PUBLISH.any
    | Allowed::DISCONNECT.any;

macro_rules! getters {
    ($($getter:ident $identifier:ident $variant:ident $type:ty, $doc:literal;)*) => {
        impl<'a> Properties<'a> {
            $(
                #[doc = $doc]
                #[inline]
                pub fn $getter(&self) -> Option<$type> {
                    self.of(id::$identifier).find_map(|property| match property {
                        Property::$variant(value) => Some(value),
                        _ => None,
                    })
                }
            )*
        }
    };
}

getters! {
    payload_format_indicator PAYLOAD_FORMAT_INDICATOR PayloadFormatIndicator u8, "Payload Format Indicator: 1 says that the payload is UTF-8.";
    message_expiry_interval MESSAGE_EXPIRY_INTERVAL MessageExpiryInterval u32, "Message Expiry Interval in seconds.";
    content_type CONTENT_TYPE ContentType &'a str, "Content Type.";
    response_topic RESPONSE_TOPIC ResponseTopic &'a str, "Response Topic: a Topic Name without wildcards.";
    correlation_data CORRELATION_DATA CorrelationData &'a [u8], "Correlation Data.";
    subscription_identifier SUBSCRIPTION_IDENTIFIER SubscriptionIdentifier u32, "The first Subscription Identifier.";
    session_expiry_interval SESSION_EXPIRY_INTERVAL SessionExpiryInterval u32, "Session Expiry Interval in seconds; 0xFFFFFFFF is never.";
    assigned_client_identifier ASSIGNED_CLIENT_IDENTIFIER AssignedClientIdentifier &'a str, "Assigned Client Identifier.";
    server_keep_alive SERVER_KEEP_ALIVE ServerKeepAlive u16, "Server Keep Alive in seconds.";
    authentication_method AUTHENTICATION_METHOD AuthenticationMethod &'a str, "Authentication Method.";
    authentication_data AUTHENTICATION_DATA AuthenticationData &'a [u8], "Authentication Data.";
    request_problem_information REQUEST_PROBLEM_INFORMATION RequestProblemInformation bool, "Request Problem Information; absent means true.";
    will_delay_interval WILL_DELAY_INTERVAL WillDelayInterval u32, "Will Delay Interval in seconds.";
    request_response_information REQUEST_RESPONSE_INFORMATION RequestResponseInformation bool, "Request Response Information; absent means false.";
    response_information RESPONSE_INFORMATION ResponseInformation &'a str, "Response Information.";
    server_reference SERVER_REFERENCE ServerReference &'a str, "Server Reference.";
    reason_string REASON_STRING ReasonString &'a str, "Reason String.";
    receive_maximum RECEIVE_MAXIMUM ReceiveMaximum u16, "Receive Maximum, never 0; absent means 65,535.";
    topic_alias_maximum TOPIC_ALIAS_MAXIMUM TopicAliasMaximum u16, "Topic Alias Maximum; absent means 0.";
    topic_alias TOPIC_ALIAS TopicAlias u16, "Topic Alias, never 0.";
    maximum_qos MAXIMUM_QOS MaximumQoS QoS, "Maximum QoS, 0 or 1; absent means 2.";
    retain_available RETAIN_AVAILABLE RetainAvailable bool, "Retain Available; absent means true.";
    maximum_packet_size MAXIMUM_PACKET_SIZE MaximumPacketSize u32, "Maximum Packet Size, never 0; absent means no limit.";
    wildcard_subscription_available WILDCARD_SUBSCRIPTION_AVAILABLE WildcardSubscriptionAvailable bool, "Wildcard Subscription Available; absent means true.";
    subscription_identifier_available SUBSCRIPTION_IDENTIFIER_AVAILABLE SubscriptionIdentifierAvailable bool, "Subscription Identifiers Available; absent means true.";
    shared_subscription_available SHARED_SUBSCRIPTION_AVAILABLE SharedSubscriptionAvailable bool, "Shared Subscription Available; absent means true.";
}

impl PartialEq for Properties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Properties<'_> {}

impl std::fmt::Debug for Properties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> IntoIterator for Properties<'a> {
    type Item = Property<'a>;
    type IntoIter = PropertyIter<'a>;

    fn into_iter(self) -> PropertyIter<'a> {
        self.iter()
    }
}

/// The properties of a section, decoded one by one.
#[derive(Clone, Copy)]
pub struct PropertyIter<'a> {
    rest: Reader<'a>,
}

impl<'a> Iterator for PropertyIter<'a> {
    type Item = Property<'a>;

    fn next(&mut self) -> Option<Property<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let property = Property::read(&mut self.rest).ok();
        if property.is_none() {
            self.rest = Reader::new(&[]);
        }
        property
    }
}

/// Collects properties for a packet to send; the buffer is kept when it is cleared.
///
/// Which properties a packet may carry, and how often, is the caller's to know.
#[derive(Clone, Default, Debug)]
pub struct PropertiesBuilder {
    buf: Vec<u8>,
    present: u64,
}

impl PropertiesBuilder {
    /// An empty builder; allocates nothing.
    pub const fn new() -> PropertiesBuilder {
        PropertiesBuilder {
            buf: Vec::new(),
            present: 0,
        }
    }

    /// Appends a property. A string or binary value beyond 65,535 bytes is cut off.
    pub fn push(&mut self, property: Property<'_>) -> &mut PropertiesBuilder {
        property.write(&mut self.buf);
        self.present |= 1 << property.identifier();
        self
    }

    /// Appends properties as they are.
    pub fn extend(&mut self, properties: Properties<'_>) -> &mut PropertiesBuilder {
        self.buf.extend_from_slice(properties.bytes);
        self.present |= properties.present;
        self
    }

    /// What was pushed.
    #[inline]
    pub fn as_properties(&self) -> Properties<'_> {
        Properties {
            bytes: &self.buf,
            present: self.present,
        }
    }

    /// Forgets everything, keeps the memory.
    #[inline]
    pub fn clear(&mut self) {
        self.buf.clear();
        self.present = 0;
    }
}
