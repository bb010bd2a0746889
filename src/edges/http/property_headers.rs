//! The properties of a message as headers of a raw answer, beside its Content-Type.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::broker::Message;
use crate::broker::clock::Millis;

/// What all of them take at most. Clients and proxies refuse an answer with a larger head than theirs,
/// which the smallest of them set at 8 KiB and 100 headers.
const BYTES_MAX: usize = 6 * 1024;
const HEADERS_MAX: usize = 64;

/// What is percent-encoded, besides what is not ASCII: what a header cannot hold, the sign itself, and
/// spaces, which get lost at the ends.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b' ');
/// In the name of a user property, which ends at the first `=`.
const ENCODED_IN_NAMES: &AsciiSet = &ENCODED.add(b'=');

/// Adds the QoS and the properties of a message. Those that would make the head too large are left
/// out, and that is said: the envelope has all of them.
pub(super) fn add(message: &Message, now: Millis, headers: &mut HeaderMap) {
    let mut added = Added {
        headers,
        bytes: 0,
        count: 0,
        omitted: false,
    };
    added.text("tidings-qos", message.qos.as_u8().to_string());
    let properties = message.properties();
    if let Some(indicator) = properties.payload_format_indicator() {
        added.text("tidings-payload-format", indicator.to_string());
    }
    if let Some(seconds) = message.remaining_expiry_secs(now) {
        added.text("tidings-expiry", seconds.to_string());
    }
    if let Some(topic) = properties.response_topic() {
        let topic = utf8_percent_encode(topic, ENCODED);
        added.text("tidings-response-topic", topic.to_string());
    }
    if let Some(data) = properties.correlation_data() {
        added.text("tidings-correlation-data", STANDARD.encode(data));
    }
    for (name, value) in properties.user_properties() {
        let name = utf8_percent_encode(name, ENCODED_IN_NAMES);
        let value = utf8_percent_encode(value, ENCODED);
        added.text("tidings-user-property", format!("{name}={value}"));
    }
    if added.omitted {
        let omitted = HeaderName::from_static("tidings-omitted");
        headers.insert(omitted, HeaderValue::from_static("true"));
    }
}

struct Added<'h> {
    headers: &'h mut HeaderMap,
    bytes: usize,
    count: usize,
    omitted: bool,
}

impl Added<'_> {
    fn text(&mut self, name: &'static str, value: String) {
        let bytes = self.bytes + name.len() + value.len();
        match HeaderValue::try_from(value) {
            Ok(value) if bytes <= BYTES_MAX && self.count < HEADERS_MAX => {
                self.bytes = bytes;
                self.count += 1;
                self.headers.append(HeaderName::from_static(name), value);
            }
            _ => self.omitted = true,
        }
    }
}
