//! Bodies: their limits, one by one and together.

use super::client::{begin, send};
use super::figures::figure;
use crate::harness::*;

/// A body that is announced larger than `http.body_max` is refused before it is sent; one that turns
/// out to be is refused too.
#[tokio::test]
async fn a_large_body_is_refused() {
    let broker = Broker::with("http.body_max = \"1KiB\"").await;
    let length = "content-length: 1025\r\n";
    let announced = begin(broker.http, "POST", "/v1/topics/t", length).await;
    assert_eq!(announced.answer().await.status, 413);
    let chunked = "transfer-encoding: chunked\r\n";
    let mut chunks = begin(broker.http, "POST", "/v1/topics/t", chunked).await;
    chunks.send(b"200\r\n").await;
    chunks.send(&[b'x'; 0x200]).await;
    chunks.send(b"\r\n201\r\n").await;
    let answer = chunks.finish(&[b'x'; 0x201]).await;
    assert_eq!(answer.status, 413);
    let detail = answer.detail().await;
    assert!(
        detail.contains("1024") && detail.contains("http.body_max"),
        "{detail}"
    );
}

/// All bodies together hold at most `http.bodies_max`: whoever would exceed it is asked to come back.
#[tokio::test]
async fn bodies_are_limited_together() {
    let broker = Broker::with("http.body_max = \"40KiB\"\nhttp.bodies_max = \"64KiB\"").await;
    let (whole, half) = (vec![b'x'; 40 * 1024], vec![b'x'; 30 * 1024]);
    let length = format!("content-length: {}\r\n", whole.len());
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut one = begin(broker.http, "POST", "/v1/topics/t", &length).await;
        one.send(&half).await;
        slow.push(one);
    }
    while figure(&broker, "tidings_http_body_bytes").await < 2 * half.len() as u64 {
        tokio::task::yield_now().await;
    }
    let answer = send(broker.http, "POST", "/v1/topics/t", "", &half).await;
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    let detail = answer.detail().await;
    assert!(detail.contains("http.bodies_max"), "{detail}");
    // What is small enough still goes.
    let answer = send(broker.http, "POST", "/v1/topics/t", "", b"small").await;
    assert_eq!(answer.status, 200);
    // One that goes away makes room, and so does one that is answered.
    drop(slow.pop());
    while figure(&broker, "tidings_http_body_bytes").await > half.len() as u64 {
        tokio::task::yield_now().await;
    }
    let last = slow.pop().expect("two were begun");
    assert_eq!(last.finish(&whole[half.len()..]).await.status, 200);
    assert_eq!(figure(&broker, "tidings_http_body_bytes").await, 0);
    let answer = send(broker.http, "POST", "/v1/topics/t", "", &whole).await;
    assert_eq!(answer.status, 200);
}
