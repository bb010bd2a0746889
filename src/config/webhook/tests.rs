use std::num::NonZeroU32;

use serde_json::{Map, Value, json};
use tidings_protocol::topic::TopicLimits;

use super::*;
use crate::config::Config;

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => panic!("an object"),
    }
}

fn read(value: Value) -> Result<Definition, Vec<FieldError>> {
    let policy = Policy {
        allow_http: true,
        allow_networks: &["10.0.0.0/8".parse().unwrap()],
        topic_limits: TopicLimits {
            bytes_max: 100,
            levels_max: 10,
        },
    };
    Definition::read(&object(value), &[], &policy)
}

/// A definition that is good, with these fields instead.
fn with(changes: Value) -> Value {
    let mut fields = object(json!({"url": "https://example.com/hook", "topics": ["a/#"]}));
    fields.extend(object(changes));
    Value::Object(fields)
}

#[test]
fn what_is_not_said_has_its_default() {
    let definition = read(with(json!({}))).unwrap();
    let shown = definition.to_json(true);
    for (name, expected) in object(json!({
        "url": "https://example.com/hook",
        "topics": ["a/#"],
        "qos": 1,
        "payload_mode": "cloudevents-structured",
        "binary_payload": "envelope",
        "headers": {},
        "ordering": "none",
        "max_in_flight": 16,
        "rate_limit": 0,
        "retry_schedule": ["5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "1d"],
        "timeout": "15s",
        "description": "",
        "ca_certificate": null,
        "client_certificate": null,
        "reply_topic": null,
        "signature_v1a": false,
    })) {
        assert_eq!(shown[&name], expected, "{name}");
    }
    let nulls: Map<String, Value> = DEFINITION_FIELDS
        .iter()
        .filter(|it| !["url", "topics"].contains(it))
        .map(|it| ((*it).to_owned(), Value::Null))
        .collect();
    assert_eq!(read(with(Value::Object(nulls))).unwrap(), definition);
}

#[test]
fn what_is_said_is_kept_and_read_back() {
    let fields = json!({
        "url": "http://10.1.2.3:8080/x?y=z",
        "topics": ["b", "a/+", "b"],
        "qos": 2,
        "payload_mode": "raw",
        "binary_payload": "refuse",
        "headers": {"X-Shop": "1", "Authorization": "Bearer x"},
        "ordering": "fifo",
        "max_in_flight": 1,
        "rate_limit": 10,
        "retry_schedule": [],
        "timeout": "300ms",
        "description": "für alle",
        "reply_topic": "replies",
        "signature_v1a": true,
    });
    let definition = read(fields).unwrap();
    assert_eq!(definition.topics, ["a/+", "b"]);
    assert_eq!(definition.rate_limit, NonZeroU32::new(10));
    assert_eq!(definition.retry_schedule.attempts(), 1);
    assert_eq!(definition.url.port(), 8080);
    let stored = definition.to_json(false);
    assert_eq!(Definition::read_stored(&stored).unwrap(), definition);
    assert_eq!(definition.to_json(true)["headers"]["Authorization"], HIDDEN);
    assert_eq!(definition.to_json(true)["headers"]["X-Shop"], "1");
    assert!(!format!("{definition:?}").contains("Bearer"));
}

/// Each wrong field is named, with what is wrong about it.
#[test]
fn wrong_fields_are_named() {
    let long = "x".repeat(1001);
    let wide = "x".repeat(4096);
    let many: Vec<String> = (0..101).map(|it| it.to_string()).collect();
    let many_headers: Map<String, Value> =
        (0..33).map(|it| (format!("h{it}"), "".into())).collect();
    for (changes, field, detail) in [
        (json!({"url": null}), "url", "say where"),
        (json!({"url": 1}), "url", "a number"),
        (json!({"url": "example.com"}), "url", "absolute URL"),
        (json!({"url": "ftp://example.com"}), "url", "absolute URL"),
        (json!({"url": "https://"}), "url", "host"),
        (json!({"url": "https://a b"}), "url", "' ' does not belong"),
        (
            json!({"url": "https://ü.example"}),
            "url",
            "'ü' does not belong",
        ),
        (
            json!({"url": "https://u:p@example.com"}),
            "url",
            "user name or password",
        ),
        (json!({"url": "https://example.com#x"}), "url", "fragment"),
        (json!({"url": "https://example.com:0"}), "url", "port"),
        (json!({"url": "https://example.com:x"}), "url", "port"),
        (json!({"url": "https://example.com:65536"}), "url", "port"),
        (
            json!({"url": "https://127.0.0.1"}),
            "url",
            "127.0.0.1 is a loopback address",
        ),
        (
            json!({"url": "https://[::ffff:127.0.0.1]"}),
            "url",
            "loopback",
        ),
        (
            json!({"url": "https://0x7f.1"}),
            "url",
            "write the address as 127.0.0.1",
        ),
        (
            json!({"url": "https://2130706433/"}),
            "url",
            "write the address as 127.0.0.1",
        ),
        (
            json!({"url": "https://0177.0.0.1/"}),
            "url",
            "write the address as 127.0.0.1",
        ),
        (json!({"url": "https://192.168.1.1"}), "url", "private"),
        (json!({"url": "https://[fd00::1]"}), "url", "unique-local"),
        (
            json!({"url": "https://169.254.169.254"}),
            "url",
            "never allowed",
        ),
        (json!({"url": "https://[::1"}), "url", "host"),
        (json!({"topics": null}), "topics", "say what"),
        (json!({"topics": []}), "topics", "there are 0"),
        (json!({"topics": many}), "topics", "there are 101"),
        (json!({"topics": {}}), "topics", "a list of strings"),
        (json!({"topics": ["a", 1]}), "topics[1]", "a number"),
        (json!({"topics": ["a", "a/#/b"]}), "topics[1]", "\"a/#/b\""),
        (json!({"topics": ["$share/g/a"]}), "topics[0]", "share"),
        (json!({"topics": ["$replay/2h/a"]}), "topics[0]", "replay"),
        (json!({"topics": "a#"}), "topics[0]", "\"a#\""),
        (json!({"qos": 3}), "qos", "from 0 to 2"),
        (json!({"qos": "1"}), "qos", "whole number"),
        (json!({"payload_mode": "xml"}), "payload_mode", "\"raw\""),
        (
            json!({"binary_payload": ""}),
            "binary_payload",
            "\"refuse\"",
        ),
        (json!({"headers": []}), "headers", "an object"),
        (json!({"headers": many_headers}), "headers", "there are 33"),
        (
            json!({"headers": {"a b": "x"}}),
            "headers.a b",
            "name of a header",
        ),
        (
            json!({"headers": {"Host": "x"}}),
            "headers.Host",
            "broker's own",
        ),
        (
            json!({"headers": {"content-type": "x"}}),
            "headers.content-type",
            "own",
        ),
        (
            json!({"headers": {"Webhook-Id": "x"}}),
            "headers.Webhook-Id",
            "own",
        ),
        (json!({"headers": {"ce-id": "x"}}), "headers.ce-id", "own"),
        (
            json!({"headers": {"traceparent": "x"}}),
            "headers.traceparent",
            "own",
        ),
        (
            json!({"headers": {"X": "a\r\nb"}}),
            "headers.X",
            "printable ASCII",
        ),
        (
            json!({"headers": {"X": "ü"}}),
            "headers.X",
            "printable ASCII",
        ),
        (json!({"headers": {"X": 1}}), "headers.X", "a number"),
        (
            json!({"headers": {"A": "1", "a": "2"}}),
            "headers.a",
            "twice",
        ),
        (
            json!({"headers": {"A": wide, "B": wide, "C": wide, "D": wide, "E": "x"}}),
            "headers",
            "may have 16384",
        ),
        (json!({"ordering": "lifo"}), "ordering", "\"fifo\""),
        (
            json!({"max_in_flight": 0}),
            "max_in_flight",
            "from 1 to 1000",
        ),
        (json!({"rate_limit": -1}), "rate_limit", "from 0"),
        (
            json!({"retry_schedule": ["5"]}),
            "retry_schedule",
            "no unit",
        ),
        (
            json!({"retry_schedule": ["31d"]}),
            "retry_schedule",
            "30 days",
        ),
        (
            json!({"retry_schedule": 5}),
            "retry_schedule",
            "list of strings",
        ),
        (json!({"timeout": "1ms"}), "timeout", "100ms to 300s"),
        (json!({"timeout": "soon"}), "timeout", "duration"),
        (
            json!({"description": long}),
            "description",
            "1000 characters",
        ),
        (
            json!({"ca_certificate": "x"}),
            "ca_certificate",
            "BEGIN CERTIFICATE",
        ),
        (
            json!({"ca_certificate":
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}),
            "ca_certificate",
            "certificate 1 in it is none",
        ),
        (
            json!({"url": format!("https://{}.com/", "a".repeat(64))}),
            "url",
            "63",
        ),
        (json!({"client_key": "x"}), "client_key", "private key"),
        (json!({"reply_topic": "a/+"}), "reply_topic", "\"a/+\""),
        (
            json!({"reply_topic": "$SYS/x"}),
            "reply_topic",
            "broker's own",
        ),
        (
            json!({"signature_v1a": "yes"}),
            "signature_v1a",
            "true or false",
        ),
        (
            json!({"max_inflight": 1}),
            "max_inflight",
            "did you mean max_in_flight?",
        ),
        (json!({"sceret": "x"}), "sceret", "no such field"),
    ] {
        let errors = read(with(changes.clone())).unwrap_err();
        let found = errors
            .iter()
            .any(|it| it.field == field && it.detail.contains(detail));
        assert!(found, "{changes}: {errors:?}");
    }
    let errors = read(json!({"url": "x", "qos": 9, "timeout": "x"})).unwrap_err();
    let fields: Vec<&str> = errors.iter().map(|it| &*it.field).collect();
    assert_eq!(fields, ["url", "topics", "qos", "timeout"], "all at once");
}

#[test]
fn http_is_allowed_in_so_many_words() {
    let policy = Policy {
        allow_http: false,
        allow_networks: &[],
        topic_limits: TopicLimits {
            bytes_max: 100,
            levels_max: 10,
        },
    };
    let fields = object(json!({"url": "http://example.com/", "topics": ["a"]}));
    let errors = Definition::read(&fields, &[], &policy).unwrap_err();
    assert!(
        errors[0].detail.contains("webhooks.allow_http"),
        "{errors:?}"
    );
}

#[test]
fn the_parts_of_a_url() {
    for (url, host, port, path) in [
        ("https://example.com", "example.com", 443, ""),
        ("http://example.com", "example.com", 80, ""),
        ("https://example.com:8443/a?b", "example.com", 8443, "/a?b"),
        ("https://example.com?b", "example.com", 443, "?b"),
        ("https://[2606:4700::1]/", "[2606:4700::1]", 443, "/"),
        ("https://[2606:4700::1]:1/", "[2606:4700::1]", 1, "/"),
        ("https://8.8.8.8:9", "8.8.8.8", 9, ""),
    ] {
        let target = Target::parse(url).unwrap();
        let parts = (target.host(), target.port(), target.path_and_query());
        assert_eq!(parts, (host, port, path), "{url}");
        assert_eq!(target.as_str(), url);
    }
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn endpoints_are_declared() {
    let config = Config::from_toml(&format!(
        "[[webhook]]\nname = 'billing'\nurl = 'https://example.com/'\ntopics = 'orders/#'\n\
         headers = {{ X-Shop = '1' }}\nuser = 'bill'\nsecret = '{SECRET}'\nmax_in_flight = 3\n\
         [[webhook]]\nname = 'other'\nurl = 'https://example.com/'\ntopics = ['a', 'b']\n"
    ))
    .unwrap();
    let [billing, other] = &config.declared_webhooks[..] else {
        panic!("two");
    };
    assert_eq!(billing.definition.topics, ["orders/#"]);
    assert_eq!(billing.definition.headers["X-Shop"], "1");
    assert_eq!(billing.definition.user.as_deref(), Some("bill"));
    assert_eq!(billing.definition.max_in_flight, 3);
    assert_eq!(billing.secret.as_ref().unwrap().reveal(), SECRET);
    assert_eq!((&*other.name, &other.secret), ("other", &None));
    assert!(!format!("{config:?}").contains("whsec_Mf"));
}

#[test]
fn what_is_wrong_with_a_declaration_is_told_with_its_place() {
    let declared = |lines: &str| {
        format!("[[webhook]]\nname = 'a'\nurl = 'https://example.com/'\ntopics = 'a'\n{lines}")
    };
    for (text, expected) in [
        (
            "[[webhook]]\n".to_owned(),
            "webhook.name: found a webhook without it",
        ),
        (
            declared("[[webhook]]\nname = 'a'\nurl = 'https://b/'\ntopics = 'a'"),
            "two webhooks",
        ),
        (
            declared("timeout = 3"),
            "5:11: webhook.timeout: it is a number",
        ),
        (
            declared("topic = 'b'"),
            "unknown setting webhook.topic; did you mean topics?",
        ),
        (
            declared("secret = 'whsec_x'"),
            "webhook.secret: what follows the prefix",
        ),
        (
            declared("user = 1"),
            "webhook.user: found 1, expected a string",
        ),
        (
            declared("headers = { Host = 'x' }"),
            "webhook.headers.Host: this header",
        ),
        (
            "[[webhook]]\nname = 'wh_1'\nurl = 'https://b/'\ntopics = 'a'".to_owned(),
            "wh_",
        ),
        (
            "[[webhook]]\nname = 'b'\nurl = 'http://127.0.0.1/'\ntopics = 'a'".to_owned(),
            "webhook.url: http is not allowed",
        ),
        (
            "[[webhook]]\nname = 'b'\nurl = 'https://b/'\ntopics = ['a', '#b']".to_owned(),
            "4:10: webhook.topics[1]: \"#b\"",
        ),
    ] {
        let problems = Config::from_toml(&text).unwrap_err().to_string();
        assert!(problems.contains(expected), "{text}\n{problems}");
        assert!(!problems.contains("whsec_x"), "{problems}");
    }
}

#[test]
fn proxies() {
    let proxy = |url: &str| Config::from_toml(&format!("webhooks.proxy = '{url}'"));
    let read = |url: &str| proxy(url).unwrap().webhooks.proxy;
    assert_eq!(read(""), None);
    let plain = read("http://proxy:3128").unwrap();
    assert_eq!(
        (&*plain.host, plain.port, plain.credentials),
        ("proxy", 3128, None)
    );
    let known = read("http://u:p@w@[::1]:1/").unwrap();
    assert_eq!((&*known.host, known.port), ("[::1]", 1));
    assert_eq!(known.credentials.as_ref().unwrap().reveal(), "u:p@w");
    assert!(!format!("{known:?}").contains("p@w"));
    for bad in [
        "https://proxy",
        "proxy:3128",
        "http://u@proxy",
        "http://proxy/x",
    ] {
        assert!(proxy(bad).is_err(), "{bad}");
    }
}
