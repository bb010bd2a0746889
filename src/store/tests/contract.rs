//! What every store promises, checked of each implementation by the same code.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::history::History;
use super::model::Model;
use super::{message, session_put, small, target};
use crate::store::recovered::Recovered;
use crate::store::{
    DOCUMENT_KEY_MAX, DOCUMENT_VALUE_MAX, Durability, DurableStore, Health, List, MemoryStore,
    Message, Offset, Record, Retained, SeqRange, Store, StoreError, Ticket, Waiting,
};

/// Runs `check` with each kind of store.
fn each_store(check: fn(&dyn Store, &dyn Fn() -> Recovered)) {
    let (memory, _) = MemoryStore::new();
    check(&memory, &|| memory.recovered());
    for durability in [
        Durability::Fsync,
        Durability::Interval(Duration::from_millis(10)),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = small(dir.path());
        options.durability = durability;
        let (store, _) = DurableStore::open(&options).expect("it opens");
        check(&store, &|| store.recovered());
    }
}

fn wait(store: &dyn Store, ticket: Ticket) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match store.register(ticket, &waker) {
            Waiting::Durable => return,
            Waiting::Failed(failure) => panic!("{failure}"),
            Waiting::Registered => {
                while woken.0.load(Ordering::Acquire) == 0 {
                    assert!(Instant::now() < deadline, "nobody was woken");
                    std::thread::park_timeout(Duration::from_micros(50));
                }
                woken.0.store(0, Ordering::Release);
            }
        }
    }
}

#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Woken>) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

fn append(store: &dyn Store, records: &[Record<'_>]) -> Offset {
    let appended = store.append(records).expect("it takes them");
    wait(store, appended.ticket);
    appended.first_offset
}

#[test]
fn messages_are_read_back_as_they_were_appended() {
    each_store(|store, _| {
        append(store, &[session_put(1)]);
        let targets = [target(1, 1)];
        let large = vec![9; 300_000];
        let first = append(
            store,
            &[
                Record::Message(Message {
                    properties: b"\x01\x01",
                    expires_ms: Some(77),
                    publisher: 12,
                    qos: 2,
                    retain: true,
                    ..message(b"one", &targets)
                }),
                Record::Message(message(&large, &[target(1, 2)])),
                Record::Message(message(b"", &[target(1, 3)])),
            ],
        );
        let offsets = [first.plus(2), first, first.plus(1), first.plus(9)];
        let answers = store.read(&offsets);
        let third = answers[0].as_ref().expect("it is there");
        assert_eq!(third.payload.len(), 0);
        let one = answers[1].as_ref().expect("it is there");
        assert_eq!(one.topic(), "a/b");
        assert_eq!(&one.properties[..], b"\x01\x01");
        assert_eq!(&one.payload[..], b"one");
        assert_eq!((one.qos, one.retain, one.publisher), (2, true, 12));
        assert_eq!((one.published_ms, one.expires_ms), (1_000, Some(77)));
        assert_eq!(answers[2].as_ref().expect("it is there").payload, large);
        assert!(matches!(answers[3], Err(StoreError::Gone(_))));
    });
}

#[test]
fn offsets_are_dense_and_tickets_grow() {
    each_store(|store, _| {
        append(store, &[session_put(1)]);
        let mut next = None;
        for seq in 0..50 {
            let targets = [target(1, 2 * seq)];
            let more = [target(1, 2 * seq + 1)];
            let appended = store
                .append(&[
                    Record::Message(message(b"x", &targets)),
                    Record::Clock { now_ms: seq },
                    Record::Message(message(b"y", &more)),
                ])
                .expect("it takes them");
            if let Some(next) = next {
                assert_eq!(appended.first_offset, next);
            }
            next = Some(appended.first_offset.plus(2));
            // Readable at once, from the buffer or from the file.
            let found = store.read(&[appended.first_offset, appended.first_offset.plus(1)]);
            assert!(found.iter().all(Result::is_ok), "{found:?}");
            wait(store, appended.ticket);
            assert!(store.durable() >= appended.ticket);
        }
    });
}

#[test]
fn the_state_is_what_the_records_add_up_to() {
    each_store(|store, recovered| {
        let mut history = History::new(42, 2_000);
        (0..400).for_each(|_| history.advance());
        let records: Vec<_> = history.records.iter().map(|it| it.get()).collect();
        for batch in records.chunks(7) {
            append(store, batch);
        }
        // The last group is applied just after it is declared durable.
        let deadline = Instant::now() + Duration::from_secs(30);
        while Model::of(&recovered()) != history.model {
            assert!(Instant::now() < deadline, "the state is another");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        for (offset, answer) in history
            .model
            .needed()
            .iter()
            .zip(store.read(&history.model.needed()))
        {
            let stored = answer.expect("it is needed");
            let (len, fill) = history.payloads[offset.0 as usize - 1];
            assert_eq!(stored.payload, vec![fill; len]);
        }
    });
}

#[test]
fn what_nothing_needs_counts_no_more() {
    each_store(|store, _| {
        append(store, &[session_put(1), session_put(2)]);
        let targets = [target(1, 1), target(2, 1)];
        append(
            store,
            &[Record::Message(Message {
                retained: Retained::Set,
                ..message(b"x", &targets)
            })],
        );
        let needs = |expected: u64| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while store.stats().needs != expected {
                assert!(Instant::now() < deadline, "{} needs", store.stats().needs);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        };
        needs(3);
        let done = |session| Record::Done {
            session,
            ranges: List::Given(&[SeqRange { first: 0, last: 9 }]),
        };
        append(store, &[done(1), done(1)]);
        needs(2);
        append(store, &[Record::RetainedClear { topic: "a/b" }]);
        needs(1);
        append(store, &[Record::SessionRemove { session: 2 }]);
        needs(0);
    });
}

#[test]
fn a_closed_store_takes_nothing_and_says_so() {
    each_store(|store, _| {
        append(store, &[session_put(1)]);
        store.close().expect("it closes");
        store.close().expect("twice is harmless");
        let refused = store.append(&[Record::Clock { now_ms: 1 }]);
        assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
        let waker = Waker::noop();
        assert!(matches!(
            store.register(Ticket(u64::MAX), waker),
            Waiting::Failed(_)
        ));
    });
}

#[test]
fn an_empty_batch_is_as_durable_as_what_came_before() {
    each_store(|store, _| {
        append(store, &[]);
        append(store, &[session_put(1)]);
        append(store, &[]);
    });
}

#[test]
fn documents_are_put_replaced_and_removed() {
    each_store(|store, recovered| {
        let key = "k".repeat(DOCUMENT_KEY_MAX);
        let large = vec![7; DOCUMENT_VALUE_MAX];
        let put = |key, value, expires_ms| Record::DocumentPut {
            key,
            value,
            expires_ms,
        };
        append(
            store,
            &[
                put("b", b"one", None),
                put("a", b"gone", None),
                put(&key, &large, Some(u64::MAX)),
                put("b", b"two", Some(9)),
                Record::DocumentRemove { key: "a" },
                Record::DocumentRemove { key: "never there" },
            ],
        );
        // All or none.
        for refused in [
            put(&format!("{key}k"), b"", None),
            put("b", &[large.as_slice(), &[7]].concat(), None),
            Record::DocumentRemove {
                key: &format!("{key}k"),
            },
        ] {
            let refused = store.append(&[put("c", b"", None), refused]);
            assert!(matches!(refused, Err(StoreError::TooLarge { .. })));
        }
        // While it is open, a document that is void stays until it is removed.
        append(store, &[Record::Clock { now_ms: 10 }]);
        let expected = [("b", &b"two"[..], Some(9)), (&key, &large, Some(u64::MAX))];
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let recovered = recovered();
            let found: Vec<_> = recovered
                .documents
                .iter()
                .map(|it| (&*it.key, &*it.value, it.expires_ms))
                .collect();
            if recovered.clock_ms == 10 && found == expected {
                break;
            }
            assert!(Instant::now() < deadline, "{} documents", found.len());
            std::thread::park_timeout(Duration::from_millis(1));
        }
    });
}

#[test]
fn an_append_has_a_larger_ticket_than_those_before_it() {
    each_store(|store, _| {
        check_appended(store, Ticket(0));
        let last = store.appended();
        wait(store, last);
        store.close().expect("it closes");
        assert!(store.append(&[session_put(1)]).is_err());
        assert_eq!(store.appended(), last);
    });
    let slow = crate::store::SlowStore::new();
    check_appended(&slow, Ticket(0));
}

fn check_appended(store: &dyn Store, mut last: Ticket) {
    assert_eq!(store.appended(), last);
    for records in [&[session_put(1), session_put(2)][..], &[session_put(3)]] {
        let appended = store.append(records).expect("it takes them").ticket;
        assert!(appended > last);
        assert_eq!(store.appended(), appended);
        let idle = store.append_idle(records).expect("it takes them").ticket;
        assert!(idle > appended);
        assert_eq!(store.appended(), idle);
        last = idle;
    }
    // Whoever reads it and appends then is behind everyone who had appended by then.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for now_ms in 0..500 {
                    let before = store.appended();
                    let ticket = store
                        .append(&[Record::Clock { now_ms }])
                        .expect("it takes it")
                        .ticket;
                    assert!(ticket > before);
                    assert!(store.appended() >= ticket);
                }
            });
        }
    });
    assert_eq!(store.appended(), Ticket(last.0 + 2_000));
}

#[test]
fn a_store_that_failed_says_so_cheaply() {
    each_store(|store, _| {
        assert!(!store.failed() && matches!(store.health(), Health::Well));
        store.close().expect("it closes");
        assert!(store.failed() && matches!(store.health(), Health::Failed(_)));
    });
}

#[test]
fn thousands_may_wait_and_each_is_woken_once() {
    each_store(|store, _| {
        append(store, &[session_put(1)]);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut registered = 0;
        let mut last = Ticket(0);
        for seq in 0..3_000 {
            let targets = [target(1, seq)];
            let records = [Record::Message(message(b"x", &targets))];
            last = store.append(&records).expect("it takes it").ticket;
            if matches!(store.register(last, &waker), Waiting::Registered) {
                registered += 1;
            }
        }
        wait(store, last);
        let deadline = Instant::now() + Duration::from_secs(30);
        while woken.0.load(Ordering::Acquire) < registered {
            assert!(Instant::now() < deadline, "somebody was not woken");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        assert_eq!(woken.0.load(Ordering::Acquire), registered);
    });
}

/// Several threads append, read back and acknowledge while checkpoints, compaction and backups go
/// on: everything that was appended can be read at any time, in the buffer or on disk.
#[test]
fn many_threads_at_once() {
    const THREADS: u64 = 4;
    const MESSAGES: u64 = 1_500;
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path().join("store"));
    let (store, _) = DurableStore::open(&options).expect("it opens");
    for session in 1..=THREADS {
        append(&store, &[session_put(session)]);
    }
    std::thread::scope(|scope| {
        for session in 1..=THREADS {
            let store = &store;
            scope.spawn(move || {
                let mut offsets = Vec::new();
                for seq in 1..=MESSAGES {
                    let payload = vec![session as u8; (seq % 300) as usize];
                    let targets = [target(session, seq)];
                    let appended = store
                        .append(&[Record::Message(message(&payload, &targets))])
                        .expect("it takes it");
                    offsets.push(appended.first_offset);
                    let back = (seq * 7919 % 40).min(seq - 1) as usize;
                    let at = offsets.len() - 1 - back;
                    let wanted = [offsets[at], appended.first_offset];
                    for answer in store.read(&wanted) {
                        let stored = answer.expect("it is needed");
                        assert!(stored.payload.iter().all(|&byte| byte == session as u8));
                    }
                    if seq % 100 == 0 {
                        wait(store, appended.ticket);
                        store.request_checkpoint();
                    }
                    // All but every fiftieth of what can no longer be asked for is acknowledged.
                    if seq > 50 && (seq - 50) % 50 != 0 {
                        let ranges = [SeqRange::one(seq - 50)];
                        store
                            .append(&[Record::Done {
                                session,
                                ranges: List::Given(&ranges),
                            }])
                            .expect("it takes it");
                    }
                }
            });
        }
        store
            .backup(&dir.path().join("backup"))
            .expect("it is copied");
    });
    store.close().expect("it closes");
    drop(store);
    for path in [options.path.clone(), dir.path().join("backup")] {
        let (store, recovered) = DurableStore::open(&small(path)).expect("it opens");
        assert!(!recovered.report.has_loss(), "{:?}", recovered.report);
        for session in &recovered.sessions {
            let offsets: Vec<_> = session.queue.entries.iter().map(|it| it.offset).collect();
            assert!(store.read(&offsets).iter().all(Result::is_ok));
        }
    }
    let (_, recovered) = DurableStore::open(&options).expect("it opens");
    for session in &recovered.sessions {
        let seqs: Vec<_> = session.queue.entries.iter().map(|it| it.seq).collect();
        let expected: Vec<_> = (1..=MESSAGES)
            .filter(|&seq| seq > MESSAGES - 50 || seq.is_multiple_of(50))
            .collect();
        assert_eq!(seqs, expected);
    }
}

/// Whoever hears that an append is durable finds it in the queue at once.
#[test]
fn what_is_durable_is_in_the_queue() {
    each_store(|store, _| {
        store.append(&[session_put(1)]).expect("taken");
        for seq in 1..=500 {
            let targets = [target(1, seq)];
            let appended = store
                .append(&[Record::Message(message(b"x", &targets))])
                .expect("taken");
            while store.durable() < appended.ticket {
                std::hint::spin_loop();
            }
            let found = store.queue(1, seq..seq + 1, 10).entries;
            assert_eq!(found.len(), 1, "{seq}");
            assert_eq!(found[0].offset, appended.first_offset);
        }
    });
}
