//! The stores: appending messages with one and ten targets, waiting for the disk, reading back.
//! `cargo bench -p tidings-bench --bench store`. The durable store works in the target directory,
//! or where `TIDINGS_BENCH_DIR` says: its figures are those of that disk.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings::store::{
    Durability, DurableStore, List, MemoryStore, Message, Offset, Options, Record, Retained,
    SeqRange, SessionView, Store, Target, Ticket, Waiting,
};

const PAYLOAD: [u8; 64] = [b'x'; 64];

/// Messages that are read back at once when a session returns.
const PAGE: usize = 256;

/// A store with sessions, and the numbers that their next entries get.
struct Bed {
    store: Arc<dyn Store>,
    /// Of the durable store.
    directory: Option<PathBuf>,
    sessions: u64,
    seq: u64,
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(error) = self.store.close() {
            eprintln!("the store did not close: {error}");
        }
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir_all(directory);
        }
    }
}

impl Bed {
    fn memory(sessions: u64) -> Bed {
        let (store, _) = MemoryStore::new();
        Bed::with(Arc::new(store), None, sessions)
    }

    fn durable(sessions: u64, durability: Durability) -> Bed {
        let base = std::env::var_os("TIDINGS_BENCH_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        let directory = base.join(format!("store-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        let mut options = Options::new(&directory);
        options.durability = durability;
        let (store, _) = DurableStore::open(&options).expect("a directory to write to");
        Bed::with(Arc::new(store), Some(directory), sessions)
    }

    fn with(store: Arc<dyn Store>, directory: Option<PathBuf>, sessions: u64) -> Bed {
        for session in 1..=sessions {
            let client_id = format!("session{session}");
            let record = SessionView {
                client_id: &client_id,
                epoch: 1,
                expiry_interval_secs: 3600,
                protocol_level: 4,
                ..SessionView::default()
            };
            store
                .append(&[Record::SessionPut { session, record }])
                .expect("it takes it");
        }
        Bed {
            store,
            directory,
            sessions,
            seq: 0,
        }
    }

    /// Appends `count` messages, as many calls, each for all sessions.
    fn fill(&mut self, count: usize) -> (Ticket, Vec<Offset>) {
        let mut ticket = Ticket::default();
        let mut offsets = Vec::with_capacity(count);
        let mut targets: Vec<Target<'_>> = (1..=self.sessions)
            .map(|session| Target {
                session,
                seq: 0,
                qos: 1,
                flags: 0,
                subscription_ids: List::default(),
            })
            .collect();
        for _ in 0..count {
            for target in &mut targets {
                target.seq = self.seq;
            }
            self.seq += 1;
            let message = Message {
                topic: "building/7/floor/3/room/12/temperature",
                properties: &[],
                payload: &PAYLOAD,
                qos: 1,
                retain: false,
                published_ms: 1,
                expires_ms: None,
                publisher: 0,
                retained: Retained::Unchanged,
                inbound: None,
                targets: List::from(&targets[..]),
            };
            let appended = self
                .store
                .append(&[Record::Message(message)])
                .expect("it takes it");
            ticket = appended.ticket;
            offsets.push(appended.first_offset);
        }
        (ticket, offsets)
    }

    /// All sessions acknowledge the last `count` messages.
    fn empty(&mut self, count: usize) -> Ticket {
        let ranges = [SeqRange {
            first: self.seq - count as u64,
            last: self.seq - 1,
        }];
        let mut ticket = Ticket::default();
        for session in 1..=self.sessions {
            let ranges = List::from(&ranges[..]);
            ticket = self
                .store
                .append(&[Record::Done { session, ranges }])
                .expect("it takes it")
                .ticket;
        }
        ticket
    }

    fn wait(&self, ticket: Ticket) {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Unpark>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        while self.store.durable() < ticket {
            match self.store.register(ticket, &waker) {
                Waiting::Durable => return,
                Waiting::Registered => thread::park(),
                Waiting::Failed(failure) => panic!("the store failed: {failure:?}"),
            }
        }
    }
}

fn beds(sessions: u64) -> [(&'static str, Bed); 2] {
    // The interval keeps the disk out of what is measured here: what callers and committer do.
    let interval = Durability::Interval(Duration::from_millis(100));
    [
        ("memory", Bed::memory(sessions)),
        ("durable", Bed::durable(sessions, interval)),
    ]
}

/// What an append costs the one who calls it; nobody waits for the disk.
fn append(criterion: &mut Criterion) {
    const TOGETHER: usize = 1000;
    let mut group = criterion.benchmark_group("append");
    group.throughput(Throughput::Elements(TOGETHER as u64));
    for targets in [1, 10] {
        for (name, mut bed) in beds(targets) {
            group.bench_function(
                BenchmarkId::new(name, format!("{targets} targets")),
                |bencher| {
                    bencher.iter_custom(|times| {
                        (0..times)
                            .map(|_| {
                                let began = Instant::now();
                                black_box(bed.fill(TOGETHER));
                                let took = began.elapsed();
                                let ticket = bed.empty(TOGETHER);
                                bed.wait(ticket);
                                took
                            })
                            .sum()
                    });
                },
            );
        }
    }
    group.finish();
}

/// A group of messages and the wait until the disk has it: what a publisher waits for.
fn commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append and flush");
    for targets in [1, 10] {
        let mut bed = Bed::durable(targets, Durability::Fsync);
        for together in [1, 100, 1000] {
            group.throughput(Throughput::Elements(together as u64));
            let name = format!("{together} at a time");
            group.bench_function(
                BenchmarkId::new(format!("{targets} targets"), name),
                |bencher| {
                    bencher.iter_custom(|times| {
                        (0..times)
                            .map(|_| {
                                let began = Instant::now();
                                let (ticket, _) = bed.fill(together);
                                bed.wait(ticket);
                                let took = began.elapsed();
                                let ticket = bed.empty(together);
                                bed.wait(ticket);
                                took
                            })
                            .sum()
                    });
                },
            );
        }
    }
    group.finish();
}

/// A page of a queue: neighbours, and messages with those of other queues between them.
fn read(criterion: &mut Criterion) {
    const MESSAGES: usize = 64 * PAGE;
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Elements(PAGE as u64));
    for (name, mut bed) in beds(1) {
        let (ticket, offsets) = bed.fill(MESSAGES);
        bed.wait(ticket);
        for step in [1, MESSAGES / PAGE] {
            let pages: Vec<Vec<Offset>> = (0..MESSAGES / PAGE)
                .map(|page| {
                    let first = if step == 1 { page * PAGE } else { page };
                    let page = offsets[first..].iter().step_by(step).take(PAGE);
                    page.copied().collect()
                })
                .collect();
            let what = match step {
                1 => "neighbours",
                _ => "scattered",
            };
            let mut next = pages.iter().cycle();
            group.bench_function(BenchmarkId::new(name, what), |bencher| {
                bencher.iter(|| {
                    let page = next.next().expect("a cycle does not end");
                    let messages = bed.store.read(black_box(page));
                    assert!(messages.len() == PAGE && messages.iter().all(Result::is_ok));
                    messages
                });
            });
        }
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = append, commit, read
}
criterion_main!(benches);
