//! Who is asking: right and wrong credentials of each kind.

use serde_json::Value;

use super::client::{HANDSHAKE, begin, send};
use super::{alice, basic, broker_with_users};

/// RFC 9110 §15.5.2: a 401 says how to log in. Wrong credentials are refused where anonymous clients
/// are let in, too.
#[tokio::test]
async fn wrong_credentials_are_refused() {
    for anonymous in [false, true] {
        let broker = broker_with_users(&format!("access.allow_anonymous = {anonymous}")).await;
        let cases = [
            basic("alice", "Wonderland"),
            basic("nobody", "wonderland"),
            "authorization: Basic !\r\n".to_owned(),
            // No colon in it.
            "authorization: Basic YWxpY2U=\r\n".to_owned(),
            "authorization: Bearer x\r\n".to_owned(),
            "authorization: Bearer a.b.c\r\n".to_owned(),
            "authorization: Digest x\r\n".to_owned(),
            "authorization;\r\n".replace(';', ":"),
            format!("{}{}", alice(), alice()),
            "cookie: tidings=x\r\n".to_owned(),
            "cookie: tidings=\r\n".to_owned(),
        ];
        let targets = [
            "/v1/messages?topic=t",
            "/v1/topics/t",
            "/metrics",
            "/v1/login",
        ];
        for headers in &cases {
            for target in targets {
                let answer = send(broker.http, "GET", target, headers, b"").await;
                assert_eq!(answer.status, 401, "{target} {headers}");
                let asked = answer.header("www-authenticate").expect("a challenge");
                assert!(
                    asked.contains("Basic") && asked.contains("Bearer"),
                    "{asked}"
                );
                let kind = answer.header("content-type");
                assert_eq!(kind, Some("application/problem+json"), "{headers}");
                assert_eq!(answer.json().await["status"], 401);
            }
        }
        let answer = send(broker.http, "GET", "/v1/messages?topic=t&ticket=x", "", b"").await;
        assert_eq!(answer.status, 401, "a ticket");
        assert!(answer.header("www-authenticate").is_some());
        // A parameter is what it is however it is written.
        let target = "/v1/messages?topic=t&%74icket=x";
        assert_eq!(send(broker.http, "GET", target, "", b"").await.status, 401);
        let none = send(broker.http, "POST", "/v1/topics/t", "", b"x").await;
        assert_eq!(none.status, if anonymous { 403 } else { 401 });
    }
}

/// A page's own request is not answered with a challenge that opens a window of the browser.
#[tokio::test]
async fn a_page_is_not_interrupted_by_the_browser() {
    let broker = broker_with_users("").await;
    for headers in ["sec-fetch-dest: empty\r\n", "x-requested-with: a page\r\n"] {
        let answer = send(broker.http, "GET", "/v1/topics/t", headers, b"").await;
        assert_eq!(answer.status, 401);
        let asked = answer.header("www-authenticate").expect("a challenge");
        assert!(
            !asked.contains("Basic") && asked.contains("Bearer"),
            "{asked}"
        );
    }
}

/// A ticket lets in once.
#[tokio::test]
async fn a_ticket_is_good_once() {
    let broker = broker_with_users("").await;
    let answer = send(broker.http, "POST", "/v1/tickets", &alice(), b"").await;
    let ticket = answer.json().await["ticket"]
        .as_str()
        .expect("a ticket")
        .to_owned();
    let target = format!("/v1/messages?topic=t&ticket={ticket}");
    assert_eq!(send(broker.http, "GET", &target, "", b"").await.status, 200);
    assert_eq!(send(broker.http, "GET", &target, "", b"").await.status, 401);
}

/// Whoever is let in is asked nothing more; the body of who is not is not waited for.
#[tokio::test]
async fn who_is_unknown_is_refused_before_the_body() {
    let broker = broker_with_users("").await;
    let large = "content-length: 1000000\r\n";
    let refused = begin(broker.http, "POST", "/v1/topics/t", large)
        .await
        .answer()
        .await;
    assert_eq!(refused.status, 401);
    let answer = send(broker.http, "POST", "/v1/topics/t", &alice(), b"x").await;
    let said: Value = answer.json().await;
    assert_eq!(said["qos"], 1);
}

/// A WebSocket that shows nothing may say who it is afterwards; one that shows something wrong does
/// not get there.
#[tokio::test]
async fn a_websocket_may_connect_later() {
    let broker = broker_with_users("").await;
    for (headers, status) in [
        ("", 101),
        // Of another server of this host.
        ("cookie: other=1\r\n", 101),
        ("cookie: other=1; tidings=x\r\n", 401),
        ("authorization: Bearer x\r\n", 401),
    ] {
        let headers = format!("{HANDSHAKE}{headers}");
        let answer = begin(broker.http, "GET", "/v1/ws", &headers).await;
        let mut answer = answer.answer().await;
        assert_eq!(answer.status, status, "{headers}");
        if status == 101 {
            let connect = r#"{"type":"connect","id":1,"user":"alice","password":"wonderland"}"#;
            answer.send_frame(connect).await;
            assert_eq!(answer.frame().await["user"], "alice");
        }
    }
}
