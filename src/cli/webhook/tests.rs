use serde_json::{Value, json};

use super::show;
use crate::cli::{CommandLine, Task};
use clap::Parser;

fn shown(answer: Value) -> String {
    let mut out = Vec::new();
    show::answer(&answer, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn options(arguments: &[&str]) -> Result<super::Options, String> {
    let arguments = ["tidings", "webhook"].iter().chain(arguments);
    let task = CommandLine::try_parse_from(arguments).and_then(CommandLine::task);
    match task.map_err(|error| error.to_string())? {
        Task::Webhook(options) => Ok(*options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn lists_are_tables() {
    let webhook = |id: &str, topics: Value| {
        json!({"id": id, "state": "active", "queued": 12, "retrying": 0, "dead_letters": 1,
               "url": "https://a/", "topics": topics, "more": "x"})
    };
    let listed = shown(json!({"webhooks": [
        webhook("a", json!(["x", "y/#"])),
        webhook("billing", json!(["x\u{1b}[1m"])),
    ]}));
    assert_eq!(
        listed,
        "ID       STATE   QUEUED  RETRYING  DEAD LETTERS  URL         TOPICS\n\
         a        active  12      0         1             https://a/  x, y/#\n\
         billing  active  12      0         1             https://a/  x\u{fffd}[1m\n"
    );
    assert!(shown(json!({"attempts": []})).starts_with("TIME"));
    assert!(shown(json!({"dead_letters": []})).starts_with("SEQ"));
}

#[test]
fn one_thing_is_lines() {
    let answer =
        json!({"id": "a", "headers": {"X": "1"}, "empty": {}, "user": null, "dead_letters": 3});
    assert_eq!(
        shown(answer),
        "id: a\nheaders:\n  X: 1\nempty: -\nuser: -\ndead_letters: 3\n"
    );
    assert_eq!(shown(Value::Null), "");
}

#[test]
fn a_list_of_nothing_is_refused() {
    for what in ["attempts", "dead-letters"] {
        let refused = options(&[what, "a", "--limit", "0"]).unwrap_err();
        assert!(refused.contains("--limit"), "{refused}");
        assert!(options(&[what, "a", "--limit", "1"]).is_ok());
    }
}

#[test]
fn options_become_fields() {
    let options = options(&[
        "create",
        "https://a/",
        "x",
        "y",
        "--header",
        "X-Shop: 1",
        "--header",
        "X-Old:",
        "--retry-schedule",
        "5s,5m",
        "--signature-v1a",
        "--qos",
        "2",
    ])
    .unwrap();
    let super::Command::Create { topics, fields, .. } = options.command else {
        panic!("create");
    };
    assert_eq!(topics, ["x", "y"]);
    let read = Value::Object(fields.read().unwrap());
    let expected = json!({
        "headers": {"X-Shop": "1", "X-Old": null},
        "retry_schedule": ["5s", "5m"],
        "signature_v1a": true,
        "qos": 2,
    });
    assert_eq!(read, expected);
}

#[test]
fn what_does_not_go_together_is_refused() {
    for bad in [
        &["create", "https://a/"][..],
        &["replay", "a"],
        &["replay", "a", "--cancel", "--source", "stream"],
        &["dead-letters", "a", "--dry-run"],
        &["dead-letters", "a", "3", "--discard", "--dry-run"],
        &["list", "--token", "x", "--user", "y"],
        &["list", "--password", "x"],
    ] {
        assert!(options(bad).is_err(), "{bad:?}");
    }
    for good in [
        &["list", "--url", "http://h:1", "--json"][..],
        &["--json", "show", "a"],
        &["replay", "a", "--cancel"],
        &["dead-letters", "a", "3", "--discard"],
        &["replay", "a", "--source", "stream", "--since", "2h"],
    ] {
        options(good).unwrap();
    }
}
