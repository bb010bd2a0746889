//! The subscription table: looking up a topic, and subscriptions that come and go, with one to a
//! million subscriptions. `cargo bench -p tidings-bench --bench topics`.
//!
//! Topics are looked up in an order that no cache foresees, as they come from many publishers. A
//! publisher that stays with its topics does none of this: it keeps what it looked up as long as
//! nobody subscribes. That is in `delivery`.

mod kit;

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};

use kit::{Bed, Filters};

const SIZES: [usize; 4] = [1, 100, 10_000, 1_000_000];

/// Sessions that hold the subscriptions.
const SESSIONS: usize = 1000;

/// Topics that are looked up, in turn.
const TOPICS: usize = 4096;

/// Numbers below `count` in an order without order: a multiplicative generator, the same always.
fn scattered(count: usize) -> impl Iterator<Item = usize> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..TOPICS).map(move |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % count
    })
}

/// What matches one subscription (or one group), and what matches none.
fn lookups(criterion: &mut Criterion) {
    let bed = Bed::new();
    let sessions = bed.sessions(SESSIONS);
    for filters in Filters::ALL {
        let mut group = criterion.benchmark_group(format!("lookup {}", filters.name()));
        for size in SIZES {
            let table = kit::table(filters, size, &sessions);
            let topics: Vec<String> = scattered(size).map(|at| filters.topic(at)).collect();
            assert!(topics.iter().all(|topic| {
                let matched = table.matches(topic);
                matched.targets.len() + matched.groups.len() == 1
            }));
            let mut next = topics.iter().cycle();
            group.bench_function(BenchmarkId::new("found", size), |bencher| {
                bencher.iter(|| {
                    let topic = next.next().expect("a cycle does not end");
                    black_box(table.matches(black_box(topic)))
                });
            });
            let topics: Vec<String> = scattered(size)
                .map(|at| format!("{}-no", filters.topic(at)))
                .collect();
            assert!(topics.iter().all(|topic| {
                let matched = table.matches(topic);
                matched.targets.is_empty() && matched.groups.is_empty()
            }));
            let mut next = topics.iter().cycle();
            group.bench_function(BenchmarkId::new("not found", size), |bencher| {
                bencher.iter(|| {
                    let topic = next.next().expect("a cycle does not end");
                    black_box(table.matches(black_box(topic)))
                });
            });
        }
        group.finish();
    }
}

/// A subscription that is made and taken away beside those that are there.
fn churn(criterion: &mut Criterion) {
    let bed = Bed::new();
    let sessions = bed.sessions(SESSIONS);
    let session = bed.client("churn", kit::Kind::CLEAN).session;
    for filters in Filters::ALL {
        let mut group = criterion.benchmark_group(format!("churn {}", filters.name()));
        for size in SIZES {
            let table = kit::table(filters, size, &sessions);
            // New ones, close to those that are there: half of their levels exist.
            let filter_of: Vec<Arc<str>> = scattered(size)
                .map(|at| filters.filter(size + at).into())
                .collect();
            let before = table.count();
            let mut next = filter_of.iter().cycle();
            group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
                bencher.iter(|| {
                    let filter = next.next().expect("a cycle does not end");
                    kit::put_filter(&table, filters, black_box(filter), &session);
                    let gone = match filters {
                        Filters::Shared => table.leave("group", filter, session.number()),
                        _ => table.unsubscribe(filter, session.number()),
                    };
                    assert!(gone);
                });
            });
            assert_eq!(table.count(), before);
        }
        group.finish();
    }
}

/// Topics that many filters match at once: a dashboard's `#`, and one filter per level.
fn overlapping(criterion: &mut Criterion) {
    let bed = Bed::new();
    let sessions = bed.sessions(SESSIONS);
    let mut group = criterion.benchmark_group("lookup overlapping");
    for matching in [2, 16, 128] {
        let table = kit::table(Filters::Exact, 10_000, &sessions);
        for (number, session) in sessions.iter().take(matching).enumerate() {
            let filter: Arc<str> = match number % 4 {
                0 => "#".into(),
                1 => "site/#".into(),
                2 => "site/+/+/+/+".into(),
                _ => "site/1/room/#".into(),
            };
            kit::put_filter(&table, Filters::Hash, &filter, session);
        }
        let topic = Filters::Exact.topic(4096 + 512);
        group.bench_function(BenchmarkId::from_parameter(matching), |bencher| {
            bencher.iter(|| black_box(table.matches(black_box(&topic))));
        });
    }
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .sample_size(50)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
}

criterion_group! {
    name = benches;
    config = settings();
    targets = lookups, churn, overlapping
}
criterion_main!(benches);
