//! SIGHUP: users and rules are read again, and count at once for those who are already in.

use tempfile::TempDir;

use crate::harness::credentials::user;
use crate::harness::*;

const OPEN: &str =
    "[[access.rule]]\nuser = '*'\nallow = ['publish', 'subscribe', 'receive']\ntopics = ['#']\n";

/// A running broker whose configuration and password file can be rewritten.
struct Reloadable {
    broker: ProcessBroker,
    directory: TempDir,
}

impl Reloadable {
    fn start() -> Reloadable {
        let directory = scratch();
        write(
            &directory,
            "users",
            &[user("alice", "wonderland"), user("bob", "builder")].concat(),
        );
        write_config(&directory, OPEN);
        let config = directory.path().join("broker.toml");
        let config = config.to_str().expect("a path of UTF-8");
        let broker = ProcessBroker::start_raw(scratch(), &["--config", config], &[]);
        Reloadable { broker, directory }
    }

    /// Leaves alice's line as it is, hash and salt, and replaces the others.
    fn others(&self, users: &[(&str, &str)]) {
        let path = self.directory.path().join("users");
        let before = std::fs::read_to_string(path).expect("written at the start");
        let alice = before.lines().next().expect("she is the first");
        let others: String = users
            .iter()
            .map(|(name, password)| user(name, password))
            .collect();
        write(&self.directory, "users", &format!("{alice}\n{others}"));
    }

    fn rules(&self, rules: &str) {
        write_config(&self.directory, rules);
    }

    fn reload(&self, outcome: &[&str]) {
        self.broker.signal("HUP");
        self.broker.expect_log(outcome);
    }
}

fn write(directory: &TempDir, name: &str, text: &str) {
    std::fs::write(directory.path().join(name), text).expect("a file in a temporary directory");
}

fn write_config(directory: &TempDir, rules: &str) {
    let users = directory.path().join("users");
    let text = format!(
        "[mqtt]\nlisten = '127.0.0.1:0'\n[http]\nlisten = ''\n[access]\npassword_file = '{}'\n{rules}",
        users.display()
    );
    write(directory, "broker.toml", &text);
}

fn alice(id: &str) -> Connect {
    Connect::v5(id).username("alice").password("wonderland")
}

fn bob(id: &str) -> Connect {
    Connect::v5(id).username("bob").password("builder")
}

const DONE: &[&str] = &["configuration reloaded"];

/// A user who is gone is put out, and does not come back; others notice nothing; a new one is let
/// in.
#[tokio::test]
async fn users_are_read_again() {
    let server = Reloadable::start();
    let mut stays = server.broker.connect(alice("stays")).await;
    stays.subscribe_to("t", 1).await;
    let mut goes = server.broker.connect(bob("goes")).await;
    server.others(&[("carol", "new")]);
    server.reload(DONE);
    goes.expect_disconnect(Reason::NOT_AUTHORIZED).await;
    let (mut refused, connack) = Client::attempt(server.broker.address(), bob("goes")).await;
    assert_eq!(connack.reason, Reason::BAD_USER_NAME_OR_PASSWORD);
    refused.expect_closed().await;
    let mut new = server
        .broker
        .connect(Connect::v311("new").username("carol").password("new"))
        .await;
    new.publish_text("t", "hello", 1).await;
    stays.receive_exactly("t", "hello").await;
}

/// A user whose password has changed has to prove the new one.
#[tokio::test]
async fn a_changed_password_ends_the_connections_of_the_old_one() {
    let server = Reloadable::start();
    let mut old = server.broker.connect(bob("b")).await;
    server.others(&[("bob", "changed")]);
    server.reload(DONE);
    old.expect_disconnect(Reason::NOT_AUTHORIZED).await;
    server.broker.connect(bob("b").password("changed")).await;
}

/// Rights that were withdrawn end at once: publishing, receiving, and what waits for an absent
/// client. (CVE-2018-12546, CVE-2021-34434.)
#[tokio::test]
async fn withdrawn_rights_end_at_once() {
    let server = Reloadable::start();
    let mut publisher = server.broker.connect(alice("publisher")).await;
    let mut client = server.broker.connect(bob("b").persistent()).await;
    client
        .subscribe(Subscribe::new([("secret/#", 1), ("#", 1), ("public", 1)]))
        .await;
    let mut absent = server.broker.connect(bob("absent").persistent()).await;
    absent.subscribe_to("secret/#", 1).await;
    absent.subscribe_to("public", 1).await;
    absent.disconnect().await;
    publisher
        .publish(Publish::new("secret/kept", "x").qos(1).retain())
        .await;
    publisher.publish_text("public", "1", 1).await;
    client.receive_exactly("secret/kept", "x").await;
    client.receive_exactly("public", "1").await;

    let deny = "[[access.rule]]\nuser = 'bob'\ndeny = ['publish', 'subscribe', 'receive']\ntopics = ['secret/#']\n";
    server.rules(&[OPEN, deny].concat());
    server.reload(DONE);
    publisher.publish_text("secret/live", "x", 1).await;
    client.expect_nothing().await;
    let reason = client
        .publish(Publish::new("secret/mine", "x").qos(1))
        .await;
    assert_eq!(reason, Reason::NOT_AUTHORIZED);
    let reasons = client.subscribe(Subscribe::new([("secret/#", 1)])).await;
    assert_eq!(reasons, [Reason::NOT_AUTHORIZED]);
    publisher.publish_text("public", "2", 1).await;
    client.receive_exactly("public", "2").await;
    client.expect_nothing().await;

    let mut absent = server.broker.connect(bob("absent").persistent()).await;
    assert!(absent.connack.session_present);
    absent.receive_exactly("public", "1").await;
    absent.receive_exactly("public", "2").await;
    absent.expect_nothing().await;
}

/// A reload that fails changes nothing and says why. (CVE-2017-7652.)
#[tokio::test]
async fn a_failed_reload_changes_nothing() {
    let server = Reloadable::start();
    let mut client = server.broker.connect(bob("b")).await;
    client.subscribe_to("t", 1).await;
    write(&server.directory, "users", "alice:broken\n");
    server.reload(&["stays as it was", "users:1"]);
    write(&server.directory, "broker.toml", "[mqtt]\nmax_qos = 9\n");
    server.reload(&["stays as it was", "max_qos"]);
    client.publish_text("t", "still in", 1).await;
    client.receive_exactly("t", "still in").await;
    server.broker.connect(alice("a")).await;
    let (mut anonymous, connack) = Client::attempt(server.broker.address(), Connect::v5("x")).await;
    assert_eq!(connack.reason, Reason::NOT_AUTHORIZED);
    anonymous.expect_closed().await;
}
