//! How events look to clients: one JSON envelope for every edge, and around it what the transport
//! wants. What all readers see alike is made once and shared.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tidings_protocol::json::{self, Envelope};
use tidings_protocol::sse::{self, EventId, EventName};
use tidings_protocol::time::Rfc3339;

use crate::broker::Message;
use crate::broker::feed::{Event, Gap};
use crate::store::Offset;

/// Forms that are cached in an event.
const FORM_ENVELOPE: usize = 0;
const FORM_SSE_JSON: usize = 1;
const FORM_SSE_RAW: usize = 2;
const FORM_PUSH: usize = 3;

/// The event name of a payload that is not text, in a stream of texts.
pub(super) const BINARY_EVENT: &str = "base64";

/// What the data of a server-sent event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Format {
    /// The envelope.
    #[default]
    Json,
    /// The payload, where it is text; otherwise an event named [`BINARY_EVENT`].
    Raw,
}

/// The cursor of an offset.
pub(super) fn cursor(epoch: u64, offset: Offset) -> sse::Cursor {
    sse::Cursor {
        epoch,
        offset: offset.0,
    }
}

/// Writes a message as its envelope. `id` is left out for one that is not in a feed.
pub(super) fn write_envelope(
    message: &Message,
    retain: bool,
    id: Option<&str>,
    at_ms: Option<u64>,
    out: &mut Vec<u8>,
) {
    let time = at_ms.map(Rfc3339::from_unix_ms);
    Envelope {
        topic: message.topic(),
        payload: message.payload(),
        qos: message.qos,
        retain,
        properties: message.properties(),
        id,
        time: time.as_ref().map(Rfc3339::as_str),
    }
    .write(out);
}

/// The envelope of an event.
pub(super) fn envelope(epoch: u64, event: &Event) -> Bytes {
    let render = |event: &Event| {
        let mut out = Vec::new();
        let id = cursor(epoch, event.offset).to_text();
        let message = &event.message;
        write_envelope(
            message,
            message.retain,
            Some(id.as_str()),
            Some(event.at_ms),
            &mut out,
        );
        Bytes::from(out)
    };
    event.rendering(FORM_ENVELOPE, render).clone()
}

/// What a WebSocket pushes for an event, made by `wrap` from the envelope: once, for readers that all
/// want the same.
pub(super) fn push(epoch: u64, event: &Event, wrap: impl FnOnce(&[u8]) -> Bytes) -> &Bytes {
    event.rendering(FORM_PUSH, |event| wrap(&envelope(epoch, event)))
}

/// Appends an event to an event stream. `named` gives it the name of its topic.
pub(super) fn write_sse(
    epoch: u64,
    event: &Arc<Event>,
    format: Format,
    named: bool,
    out: &mut Vec<u8>,
) {
    if named {
        // Names with control characters would break the stream; such an event has none.
        let name = EventName::new(event.message.topic()).ok();
        return write_sse_named(epoch, event, format, name, out);
    }
    let form = match format {
        Format::Json => FORM_SSE_JSON,
        Format::Raw => FORM_SSE_RAW,
    };
    let rendered = event.rendering(form, |event| {
        let mut out = Vec::new();
        write_sse_named(epoch, event, format, None, &mut out);
        Bytes::from(out)
    });
    out.extend_from_slice(rendered);
}

fn write_sse_named(
    epoch: u64,
    event: &Event,
    format: Format,
    name: Option<EventName<'_>>,
    out: &mut Vec<u8>,
) {
    let id = cursor(epoch, event.offset).to_text();
    write_message(
        &event.message,
        format,
        name,
        Some((id, event.at_ms)),
        event.message.retain,
        out,
    );
}

/// Appends a message as an event; `place` is its id and its time, if it has them.
pub(super) fn write_message(
    message: &Message,
    format: Format,
    name: Option<EventName<'_>>,
    place: Option<(sse::CursorText, u64)>,
    retain: bool,
    out: &mut Vec<u8>,
) {
    let id = place.as_ref().map(|(id, _)| id.as_id());
    let time = place
        .as_ref()
        .map(|(_, at_ms)| Rfc3339::from_unix_ms(*at_ms));
    let envelope = Envelope {
        topic: message.topic(),
        payload: message.payload(),
        qos: message.qos,
        retain,
        properties: message.properties(),
        id: id.as_ref().map(|it| it.as_str()),
        time: time.as_ref().map(Rfc3339::as_str),
    };
    write_event(&envelope, format, name, id, out);
}

/// Appends what an envelope says as an event.
pub(super) fn write_event(
    envelope: &Envelope<'_>,
    format: Format,
    name: Option<EventName<'_>>,
    id: Option<EventId<'_>>,
    out: &mut Vec<u8>,
) {
    match (format, std::str::from_utf8(envelope.payload)) {
        (Format::Json, _) => sse::write_event_with(name, id, out, |out| envelope.write(out)),
        (Format::Raw, Ok(data)) => sse::Event { name, id, data }.write(out),
        (Format::Raw, Err(_)) => {
            let name = EventName::new(BINARY_EVENT).ok();
            let data = STANDARD.encode(envelope.payload);
            sse::Event {
                name,
                id,
                data: &data,
            }
            .write(out);
        }
    }
}

/// Appends a gap to an event stream.
pub(super) fn write_sse_gap(epoch: u64, gap: &Gap, out: &mut Vec<u8>) {
    sse::write_event_with(Some(EventName::GAP), None, out, |out| {
        write_gap(epoch, gap, out);
    });
}

/// Appends what is told of a gap, as JSON: `{"oldest":"7.12","lost":3,"cursor":"7.11"}`, the first
/// two if they are known.
pub(super) fn write_gap(epoch: u64, gap: &Gap, out: &mut Vec<u8>) {
    out.push(b'{');
    if let Some(oldest) = gap.oldest {
        out.extend_from_slice(b"\"oldest\":");
        json::write_string(cursor(epoch, oldest).to_text().as_str(), out);
        out.push(b',');
    }
    if let Some(lost) = gap.lost {
        out.extend_from_slice(format!("\"lost\":{lost},").as_bytes());
    }
    out.extend_from_slice(b"\"cursor\":");
    json::write_string(cursor(epoch, gap.cursor).to_text().as_str(), out);
    out.push(b'}');
}
