//! The way of a message through the core, without sockets: queueing, publishing, collecting,
//! acknowledging. `cargo bench -p tidings-bench --bench delivery`.

mod kit;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidings::broker::outgoing::{Acknowledgement, Body, Next, Outgoing, Slot};

use tidings::store::Ticket;
use tidings_protocol::mqtt::QoS;

use kit::{Bed, Client, Kind, packet_id, publication};

/// Messages that one read brings.
const RUN: usize = 16;

const TOPIC: &str = "building/7/floor/3/room/12/temperature";

/// A message as the queue sees it; what is in it is not the queue's business.
fn slot(qos: QoS) -> Slot {
    Slot::waiting(Body::None, None, qos, false)
}

/// Sends what the window allows, acknowledges it, until nothing is left.
fn empty(queue: &mut Outgoing, window: u16, number: &mut u64) {
    while !queue.is_empty() {
        let mut sent = 0;
        while let Next::Send(slot, id) = queue.next(window, Ticket(0), |_, _| false) {
            black_box((slot, id));
            sent += 1;
        }
        for _ in 0..sent {
            let done = queue.acknowledge(Acknowledgement::Ack, packet_id(*number));
            assert!(done.is_ok(), "not in flight");
            *number += 1;
        }
    }
}

fn queue(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("queue");
    for (window, waiting) in [(1, 1), (20, 20), (20, 10_000), (1000, 1000), (1000, 10_000)] {
        let mut queue = Outgoing::default();
        let mut number = 0;
        group.throughput(Throughput::Elements(waiting as u64));
        let name = format!("{waiting} messages, window {window}");
        group.bench_function(
            BenchmarkId::new("push, next, acknowledge", name),
            |bencher| {
                bencher.iter(|| {
                    for _ in 0..waiting {
                        queue.push(slot(QoS::AtLeastOnce));
                    }
                    empty(&mut queue, window, &mut number);
                });
            },
        );
    }
    group.throughput(Throughput::Elements(1000));
    let mut queue = Outgoing::default();
    let mut number = 0;
    group.bench_function("send at once, acknowledge: 1000 messages", |bencher| {
        bencher.iter(|| {
            for _ in 0..1000 {
                black_box(queue.push_sent(slot(QoS::AtLeastOnce)));
            }
            for _ in 0..1000 {
                let done = queue.acknowledge(Acknowledgement::Ack, packet_id(number));
                assert!(done.is_ok(), "not in flight");
                number += 1;
            }
        });
    });
    group.finish();
}

/// Publishes a run to everybody who is subscribed; collects and acknowledges what came of it.
fn round(bed: &Bed, publisher: &mut Client, subscribers: &mut [Client], qos: QoS, run: usize) {
    let publications = [publication(qos); RUN];
    let matched = publisher.publish(&bed.broker, TOPIC, &publications[..run]);
    assert_eq!(matched, subscribers.len());
    for subscriber in subscribers {
        assert!(subscriber.collect(&bed.broker) > run * kit::PAYLOAD.len());
        if qos != QoS::AtMostOnce {
            subscriber.acknowledge(&bed.broker, run);
        }
    }
}

fn publish(criterion: &mut Criterion) {
    for (kind, name) in [
        (Kind::CLEAN, "publish"),
        (Kind::DURABLE, "publish, durable sessions"),
    ] {
        let mut group = criterion.benchmark_group(name);
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            for (count, run) in [
                (1, 1),
                (1, RUN),
                (10, RUN),
                (100, RUN),
                (1000, 1),
                (1000, RUN),
            ] {
                let bed = Bed::new();
                let mut publisher = bed.client("publisher", Kind::CLEAN);
                let mut subscribers: Vec<Client> = (0..count)
                    .map(|index| bed.client(&format!("subscriber{index}"), kind))
                    .collect();
                for subscriber in &subscribers {
                    subscriber.subscribe(&bed.broker, TOPIC, qos);
                }
                group.throughput(Throughput::Elements((count * run) as u64));
                let name = format!("{count} subscribers, {run} at a time");
                group.bench_function(BenchmarkId::new(format!("{qos:?}"), name), |bencher| {
                    bencher.iter(|| round(&bed, &mut publisher, &mut subscribers, qos, run));
                });
            }
        }
        group.finish();
    }
}

/// Into the queue of an absent session, and out of it through a window when it returns.
fn absent(criterion: &mut Criterion) {
    const MESSAGES: usize = 4096;
    let mut group = criterion.benchmark_group("absent session");
    group.throughput(Throughput::Elements(MESSAGES as u64));
    for window in [20, 1000] {
        for (filling, name) in [(true, "fill"), (false, "drain")] {
            let bed = Bed::new();
            let mut publisher = bed.client("publisher", Kind::CLEAN);
            let kind = Kind {
                window,
                ..Kind::DURABLE
            };
            let mut subscriber = bed.client("subscriber", kind);
            subscriber.subscribe(&bed.broker, TOPIC, QoS::AtLeastOnce);
            let publications = [publication(QoS::AtLeastOnce); RUN];
            let mut cycle = || {
                subscriber.leave(&bed.broker);
                let began = Instant::now();
                for _ in 0..MESSAGES / RUN {
                    publisher.publish(&bed.broker, TOPIC, &publications);
                }
                let filled = began.elapsed();
                subscriber = bed.client_again(&subscriber, "subscriber", kind);
                let began = Instant::now();
                let mut left = MESSAGES;
                while left > 0 {
                    let sent = left.min(usize::from(window));
                    assert!(subscriber.collect(&bed.broker) > 0);
                    subscriber.acknowledge(&bed.broker, sent);
                    left -= sent;
                }
                assert_eq!(subscriber.collect(&bed.broker), 0);
                if filling { filled } else { began.elapsed() }
            };
            group.bench_function(
                BenchmarkId::new(name, format!("window {window}")),
                |bencher| {
                    bencher.iter_custom(|times| (0..times).map(|_| cycle()).sum());
                },
            );
        }
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
    targets = queue, publish, absent
}
criterion_main!(benches);
