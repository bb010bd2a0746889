//! Logging in for a browser: a token in a cookie.

use serde_json::{Value, json};

use super::client::{Answer, field, send};
use super::{alice, basic, broker_with_users};
use crate::harness::*;

/// The cookie that an answer sets, with its attributes.
fn set_cookie(answer: &Answer) -> (String, Vec<String>) {
    let set = answer.header("set-cookie").expect("a cookie");
    let mut parts = set.split("; ").map(str::to_owned);
    (parts.next().expect("a pair"), parts.collect())
}

async fn log_in(broker: &Broker, headers: &str) -> Answer {
    let body = br#"{"user":"alice","password":"wonderland"}"#;
    let answer = send(broker.http, "POST", "/v1/login", headers, body).await;
    assert_eq!(answer.status, 200);
    answer
}

/// A user and a password, or a token, become a cookie; what may come with a cookie comes with it.
#[tokio::test]
async fn a_login_is_a_cookie() {
    let broker = broker_with_users("http.login_expires = \"2h\"").await;
    let answer = log_in(&broker, "").await;
    let (cookie, attributes) = set_cookie(&answer);
    let expected = ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=7200"];
    assert_eq!(attributes, expected);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let said = answer.json().await;
    assert_eq!(said, json!({"user": "alice", "expires_in": 7200}));

    let header = format!("cookie: other=1; {cookie}\r\n");
    let mut stream = send(broker.http, "GET", "/v1/events?topic=t", &header, b"").await;
    assert_eq!(stream.status, 200);
    while field(&stream.event().await, "id").is_none() {}
    // From a page of our own, which says so.
    let own = format!("{header}origin: http://localhost\r\n");
    let answer = send(broker.http, "POST", "/v1/topics/t", &own, b"x").await;
    assert_eq!(answer.status, 200);
    let event: Value =
        serde_json::from_str(field(&stream.event().await, "data").expect("data")).expect("JSON");
    assert_eq!(event["payload"], "x");
    let who = send(broker.http, "GET", "/v1/login", &header, b"").await;
    let who = who.json().await;
    assert_eq!(who["user"], "alice");
    assert!(
        (7100..=7200).contains(&who["expires_in"].as_u64().expect("a number")),
        "{who}"
    );

    // Basic, and a token, which goes on for as long as it would have.
    let by_basic = send(broker.http, "POST", "/v1/login", &alice(), b"").await;
    assert_eq!(by_basic.status, 200);
    let token = cookie.strip_prefix("tidings=").expect("our cookie");
    let bearer = format!("authorization: Bearer {token}\r\n");
    let by_token = send(broker.http, "POST", "/v1/login", &bearer, b"").await;
    let (again, _) = set_cookie(&by_token);
    assert_eq!(again, cookie);
    assert!(by_token.json().await["expires_in"].as_u64() <= Some(7200));
}

/// A cookie goes over TLS only, unless the server is this machine.
#[tokio::test]
async fn a_cookie_is_secure_where_it_leaves_the_machine() {
    let broker = broker_with_users("http.cors_origins = \"http://app.example\"").await;
    let set = async |headers: &str| {
        // Its own Host, after the one of the client.
        let body = r#"{"user":"alice","password":"wonderland"}"#;
        let request = format!(
            "POST /v1/login HTTP/1.1\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        super::client::raw(broker.http, &request).await
    };
    for (headers, secure) in [
        ("host: localhost:8080\r\n", false),
        (
            "host: 127.0.0.1:8080\r\norigin: http://127.0.0.1:8080\r\n",
            false,
        ),
        ("host: [::1]:8080\r\n", false),
        ("host: broker.example\r\n", true),
        (
            "host: broker.example\r\norigin: https://broker.example\r\n",
            true,
        ),
        ("host: localhost\r\norigin: https://localhost\r\n", true),
        ("host: 192.168.1.2:8080\r\n", true),
    ] {
        let (_, attributes) = set_cookie(&set(headers).await);
        assert_eq!(
            attributes.contains(&"Secure".to_owned()),
            secure,
            "{headers}"
        );
    }
    // The browser would not keep it: better said than silently without effect.
    let answer = set("host: broker.example\r\norigin: http://broker.example\r\n").await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.header("set-cookie"), None);
    let problem = answer.json().await;
    assert_eq!(problem["type"], "urn:tidings:problem:needs-tls");
}

/// Who is wrong, or nobody, is not logged in, and a page of another site logs nobody in.
#[tokio::test]
async fn a_login_is_refused() {
    let broker = broker_with_users("").await;
    let wrong = r#"{"user":"alice","password":"Wonderland"}"#;
    let right = r#"{"user":"alice","password":"wonderland"}"#;
    let cookie = format!("cookie: {}\r\n", set_cookie(&log_in(&broker, "").await).0);
    for (headers, body, status) in [
        ("", wrong, 401),
        (&*basic("alice", "x"), "", 401),
        (&*format!("{}authorization: Bearer x\r\n", alice()), "", 401),
        ("authorization: Bearer x\r\n", "", 401),
        ("", "", 401),
        // A login does not go on for ever by itself.
        (&*cookie, "", 401),
        ("", "{", 400),
        ("", r#"{"user":"alice"}"#, 400),
        (&*alice(), right, 400),
        ("origin: https://evil.example.org\r\n", right, 403),
    ] {
        let answer = send(broker.http, "POST", "/v1/login", headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{headers}{body}");
        assert_eq!(answer.header("set-cookie"), None, "{headers}{body}");
    }
    let none = Broker::start().await;
    let answer = send(none.http, "POST", "/v1/login", "", right.as_bytes()).await;
    assert_eq!(answer.status, 400);
    let detail = answer.detail().await;
    assert!(detail.contains("access.password_file"), "{detail}");
}

/// A logout has the browser forget the token, a good one or not.
#[tokio::test]
async fn a_logout_takes_the_cookie_away() {
    let broker = broker_with_users("").await;
    for headers in ["", "cookie: tidings=x\r\n"] {
        let answer = send(broker.http, "DELETE", "/v1/login", headers, b"").await;
        assert_eq!(answer.status, 204);
        let (cookie, attributes) = set_cookie(&answer);
        assert_eq!(cookie, "tidings=");
        assert!(
            attributes.contains(&"Max-Age=0".to_owned()),
            "{attributes:?}"
        );
    }
}

/// A stream ends with the token that let it in.
#[tokio::test]
async fn a_stream_ends_with_the_login() {
    let broker = broker_with_users("http.login_expires = \"1s\"").await;
    let (cookie, _) = set_cookie(&log_in(&broker, "").await);
    let header = format!("cookie: {cookie}\r\n");
    let mut stream = send(broker.http, "GET", "/v1/events?topic=t", &header, b"").await;
    loop {
        let event = stream.event().await;
        if field(&event, "event") == Some("goodbye") {
            assert_eq!(field(&event, "data"), Some(r#"{"reason":"expired"}"#));
            break;
        }
    }
    let answer = send(broker.http, "GET", "/v1/messages?topic=t", &header, b"").await;
    assert_eq!(answer.status, 401);
}
