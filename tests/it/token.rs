//! `tidings token`: tokens from a broker that runs, and with its key when it does not.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::credentials::{hmac, user};
use crate::harness::process::{Finished, run};
use crate::harness::*;

/// A directory with a broker's configuration, users and store in it.
struct Place(TempDir);

impl Place {
    /// With the users alice and bob, and these further lines of `[access]`.
    fn new(access: &str) -> Place {
        let place = Place(scratch());
        place.write(
            "users",
            &[user("alice", "wonderland"), user("bob", "builder")].concat(),
        );
        let users = place.path("users");
        place.write(
            "broker.toml",
            &format!("[access]\npassword_file = {users:?}\n{access}"),
        );
        place
    }

    fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("a path of UTF-8").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file in a temporary directory");
    }

    /// A broker with the same configuration as the commands, and a current directory of its own.
    fn broker(&self) -> ProcessBroker {
        let (config, store) = (self.path("broker.toml"), self.store());
        let address = "mqtt.listen=127.0.0.1:0";
        let no_http = "http.listen=";
        let arguments = [
            "--config", &config, "--set", &store, "--set", address, "--set", no_http,
        ];
        ProcessBroker::start_raw(scratch(), &arguments, &[])
    }

    fn store(&self) -> String {
        format!("store.path={}", self.path("store"))
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        run(
            &self.0,
            &[arguments, &["--set", &self.store()]].concat(),
            &[],
        )
    }

    /// The token, alone on its line.
    fn token(&self, arguments: &[&str]) -> String {
        let finished = self.run(&[&["token"], arguments].concat());
        assert!(finished.status.success(), "{}", finished.stderr);
        assert_eq!(finished.stdout.lines().count(), 1, "{}", finished.stdout);
        finished.stdout.trim_end().to_owned()
    }

    /// Why there is no token.
    fn refused(&self, arguments: &[&str]) -> String {
        let finished = self.run(&[&["token"], arguments].concat());
        assert_eq!(finished.status.code(), Some(1), "{arguments:?}");
        assert_eq!(finished.stdout, "", "{arguments:?}");
        finished.stderr
    }

    /// The key in the store of a broker that is stopped.
    fn key(&self) -> Vec<u8> {
        let exported = self.run(&["store", "export"]);
        let line = exported
            .stdout
            .lines()
            .find(|line| line.contains("access/signing-key"))
            .expect("the key is in the export");
        let line: Value = serde_json::from_str(line).expect("a line of JSON");
        let key = line["value_base64"].as_str().expect("it is text");
        STANDARD.decode(key).expect("it is base64")
    }
}

/// The claims, and whether the token is signed with the key.
fn read(token: &str, key: &[u8]) -> (Value, bool) {
    let (signed, signature) = token.rsplit_once('.').expect("three parts");
    let (header, claims) = signed.split_once('.').expect("three parts");
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).expect("it is base64url");
    let json = |part: &str| -> Value { serde_json::from_slice(&decode(part)).expect("it is JSON") };
    assert_eq!(json(header)["alg"], "HS256");
    let is_signed = decode(signature) == hmac(key, signed.as_bytes());
    (json(claims), is_signed)
}

fn lifetime_secs(claims: &Value) -> u64 {
    let seconds = |name: &str| claims[name].as_u64().expect("a number of seconds");
    seconds("exp") - seconds("iat")
}

/// The key is made once and kept: tokens of every life of the broker, and of none, are signed with
/// it.
#[tokio::test]
async fn tokens_outlive_the_broker_that_issued_them() {
    let place = Place::new("");
    let mut broker = place.broker();
    let first = place.token(&["--user", "alice"]);
    broker.expect_log(&["token issued", "alice"]);
    assert!(!broker.log().contains(&first), "a log is no place for it");
    broker.kill();
    broker.start_again();
    let second = place.token(&["--user", "bob", "--expires", "30d"]);
    broker.signal("TERM");
    assert!(broker.wait().success(), "{}", broker.log());
    let third = place.token(&["--user", "alice", "--expires", "90s"]);

    let key = place.key();
    assert_eq!(key.len(), 32);
    for (token, user, seconds) in [
        (first, "alice", 3600),
        (second, "bob", 30 * 24 * 3600),
        (third, "alice", 90),
    ] {
        let (claims, is_signed) = read(&token, &key);
        assert!(is_signed, "{token}");
        assert_eq!(claims["sub"], user);
        assert_eq!(claims["iss"], "tidings");
        assert_eq!(lifetime_secs(&claims), seconds);
    }
}

/// What cannot be had is told in words, by a broker that runs and without one alike.
#[tokio::test]
async fn no_token_is_issued_and_why() {
    let place = Place::new("token_expires_max = \"2h\"\n");
    let check = |place: &Place| {
        for (arguments, expected) in [
            (&["--user", "eve"][..], "there is no user \"eve\""),
            (
                &["--user", "bob", "--expires", "121m"],
                "for 2h at the most (access.token_expires_max)",
            ),
            (
                &["--user", "bob", "--expires", "0s"],
                "for one second at the least",
            ),
        ] {
            let why = place.refused(arguments);
            assert!(why.contains(expected), "{expected}: {why}");
        }
    };
    let why = place.refused(&["--user", "bob"]);
    assert!(why.contains("there is no such directory"), "{why}");
    let mut broker = place.broker();
    check(&place);

    // The broker goes by the users that it has read.
    place.write("users", &user("carol", "x"));
    place.token(&["--user", "bob"]);
    let why = place.refused(&["--user", "carol"]);
    assert!(why.contains("after SIGHUP"), "{why}");
    broker.signal("HUP");
    broker.expect_log(&["configuration reloaded"]);
    place.token(&["--user", "carol"]);
    let why = place.refused(&["--user", "bob"]);
    assert!(why.contains("there is no user \"bob\""), "{why}");

    place.write("users", &user("bob", "x"));
    broker.signal("TERM");
    assert!(broker.wait().success(), "{}", broker.log());
    check(&place);

    let none = ["--user", "bob", "--set", "access.password_file="];
    let why = place.refused(&none);
    assert!(why.contains("there are no users"), "{why}");
    let why = place.refused(&["--user", "bob", "--set", "store.durability=memory"]);
    assert!(why.contains("store.durability is \"memory\""), "{why}");
    let finished = place.run(&["token", "--user", "bob", "--expires", "soon"]);
    assert_eq!(finished.status.code(), Some(2));
    assert!(
        finished.stderr.contains("such as 12h"),
        "{}",
        finished.stderr
    );
}

/// Where nobody has to say who they are, there is nobody to have a token.
#[tokio::test]
async fn a_broker_without_users_issues_no_tokens() {
    let place = Place(scratch());
    place.write("broker.toml", "");
    let _broker = place.broker();
    let why = place.refused(&["--user", "bob"]);
    assert!(
        why.contains("there are no users") && why.contains("access.password_file"),
        "{why}"
    );
}

/// A store in which no broker has made a key yet, such as an import.
#[tokio::test]
async fn without_a_key_a_broker_has_to_be_started_first() {
    let place = Place::new("");
    let lines = "{\"type\":\"store\",\"version\":2,\"time_ms\":5}\n{\"type\":\"end\"}\n";
    place.write("empty.jsonl", lines);
    let file = place.path("empty.jsonl");
    let imported = place.run(&["store", "import", &file]);
    assert!(imported.status.success(), "{}", imported.stderr);
    let why = place.refused(&["--user", "bob"]);
    assert!(why.contains("a broker makes one when it starts"), "{why}");
}
