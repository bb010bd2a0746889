//! Receives webhooks, and believes only what is signed.
//!
//! ```sh
//! WEBHOOK_SECRET=whsec_... cargo run --example webhook_receiver [port]
//! ```

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use standardwebhooks::Webhook;
use tokio::net::TcpListener;

struct Receiver {
    webhook: Webhook,
    /// At least once: what was answered and not heard comes again, with the same id. A service that has
    /// a database keeps these there, in the transaction that does the work.
    seen: Mutex<HashSet<String>>,
}

impl Receiver {
    async fn receive(&self, request: Request<Incoming>) -> StatusCode {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await else {
            return StatusCode::BAD_REQUEST;
        };
        let body = body.to_bytes();
        if let Err(error) = self.webhook.verify(&body, &head.headers) {
            eprintln!("refused: {error}");
            return StatusCode::UNAUTHORIZED;
        }
        let Ok(event) = serde_json::from_slice::<serde_json::Value>(&body) else {
            return StatusCode::BAD_REQUEST;
        };
        let id = head.headers.get("webhook-id").map(|id| id.as_bytes());
        let id = String::from_utf8_lossy(id.unwrap_or_default()).into_owned();
        if self.seen.lock().expect("nobody panics").insert(id) {
            println!(
                "{} {}",
                event["subject"].as_str().unwrap_or("?"),
                event["data"]
            );
        }
        // Only now: who answers first and works later loses what it was working on.
        StatusCode::NO_CONTENT
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let receiver = Arc::new(Receiver {
        webhook: Webhook::new(&std::env::var("WEBHOOK_SECRET")?)?,
        seen: Mutex::default(),
    });
    let port = match std::env::args().nth(1) {
        Some(port) => port.parse()?,
        None => 9000,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on port {}", listener.local_addr()?.port());
    loop {
        let (stream, _) = listener.accept().await?;
        let receiver = Arc::clone(&receiver);
        tokio::spawn(async move {
            let service = service_fn(|request| async {
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = receiver.receive(request).await;
                Ok::<_, Infallible>(response)
            });
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                eprintln!("a connection ended: {error}");
            }
        });
    }
}
