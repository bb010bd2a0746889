//! Export and import, check and compact, on real files.

use std::fs;

use super::history::History;
use super::model::Model;
use super::{message, open_sim, session_put, small, target};
use crate::store::files::Files;
use crate::store::files::sim::{Operation, SimFiles};
use crate::store::{DurableStore, Record, Store, StoreError, admin, format_file};

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
    let exported = admin::export(&small(&from), &mut lines).expect("it is exported");
    assert!(exported.messages > 10 && exported.lost == 0, "{exported:?}");
    for line in lines
        .split(|&byte| byte == b'\n')
        .filter(|it| !it.is_empty())
    {
        let value: serde_json::Value = serde_json::from_slice(line).expect("it is JSON");
        assert!(value["type"].is_string());
    }
    let imported = admin::import(&small(&to), &mut &lines[..]).expect("it is imported");
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
    assert!(after.documents.len() > 3);
    assert_eq!(after.documents, before.documents);
    assert_eq!(exported.documents, after.documents.len() as u64);
    assert_eq!(payloads_after, payloads);
    let refused = admin::import(&small(&to), &mut &lines[..]);
    assert!(refused.is_err(), "{refused:?}");
}

#[test]
fn a_compacted_store_is_smaller_and_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("store");
    filled(&path, 6);
    let before = content(&path);
    let compacted = admin::compact(&small(&path)).expect("it is compacted");
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
    assert!(checked.documents > 3, "{checked}");
    let figures = format!("of them {} documents", checked.documents);
    assert!(checked.to_string().contains(&figures), "{checked}");
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

/// What is wrong with an import is told with its line, and what came before is no store.
#[test]
fn an_import_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = r#"{"type":"store","version":1,"time_ms":5}"#;
    let session = |number: u64, will_qos: u8| {
        format!(
            r#"{{"type":"session","number":{number},"client_id":"a","epoch":1,"expiry_interval_secs":9,"connected_ms":1,"disconnected_ms":2,"protocol_level":5,"next_seq":0,"inbound_packet_ids":[],"subscriptions":[],"will":{{"topic":"t","qos":{will_qos},"retain":false,"delay_secs":0,"due_ms":null}}}}"#
        )
    };
    let to = |session: u64, qos: u8, flags: u8| {
        format!(
            r#"{{"type":"message","offset":1,"topic":"t","payload":"x","qos":1,"retain":false,"published_ms":1,"publisher":0,"retained":false,"targets":[{{"session":{session},"seq":0,"qos":{qos},"flags":{flags}}}]}}"#
        )
    };
    let end = r#"{"type":"end"}"#;
    let one = session(1, 0);
    let (good, bad) = (to(1, 1, 0), [to(2, 1, 0), to(1, 3, 0), to(1, 1, 64)]);
    let long_key = format!(
        r#"{{"type":"document","key":"{}","value_base64":""}}"#,
        "k".repeat(513)
    );
    let newer = first.replace("\"version\":1", "\"version\":3");
    for (lines, line, what) in [
        (vec![], 1, "cut short"),
        (vec![first, &one, &good], 4, "cut short"),
        (vec![&one, end], 1, "begins with"),
        (vec![&newer, end], 1, "newer version"),
        (vec![first, first, end], 2, "second export"),
        (vec![first, end, &one], 3, "comes after"),
        (vec![first, "", "what?", end], 3, "expected value"),
        (
            vec![first, r#"{"type":"session","number":1}"#, end],
            2,
            "missing field `client_id`",
        ),
        (vec![first, &one, &one, end], 3, "session 1 is there twice"),
        (
            vec![first, &session(0, 0), end],
            2,
            "not the number of a session",
        ),
        (
            vec![first, &session(u64::MAX, 0), end],
            2,
            "not the number of a session",
        ),
        (vec![first, &session(1, 3), end], 2, "no QoS 3"),
        (
            vec![first, &one, &bad[0], end],
            3,
            "no line before it has session 2",
        ),
        (vec![first, &one, &bad[1], end], 3, "no QoS 3"),
        (vec![first, &one, &bad[2], end], 3, "six bits"),
        (
            vec![
                first,
                r#"{"type":"document","key":"k","value_base64":"%"}"#,
                end,
            ],
            2,
            "nvalid symbol",
        ),
        (
            vec![first, &long_key, end],
            2,
            "the key of a document has 513 bytes, and may have 512 at most",
        ),
        (
            vec![
                first,
                r#"{"type":"released","session":7,"seq":1,"flags":0}"#,
                end,
            ],
            2,
            "session 7",
        ),
    ] {
        let options = small(dir.path().join("store"));
        let refused = admin::import(&options, &mut lines.join("\n").as_bytes());
        let error = refused.expect_err(what).to_string();
        let expected = format!("line {line} of the import: ");
        assert!(
            error.starts_with(&expected) && error.contains(what),
            "{what}: {error}"
        );
        assert!(!error.contains("line 1 column"), "{error}");
        let opened = DurableStore::open(&options).map(drop);
        assert!(
            matches!(opened, Err(StoreError::NotAStore { .. })),
            "{opened:?}"
        );
        fs::remove_dir_all(&options.path).expect("it can be removed");
    }
    let options = small(dir.path().join("store"));
    let text = [first, &one, &good, end].join("\n");
    let imported = admin::import(&options, &mut text.as_bytes()).expect("it is good");
    assert_eq!((imported.sessions, imported.queue_entries), (1, 1));
    DurableStore::open(&options).expect("it is a store");
}

#[test]
fn a_stopped_store_is_copied() {
    let dir = tempfile::tempdir().expect("a directory");
    let (from, to) = (dir.path().join("from"), dir.path().join("deep/to"));
    filled(&from, 8);
    let before = content(&from);
    admin::backup(&small(&from), &to).expect("it is copied");
    let refused = admin::backup(&small(&from), &to);
    assert!(
        matches!(refused, Err(StoreError::NotEmpty { .. })),
        "{refused:?}"
    );
    assert!(admin::check(&to).expect("it is a store").is_sound());
    assert_eq!(content(&to), before);
    assert_eq!(content(&from), before);
}

/// Wherever it fails, nothing is left, and the store goes on.
#[test]
fn a_backup_that_fails_leaves_nothing() {
    let (store, copy) = (
        std::path::Path::new("/store"),
        std::path::Path::new("/copy"),
    );
    let is_empty = |disk: &SimFiles| {
        [copy.to_owned(), copy.join("log")]
            .iter()
            .all(|dir| disk.list(dir).expect("it is listed").is_empty())
    };
    for operation in [
        Operation::Create,
        Operation::Write,
        Operation::Sync,
        Operation::SyncDir,
    ] {
        let mut failures = 0;
        for after in 0.. {
            let disk = SimFiles::new();
            let mut parts = open_sim(&disk, &small(store)).expect("it opens");
            let targets = [target(1, 1)];
            let queued = Record::Message(message(b"x", &targets));
            parts
                .append(&[session_put(1), queued])
                .expect("it takes it");
            parts.commit().expect("it commits");
            disk.fail(operation, after, 28);
            let failed = parts.upkeep.backup(copy).is_err();
            if !failed {
                break;
            }
            failures += 1;
            assert!(is_empty(&disk), "{operation:?} after {after}");
            parts
                .upkeep
                .backup(copy)
                .expect("the second time it is copied");
            assert!(
                format_file::read(&disk, copy)
                    .expect("it is complete")
                    .is_some()
            );
        }
        assert!(failures > 1, "{operation:?}");
    }
}
