//! Large groups are applied a little after they are committed; nobody who looks can tell.

use super::{message, session_put, small, target};
use crate::store::wait::wait_blocking;
use crate::store::{DurableStore, Record, Store};

const TARGETS: u64 = 1_000;

/// One message to a thousand sessions, which makes a group large.
fn publish(store: &DurableStore, seq: u64) {
    let targets: Vec<_> = (1..=TARGETS).map(|session| target(session, seq)).collect();
    store
        .append(&[Record::Message(message(&[1; 100], &targets))])
        .expect("it takes it");
    wait_blocking(store);
}

#[test]
fn what_is_durable_is_in_every_queue_at_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (store, _) = DurableStore::open(&small(dir.path())).expect("it opens");
    let sessions: Vec<_> = (1..=TARGETS).map(session_put).collect();
    store.append(&sessions).expect("it takes them");
    for seq in 1..=20 {
        publish(&store, seq);
        for session in [1, TARGETS / 2, TARGETS] {
            let queue = store.queue(session, 0..seq + 1, 100).entries;
            let seqs: Vec<_> = queue.iter().map(|entry| entry.seq).collect();
            assert_eq!(seqs, (1..=seq).collect::<Vec<_>>());
        }
    }
    store.close().expect("it closes");
}

#[test]
fn a_close_right_behind_it_and_a_restart_keep_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let options = small(dir.path());
    let (store, _) = DurableStore::open(&options).expect("it opens");
    let sessions: Vec<_> = (1..=TARGETS).map(session_put).collect();
    store.append(&sessions).expect("it takes them");
    publish(&store, 1);
    store.close().expect("it closes");
    let (store, recovered) = DurableStore::open(&options).expect("it opens again");
    assert_eq!(recovered.sessions.len() as u64, TARGETS);
    for session in &recovered.sessions {
        assert_eq!(session.queue.entries.len(), 1);
    }
    store.close().expect("it closes");
}
