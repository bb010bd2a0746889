//! How the core scales: threads, fewer and more than there are cores, that publish through one
//! broker at the same time. Without sockets, so that nothing but the core is shared.
//!
//! ```text
//! cargo bench -p tidings-bench --bench contention
//! cargo bench -p tidings-bench --bench contention -- --threads 1,4,16 --seconds 5 --only topics
//! ```
//!
//! A message is published, collected and, with QoS 1, acknowledged by the thread that published
//! it. Per scenario and thread count two figures: wall-clock nanoseconds per delivered message of
//! all threads together, which is best when it falls with the threads up to the number of cores,
//! and CPU nanoseconds of the process per delivered message, which is best when it stays as it is
//! with one thread. What it rises by is what threads cost each other.

mod kit;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use tidings::broker::outbox::Outbox;
use tidings_protocol::mqtt::QoS;

use kit::{Bed, Client, Kind, publication};

/// Messages that one read brings.
const RUN: usize = 16;

/// Subscribers of the topic that all threads publish to.
const AUDIENCE: usize = 16;

#[derive(Parser)]
struct Arguments {
    /// Thread counts.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    threads: Vec<usize>,
    /// Seconds that each is measured.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// Only scenarios whose name contains one of these.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// What `cargo bench` says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Scenario {
    name: &'static str,
    qos: QoS,
    /// Everybody publishes to one topic with so many subscribers, instead of a topic and a
    /// subscriber for each thread.
    audience: Option<usize>,
    /// Sessions that outlive their connection, over a store in memory.
    durable: bool,
    /// One more thread subscribes and unsubscribes without a pause.
    churn: bool,
}

const PLAIN: Scenario = Scenario {
    name: "",
    qos: QoS::AtMostOnce,
    audience: None,
    durable: false,
    churn: false,
};

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a topic for each thread, QoS 0",
        ..PLAIN
    },
    Scenario {
        name: "a topic for each thread, QoS 1",
        qos: QoS::AtLeastOnce,
        ..PLAIN
    },
    Scenario {
        name: "a topic for each thread, QoS 1, durable sessions",
        qos: QoS::AtLeastOnce,
        durable: true,
        ..PLAIN
    },
    Scenario {
        name: "a topic for each thread, QoS 0, subscriptions come and go",
        churn: true,
        ..PLAIN
    },
    Scenario {
        name: "one topic, 1 subscriber, QoS 0",
        audience: Some(1),
        ..PLAIN
    },
    Scenario {
        name: "one topic, 16 subscribers, QoS 0",
        audience: Some(AUDIENCE),
        ..PLAIN
    },
    Scenario {
        name: "one topic, 16 subscribers, QoS 0, subscriptions come and go",
        audience: Some(AUDIENCE),
        churn: true,
        ..PLAIN
    },
];

struct Measured {
    wall_ns: f64,
    cpu_ns: f64,
    /// Subscriptions made and taken away a second.
    churned: Option<f64>,
}

fn main() {
    let arguments = Arguments::parse();
    let cores = thread::available_parallelism().map_or(1, usize::from);
    println!(
        "{cores} cores, {RUN} messages of {} bytes at a time\n",
        kit::PAYLOAD.len()
    );
    println!(
        "| scenario | threads | ns per message | CPU ns per message | subscribed and unsubscribed |"
    );
    println!("|---|--:|--:|--:|--:|");
    for scenario in SCENARIOS {
        let named = |name: &String| scenario.name.contains(name.as_str());
        if !arguments.only.is_empty() && !arguments.only.iter().any(named) {
            continue;
        }
        for &threads in &arguments.threads {
            let measured = measure(scenario, threads.max(1), arguments.seconds);
            let churned = measured
                .churned
                .map_or_else(|| "–".to_owned(), |rate| format!("{rate:.0}/s"));
            println!(
                "| {} | {threads} | {:.1} | {:.1} | {churned} |",
                scenario.name, measured.wall_ns, measured.cpu_ns
            );
        }
    }
}

fn measure(scenario: &Scenario, threads: usize, seconds: f64) -> Measured {
    let bed = Bed::new();
    let kind = if scenario.durable {
        Kind::DURABLE
    } else {
        Kind::CLEAN
    };
    let subscriber = |index: usize, topic: &str| {
        let client = bed.client(&format!("subscriber{index}"), kind);
        client.subscribe(&bed.broker, topic, scenario.qos);
        client
    };
    let audience: Vec<Client> = (0..scenario.audience.unwrap_or(0))
        .map(|index| subscriber(index, "topic"))
        .collect();
    let delivered = AtomicU64::new(0);
    let churned = AtomicU64::new(0);
    let churn_cpu = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let everyone = threads + usize::from(scenario.churn) + 1;
    let barrier = Barrier::new(everyone);
    let warm = Duration::from_secs_f64(seconds / 5.0);
    let mut measured = None;
    thread::scope(|scope| {
        for thread in 0..threads {
            let (bed, audience, delivered, stop, barrier) =
                (&bed, &audience, &delivered, &stop, &barrier);
            let subscriber = &subscriber;
            scope.spawn(move || {
                let mut publisher = bed.client(&format!("publisher{thread}"), Kind::CLEAN);
                let publications = [publication(scenario.qos); RUN];
                let own = format!("topic{thread}");
                let mut ear = scenario
                    .audience
                    .is_none()
                    .then(|| subscriber(thread, &own));
                let topic = if ear.is_some() { &own } else { "topic" };
                let mut out = Outbox::default();
                barrier.wait();
                while !stop.load(Relaxed) {
                    let matched = publisher.publish(&bed.broker, topic, &publications);
                    delivered.fetch_add((matched * RUN) as u64, Relaxed);
                    if let Some(ear) = &mut ear {
                        ear.collect(&bed.broker);
                        if scenario.qos != QoS::AtMostOnce {
                            ear.acknowledge(&bed.broker, RUN);
                        }
                        continue;
                    }
                    // As much work for each message whatever the number of threads.
                    for ear in audience {
                        ear.collect_into(&bed.broker, &mut out);
                        out.clear();
                    }
                }
            });
        }
        if scenario.churn {
            scope.spawn(|| {
                let client = bed.client("churn", Kind::CLEAN);
                let filters: Vec<String> = (0..100)
                    .map(|index| format!("elsewhere/{index}/+/state"))
                    .collect();
                barrier.wait();
                while !stop.load(Relaxed) {
                    for filter in &filters {
                        client.subscribe(&bed.broker, filter, QoS::AtMostOnce);
                        client.unsubscribe(&bed.broker, filter);
                    }
                    churned.fetch_add(filters.len() as u64, Relaxed);
                    churn_cpu.store(cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID), Relaxed);
                }
            });
        }
        barrier.wait();
        thread::sleep(warm);
        // What the churn itself costs is not what it costs others.
        let cpu = || cpu_ns(libc::CLOCK_PROCESS_CPUTIME_ID) - churn_cpu.load(Relaxed);
        let before = (delivered.load(Relaxed), churned.load(Relaxed), cpu());
        let began = Instant::now();
        thread::sleep(Duration::from_secs_f64(seconds));
        let (messages, changes, cpu) = (
            delivered.load(Relaxed) - before.0,
            churned.load(Relaxed) - before.1,
            cpu() - before.2,
        );
        let took = began.elapsed();
        stop.store(true, Relaxed);
        measured = Some(Measured {
            wall_ns: took.as_nanos() as f64 / messages.max(1) as f64,
            cpu_ns: cpu as f64 / messages.max(1) as f64,
            churned: scenario.churn.then(|| changes as f64 / took.as_secs_f64()),
        });
    });
    let dropped = bed.broker.stats.dropped_total();
    // A message that was dropped is not one that was delivered.
    assert_eq!(dropped, 0, "{}: dropped", scenario.name);
    measured.expect("the scope has ended")
}

/// CPU time of this process or thread.
fn cpu_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` outlives the call, and both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
