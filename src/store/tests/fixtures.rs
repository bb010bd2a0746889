//! Released formats load for ever. Each fixture is the exact bytes that a release wrote; what
//! differs from them must come with a new version and a new fixture, never with a change here.

use crate::store::log::format::{SegmentHeader, group_mark, is_intact, seal_body, seal_offset};
use crate::store::record::{decode, encode};
use crate::store::state::table::Meta;
use crate::store::state::{DirtyKey, NoBodies, State};
use crate::store::{
    DurableStore, List, Message, Offset, Record, Retained, SeqRange, SessionView, Target, WillView,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("it is hexadecimal"))
        .collect()
}

const TARGETS: [Target<'static>; 2] = [
    Target {
        session: 5,
        seq: 300,
        qos: 1,
        flags: 0,
        subscription_ids: List::Given(&[]),
    },
    Target {
        session: 1_000_000,
        seq: 7,
        qos: 2,
        flags: 0x21,
        subscription_ids: List::Given(&[1, 268_435_455]),
    },
];

const SESSION: SessionView<'static> = SessionView {
    client_id: "kitchen",
    user: Some("anna"),
    epoch: 3,
    expiry_interval_secs: u32::MAX,
    connected_ms: 1_700_000_000_000,
    disconnected_ms: Some(1_700_000_000_001),
    protocol_level: 5,
    extra: &[1, 2],
};

const WILL: WillView<'static> = WillView {
    topic: "gone",
    properties: &[1, 1],
    payload: b"bye",
    qos: 1,
    retain: true,
    delay_secs: 30,
    due_ms: Some(1_700_000_030_000),
};

const MESSAGE: Message<'static> = Message {
    topic: "a/b",
    properties: &[1, 1],
    payload: b"21.5",
    qos: 2,
    retain: true,
    published_ms: 1_700_000_000_000,
    expires_ms: Some(1_700_000_060_000),
    publisher: 9,
    retained: Retained::Set,
    inbound: Some((9, 65_535)),
    targets: List::Given(&TARGETS),
};

/// Every kind of record, with the kind, version and body that it was released with.
fn records() -> Vec<(Record<'static>, (u8, u8), &'static str)> {
    vec![
        (
            Record::Message(MESSAGE),
            (1, 1),
            "6e80d095ffbc3109e0a499ffbc3109ffff03612f620201010432312e350205ac020100c0843d07860201ffffff7f",
        ),
        (
            Record::Message(Message {
                qos: 0,
                retain: true,
                retained: Retained::Cleared,
                expires_ms: None,
                inbound: None,
                publisher: 0,
                properties: &[],
                payload: &[],
                targets: List::Given(&[]),
                ..MESSAGE
            }),
            (1, 1),
            "1480d095ffbc310003612f62000000",
        ),
        (
            Record::Done {
                session: 5,
                ranges: List::Given(&[
                    SeqRange { first: 3, last: 3 },
                    SeqRange {
                        first: 200,
                        last: 500,
                    },
                ]),
            },
            (2, 1),
            "05020300c801ac02",
        ),
        (
            Record::Released {
                session: 5,
                seqs: List::Given(&[9, 1_000]),
            },
            (3, 1),
            "050209e807",
        ),
        (
            Record::InboundReleased {
                session: 5,
                packet_ids: List::Given(&[1, 65_535]),
            },
            (4, 1),
            "05020100ffff",
        ),
        (
            Record::SessionPut {
                session: 5,
                record: SESSION,
            },
            (5, 1),
            "05030503ffffffff0f80d095ffbc3181d095ffbc31076b69746368656e04616e6e61020102",
        ),
        (Record::SessionRemove { session: 500 }, (6, 1), "f403"),
        (
            Record::Subscribe {
                session: 5,
                filter: "$share/g/a/#",
                options: 0x2D,
                subscription_id: Some(12),
            },
            (7, 1),
            "050c2473686172652f672f612f232d0c",
        ),
        (
            Record::Unsubscribe {
                session: 5,
                filter: "a/+",
            },
            (8, 1),
            "0503612f2b",
        ),
        (Record::RetainedClear { topic: "a/b" }, (9, 1), "03612f62"),
        (
            Record::Enqueue {
                offset: Offset(77),
                size: 1_000,
                target: TARGETS[1],
            },
            (10, 1),
            "4de807c0843d07860201ffffff7f",
        ),
        (
            Record::WillPut {
                session: 5,
                will: WILL,
            },
            (11, 1),
            "050d1eb0ba97ffbc3104676f6e6502010103627965",
        ),
        (Record::WillRemove { session: 5 }, (12, 1), "05"),
        (
            Record::Clock {
                now_ms: 1_700_000_000_000,
            },
            (13, 1),
            "80d095ffbc31",
        ),
        (
            Record::DocumentPut {
                key: "webhook/1",
                value: b"{}",
                expires_ms: Some(1_700_000_000_000),
            },
            (14, 1),
            "09776562686f6f6b2f310180d095ffbc31027b7d",
        ),
        (
            Record::DocumentPut {
                key: "",
                value: &[],
                expires_ms: None,
            },
            (14, 1),
            "000000",
        ),
        (
            Record::DocumentRemove { key: "webhook/1" },
            (15, 1),
            "09776562686f6f6b2f31",
        ),
    ]
}

#[test]
fn every_record_is_encoded_as_released_and_decoded_again() {
    let mut wrong = String::new();
    for (record, kind, released) in records() {
        let mut body = Vec::new();
        encode(&record, &mut body);
        assert_eq!(record.kind_and_version(), kind);
        if hex(&body) != released {
            wrong += &format!("{kind:?} {}\n", hex(&body));
        }
        assert_eq!(decode(kind.0, kind.1, &bytes(released)), Some(record));
    }
    assert!(wrong.is_empty(), "encoded otherwise:\n{wrong}");
}

/// No prefix of a body and no flipped bit in it makes the decoder panic.
#[test]
fn damaged_bodies_are_refused_or_read_as_something_else() {
    for (record, (kind, version), _) in records() {
        let mut body = Vec::new();
        encode(&record, &mut body);
        for len in 0..body.len() {
            let _ = decode(kind, version, &body[..len]);
        }
        for bit in 0..body.len() * 8 {
            let mut body = body.clone();
            body[bit / 8] ^= 1 << (bit % 8);
            if let Some(Record::Message(message)) = decode(kind, version, &body) {
                message.targets.iter().for_each(|target| {
                    target.subscription_ids.iter().for_each(drop);
                });
            }
        }
        assert_eq!(decode(kind, version + 1, &body), None);
    }
}

#[test]
fn segments_are_framed_as_released() {
    let header = SegmentHeader {
        first: 3,
        last: 5,
        base: Offset(1_000),
        epoch: 0x0102_0304_0506_0708,
    };
    assert_eq!(hex(&header.encode()), SEGMENT_HEADER_V1);
    assert_eq!(
        SegmentHeader::decode(&bytes(SEGMENT_HEADER_V1)),
        Some(header)
    );
    assert_eq!(hex(&group_mark(4_096, Offset(1_000))), GROUP_MARK_V1);
    let mut record = bytes(&"00".repeat(18));
    encode(&Record::Message(MESSAGE), &mut record);
    seal_body(&mut record, 1, 1);
    seal_offset(&mut record, Offset(1_234));
    assert_eq!(hex(&record[..18]), RECORD_HEADER_V1);
    assert!(is_intact(&record));
}

const SEGMENT_HEADER_V1: &str = "5449444e474c4f47010000000000000003000000000000000500000000000000e8030000000000000807060504030201000000000000000000000000e33b5ccf";
const GROUP_MARK_V1: &str = "e6c8765c08000000f001e8030000000000000010000000000000";
const RECORD_HEADER_V1: &str = "2837da592e0000000101d204000000000000";

/// The checkpoint's keys and values.
const TABLE_V1: &[(&str, &str)] = &[
    ("52612f62", "0106280980d095ffbc31e0a499ffbc3103612f62"),
    (
        "530000000000000005",
        "01030503ffffffff0f80d095ffbc3181d095ffbc31076b69746368656e04616e6e61020102",
    ),
    ("500000000000000005", "01ad02014d00"),
    (
        "570000000000000005",
        "010d1eb0ba97ffbc3104676f6e6502010103627965",
    ),
    (
        "4600000000000000052473686172652f672f612f23",
        "012d0c0c2473686172652f672f612f23",
    ),
    ("5100000000000000050000000000000001", "0105002c5009"),
    (
        "5300000000000f4240",
        "01030503ffffffff0f80d095ffbc3181d095ffbc31076b69746368656e04616e6e61020102",
    ),
    ("5000000000000f4240", "010800"),
    (
        "5100000000000f42400000000000000000",
        "010a210750090201ffffff7f",
    ),
];

/// The chunks of [`TABLE_V1`] as format 3 writes them.
const CHUNKS_V3: &[(&str, &str)] = &[
    (
        "5100000000000000050000000000000001",
        "0200ff282d090100010000",
    ),
    (
        "5100000000000f42400000000000000000",
        "02060201ffffff7fff2808090221000100",
    ),
];
const META_V1: &str = "010340ffffffffffffffffff0109ac0280d095ffbc31";

#[test]
fn the_checkpoint_is_written_as_released_and_loaded_again() {
    let mut state = State::new();
    for (record, _, _) in records() {
        // All that leave something behind.
        if matches!(
            record,
            Record::SessionPut { .. } | Record::Subscribe { .. } | Record::WillPut { .. }
        ) {
            state.apply(Offset(0), &record, &mut NoBodies);
        }
    }
    let other = Record::SessionPut {
        session: 1_000_000,
        record: SESSION,
    };
    state.apply(Offset(0), &other, &mut NoBodies);
    let inbound = Message {
        inbound: Some((5, 77)),
        ..MESSAGE
    };
    state.apply(Offset(40), &Record::Message(inbound), &mut NoBodies);
    let released = Record::Released {
        session: 5,
        seqs: List::Given(&[300]),
    };
    state.apply(Offset(0), &released, &mut NoBodies);

    let mut keys = state.retained_keys();
    keys.push(DirtyKey::Retained("x".repeat(300).into()));
    let long = keys.pop().expect("it was pushed");
    assert_eq!(long.to_bytes().len(), 18);
    let mut numbers = state.session_numbers();
    numbers.sort_unstable();
    state.keys_of_sessions(&numbers, &mut keys);
    let mut written = Vec::new();
    for key in &keys {
        let mut value = Vec::new();
        assert!(state.put_value(key, &mut value));
        written.push((hex(&key.to_bytes()), hex(&value)));
    }
    let in_format_3 = |key: &str| CHUNKS_V3.iter().find(|(chunk, _)| *chunk == key);
    let released: Vec<_> = TABLE_V1
        .iter()
        .map(|value| in_format_3(value.0).unwrap_or(value))
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect();
    assert_eq!(written, released);

    let in_format_1 = TABLE_V1.iter().map(|(key, value)| (*key, *value));
    let in_format_3 = released.iter().map(|(key, value)| (&**key, &**value));
    for values in [in_format_1.collect::<Vec<_>>(), in_format_3.collect()] {
        let mut loaded = State::new();
        for (key, value) in values {
            loaded.load(&bytes(key), &bytes(value)).expect("it loads");
        }
        let report = crate::store::Report::default;
        let (before, after) = (state.recovered(1, report()), loaded.recovered(1, report()));
        assert_eq!(before.sessions, after.sessions);
        assert_eq!(before.retained, after.retained);
        assert_eq!(before.next_session, after.next_session);
    }

    let meta = Meta {
        segment: 3,
        position: 64,
        log_epoch: u64::MAX,
        next_session: 9,
        next_offset: Offset(300),
        clock_ms: 1_700_000_000_000,
    };
    assert_eq!(hex(&meta.encode()), META_V1);
    assert_eq!(Meta::decode(&bytes(META_V1)), Some(meta));
}

/// One chunk of a long queue, in both versions: with packed entries, one that is far behind the one
/// before it, gaps, subscription identifiers, and messages that are not in order.
const LONG_CHUNK_V1: &str = "01010000d01b50060001065001000106500100010650010001065001000106500100010650010001065001000106500100010650010001065001000106500100010650010001065001000106ac0201000106ac0201000106ac0201210106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac02010001f0eb79ac02010001e3eb79ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac020900a10106500201ffffff7f010001065001000106500100010650010001065001000106500100010650020001065001000106500100010650010001065001000106500100010650010001065001000106500100010650010001065001000106500100010650010001065001000106500100010650010001065001000106500100010650010001065001000106500100010650010001065001000180ea7950010001f3e979ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac0201000106ac02";
const LONG_CHUNK_V2: &str = "02060201ffffff7ffee80d5001000000711c020001001c0100000018181818181818181818181aac0218181c012100001c010000001818181818181818181818181818f8f8f53cf88e8ac3ffffffffffff011818181818181818181fa10150010000011c0100000018181818181c020000001c010000001818181818181818181818f9c001e0012e1818181818181818f880f53cfa868bc3ffffffffffff01ac02181818181818181818181818181818181818181818";

#[test]
fn a_chunk_of_a_long_queue_is_written_as_released_and_loaded_again() {
    let mut state = State::new();
    let session = Record::SessionPut {
        session: 5,
        record: SESSION,
    };
    state.apply(Offset(0), &session, &mut NoBodies);
    for number in 0..500_u64 {
        let target = Target {
            session: 5,
            // None from 300 to 459.
            seq: if number < 300 { number } else { number + 160 },
            qos: if number % 50 == 7 { 2 } else { 1 },
            flags: u8::from(number % 90 == 3) * 0x21,
            subscription_ids: match number % 70 {
                20 => List::Given(&[1, 268_435_455]),
                _ => List::Given(&[]),
            },
        };
        let queued = Record::Enqueue {
            offset: Offset(match number % 40 {
                9 => 1_000_000,
                _ => 1_000 + 3 * number,
            }),
            size: if number % 60 < 30 { 80 } else { 300 },
            target,
        };
        state.apply(Offset(0), &queued, &mut NoBodies);
    }
    let done = Record::Done {
        session: 5,
        ranges: List::Given(&[SeqRange {
            first: 0,
            last: 200,
        }]),
    };
    state.apply(Offset(0), &done, &mut NoBodies);
    let released = Record::Released {
        session: 5,
        seqs: List::Given(&[257]),
    };
    state.apply(Offset(0), &released, &mut NoBodies);

    let key = DirtyKey::Chunk(5, 1);
    let mut value = Vec::new();
    assert!(state.put_value(&key, &mut value));
    assert_eq!(hex(&value), LONG_CHUNK_V2);
    let load = |value| {
        let mut loaded = State::new();
        loaded
            .load(&key.to_bytes(), &bytes(value))
            .expect("it loads");
        loaded.recovered(1, crate::store::Report::default())
    };
    let [old, new] = [LONG_CHUNK_V1, LONG_CHUNK_V2].map(load);
    assert_eq!(old.sessions, new.sessions);
    assert_eq!(old.next_offset, new.next_offset);
    let all = &state.recovered(1, crate::store::Report::default()).sessions[0];
    let of_chunk = |seq: u64| seq / 256 == 1;
    let mut queue = all.queue.clone();
    queue.entries.retain(|it| of_chunk(it.seq));
    queue.subscription_ids.retain(|(seq, _)| of_chunk(*seq));
    assert_eq!(new.sessions[0].queue, queue);
}

/// What format 2 added to the checkpoint.
const TABLE_V2: &[(&str, &str)] = &[
    ("44", "01000178"),
    ("44776562686f6f6b2f31", "010180d095ffbc31027b7d"),
];

#[test]
fn documents_are_written_as_released_and_loaded_again() {
    let mut state = State::new();
    for (key, value, expires_ms) in [
        ("", &b"x"[..], None),
        ("webhook/1", b"{}", Some(1_700_000_000_000)),
    ] {
        let record = Record::DocumentPut {
            key,
            value,
            expires_ms,
        };
        state.apply(Offset(0), &record, &mut NoBodies);
    }
    let mut keys = state.document_keys();
    keys.sort_unstable();
    let mut loaded = State::new();
    for (key, released) in keys.iter().zip(TABLE_V2) {
        let mut value = Vec::new();
        assert!(state.put_value(key, &mut value));
        assert_eq!((&*hex(&key.to_bytes()), &*hex(&value)), *released);
        loaded
            .load(&bytes(released.0), &bytes(released.1))
            .expect("it loads");
    }
    let report = crate::store::Report::default;
    let (before, after) = (state.recovered(1, report()), loaded.recovered(1, report()));
    assert_eq!(before.documents.len(), 2);
    assert_eq!(before.documents, after.documents);
    for value in ["02000178", "01000278", "0100017878", "0101"] {
        assert_eq!(loaded.load(b"D", &bytes(value)), None, "{value}");
    }
    assert_eq!(loaded.load(b"D\xff", &bytes("01000178")), None);
}

/// The file `format` of each release: the store goes on with its epoch, in the newest format.
#[test]
fn directories_of_every_format_are_opened() {
    for released in [
        "tidings-store 1\nepoch 18446744073709551615\n",
        "tidings-store 2\nepoch 18446744073709551615\n",
        "tidings-store 3\nepoch 18446744073709551615\n",
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let options = super::small(dir.path());
        drop(DurableStore::open(&options).expect("it opens"));
        let file = dir.path().join("format");
        std::fs::write(&file, released).expect("it writes");
        let (store, recovered) = DurableStore::open(&options).expect("it opens");
        assert_eq!(recovered.epoch, u64::MAX);
        drop(store);
        assert_eq!(
            std::fs::read_to_string(&file).expect("it can be read"),
            "tidings-store 3\nepoch 18446744073709551615\n"
        );
    }
}
