//! What things weigh: bytes on the heap for each subscription, session, queued and retained
//! message. Counts what the allocator is asked for, so the figures are exact and the same on every
//! machine. `cargo bench -p tidings-bench --bench memory`.

mod kit;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tidings_protocol::mqtt::QoS;

use kit::{Bed, Client, Filters, Kind, publication};

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.fetch_add(size, Relaxed);
        BYTES.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that is needed.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Bytes that `make` leaves on the heap, for each of `count`.
fn each<T>(count: usize, make: impl FnOnce() -> T) -> (f64, T) {
    let before = BYTES.load(Relaxed);
    let made = make();
    let after = BYTES.load(Relaxed);
    ((after as f64 - before as f64) / count as f64, made)
}

fn main() {
    println!("| what | how many | bytes each |");
    println!("|---|--:|--:|");
    let line = |what: &str, count: usize, bytes: f64| println!("| {what} | {count} | {bytes:.1} |");

    for filters in Filters::ALL {
        for count in [100, 10_000, 1_000_000] {
            subscriptions(filters, count, &line);
        }
    }

    let bed = Bed::new();
    let count = 10_000;
    let (bytes, _clients) = each(count, || {
        let connect = |index| bed.client(&format!("client{index:05}"), Kind::CLEAN);
        (0..count).map(connect).collect::<Vec<Client>>()
    });
    line("session, connected", count, bytes);

    for targets in [1, 10] {
        queued(targets, &line);
    }

    let bed = Bed::new();
    let mut publisher = bed.client("publisher", Kind::CLEAN);
    let count = 100_000;
    let (bytes, ()) = each(count, || {
        for number in 0..count {
            let mut publication = publication(QoS::AtMostOnce);
            publication.retain = true;
            publisher.publish(&bed.broker, &Filters::Exact.topic(number), &[publication]);
        }
    });
    line("retained message of 64 bytes", count, bytes);
}

/// Subscriptions of a thousand sessions: in the table alone, and with what each session remembers
/// of its own.
fn subscriptions(filters: Filters, count: usize, line: &impl Fn(&str, usize, f64)) {
    let bed = Bed::new();
    let sessions = bed.sessions(1000);
    let (bytes, table) = each(count, || kit::table(filters, count, &sessions));
    line(
        &format!("{} subscription, table", filters.name()),
        count,
        bytes,
    );
    drop((table, bed, sessions));

    let bed = Bed::new();
    let clients: Vec<Client> = (0..1000)
        .map(|index| bed.client(&format!("client{index}"), Kind::CLEAN))
        .collect();
    let (bytes, ()) = each(count, || {
        for number in 0..count {
            let client = &clients[number % clients.len()];
            client.subscribe(&bed.broker, &filters.written(number), QoS::AtLeastOnce);
        }
    });
    line(
        &format!("{} subscription, broker", filters.name()),
        count,
        bytes,
    );
}

/// Messages of QoS 1 that wait for sessions that are away, in a store in memory.
fn queued(targets: usize, line: &impl Fn(&str, usize, f64)) {
    let bed = Bed::new();
    let mut publisher = bed.client("publisher", Kind::CLEAN);
    for index in 0..targets {
        let client = bed.client(&format!("absent{index}"), Kind::DURABLE);
        client.subscribe(&bed.broker, "queued", QoS::AtLeastOnce);
        client.leave(&bed.broker);
    }
    let count = 100_000;
    let (bytes, ()) = each(count, || {
        for _ in 0..count {
            let matched =
                publisher.publish(&bed.broker, "queued", &[publication(QoS::AtLeastOnce)]);
            assert_eq!(matched, targets);
        }
    });
    line(
        &format!("message of 64 bytes for {targets} absent"),
        count,
        bytes,
    );
}
