//! Export and import, check and compact, on real files.

use std::fs;

use super::history::History;
use super::model::Model;
use super::small;
use crate::store::{DurableStore, Store, admin};

fn filled(path: &std::path::Path, seed: u64) -> History {
    let (store, _) = DurableStore::open(&small(path)).expect("it opens");
    let mut history = History::new(seed, 20_000);
    (0..800).for_each(|_| history.advance());
    for record in &history.records {
        store.append(&[record.get()]).expect("it takes it");
    }
    store.close().expect("it closes");
    history
}

/// The model without offsets, which an import gives anew, and the messages in their place.
fn content(path: &std::path::Path) -> (Model, Vec<Vec<u8>>) {
    let (store, recovered) = DurableStore::open(&small(path)).expect("it opens");
    let mut model = Model::of(&recovered);
    let needed = model.needed();
    let payloads = store
        .read(&needed)
        .into_iter()
        .map(|answer| answer.expect("it is needed").payload.to_vec())
        .collect();
    let rank = |offset: u64| needed.iter().position(|it| it.0 == offset).unwrap_or(0) as u64;
    for session in model.sessions.values_mut() {
        for entry in session.queue.values_mut() {
            match &mut entry.offset {
                Some(offset) => *offset = rank(*offset),
                // Nothing but the Packet Identifier of a released entry means anything.
                None => (entry.size, entry.qos) = (0, 2),
            }
        }
    }
    for retained in model.retained.values_mut() {
        retained.0 = rank(retained.0);
    }
    model.messages = 0;
    (model, payloads)
}

#[test]
fn an_export_can_be_imported_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    filled(&from, 5);
    let mut lines = Vec::new();
    let exported = admin::export(&from, &mut lines).expect("it is exported");
    assert!(exported.messages > 10 && exported.lost == 0, "{exported:?}");
    for line in lines
        .split(|&byte| byte == b'\n')
        .filter(|it| !it.is_empty())
    {
        let value: serde_json::Value = serde_json::from_slice(line).expect("it is JSON");
        assert!(value["type"].is_string());
    }
    let imported = admin::import(&to, &mut &lines[..]).expect("it is imported");
    assert_eq!(imported, exported);
    let (mut before, payloads) = content(&from);
    let (after, payloads_after) = content(&to);
    for session in before.sessions.values_mut() {
        for entry in session.queue.values_mut() {
            // The size of an entry made by hand in the history is not that of its message.
            if entry.size == 5 {
                entry.size = 0;
            }
        }
    }
    let mut after = after;
    for (number, session) in &mut after.sessions {
        for (seq, entry) in &mut session.queue {
            if before.sessions[number].queue[seq].size == 0 {
                entry.size = 0;
            }
        }
    }
    assert_eq!(after.sessions, before.sessions);
    assert_eq!(after.retained, before.retained);
    assert_eq!(payloads_after, payloads);
    let refused = admin::import(&to, &mut &lines[..]);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn a_compacted_store_is_smaller_and_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    filled(&path, 6);
    let before = content(&path);
    let compacted = admin::compact(&path).expect("it is compacted");
    assert!(
        compacted.bytes_after < compacted.bytes_before,
        "{compacted:?}"
    );
    assert_eq!(content(&path), before);
    assert!(admin::check(&path).expect("it is checked").is_sound());
}

#[test]
fn a_check_tells_damage_and_changes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    filled(&path, 7);
    let checked = admin::check(&path).expect("it is checked");
    assert!(checked.is_sound() && checked.records > 500, "{checked}");
    let mut segments: Vec<_> = fs::read_dir(path.join("log"))
        .expect("it can be listed")
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    segments.sort();
    let mut bytes = fs::read(&segments[0]).expect("it can be read");
    let at = bytes.len() / 3;
    bytes[at] ^= 1;
    fs::write(&segments[0], &bytes).expect("it can be written");
    let checked = admin::check(&path).expect("it is checked");
    assert_eq!(
        (checked.damaged, checked.is_sound()),
        (1, false),
        "{checked}"
    );
    assert_eq!(fs::read(&segments[0]).expect("it can be read"), bytes);
    assert!(admin::check(&dir.path().join("nothing")).is_err());
}
