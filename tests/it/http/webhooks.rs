//! Webhooks from outside: registered, looked at, changed, stopped and ended over HTTP and by
//! `tidings webhook`; what of them survives `kill -9`.

use std::net::SocketAddr;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::client::send;
use crate::harness::credentials::user;
use crate::harness::process::run;
use crate::harness::*;

/// Nobody listens there: what is delivered fails, and stays queued.
const NOWHERE: &str = "http://127.0.0.1:9/hook";
const LOCAL: &str = "[webhooks]\nallow_http = true\nallow_networks = '127.0.0.0/8'\n";

/// Asks, with a body of JSON if there is one, and answers status and JSON; null if there is none.
async fn ask(at: SocketAddr, who: &str, method: &str, path: &str, body: Value) -> (u16, Value) {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let headers = match who {
        "" => String::new(),
        who => format!("authorization: Basic {}\r\n", STANDARD.encode(who)),
    };
    let answer = send(at, method, path, &headers, body.as_bytes()).await;
    let status = answer.status;
    match status {
        204 => (status, Value::Null),
        _ => (status, answer.json().await),
    }
}

async fn anybody(at: SocketAddr, method: &str, path: &str, body: Value) -> (u16, Value) {
    ask(at, "", method, path, body).await
}

/// Registers an endpoint; answers its path and its secret.
async fn register(at: SocketAddr, who: &str, fields: Value) -> (String, String) {
    let (status, made) = ask(at, who, "POST", "/v1/webhooks", fields).await;
    assert_eq!(status, 201, "{made}");
    let text = |name: &str| made[name].as_str().expect(name).to_owned();
    (format!("/v1/webhooks/{}", text("id")), text("secret"))
}

fn hook() -> Value {
    json!({"url": NOWHERE, "topics": ["orders/#"], "headers": {"X-Shop": "1", "X-Token": "geheim-7"}})
}

#[tokio::test]
async fn an_endpoint_is_registered_changed_and_ended() {
    let broker = Broker::with(LOCAL).await;
    let at = broker.http;
    let body = hook().to_string();
    let answer = send(at, "POST", "/v1/webhooks", "", body.as_bytes()).await;
    assert_eq!(answer.status, 201);
    let location = answer.header("location").expect("a place").to_owned();
    let made = answer.json().await;
    assert_eq!(
        location,
        format!("/v1/webhooks/{}", made["id"].as_str().expect("an id"))
    );
    assert!(
        made["secret"]
            .as_str()
            .expect("a secret")
            .starts_with("whsec_")
    );
    for (name, expected) in [
        ("source", json!("api")),
        ("state", json!("active")),
        ("url", json!(NOWHERE)),
        ("qos", json!(1)),
        ("user", json!(null)),
        ("queued", json!(0)),
        ("dead_letters", json!(0)),
        ("headers", json!({"X-Shop": "1", "X-Token": "(hidden)"})),
    ] {
        assert_eq!(made[name], expected, "{name}");
    }

    let (status, shown) = anybody(at, "GET", &location, Value::Null).await;
    assert_eq!(
        (status, &shown["secret"]),
        (200, &Value::Null),
        "shown once"
    );
    assert_eq!(shown["url"], NOWHERE);

    let patch = json!({"max_in_flight": 3, "signature_v1a": true, "headers": {"X-Shop": null}});
    let (status, changed) = anybody(at, "PATCH", &location, patch).await;
    assert_eq!(status, 200, "{changed}");
    assert_eq!(changed["max_in_flight"], 3);
    assert_eq!(changed["headers"], json!({"X-Token": "(hidden)"}));
    assert!(
        changed["public_key"]
            .as_str()
            .expect("a key")
            .starts_with("whpk_")
    );

    let (status, rotated) = anybody(
        at,
        "POST",
        &format!("{location}/rotate-secret"),
        Value::Null,
    )
    .await;
    assert_eq!(status, 200);
    assert_ne!(rotated["secret"], made["secret"]);
    assert!(rotated["old_secret_until"].is_string(), "{rotated}");
    assert_ne!(rotated["public_key"], changed["public_key"]);

    for (action, state) in [
        ("pause", "paused"),
        ("disable", "disabled"),
        ("enable", "paused"),
        ("resume", "active"),
    ] {
        let path = format!("{location}/{action}");
        let (status, changed) = anybody(at, "POST", &path, Value::Null).await;
        assert_eq!(
            (status, changed["state"].as_str()),
            (200, Some(state)),
            "{action}"
        );
        let reason = (state == "disabled").then_some("disabled by request");
        assert_eq!(changed["disabled_reason"].as_str(), reason);
    }

    let (status, _) = anybody(at, "DELETE", &location, Value::Null).await;
    assert_eq!(status, 204);
    for (method, path) in [
        ("GET", location.clone()),
        ("DELETE", location.clone()),
        ("POST", format!("{location}/test")),
        ("GET", format!("{location}/attempts")),
        ("GET", format!("{location}/dead-letters")),
        ("GET", format!("{location}/dead-letters/1")),
    ] {
        let (status, _) = anybody(at, method, &path, Value::Null).await;
        assert_eq!(status, 404, "{method} {path}");
    }
}

/// All that is wrong is told at once, by the names of the fields.
#[tokio::test]
async fn wrong_fields_are_told_by_name() {
    let broker = Broker::start().await;
    let at = broker.http;
    let (status, problem) = anybody(
        at,
        "POST",
        "/v1/webhooks",
        json!({"url": "https://10.0.0.1/", "topics": ["a/#b"], "timeout": "x", "retry": []}),
    )
    .await;
    assert_eq!(
        (status, &problem["type"]),
        (422, &json!("urn:tidings:problem:invalid-webhook"))
    );
    let errors = problem["errors"].as_array().expect("errors");
    let fields: Vec<&str> = errors
        .iter()
        .filter_map(|it| it["field"].as_str())
        .collect();
    assert_eq!(fields, ["retry", "url", "topics[0]", "timeout"]);
    for (body, expected) in [(&b"{"[..], 400), (b"[]", 400), (b"", 400), (b"{}", 422)] {
        let answer = send(at, "POST", "/v1/webhooks", "", body).await;
        assert_eq!(answer.status, expected, "{body:?}");
    }
    let answer = send(at, "PUT", "/v1/webhooks", "", b"").await;
    assert_eq!(answer.status, 405);
}

/// Server-side request forgery: forms of addresses, and names that lead to them.
#[tokio::test]
async fn where_nothing_may_connect_is_told_at_registration() {
    let broker = Broker::start().await;
    for url in [
        "http://example.com/",
        "https://127.0.0.1/",
        "https://127.1/",
        "https://0x7f000001/",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://[64:ff9b::7f00:1]/",
        "https://10.1.2.3/",
        "https://100.64.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://user:password@example.com/",
        "https://localhost/",
        "https://LOCALHOST/",
    ] {
        let fields = json!({"url": url, "topics": ["a"]});
        let (status, problem) = anybody(broker.http, "POST", "/v1/webhooks", fields).await;
        assert_eq!(status, 422, "{url}: {problem}");
        assert_eq!(problem["errors"][0]["field"], "url", "{url}");
    }
    let broker =
        Broker::with("webhooks.allow_networks = ['127.0.0.0/8', '169.254.0.0/16', '::1']").await;
    let (path, _) = register(
        broker.http,
        "",
        json!({"url": "https://localhost/", "topics": "a"}),
    )
    .await;
    let patch = json!({"url": "https://169.254.169.254/"});
    let (status, problem) = anybody(broker.http, "PATCH", &path, patch).await;
    assert_eq!(status, 422, "{problem}");
    let detail = problem["errors"][0]["detail"].as_str().expect("a detail");
    assert!(detail.contains("never allowed"), "{detail}");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let broker = Broker::with(LOCAL).await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(register(broker.http, "", hook()).await.0);
    }
    made.sort_unstable();
    let mut listed = Vec::new();
    let mut path = "/v1/webhooks?limit=2".to_owned();
    let mut pages = 0;
    loop {
        let (status, page) = anybody(broker.http, "GET", &path, Value::Null).await;
        assert_eq!(status, 200);
        pages += 1;
        for webhook in page["webhooks"].as_array().expect("a list") {
            assert_eq!(webhook["secret"], Value::Null);
            listed.push(format!(
                "/v1/webhooks/{}",
                webhook["id"].as_str().expect("an id")
            ));
        }
        match page["next"].as_str() {
            Some(next) => path = format!("/v1/webhooks?limit=2&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((listed, pages), (made, 3));
    let (status, _) = anybody(broker.http, "GET", "/v1/webhooks?limit=0", Value::Null).await;
    assert_eq!(status, 400);
}

/// Whoever registers must be allowed to read what is delivered, sees their own alone, and nobody
/// sees more but who may read what the broker tells of webhooks.
#[tokio::test]
async fn rights_decide_who_may_have_and_see_what() {
    let directory = scratch();
    let users = ["alice", "bob", "root"]
        .map(|name| user(name, name))
        .concat();
    std::fs::write(directory.path().join("users"), users).expect("a file");
    let settings = format!(
        "{LOCAL}[access]\npassword_file = '{{dir}}/users'\nallow_anonymous = true\n\
         [[access.rule]]\nuser = '*'\nallow = ['publish', 'subscribe', 'receive']\ntopics = ['%u/#', 'orders/#']\n\
         [[access.rule]]\nuser = 'root'\nallow = ['subscribe', 'receive']\ntopics = ['#', '$SYS/#']\n"
    );
    let broker = Broker::within(directory, &settings).await;
    let at = broker.http;
    let (alice, bob, root) = ("alice:alice", "bob:bob", "root:root");
    let fields = |topic: &str| json!({"url": NOWHERE, "topics": [topic]});
    for (who, topic, expected) in [
        (alice, "bob/x", 403),
        (alice, "#", 403),
        ("", "orders/#", 403),
        ("alice:wrong", "orders/#", 401),
    ] {
        let (status, problem) = ask(at, who, "POST", "/v1/webhooks", fields(topic)).await;
        assert_eq!(status, expected, "{who} {topic}: {problem}");
    }
    let reply = json!({"url": NOWHERE, "topics": ["orders/#"], "reply_topic": "bob/x"});
    let (status, _) = ask(at, alice, "POST", "/v1/webhooks", reply).await;
    assert_eq!(status, 403);

    let (path, _) = register(at, alice, fields("alice/#")).await;
    let (other, _) = register(at, bob, fields("orders/#")).await;
    let (status, shown) = ask(at, alice, "GET", &path, Value::Null).await;
    assert_eq!((status, &shown["user"]), (200, &json!("alice")));
    for (method, path) in [
        ("GET", path.clone()),
        ("PATCH", path.clone()),
        ("DELETE", path.clone()),
        ("POST", format!("{path}/pause")),
        ("POST", format!("{path}/rotate-secret")),
        ("POST", format!("{path}/replay")),
        ("GET", format!("{path}/dead-letters")),
    ] {
        let (status, _) = ask(at, bob, method, &path, json!({})).await;
        assert_eq!(status, 404, "{method} {path}");
    }
    let count = async |who| {
        let (_, page) = ask(at, who, "GET", "/v1/webhooks", Value::Null).await;
        page["webhooks"].as_array().expect("a list").len()
    };
    assert_eq!(
        (count(alice).await, count(bob).await, count(root).await),
        (1, 1, 2)
    );
    assert_eq!(count("").await, 0);

    // Root may, as far as the owner may read it, too.
    let (status, shown) = ask(at, root, "POST", &format!("{other}/pause"), Value::Null).await;
    assert_eq!((status, &shown["state"]), (200, &json!("paused")));
    let (status, _) = ask(at, root, "PATCH", &other, json!({"topics": ["alice/#"]})).await;
    assert_eq!(status, 403);
    let (status, _) = ask(at, root, "DELETE", &path, Value::Null).await;
    assert_eq!(status, 204);
}

/// SIGKILL: what was answered is true afterwards, and nothing secret is left anywhere in clear.
#[tokio::test]
async fn definitions_states_and_secrets_survive_kill_9() {
    let mut broker = ProcessBroker::start(&[
        "webhooks.allow_http=true",
        "webhooks.allow_networks=127.0.0.0/8",
        "log.level=trace",
    ]);
    let at = http(&broker);
    let (path, first) = register(at, "", hook()).await;
    let (status, _) = anybody(at, "POST", &format!("{path}/pause"), Value::Null).await;
    assert_eq!(status, 200);
    let (status, rotated) =
        anybody(at, "POST", &format!("{path}/rotate-secret"), Value::Null).await;
    assert_eq!(status, 200);
    let second = rotated["secret"].as_str().expect("a secret").to_owned();
    let (status, _) = anybody(at, "POST", "/v1/topics/orders/1", json!("hello")).await;
    assert_eq!(status, 200);
    let (_, before) = anybody(at, "GET", &path, Value::Null).await;
    let (gone, _) = register(at, "", hook()).await;
    let (status, _) = anybody(at, "DELETE", &gone, Value::Null).await;
    assert_eq!(status, 204);

    broker.kill();
    let log = broker.log();
    broker.start_again();
    let at = http(&broker);
    let (status, after) = anybody(at, "GET", &path, Value::Null).await;
    assert_eq!(status, 200);
    for name in [
        "state",
        "old_secret_until",
        "headers",
        "queued",
        "created",
        "updated",
    ] {
        assert_eq!(after[name], before[name], "{name}");
    }
    assert_eq!(
        (&after["state"], &after["queued"]),
        (&json!("paused"), &json!(1))
    );
    let (status, _) = anybody(at, "GET", &gone, Value::Null).await;
    assert_eq!(status, 404);

    let log = log + &broker.log();
    for secret in [&*first, &*second, "geheim-7"] {
        let key = secret.strip_prefix("whsec_").unwrap_or(secret);
        assert!(!log.contains(key), "in the log");
        assert!(!is_on_disk(broker.directory(), key), "on the disk");
        assert!(!after.to_string().contains(key), "in an answer");
    }
    assert!(
        is_on_disk(broker.directory(), NOWHERE),
        "what is not secret is found so"
    );
}

fn http(broker: &ProcessBroker) -> SocketAddr {
    broker.field("http").parse().expect("an address")
}

fn is_on_disk(directory: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(directory).expect("a directory");
    entries.map(|it| it.expect("an entry").path()).any(|path| {
        if path.is_dir() {
            return is_on_disk(&path, text);
        }
        // One may go while the store cleans up, and the control socket is no file.
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(text.len()).any(|it| it == text.as_bytes())
    })
}

/// `[[webhook]]` takes effect at a reload: added, changed, ended.
#[tokio::test]
async fn the_configuration_is_followed_at_sighup() {
    let directory = scratch();
    let file = directory.path().join("broker.toml");
    let write = |webhooks: &str| {
        let text =
            format!("mqtt.listen = '127.0.0.1:0'\nhttp.listen = '127.0.0.1:0'\n{LOCAL}{webhooks}");
        std::fs::write(&file, text).expect("a file");
    };
    let declared = |name: &str, more: &str| {
        format!("[[webhook]]\nname = '{name}'\nurl = '{NOWHERE}'\ntopics = 'orders/#'\n{more}\n")
    };
    write(&declared("billing", ""));
    let config = file.to_str().expect("a path of UTF-8");
    let broker = ProcessBroker::start_raw(scratch(), &["--config", config], &[]);
    let at = http(&broker);
    let get = async |path: &str| anybody(at, "GET", path, Value::Null).await;
    let (status, shown) = get("/v1/webhooks/billing").await;
    assert_eq!((status, &shown["source"]), (200, &json!("configuration")));
    for (method, body) in [("PATCH", json!({"qos": 2})), ("DELETE", Value::Null)] {
        let (status, problem) = anybody(at, method, "/v1/webhooks/billing", body).await;
        assert_eq!(status, 409);
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(detail.contains("configuration"), "{detail}");
    }
    let rotate = "/v1/webhooks/billing/rotate-secret";
    let (status, _) = anybody(at, "POST", rotate, Value::Null).await;
    assert_eq!(status, 200);
    let (status, _) = anybody(at, "POST", "/v1/webhooks/billing/pause", Value::Null).await;
    assert_eq!(status, 200);

    let secret = "secret = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw'";
    write(
        &[
            declared("billing", "timeout = '3s'"),
            declared("new", secret),
        ]
        .concat(),
    );
    broker.signal("HUP");
    broker.expect_log(&["configuration reloaded"]);
    let (_, shown) = get("/v1/webhooks/billing").await;
    assert_eq!(
        (&shown["timeout"], &shown["state"]),
        (&json!("3s"), &json!("paused"))
    );
    assert_eq!(get("/v1/webhooks/new").await.0, 200);
    let (status, _) = anybody(at, "POST", "/v1/webhooks/new/rotate-secret", Value::Null).await;
    assert_eq!(status, 409, "its secret stands in the file");

    // Something is wrong: all stays as it was.
    write(&declared("billing", "timeout = 'soon'"));
    broker.signal("HUP");
    broker.expect_log(&["the configuration stays as it was", "webhook.timeout"]);
    assert_eq!(get("/v1/webhooks/new").await.0, 200);

    write("");
    broker.signal("HUP");
    broker.expect_log(&["webhook ended", "billing"]);
    broker.expect_log(&["webhook ended", "new"]);
    assert_eq!(get("/v1/webhooks/billing").await.0, 404);
    let (_, page) = get("/v1/webhooks").await;
    assert_eq!(page, json!({"webhooks": [], "next": null}));
}

/// What a stream has is queued once more, as far as the filters of the endpoint match it.
#[tokio::test]
async fn a_stream_is_sent_again() {
    let streams = "[[stream]]\nname = 'all'\nfilters = ['#']\n";
    let broker = Broker::with(&format!("{LOCAL}{streams}")).await;
    let at = broker.http;
    for topic in ["orders/1", "other", "orders/2"] {
        let (status, _) = anybody(at, "POST", &format!("/v1/topics/{topic}"), json!("x")).await;
        assert_eq!(status, 200);
    }
    let (path, _) = register(at, "", hook()).await;
    let (status, _) = anybody(at, "POST", &format!("{path}/pause"), Value::Null).await;
    assert_eq!(status, 200);
    let replay = async |body: Value| anybody(at, "POST", &format!("{path}/replay"), body).await;
    for (body, field) in [
        (json!({}), "source"),
        (json!({"source": "disk"}), "source"),
        (json!({"source": "stream", "stream": "none"}), "stream"),
        (json!({"source": "dead-letters", "stream": "all"}), "stream"),
        (json!({"source": "stream", "status": 500}), "status"),
        (json!({"source": "stream", "topic": "a/#/b"}), "topic"),
        (json!({"source": "stream", "since": "yesterday"}), "since"),
        (json!({"source": "stream", "until": 5}), "until"),
        (json!({"source": "dead-letters", "status": 99}), "status"),
        (json!({"source": "stream", "rate_limit": 0}), "rate_limit"),
        (json!({"source": "stream", "dry_run": "yes"}), "dry_run"),
        (json!({"source": "stream", "from": 1}), "from"),
    ] {
        let (status, problem) = replay(body.clone()).await;
        assert_eq!(status, 422, "{body}: {problem}");
        assert_eq!(problem["errors"][0]["field"], field, "{body}");
    }
    let counted = replay(json!({"source": "stream", "since": "1h", "dry_run": true})).await;
    assert_eq!(
        counted,
        (200, json!({"matched": 2, "queued": 0, "running": false}))
    );
    let none = json!({"source": "stream", "since": "1h", "topic": "orders/3", "dry_run": true});
    assert_eq!(replay(none).await.1["matched"], 0);
    let begun = replay(json!({"source": "stream", "stream": "all"})).await;
    assert_eq!(
        begun,
        (202, json!({"matched": null, "queued": 0, "running": true}))
    );
    let shown = loop {
        let (_, shown) = anybody(at, "GET", &path, Value::Null).await;
        if shown["replay"]["running"] == false {
            break shown;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(
        (&shown["replay"]["queued"], &shown["queued"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(shown["replay"]["error"], Value::Null);
    let (status, _) = anybody(at, "DELETE", &format!("{path}/replay"), Value::Null).await;
    assert_eq!(status, 409);
    let (status, _) = anybody(at, "POST", &format!("{path}/test"), Value::Null).await;
    assert_eq!(status, 409, "it is paused");
    let none = replay(json!({"source": "dead-letters"})).await;
    assert_eq!(
        none,
        (200, json!({"matched": 0, "queued": 0, "running": false}))
    );
}

#[tokio::test]
async fn questions_about_dead_letters_are_judged() {
    let broker = Broker::with(LOCAL).await;
    let at = broker.http;
    let (path, _) = register(at, "", hook()).await;
    for (query, expected) in [
        ("", 200),
        (
            "?topic=orders/%23&since=2h&until=2026-01-31T12:00:00Z&status=503",
            200,
        ),
        ("?topic=orders/%23/x", 400),
        ("?topic=orders/+", 400),
        ("?since=yesterday", 400),
        ("?status=99", 400),
        ("?status=0&limit=1&cursor=3", 200),
        ("?cursor=x", 400),
        ("?dry_run=true", 400),
    ] {
        let (status, answer) = anybody(
            at,
            "GET",
            &format!("{path}/dead-letters{query}"),
            Value::Null,
        )
        .await;
        assert_eq!(status, expected, "{query}: {answer}");
        if status == 200 {
            assert_eq!(answer, json!({"dead_letters": [], "next": null}));
        }
    }
    let discard = format!("{path}/dead-letters?status=503&dry_run=true");
    let discarded = anybody(at, "DELETE", &discard, Value::Null).await;
    assert_eq!(discarded, (200, json!({"matched": 0, "discarded": 0})));
    for (method, seq) in [("GET", "1"), ("DELETE", "1"), ("GET", "x")] {
        let one = format!("{path}/dead-letters/{seq}");
        assert_eq!(anybody(at, method, &one, Value::Null).await.0, 404);
    }
    let (status, attempts) = anybody(at, "GET", &format!("{path}/attempts"), Value::Null).await;
    assert_eq!((status, attempts["attempts"].is_array()), (200, true));
}

#[tokio::test]
async fn the_command_line_does_the_same() {
    let broker = ProcessBroker::start(&[
        "webhooks.allow_http=true",
        "webhooks.allow_networks=127.0.0.0/8",
    ]);
    let url = format!("http://{}", http(&broker));
    let directory = scratch();
    let webhook = |arguments: &[&str]| {
        let all = [&["webhook", "--url", &url][..], arguments].concat();
        run(&directory, &all, &[])
    };
    let done = |arguments: &[&str]| {
        let finished = webhook(arguments);
        assert!(
            finished.status.success(),
            "{arguments:?}: {}",
            finished.stderr
        );
        finished.stdout
    };
    let create = [
        "--json",
        "create",
        NOWHERE,
        "orders/#",
        "--header",
        "X-Shop: 1",
        "--timeout",
        "3s",
    ];
    let made: Value = serde_json::from_str(&done(&create)).expect("JSON");
    assert!(
        made["secret"]
            .as_str()
            .expect("a secret")
            .starts_with("whsec_")
    );
    assert_eq!(made["timeout"], "3s");
    let id = made["id"].as_str().expect("an id");

    let listed = done(&["list"]);
    let mut lines = listed.lines();
    assert!(lines.next().expect("a head").starts_with("ID"));
    let line = lines.next().expect("a line");
    assert!(
        line.starts_with(id) && line.contains("active") && line.ends_with("orders/#"),
        "{line}"
    );

    let shown = done(&["show", id]);
    assert!(
        shown.contains("timeout: 3s\n") && !shown.contains("whsec_"),
        "{shown}"
    );
    assert!(done(&["change", id, "--header", "X-Shop:", "--qos", "2"]).contains("qos: 2\n"));
    assert!(done(&["pause", id]).contains("state: paused\n"));
    assert!(done(&["disable", id]).contains("disabled_reason: disabled by request\n"));
    assert!(done(&["enable", id]).contains("state: paused\n"));
    assert!(done(&["resume", id]).contains("state: active\n"));
    assert!(done(&["rotate-secret", id]).contains("secret: whsec_"));
    assert_eq!(done(&["test", id]), "queued: 1");
    assert!(done(&["attempts", id]).starts_with("TIME"));
    assert!(done(&["dead-letters", id, "--status", "503"]).starts_with("SEQ"));
    let counted = done(&["dead-letters", id, "--discard", "--dry-run"]);
    assert_eq!(counted, "matched: 0\ndiscarded: 0");
    let replayed = done(&[
        "replay",
        id,
        "--source",
        "dead-letters",
        "--since",
        "2h",
        "--dry-run",
    ]);
    assert_eq!(replayed, "matched: 0\nqueued: 0\nrunning: false");

    let refused = webhook(&["create", "https://10.0.0.1/", "a"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused
            .stderr
            .contains("url: 10.0.0.1 is a private address"),
        "{}",
        refused.stderr
    );
    assert_eq!(done(&["delete", id]), "");
    let gone = webhook(&["show", id]);
    assert!(
        gone.stderr.contains("there is no such webhook"),
        "{}",
        gone.stderr
    );
    let nobody = run(
        &directory,
        &["webhook", "--url", "http://127.0.0.1:9", "list"],
        &[],
    );
    assert!(
        nobody.stderr.contains("cannot connect"),
        "{}",
        nobody.stderr
    );
}

/// What the broker publishes when it starts, before anybody can connect, is queued like the rest.
#[tokio::test]
async fn a_will_that_became_due_while_the_broker_was_down_is_queued() {
    let mut broker = Broker::with(LOCAL).await;
    let (path, _) = register(broker.http, "", hook()).await;
    let pause = format!("{path}/pause");
    assert_eq!(
        anybody(broker.http, "POST", &pause, Value::Null).await.0,
        200
    );
    let will = Will::new("orders/will", "over").qos(1).delay(1);
    let connect = Connect::v5("a").persistent().will(will);
    broker.connect(connect).await.lose().await;
    broker.stop().await;
    elapse(2).await;
    broker.start_again().await;
    let (status, shown) = anybody(broker.http, "GET", &path, Value::Null).await;
    assert_eq!((status, &shown["queued"]), (200, &json!(1)));
}
