//! The lines of an export: what is in them, and how they look as JSON.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// The version of the lines. Since 2 there are documents.
pub(super) const VERSION: u32 = 2;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line<'a> {
    Store {
        version: u32,
        time_ms: u64,
    },
    #[serde(borrow)]
    Session(SessionLine<'a>),
    Message(MessageLine<'a>),
    /// A queue entry whose PUBREC has come: its message is no longer needed.
    Released {
        session: u64,
        seq: u64,
        flags: u8,
    },
    Document(DocumentLine<'a>),
    /// The last line: without it the text was cut short.
    End,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SessionLine<'a> {
    pub(super) number: u64,
    #[serde(borrow)]
    pub(super) client_id: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) user: Option<Cow<'a, str>>,
    pub(super) epoch: u64,
    pub(super) expiry_interval_secs: u32,
    pub(super) connected_ms: u64,
    pub(super) disconnected_ms: Option<u64>,
    pub(super) protocol_level: u8,
    #[serde(with = "base64_bytes", default)]
    pub(super) extra_base64: Vec<u8>,
    pub(super) next_seq: u64,
    pub(super) inbound_packet_ids: Vec<u16>,
    pub(super) subscriptions: Vec<SubscriptionLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) will: Option<WillLine<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubscriptionLine<'a> {
    #[serde(borrow)]
    pub(super) filter: Cow<'a, str>,
    pub(super) options: u8,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) subscription_id: Option<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WillLine<'a> {
    #[serde(borrow)]
    pub(super) topic: Cow<'a, str>,
    #[serde(with = "base64_bytes", default)]
    pub(super) properties_base64: Vec<u8>,
    #[serde(with = "base64_bytes", default)]
    pub(super) payload_base64: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) delay_secs: u32,
    pub(super) due_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MessageLine<'a> {
    pub(super) offset: u64,
    #[serde(borrow)]
    pub(super) topic: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) payload: Option<Cow<'a, str>>,
    #[serde(
        skip_serializing_if = "Option::is_none",
        default,
        with = "base64_option"
    )]
    pub(super) payload_base64: Option<Vec<u8>>,
    #[serde(with = "base64_bytes", default)]
    pub(super) properties_base64: Vec<u8>,
    pub(super) qos: u8,
    pub(super) retain: bool,
    pub(super) published_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) expires_ms: Option<u64>,
    pub(super) publisher: u64,
    /// Whether it is the Retained Message of its topic.
    pub(super) retained: bool,
    pub(super) targets: Vec<TargetLine>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TargetLine {
    pub(super) session: u64,
    pub(super) seq: u64,
    pub(super) qos: u8,
    pub(super) flags: u8,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub(super) subscription_ids: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DocumentLine<'a> {
    #[serde(borrow)]
    pub(super) key: Cow<'a, str>,
    #[serde(with = "base64_bytes")]
    pub(super) value_base64: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) expires_ms: Option<u64>,
}

mod base64_bytes {
    use super::{Engine, STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

mod base64_option {
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::base64_bytes::serialize(bytes, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(
        from: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        super::base64_bytes::deserialize(from).map(Some)
    }
}
