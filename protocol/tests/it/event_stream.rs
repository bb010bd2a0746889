//! Event streams, as a client hears them that was written from the specification alone: WHATWG
//! HTML §9.2.5 "Parsing an event stream" and §9.2.6 "Interpreting an event stream".

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;
use tidings_protocol::sse::{
    Cursor, Event, EventId, EventName, write_comment, write_event_with, write_id_only, write_retry,
};

/// What `EventSource` gives to a listener.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Heard {
    name: String,
    data: String,
    last_event_id: String,
}

/// A client: it is fed bytes as they come and keeps what it heard.
#[derive(Default)]
struct Client {
    /// False while the bytes in `start` may become a byte order mark.
    started: bool,
    start: Vec<u8>,
    line: Vec<u8>,
    after_cr: bool,
    data: String,
    event_type: String,
    id_buffer: String,
    last_event_id: String,
    retry: Option<u64>,
    heard: Vec<Heard>,
}

impl Client {
    fn feed(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            if self.started {
                self.byte(byte);
                continue;
            }
            // "UTF-8 decode" takes away one byte order mark, at the start of the stream.
            self.start.push(byte);
            if self.start == b"\xEF\xBB\xBF" {
                self.started = true;
            } else if !b"\xEF\xBB\xBF".starts_with(&self.start) {
                self.started = true;
                for byte in std::mem::take(&mut self.start) {
                    self.byte(byte);
                }
            }
        }
    }

    /// Lines end with CRLF, LF or CR. These are the same bytes in UTF-8, so a line can be decoded
    /// once it is whole.
    fn byte(&mut self, byte: u8) {
        let second_of_pair = self.after_cr && byte == b'\n';
        self.after_cr = byte == b'\r';
        if second_of_pair {
            return;
        }
        if byte == b'\n' || byte == b'\r' {
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
            self.process(&line);
        } else {
            self.line.push(byte);
        }
    }

    fn process(&mut self, line: &str) {
        if line.is_empty() {
            self.dispatch();
        } else if line.starts_with(':') {
            // Ignore the line.
        } else if let Some(colon) = line.find(':') {
            let value = &line[colon + 1..];
            self.field(&line[..colon], value.strip_prefix(' ').unwrap_or(value));
        } else {
            self.field(line, "");
        }
    }

    fn field(&mut self, name: &str, value: &str) {
        match name {
            "event" => self.event_type = value.to_owned(),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => self.id_buffer = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) => {
                self.retry = value.parse().ok();
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        self.last_event_id = self.id_buffer.clone();
        let event_type = std::mem::take(&mut self.event_type);
        let mut data = std::mem::take(&mut self.data);
        if data.is_empty() {
            return;
        }
        data.pop();
        self.heard.push(Heard {
            name: if event_type.is_empty() {
                "message".to_owned()
            } else {
                event_type
            },
            data,
            last_event_id: self.last_event_id.clone(),
        });
    }
}

/// The examples of §9.2.6: the client has to be right before it may judge.
#[test]
fn the_client_hears_the_examples_of_the_specification() {
    let hear = |stream: &str| {
        let mut client = Client::default();
        client.feed(stream.as_bytes());
        client
    };
    let data = |client: &Client| -> Vec<String> {
        client.heard.iter().map(|it| it.data.clone()).collect()
    };

    let stock = hear("data: YHOO\ndata: +2\ndata: 10\n\n");
    assert_eq!(data(&stock), ["YHOO\n+2\n10"]);

    let blocks = hear(
        ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
    );
    assert_eq!(data(&blocks), ["first event", "second event"]);
    let ids: Vec<_> = blocks.heard.iter().map(|it| &*it.last_event_id).collect();
    assert_eq!(ids, ["1", ""]);

    assert_eq!(data(&hear("data\n\ndata\ndata\n\ndata:")), ["", "\n"]);
    assert_eq!(data(&hear("data:test\n\ndata: test\n\n")), ["test", "test"]);
    assert_eq!(
        data(&hear("\u{feff}data: a\r\rdata: b\r\n\r\n")),
        ["a", "b"]
    );
    assert_eq!(data(&hear("\u{feff}\u{feff}data: a\n\n")), [""; 0]);
    assert_eq!(hear("retry: 10\nretry: 1x\nretry:\n").retry, Some(10));
    assert_eq!(hear("id: 1\nid: 2\0\n\n").last_event_id, "1");
}

/// What a server may write.
#[derive(Clone, Debug)]
enum Block {
    Event {
        name: Option<String>,
        id: Option<String>,
        data: String,
    },
    /// By [`write_event_with`]: one line.
    Line {
        id: Option<String>,
        line: String,
    },
    IdOnly(Cursor),
    Comment(String),
    Retry(u64),
}

/// Payloads of all kinds: line ends in every order, what looks like fields, U+0000, byte order
/// marks, any Unicode.
fn payload() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a\r\n]{0,20}",
        "( |:|data|data: |id: 9|event: x|retry: 1|\r|\n|\r\n|\u{0}|\u{feff}|\u{2028}|é|😀){0,20}",
        any::<String>(),
        "[ -~]{100,400}",
    ]
}

fn block() -> impl Strategy<Value = Block> {
    let name = option::of("[^\u{0}-\u{1f}\u{7f}-\u{9f}]{1,30}");
    let id = || option::of("[A-Za-z0-9._-]{1,64}");
    prop_oneof![
        4 => (name, id(), payload()).prop_map(|(name, id, data)| Block::Event { name, id, data }),
        1 => (id(), "[^\r\n]{0,40}").prop_map(|(id, line)| Block::Line { id, line }),
        1 => any::<(u64, u64)>()
            .prop_map(|(epoch, offset)| Block::IdOnly(Cursor { epoch, offset })),
        1 => payload().prop_map(Block::Comment),
        1 => any::<u32>().prop_map(|ms| Block::Retry(ms.into())),
    ]
}

fn write(block: &Block, out: &mut Vec<u8>) {
    match block {
        Block::Event { name, id, data } => Event {
            name: name.as_deref().map(|it| EventName::new(it).expect(it)),
            id: id.as_deref().map(|it| EventId::new(it).expect(it)),
            data,
        }
        .write(out),
        Block::Line { id, line } => {
            let id = id.as_deref().map(|it| EventId::new(it).expect(it));
            write_event_with(None, id, out, |out| out.extend_from_slice(line.as_bytes()));
        }
        Block::IdOnly(cursor) => write_id_only(cursor.to_text().as_id(), out),
        Block::Comment(text) => write_comment(text, out),
        Block::Retry(ms) => write_retry(Duration::from_millis(*ms), out),
    }
}

/// What a client should hear, and its last event ID and reconnection time in the end.
fn expected(blocks: &[Block]) -> (Vec<Heard>, String, Option<u64>) {
    let (mut heard, mut last, mut retry) = (Vec::new(), String::new(), None);
    for block in blocks {
        match block {
            Block::Event { id, .. } | Block::Line { id, .. } => {
                last = id.clone().unwrap_or(last);
            }
            Block::IdOnly(cursor) => last = format!("{}.{}", cursor.epoch, cursor.offset),
            Block::Comment(_) => {}
            Block::Retry(ms) => retry = Some(*ms),
        }
        let (name, data) = match block {
            Block::Event { name, data, .. } => {
                let data = data.replace("\r\n", "\n").replace('\r', "\n");
                (name.clone().unwrap_or("message".to_owned()), data)
            }
            Block::Line { line, .. } => ("message".to_owned(), line.clone()),
            _ => continue,
        };
        heard.push(Heard {
            name,
            data,
            last_event_id: last.clone(),
        });
    }
    (heard, last, retry)
}

/// Feeds a stream that is cut at these places.
fn hear(stream: &[u8], cuts: &[Index]) -> Client {
    let mut cuts: Vec<usize> = cuts.iter().map(|it| it.index(stream.len() + 1)).collect();
    cuts.sort_unstable();
    let mut client = Client::default();
    let mut from = 0;
    for to in cuts.into_iter().chain([stream.len()]) {
        client.feed(&stream[from..to]);
        from = to;
    }
    client
}

proptest! {
    #[test]
    fn what_is_written_is_heard(
        blocks in vec(block(), 0..12),
        cuts in vec(any::<Index>(), 0..12),
    ) {
        let mut stream = Vec::new();
        for block in &blocks {
            write(block, &mut stream);
        }
        let client = hear(&stream, &cuts);
        let (heard, last_event_id, retry) = expected(&blocks);
        prop_assert_eq!(&client.heard, &heard);
        prop_assert_eq!(client.last_event_id, last_event_id);
        prop_assert_eq!(client.retry, retry);
        prop_assert!(client.line.is_empty(), "the stream ends within a line");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// A payload of up to 1 MiB; where it is cut is what the cases are about.
    #[test]
    fn long_payloads_are_heard(
        piece in payload().prop_filter("not empty", |it| !it.is_empty()),
        len in 1_usize..=1 << 20,
        cuts in vec(any::<Index>(), 0..40),
    ) {
        let data = piece.repeat(len.div_ceil(piece.len()).min((1 << 20) / piece.len()));
        let block = Block::Event { name: None, id: None, data };
        let mut stream = Vec::new();
        write(&block, &mut stream);
        let (heard, ..) = expected(std::slice::from_ref(&block));
        prop_assert!(hear(&stream, &cuts).heard == heard);
    }
}
