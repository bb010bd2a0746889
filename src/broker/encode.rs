//! PUBLISH packets for receivers: once per variant for a whole run, or one at a time.
//!
//! Most receivers of a run want the same bytes: they differ in protocol version, granted QoS and
//! Retain As Published, and in nothing else but the Packet Identifier. So a run is encoded once
//! for each variant that occurs, all its frames in a row, and every receiver gets a copy with its
//! identifiers patched in. Receivers that want more (Subscription Identifiers, topic aliases, a
//! message that waited) are encoded one by one.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tidings_protocol::mqtt::{
    PacketId, Properties, PropertiesBuilder, Property, Publish, QoS, Version,
};

use super::clock::Millis;
use super::message::{Message, MessageParts, Run};
use super::outbox::Outbox;

/// One frame of an encoded run.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Where it ends in the bytes of the run.
    pub end: u32,
    /// Where its Packet Identifier stands, or [`NO_IDENTIFIER`].
    pub identifier_at: u32,
}

/// Marks a frame of QoS 0, which has no Packet Identifier.
pub const NO_IDENTIFIER: u32 = u32::MAX;

/// A run in one variant.
#[derive(Default)]
pub struct EncodedRun {
    filled: bool,
    /// All frames in a row.
    pub bytes: Vec<u8>,
    /// Where each of them is.
    pub frames: Vec<Frame>,
    /// How many of them have a Packet Identifier.
    pub identified: usize,
    /// The length of the longest.
    pub longest: usize,
}

/// What a frame depends on besides the message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Variant {
    /// Properties are written in version 5 only.
    pub v5: bool,
    /// The QoS granted to the receiver.
    pub qos: QoS,
    /// Whether RETAIN is forwarded as it was published.
    pub retain_as_published: bool,
}

const VARIANTS: usize = 12;

impl Variant {
    fn index(self) -> usize {
        usize::from(self.qos.as_u8())
            + 3 * usize::from(self.v5)
            + 6 * usize::from(self.retain_as_published)
    }
}

/// The encodings of one run, made as they are asked for, and its messages for those who keep them.
/// The memory is used again for the next run.
#[derive(Default)]
pub struct Encodings {
    variants: [EncodedRun; VARIANTS],
    /// The messages of the run.
    pub messages: RunMessages,
    scratch: PropertiesBuilder,
}

/// The messages of a run, owned, for those who keep them: each is made once.
#[derive(Default)]
pub struct RunMessages(Vec<Option<Arc<Message>>>);

/// Above this, memory used for one run is given back rather than kept for the next.
const KEEP_BYTES_MAX: usize = 1024 * 1024;

impl Encodings {
    /// Forgets the run before.
    pub fn reset(&mut self, run: &Run<'_>) {
        for variant in &mut self.variants {
            if variant.filled {
                variant.filled = false;
                variant.bytes.clear();
                variant.bytes.shrink_to(KEEP_BYTES_MAX);
                variant.frames.clear();
                variant.identified = 0;
                variant.longest = 0;
            }
        }
        self.messages.0.clear();
        self.messages.0.resize(run.publications.len(), None);
    }

    /// The run in this variant, and its messages.
    pub fn get(&mut self, run: &Run<'_>, variant: Variant) -> (&EncodedRun, &mut RunMessages) {
        let Encodings {
            variants,
            messages,
            scratch,
        } = self;
        let encoded = &mut variants[variant.index()];
        if !encoded.filled {
            encoded.fill(run, variant, scratch);
        }
        (encoded, messages)
    }
}

impl RunMessages {
    /// Those that somebody keeps, by their place in the run.
    pub fn all(&self) -> &[Option<Arc<Message>>] {
        &self.0
    }

    /// The message at `index` of the run.
    pub fn get(&mut self, run: &Run<'_>, index: usize, now: Millis) -> Arc<Message> {
        Arc::clone(self.kept(run, index, now))
    }

    /// The same, for who need not hold it.
    pub fn kept(&mut self, run: &Run<'_>, index: usize, now: Millis) -> &Arc<Message> {
        self.0[index].get_or_insert_with(|| {
            let publication = &run.publications[index];
            Arc::new(Message::new(
                &MessageParts {
                    topic: run.topic,
                    properties: publication.properties,
                    payload: publication.payload,
                    shared_payload: publication.shared_payload,
                    qos: publication.qos,
                    retain: publication.retain,
                    publisher: run.publisher,
                    held_from_all: run.holds(publication),
                    bell: run.bell,
                },
                now,
            ))
        })
    }
}

impl EncodedRun {
    fn fill(&mut self, run: &Run<'_>, variant: Variant, scratch: &mut PropertiesBuilder) {
        self.filled = true;
        let version = if variant.v5 {
            Version::V5
        } else {
            Version::V311
        };
        for publication in run.publications {
            let start = self.bytes.len();
            let properties = forwarded_at_once(publication.properties, scratch);
            let identifier_at = Publish {
                dup: false,
                qos: publication.qos.min(variant.qos),
                retain: publication.retain && variant.retain_as_published,
                topic: run.topic,
                packet_id: None,
                properties,
                payload: publication.payload,
            }
            .encode(version, &mut self.bytes);
            self.identified += usize::from(identifier_at.is_some());
            self.longest = self.longest.max(self.bytes.len() - start);
            self.frames.push(Frame {
                end: self.bytes.len() as u32,
                identifier_at: identifier_at.map_or(NO_IDENTIFIER, |at| at as u32),
            });
        }
    }
}

/// The properties of a message that is forwarded in the moment it came: as published, with the
/// Message Expiry Interval unchanged, but without the publisher's Topic Alias [MQTT-3.3.2-8].
fn forwarded_at_once<'a>(
    properties: Properties<'a>,
    scratch: &'a mut PropertiesBuilder,
) -> Properties<'a> {
    if properties.topic_alias().is_none() {
        return properties;
    }
    scratch.clear();
    for property in properties.iter() {
        if !matches!(property, Property::TopicAlias(_)) {
            scratch.push(property);
        }
    }
    scratch.as_properties()
}

/// Topic aliases that a receiver allows us to use [MQTT-3.1.2-26].
#[derive(Debug, Default)]
pub struct OutgoingAliases {
    maximum: u16,
    known: HashMap<Box<str>, u16>,
}

impl OutgoingAliases {
    /// None in use yet; at most `maximum` will be.
    pub fn new(maximum: u16) -> OutgoingAliases {
        OutgoingAliases {
            maximum,
            known: HashMap::new(),
        }
    }

    /// The alias for `topic`, and whether the receiver knows it already. The first topics get
    /// one, the others are sent in full: an alias that moves costs more than it saves.
    fn assign(&mut self, topic: &str) -> Option<(u16, bool)> {
        if let Some(&alias) = self.known.get(topic) {
            return Some((alias, true));
        }
        if self.known.len() >= usize::from(self.maximum) {
            return None;
        }
        let alias = self.known.len() as u16 + 1;
        self.known.insert(topic.into(), alias);
        Some((alias, false))
    }
}

/// How one message is sent to one receiver.
pub struct Delivery<'a> {
    pub version: Version,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: Option<PacketId>,
    pub identifiers: Option<&'a [u32]>,
    /// The longest packet the receiver accepts: a topic alias is left out if there is no room.
    pub packet_size_max: usize,
    pub now: Millis,
}

thread_local! {
    static MORE: std::cell::RefCell<PropertiesBuilder> =
        const { std::cell::RefCell::new(PropertiesBuilder::new()) };
}

/// Bytes that the packet for `message` takes without a topic alias.
pub fn encoded_len(
    message: &Message,
    version: Version,
    qos: QoS,
    identifiers: Option<&[u32]>,
) -> usize {
    let publish = Publish {
        dup: false,
        qos,
        retain: false,
        topic: message.topic(),
        packet_id: None,
        properties: message.properties(),
        payload: message.payload(),
    };
    let mut more = 0;
    if version.is_v5() {
        let identifiers = identifiers.unwrap_or_default().iter();
        more += identifiers.map(|&id| 1 + variable_len(id)).sum::<usize>();
        more += if message.expires_at.is_some() { 5 } else { 0 };
    }
    publish.encoded_len_with(version, more)
}

/// Bytes that a Variable Byte Integer takes (MQTT 5 §1.5.5).
fn variable_len(value: u32) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Bytes that a Topic Alias takes.
const ALIAS_LEN: usize = 3;

/// Appends the PUBLISH for `message` to `outbox`.
pub fn encode_message(
    outbox: &mut Outbox,
    aliases: Option<&mut OutgoingAliases>,
    message: &Message,
    delivery: &Delivery<'_>,
) {
    MORE.with_borrow_mut(|more| {
        more.clear();
        let mut publish = Publish {
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: message.topic(),
            packet_id: delivery.packet_id,
            properties: message.properties(),
            payload: message.payload(),
        };
        if delivery.version.is_v5() {
            if let Some(seconds) = message.remaining_expiry_secs(delivery.now) {
                more.push(Property::MessageExpiryInterval(seconds));
            }
            for &identifier in delivery.identifiers.unwrap_or_default() {
                more.push(Property::SubscriptionIdentifier(identifier));
            }
            let len = more.as_properties().as_bytes().len() + ALIAS_LEN;
            if let Some(aliases) = aliases
                && publish.encoded_len_with(delivery.version, len) <= delivery.packet_size_max
                && let Some((alias, known)) = aliases.assign(publish.topic)
            {
                more.push(Property::TopicAlias(alias));
                if known {
                    publish.topic = "";
                }
            }
        }
        match message.shared_payload() {
            Some(shared) => {
                publish.encode_head(delivery.version, more.as_properties(), 0, outbox.tail());
                outbox.push_shared(Bytes::clone(shared));
            }
            None => {
                publish.encode_with(delivery.version, more.as_properties(), outbox.tail());
            }
        }
    });
}
