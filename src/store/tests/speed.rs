//! Measures, of the real store on the real disk. They run small in every test run, so that they
//! stay true; `TIDINGS_SPEED=1 cargo test --release --lib store::tests::speed -- --nocapture`
//! runs them at the sizes of the promises.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{message, session_put};
use crate::store::{
    DurableStore, List, Message, Options, Record, Retained, SeqRange, Store, Target, Ticket,
};

fn size(full: u64, small: u64) -> u64 {
    if std::env::var_os("TIDINGS_SPEED").is_some() {
        full
    } else {
        small
    }
}

fn options(dir: &tempfile::TempDir) -> Options {
    Options {
        disk_free_min: 0,
        ..Options::new(dir.path().join("store"))
    }
}

/// A directory on the disk that the program was built on: /tmp may be memory.
fn directory() -> tempfile::TempDir {
    let program = std::env::current_exe().expect("it runs");
    let built_in = program.parent().expect("it is in a directory");
    tempfile::tempdir_in(built_in).expect("a directory can be made")
}

fn wait(store: &dyn Store, ticket: Ticket) {
    while store.durable() < ticket {
        assert!(matches!(store.health(), crate::store::Health::Well));
        std::thread::park_timeout(Duration::from_micros(20));
    }
}

fn cpu() -> Duration {
    let usage = rustix_getrusage();
    Duration::from_secs_f64(usage)
}

/// Seconds of CPU that this process has used.
fn rustix_getrusage() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks = |at: usize| {
        fields
            .get(at)
            .and_then(|it| it.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

fn io(name: &str) -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    io.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")?.parse().ok())
        .unwrap_or(0)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kib: u64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    kib / 1024
}

/// Appends `count` messages of `payload` bytes to `fan` of 100 sessions each, in batches of
/// `batch`, with at most `window` messages not yet durable. Returns the next seq of the sessions.
fn fill(
    store: &dyn Store,
    count: u64,
    payload: usize,
    fan: u64,
    batch: u64,
    window: u64,
    first: u64,
) -> u64 {
    let payload = vec![b'x'; payload];
    let mut seqs = vec![first; 101];
    let mut tickets = std::collections::VecDeque::new();
    let mut sent = 0;
    while sent < count {
        let targets: Vec<Vec<Target<'_>>> = (0..batch)
            .map(|i| {
                (0..fan)
                    .map(|k| {
                        let session = (sent + i + k * 7) % 100 + 1;
                        seqs[session as usize] += 1;
                        super::target(session, seqs[session as usize])
                    })
                    .collect()
            })
            .collect();
        let records: Vec<_> = targets
            .iter()
            .map(|targets| Record::Message(message(&payload, targets)))
            .collect();
        let appended = store.append(&records).expect("it takes them");
        tickets.push_back((appended.ticket, batch));
        sent += batch;
        let mut waiting: u64 = tickets.iter().map(|it| it.1).sum();
        while waiting > window {
            let (ticket, n) = tickets.pop_front().expect("there is one");
            wait(store, ticket);
            waiting -= n;
        }
    }
    while let Some((ticket, _)) = tickets.pop_front() {
        wait(store, ticket);
    }
    seqs.into_iter().max().unwrap_or(0)
}

#[test]
fn appends() {
    for (payload, fan, batch, window) in [
        (64, 1, 16, 1000),
        (64, 1, 1, 100),
        (64, 10, 16, 1000),
        (1024, 1, 16, 256),
        (64, 1, 64, 4096),
    ] {
        let only = std::env::var("TIDINGS_SPEED_FAN").ok();
        if only.is_some_and(|only| only != fan.to_string()) {
            continue;
        }
        let dir = directory();
        let (store, _) = DurableStore::open(&options(&dir)).expect("it opens");
        let sessions: Vec<_> = (1..=100).map(session_put).collect();
        store.append(&sessions).expect("it takes them");
        let count = size(600_000, 2_000);
        let (before, cpu_before) = (Instant::now(), cpu());
        let written_before = io("write_bytes");
        let last = fill(&store, count, payload, fan, batch, window, 0);
        let elapsed = before.elapsed();
        let cpu_used = cpu() - cpu_before;
        let stats = store.stats();
        // Drained: read back in pages and acknowledged.
        let before = Instant::now();
        let mut read = 0;
        for page in 0..count / 1000 {
            let offsets: Vec<_> = (0..1000)
                .map(|i| crate::store::Offset(1 + page * 1000 + i))
                .collect();
            read += store
                .read(&offsets)
                .into_iter()
                .filter(Result::is_ok)
                .count();
        }
        let reading = before.elapsed();
        assert_eq!(read as u64, count);
        for session in 1..=100 {
            let ranges = [SeqRange { first: 0, last }];
            store
                .append(&[Record::Done {
                    session,
                    ranges: List::Given(&ranges),
                }])
                .expect("it takes them");
        }
        store.request_checkpoint();
        store.close().expect("it closes");
        let group = stats.log_bytes_written / stats.commits;
        let raw = raw_commits_per_sec(dir.path(), group as usize, size(400, 4));
        let raw = raw * stats.records as f64 / stats.commits as f64;
        println!(
            "{payload} B x{fan}, batches of {batch}, {window} in flight: {:.0}/s, {:.0} ns CPU, \
             {:.0} records a commit, {:.2} log bytes a payload byte; with checkpoints {:.2} \
             (disk: {:.2}); read {:.0}/s; raw append + fdatasync of such groups {raw:.0}/s",
            count as f64 / elapsed.as_secs_f64(),
            cpu_used.as_secs_f64() * 1e9 / count as f64,
            stats.records as f64 / stats.commits as f64,
            stats.log_bytes_written as f64 / (count * payload as u64) as f64,
            (stats.log_bytes_written + stats.checkpoint_bytes_written) as f64
                / (count * payload as u64) as f64,
            (io("write_bytes") - written_before) as f64 / (count * payload as u64) as f64,
            count as f64 / reading.as_secs_f64(),
        );
    }
}

/// Groups of `len` bytes a second, appended to a preallocated file and flushed each.
fn raw_commits_per_sec(dir: &std::path::Path, len: usize, count: u64) -> f64 {
    use crate::store::files::{Files, RealFiles};
    let file = RealFiles.create(&dir.join("raw")).expect("it can be made");
    file.allocate(len as u64 * count).expect("there is space");
    file.sync_data().expect("it is flushed");
    let group = vec![7; len];
    let before = Instant::now();
    for i in 0..count {
        crate::store::files::write_all_at(&*file, &group, i * len as u64).expect("it is written");
        file.sync_data().expect("it is flushed");
    }
    count as f64 / before.elapsed().as_secs_f64()
}

#[test]
fn recovery() {
    let dir = directory();
    let options = options(&dir);
    let sessions = size(10_000, 100);
    let each = 100;
    let retained = size(100_000, 500);
    {
        let (store, _) = DurableStore::open(&options).expect("it opens");
        for session in 1..=sessions {
            store
                .append(&[
                    session_put(session),
                    Record::Subscribe {
                        session,
                        filter: "devices/+/state",
                        options: 1,
                        subscription_id: None,
                    },
                ])
                .expect("it takes them");
        }
        let mut last = Ticket(0);
        for seq in 1..=each {
            for session in 1..=sessions {
                let targets = [super::target(session, seq)];
                let record = Record::Message(message(&[7; 64], &targets));
                last = store.append(&[record]).expect("it takes it").ticket;
            }
        }
        for i in 0..retained {
            let topic = format!("devices/{i}/state");
            let record = Record::Message(Message {
                topic: &topic,
                retained: Retained::Set,
                ..message(&[7; 64], &[])
            });
            last = store.append(&[record]).expect("it takes it").ticket;
        }
        wait(&store, last);
        let before = Instant::now();
        store.request_checkpoint();
        while store.stats().checkpoints == 0 {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        println!("the checkpoint took {:?}", before.elapsed());
        // Left as a crash leaves it: what came since the last checkpoint is to be replayed.
        std::mem::forget(Arc::new(store));
    }
    // The lock is still held by the store that was forgotten: a copy of the files it is.
    let copy = directory();
    let options_copy = Options {
        path: copy.path().join("store"),
        ..options.clone()
    };
    copy_dir(&options.path, &options_copy.path);
    // In a process of its own, for its memory to be seen.
    let child = std::process::Command::new(std::env::current_exe().expect("it has a name"))
        .args(["store::tests::speed::recovered_alone", "--nocapture"])
        .env(RECOVER, &options_copy.path)
        .env("TIDINGS_RECOVERED", format!("{sessions} {each} {retained}"))
        .status()
        .expect("it can be started");
    assert!(child.success());
}

/// The store that [`recovered_alone`] opens.
const RECOVER: &str = "TIDINGS_RECOVER";

/// The other half of [`recovery`]; does nothing by itself.
#[test]
fn recovered_alone() {
    let Some(path) = std::env::var_os(RECOVER) else {
        return;
    };
    let expected = std::env::var("TIDINGS_RECOVERED").expect("it was set");
    let options = Options {
        disk_free_min: 0,
        ..Options::new(path)
    };
    let (before, cpu_before) = (Instant::now(), cpu());
    let (store, recovered) = DurableStore::open(&options).expect("it opens");
    let elapsed = before.elapsed();
    let lens: Vec<_> = recovered
        .sessions
        .iter()
        .map(|it| it.queue.entries.len())
        .collect();
    println!(
        "{} entries in {} sessions and {} retained: {elapsed:?} ({:?} CPU), {} MiB resident; {:?}",
        lens.iter().sum::<usize>(),
        lens.len(),
        recovered.retained.len(),
        cpu() - cpu_before,
        resident_mib(),
        recovered.report,
    );
    let found = format!("{} {} {}", lens.len(), lens[0], recovered.retained.len());
    assert_eq!(found, expected);
    assert!(lens.iter().all(|len| *len == lens[0]));
    drop(store);
}

fn copy_dir(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).expect("it can be made");
    for entry in std::fs::read_dir(from).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else if std::fs::copy(entry.path(), target).is_err() {
            // Compaction may have removed it since; then nothing needs it.
        }
    }
}
