//! The blocks of an event stream.

use std::fmt;
use std::time::Duration;

use crate::json;

/// The media type of an event stream.
pub const CONTENT_TYPE: &str = "text/event-stream";

/// How many bytes an event name may have.
pub const EVENT_NAME_MAX: usize = 128;

/// How many bytes an id may have. Beyond 128 bytes a browser's `Last-Event-ID` is no longer a
/// header that goes without a CORS preflight (Fetch, "CORS-safelisted request-header").
pub const ID_MAX: usize = 64;

/// Why a text cannot be the value of an `event` or `id` field.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum FieldError {
    /// An event name without a character: a client would take it for `message`.
    NameEmpty,
    /// An event name longer than [`EVENT_NAME_MAX`].
    NameTooLong,
    /// An event name with a control character, such as a line end: it would begin another field.
    NameControlCharacter,
    /// An id without a character: it would reset the client's last event ID.
    IdEmpty,
    /// An id longer than [`ID_MAX`].
    IdTooLong,
    /// An id with a character other than letters and digits of ASCII, `.`, `_` and `-`.
    IdCharacter,
}

impl FieldError {
    /// A sentence that says how to mend it.
    pub const fn as_str(self) -> &'static str {
        match self {
            FieldError::NameEmpty => "an event name must have at least one character",
            FieldError::NameTooLong => "an event name must not be longer than 128 bytes",
            FieldError::NameControlCharacter => {
                "an event name must not contain line ends or other control characters"
            }
            FieldError::IdEmpty => "an event id must have at least one character",
            FieldError::IdTooLong => "an event id must not be longer than 64 bytes",
            FieldError::IdCharacter => {
                "an event id may only contain the letters a to z and A to Z, digits, '.', '_' and '-'"
            }
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for FieldError {}

/// The name of an event: what a page gives to `addEventListener`. A page hears an event without a
/// name as `message`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventName<'a>(&'a str);

impl<'a> EventName<'a> {
    /// Said when messages are missing between what a client has and what it gets next.
    pub const GAP: EventName<'static> = EventName("gap");

    /// Checks a name: 1 to [`EVENT_NAME_MAX`] bytes without control characters.
    pub fn new(name: &'a str) -> Result<EventName<'a>, FieldError> {
        if name.is_empty() {
            return Err(FieldError::NameEmpty);
        }
        if name.len() > EVENT_NAME_MAX {
            return Err(FieldError::NameTooLong);
        }
        if name.chars().any(char::is_control) {
            return Err(FieldError::NameControlCharacter);
        }
        Ok(EventName(name))
    }

    /// The name.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// The id of an event: what a browser sends back as `Last-Event-ID` when it reconnects.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventId<'a>(&'a str);

impl<'a> EventId<'a> {
    /// Checks an id: 1 to [`ID_MAX`] bytes, each of `[A-Za-z0-9._-]`. Other characters would cost a
    /// CORS preflight at each reconnection, or, as U+0000, have the id ignored.
    pub fn new(id: &'a str) -> Result<EventId<'a>, FieldError> {
        if id.is_empty() {
            return Err(FieldError::IdEmpty);
        }
        if id.len() > ID_MAX {
            return Err(FieldError::IdTooLong);
        }
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !id.bytes().all(allowed) {
            return Err(FieldError::IdCharacter);
        }
        Ok(EventId(id))
    }

    /// The id.
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// For a text that the crate itself made of digits and a dot.
    pub(super) const fn trusted(id: &'a str) -> EventId<'a> {
        EventId(id)
    }
}

/// An event that a page hears.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// The `event` field; without it the event is a `message`.
    pub name: Option<EventName<'a>>,
    /// The `id` field; without it the client's last event ID stays as it is.
    pub id: Option<EventId<'a>>,
    /// What the page gets, except that it sees each of CR, LF and CRLF as LF. Empty data still
    /// makes an event.
    pub data: &'a str,
}

impl Event<'_> {
    /// Appends the event.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve(self.data.len() + 64);
        write_head(self.name, self.id, out);
        write_lines(b"data: ", self.data, out);
        out.push(b'\n');
    }
}

/// Appends an event whose data is one line that `write_line` appends, such as a JSON envelope:
/// saves the copy and the search for line ends.
///
/// What it appends must be UTF-8 and hold neither CR nor LF.
pub fn write_event_with(
    name: Option<EventName<'_>>,
    id: Option<EventId<'_>>,
    out: &mut Vec<u8>,
    write_line: impl FnOnce(&mut Vec<u8>),
) {
    write_head(name, id, out);
    out.extend_from_slice(b"data: ");
    let start = out.len();
    write_line(out);
    debug_assert!(!out[start..].iter().any(|b| matches!(b, b'\r' | b'\n')));
    out.extend_from_slice(b"\n\n");
}

/// Appends an id without data: it moves the client's last event ID and wakes no listener, because
/// a block whose data buffer is empty is not dispatched.
pub fn write_id_only(id: EventId<'_>, out: &mut Vec<u8>) {
    write_head(None, Some(id), out);
    out.push(b'\n');
}

/// Appends a comment: nobody hears it, but it keeps the connection from being idle. Each line of
/// the text becomes a line of the comment.
pub fn write_comment(text: &str, out: &mut Vec<u8>) {
    write_lines(b": ", text, out);
    out.push(b'\n');
}

/// Appends how long the client waits before it reconnects, in whole milliseconds.
pub fn write_retry(after: Duration, out: &mut Vec<u8>) {
    out.extend_from_slice(b"retry: ");
    json::write_integer(u64::try_from(after.as_millis()).unwrap_or(u64::MAX), out);
    out.extend_from_slice(b"\n\n");
}

fn write_head(name: Option<EventName<'_>>, id: Option<EventId<'_>>, out: &mut Vec<u8>) {
    if let Some(EventName(name)) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    if let Some(EventId(id)) = id {
        out.extend_from_slice(b"id: ");
        out.extend_from_slice(id.as_bytes());
        out.push(b'\n');
    }
}

/// Each of CR, LF and CRLF ends a line of the stream, so what follows it in a text needs the name
/// of the field again. The space after the colon is the one that a client takes away, so that a
/// text which begins with a space keeps it.
fn write_lines(field: &[u8], text: &str, out: &mut Vec<u8>) {
    let mut rest = text.as_bytes();
    loop {
        out.extend_from_slice(field);
        let Some(end) = find_line_end(rest) else {
            out.extend_from_slice(rest);
            out.push(b'\n');
            return;
        };
        out.extend_from_slice(&rest[..end]);
        out.push(b'\n');
        let crlf = rest[end..].starts_with(b"\r\n");
        rest = &rest[end + 1 + usize::from(crlf)..];
    }
}

/// Where the first CR or LF is; looks at eight bytes at a time, as long texts of one line are
/// common.
fn find_line_end(bytes: &[u8]) -> Option<usize> {
    const fn zero_bytes(word: u64) -> u64 {
        word.wrapping_sub(u64::from_ne_bytes([0x01; 8])) & !word & u64::from_ne_bytes([0x80; 8])
    }
    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The lowest of the bits found is right: a borrow goes upwards from a byte that was zero.
        let found = zero_bytes(word ^ u64::from_ne_bytes([b'\n'; 8]))
            | zero_bytes(word ^ u64::from_ne_bytes([b'\r'; 8]));
        if found != 0 {
            return Some(index * 8 + found.trailing_zeros() as usize / 8);
        }
    }
    let at = tail.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
    Some(words.len() * 8 + at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events() {
        let event = |name, id, data| Event { name, id, data };
        let gap = Some(EventName::GAP);
        let id = Some(EventId::new("7.12").unwrap());
        for (event, expected) in [
            (event(None, None, "x"), "data: x\n\n"),
            (event(None, None, ""), "data: \n\n"),
            (event(gap, id, " x"), "event: gap\nid: 7.12\ndata:  x\n\n"),
            (
                event(None, id, "a\nb\rc\r\nd\n\re\r\r\n"),
                "id: 7.12\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \ndata: e\ndata: \ndata: \n\n",
            ),
            (event(None, None, "\n"), "data: \ndata: \n\n"),
            (event(None, None, "id: 1"), "data: id: 1\n\n"),
        ] {
            assert_eq!(written(|out| event.write(out)), expected);
        }
    }

    #[test]
    fn blocks_that_are_no_events() {
        let id = EventId::new("1.0").unwrap();
        assert_eq!(written(|out| write_id_only(id, out)), "id: 1.0\n\n");
        assert_eq!(written(|out| write_comment("", out)), ": \n\n");
        assert_eq!(
            written(|out| write_comment("a\r\nid: 3\rb", out)),
            ": a\n: id: 3\n: b\n\n"
        );
        let retry = Duration::from_micros(2_500_700);
        assert_eq!(written(|out| write_retry(retry, out)), "retry: 2500\n\n");
        assert_eq!(
            written(|out| write_event_with(None, Some(id), out, |out| out.extend(b"{}"))),
            "id: 1.0\ndata: {}\n\n"
        );
    }

    #[test]
    fn a_line_end_is_found_at_every_place() {
        for at in 0..30 {
            for end in [b'\n', b'\r'] {
                let mut bytes = vec![0x0B; 30];
                assert_eq!(find_line_end(&bytes), None);
                bytes[at] = end;
                assert_eq!(find_line_end(&bytes), Some(at));
                bytes[29] = b'\n';
                assert_eq!(find_line_end(&bytes), Some(at));
            }
        }
    }

    #[test]
    fn values_that_would_break_the_stream() {
        let long = "x".repeat(EVENT_NAME_MAX + 1);
        for (name, error) in [
            ("", FieldError::NameEmpty),
            (&*long, FieldError::NameTooLong),
            ("a\nb", FieldError::NameControlCharacter),
            ("a\rb", FieldError::NameControlCharacter),
            ("a\0", FieldError::NameControlCharacter),
            ("a\u{85}", FieldError::NameControlCharacter),
        ] {
            assert_eq!(EventName::new(name), Err(error), "{name:?}");
        }
        assert!(EventName::new(&long[1..]).is_ok());
        assert!(EventName::new("température: été").is_ok());
        for (id, error) in [
            ("", FieldError::IdEmpty),
            (&long[..ID_MAX + 1], FieldError::IdTooLong),
            ("1 2", FieldError::IdCharacter),
            ("1\n", FieldError::IdCharacter),
            ("1\0", FieldError::IdCharacter),
            ("é", FieldError::IdCharacter),
            ("a/b", FieldError::IdCharacter),
        ] {
            assert_eq!(EventId::new(id), Err(error), "{id:?}");
        }
        assert!(EventId::new(&long[..ID_MAX]).is_ok());
        assert!(EventId::new("aZ09._-").is_ok());
    }
}
