//! Looking after the store with the real binary: `tidings store check`, `compact`, `export` and
//! `import`, and `tidings backup` of a broker that runs and of one that does not.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::process::{Finished, run, run_with_input};
use crate::harness::*;

/// A directory with places for stores in it.
pub struct Stores(TempDir);

impl Stores {
    pub fn new() -> Stores {
        Stores(scratch())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A broker on the store of this name.
    pub fn broker(&self, name: &str) -> ProcessBroker {
        ProcessBroker::start(&[&format!("store.path={}", self.path(name).display())])
    }

    /// A command that finds the store by `--path`.
    pub fn run(&self, arguments: &[&str], name: &str) -> Finished {
        let path = self.path(name);
        let path = path.to_str().expect("a path of UTF-8");
        run(&self.0, &[arguments, &["--path", path]].concat(), &[])
    }

    /// The same, which must succeed; what it writes to standard output.
    pub fn succeed(&self, arguments: &[&str], name: &str) -> String {
        let finished = self.run(arguments, name);
        assert!(
            finished.status.success(),
            "{arguments:?}: {}\n{}",
            finished.stdout,
            finished.stderr
        );
        finished.stdout
    }

    fn backup(&self, from: &str, to: &str) {
        let to = self.path(to);
        self.succeed(&["backup", to.to_str().expect("a path of UTF-8")], from);
    }

    fn export(&self, name: &str) -> Vec<Value> {
        self.succeed(&["store", "export"], name)
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }
}

pub fn stop(mut broker: ProcessBroker) {
    broker.signal("TERM");
    assert!(broker.wait().success(), "{}", broker.log());
}

/// Lets the session `away` subscribe to `q/#` and leave.
async fn leave_a_session(broker: &ProcessBroker) {
    let mut away = broker.connect(Connect::v5("away").persistent()).await;
    away.subscribe_to("q/#", 2).await;
    away.disconnect().await;
}

/// The payloads that are queued, in order.
fn queued(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .filter(|line| line["targets"].as_array().is_some_and(|it| !it.is_empty()))
        .map(|line| line["payload"].as_str().expect("it is text"))
        .collect()
}

/// The payloads of Retained Messages.
fn retained(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .filter(|line| line["retained"] == true)
        .map(|line| line["payload"].as_str().expect("it is text"))
        .collect()
}

/// The broker on the store `name` has the session `away`, `count` numbered messages for it, and a
/// Retained Message.
async fn expect_all_to_be_there(stores: &Stores, name: &str, count: usize) {
    let broker = stores.broker(name);
    let mut away = broker.connect(Connect::v5("away").persistent()).await;
    assert!(away.connack.session_present);
    for number in 0..count {
        let publish = away.receive_exactly("q/x", &number.to_string()).await;
        assert_eq!(publish.qos, 1);
    }
    away.expect_nothing().await;
    let mut other = broker.connect(Connect::v5("other")).await;
    other.subscribe_to("state/#", 1).await;
    other.receive_exactly("state/x", "on").await;
    // The subscription is there too.
    other.publish_text("q/x", "new", 1).await;
    away.receive_exactly("q/x", "new").await;
    stop(broker);
}

/// What is exported and imported again is the same, message for message; so is what is compacted.
#[tokio::test]
async fn a_store_is_checked_compacted_exported_and_imported() {
    let stores = Stores::new();
    let broker = stores.broker("a");
    leave_a_session(&broker).await;
    let mut publisher = broker.connect(Connect::v5("publisher")).await;
    for number in 0..40 {
        publisher
            .publish_text("q/x", &number.to_string(), 1 + number % 2)
            .await;
    }
    let bytes = Publish::new("q/bytes", [0, 159, 146, 150])
        .qos(1)
        .property(Property::user("name", "value"));
    publisher.publish(bytes).await;
    publisher
        .publish(Publish::new("state/x", "on").qos(1).retain())
        .await;
    stop(broker);

    let checked = stores.succeed(&["store", "check"], "a");
    assert!(
        checked.contains("sound: everything can be read"),
        "{checked}"
    );
    let before = stores.export("a");
    assert_eq!(before[0]["type"], "store");
    assert_eq!(before[1]["client_id"], "away");
    assert_eq!(before[1]["subscriptions"][0]["filter"], "q/#");
    assert_eq!(retained(&before), ["on"]);
    let of_bytes = before.iter().find(|line| line["topic"] == "q/bytes");
    assert_eq!(
        of_bytes.expect("it is queued")["payload_base64"],
        "AJ+Slg=="
    );
    assert_eq!(before.last().expect("a last line")["type"], "end");

    let compacted = stores.succeed(&["store", "compact"], "a");
    assert!(
        compacted.starts_with("before: ") && compacted.contains("\nafter: "),
        "{compacted}"
    );
    assert_eq!(stores.export("a"), before);

    // By a file, and by standard input.
    let file = stores.path("export.jsonl");
    let file = file.to_str().expect("a path of UTF-8");
    let exported = stores.run(&["store", "export", "--output", file], "a");
    assert!(
        exported.status.success() && exported.stdout.is_empty(),
        "{}",
        exported.stdout
    );
    let summary = "1 session with 1 subscription, 42 messages (1 retained), 41 entries in queues and 1 document";
    assert!(exported.stderr.contains(summary), "{}", exported.stderr);
    assert!(
        stores
            .succeed(&["store", "import", file], "b")
            .contains(summary)
    );
    let text = std::fs::read_to_string(file).expect("it was written");
    let c = stores.path("c");
    let import = [
        "store",
        "import",
        "-",
        "--path",
        c.to_str().expect("a path of UTF-8"),
    ];
    assert!(
        run_with_input(&stores.0, &import, &[], &text)
            .status
            .success()
    );
    let without_offsets = |mut lines: Vec<Value>| {
        for line in &mut lines {
            if let Some(fields) = line.as_object_mut() {
                fields.remove("offset");
            }
        }
        lines
    };
    let before = without_offsets(before);
    for name in ["b", "c"] {
        assert_eq!(without_offsets(stores.export(name)), before);
        stores.succeed(&["store", "check"], name);
    }
}

/// A store that was exported and imported is one that a broker goes on from.
#[tokio::test]
async fn a_broker_goes_on_from_an_import() {
    let stores = Stores::new();
    let broker = stores.broker("a");
    fill(&broker, 20).await;
    stop(broker);
    let file = stores.path("export.jsonl");
    let file = file.to_str().expect("a path of UTF-8");
    stores.succeed(&["store", "export", "--output", file], "a");
    stores.succeed(&["store", "import", file], "b");
    expect_all_to_be_there(&stores, "b", 20).await;
}

async fn fill(broker: &ProcessBroker, count: usize) {
    leave_a_session(broker).await;
    let mut publisher = broker.connect(Connect::v5("publisher")).await;
    publisher
        .publish(Publish::new("state/x", "on").qos(1).retain())
        .await;
    for number in 0..count {
        publisher.publish_text("q/x", &number.to_string(), 1).await;
    }
}

/// While messages come in, a backup has all that was acknowledged before it began, and of the rest
/// what was there at one moment.
#[tokio::test]
async fn a_running_broker_is_backed_up_while_it_publishes() {
    let stores = std::sync::Arc::new(Stores::new());
    let broker = stores.broker("a");
    fill(&broker, 200).await;
    let mut publisher = broker.connect(Connect::v5("publisher")).await;
    let backup = tokio::task::spawn_blocking({
        let stores = std::sync::Arc::clone(&stores);
        move || stores.backup("a", "copy")
    });
    let mut published = 200;
    while !backup.is_finished() {
        publisher
            .publish_text("q/x", &published.to_string(), 1)
            .await;
        published += 1;
    }
    backup.await.expect("it was made");
    broker.expect_log(&["backup made", "copy"]);

    let checked = stores.succeed(&["store", "check"], "copy");
    assert!(checked.contains("sound"), "{checked}");
    let lines = stores.export("copy");
    assert_eq!(lines[1]["client_id"], "away");
    assert_eq!(lines[1]["subscriptions"][0]["filter"], "q/#");
    assert_eq!(retained(&lines), ["on"]);
    let queued = queued(&lines);
    assert!(
        (200..=published).contains(&queued.len()),
        "{}",
        queued.len()
    );
    for (number, payload) in queued.iter().enumerate() {
        assert_eq!(*payload, number.to_string());
    }
    expect_all_to_be_there(&stores, "copy", queued.len()).await;

    // The broker goes on meanwhile, and its own store is another.
    publisher.publish_text("q/x", "after", 1).await;
    stop(broker);
    assert_eq!(stores.export("a").len(), 1 + 1 + 1 + 1 + published + 1 + 1);
}

/// Without a broker the command makes the copy itself, also when the last one was killed and left
/// its socket behind.
#[tokio::test]
async fn a_stopped_broker_is_backed_up() {
    let stores = Stores::new();
    let mut broker = stores.broker("a");
    fill(&broker, 20).await;
    broker.signal("KILL");
    broker.wait();
    assert!(stores.path("a/control").exists());
    stores.backup("a", "copy");
    stores.succeed(&["store", "check"], "copy");
    expect_all_to_be_there(&stores, "copy", 20).await;
    // The broker itself goes on too, on a store with a socket that was left over.
    expect_all_to_be_there(&stores, "a", 20).await;
    assert!(!stores.path("a/control").exists());
}

/// The target may be relative, to the directory of the one who asks and not to the broker's.
#[tokio::test]
async fn a_relative_target_is_the_callers() {
    let stores = Stores::new();
    let broker = stores.broker("a");
    stores.succeed(&["backup", "relative"], "a");
    assert!(stores.path("relative/log").is_dir());
    // As private as the store itself.
    let copy = std::fs::metadata(stores.path("relative")).expect("it was made");
    assert_eq!(copy.permissions().mode() & 0o777, 0o700);
    stop(broker);
    stores.succeed(&["backup", "./relative-too"], "a");
    assert!(stores.path("relative-too/log").is_dir());
}

/// The store is found by the configuration as `serve` finds it; options may stand in front.
#[tokio::test]
async fn the_store_is_found_by_the_configuration() {
    let stores = Stores::new();
    stop(stores.broker("a"));
    let setting = format!("store.path={}", stores.path("a").display());
    let file = stores.path("broker.toml");
    std::fs::write(&file, format!("[store]\npath = {:?}\n", stores.path("a")))
        .expect("a file in a temporary directory");
    for arguments in [
        &["store", "check", "--set", &setting][..],
        &["--set", &setting, "store", "check"],
        // broker.toml in the current directory.
        &["store", "check"],
    ] {
        let finished = run(&stores.0, arguments, &[]);
        assert!(
            finished.status.success(),
            "{arguments:?}: {}",
            finished.stderr
        );
    }
    let variable = [("TIDINGS_STORE_PATH", "elsewhere")];
    let finished = run(&stores.0, &["store", "check"], &variable);
    assert!(
        finished.stderr.contains("elsewhere is not a store"),
        "{}",
        finished.stderr
    );
    let finished = run(&stores.0, &["store", "check", "--set", "store.pat=x"], &[]);
    assert_eq!(finished.status.code(), Some(2), "{}", finished.stderr);
}

/// A flipped bit is found, and the exit code and the message say so.
#[tokio::test]
async fn damage_is_found_and_what_can_be_read_is_exported() {
    let stores = Stores::new();
    let broker = stores.broker("a");
    fill(&broker, 20).await;
    stop(broker);
    let log = first_segment(&stores.path("a/log"));
    let mut bytes = std::fs::read(&log).expect("it is there");
    // The topic of some message.
    let at = bytes
        .windows(3)
        .rposition(|it| it == b"q/x")
        .expect("it was published");
    bytes[at] ^= 1;
    std::fs::write(&log, bytes).expect("it is ours");
    let finished = stores.run(&["store", "check"], "a");
    assert_eq!(finished.status.code(), Some(1));
    assert!(
        finished.stdout.contains("1 place damaged"),
        "{}",
        finished.stdout
    );
    assert!(
        finished.stderr.contains("is damaged") && finished.stderr.contains("backup"),
        "{}",
        finished.stderr
    );
    let finished = stores.run(&["store", "export"], "a");
    assert_eq!(finished.status.code(), Some(1));
    assert!(
        finished.stderr.contains("the export is not complete"),
        "{}",
        finished.stderr
    );
    assert_eq!(
        finished.stdout.matches("\"q/x\"").count(),
        19,
        "{}",
        finished.stdout
    );
}

fn first_segment(log: &Path) -> PathBuf {
    let names = std::fs::read_dir(log).expect("it can be listed");
    let paths = names.map(|entry| entry.expect("it can be listed").path());
    paths.min().expect("there is one")
}
