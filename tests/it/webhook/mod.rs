//! Webhooks from outside: a real broker, publishers, and an endpoint that does as it is told.

mod deliveries;
mod kills;
mod reach;
mod receiver;

use receiver::{Act, Receiver, Request};

use tidings_protocol::webhook::Secret;

use crate::harness::*;
use crate::http::client::send;

/// Many attempts that follow each other at once.
const QUICK: &str = "retry_schedule = [\"1ms\", \"1ms\", \"1ms\", \"1ms\", \"1ms\", \"1ms\", \
                     \"1ms\", \"1ms\", \"1ms\", \"1ms\", \"1ms\", \"1ms\"]";

/// Settings under which endpoints on this machine may be reached, with one endpoint for `t/#`.
fn settings(url: &str, fields: &str) -> String {
    format!(
        "webhooks.allow_http = true\n\
         webhooks.allow_networks = [\"127.0.0.0/8\", \"::1/128\"]\n\
         {}",
        endpoint("hook", url, fields)
    )
}

/// An endpoint of the configuration for `t/#`.
fn endpoint(name: &str, url: &str, fields: &str) -> String {
    format!("[[webhook]]\nname = \"{name}\"\nurl = \"{url}\"\ntopics = [\"t/#\"]\n{fields}\n")
}

/// A broker with one endpoint.
async fn broker(receiver: &Receiver, fields: &str) -> Broker {
    Broker::with(&settings(&receiver.url(), fields)).await
}

fn texts(requests: &[Request]) -> Vec<String> {
    requests.iter().map(Request::data).collect()
}

/// Looks at what the API shows until it is as wanted.
async fn until<T>(
    http: std::net::SocketAddr,
    target: &str,
    wanted: impl Fn(&str) -> Option<T>,
) -> T {
    let looking = async {
        loop {
            let shown = send(http, "GET", target, "", b"").await.text().await;
            if let Some(found) = wanted(&shown) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    let looked = tokio::time::timeout(DEADLINE, looking).await;
    looked.unwrap_or_else(|_| panic!("{target} never shows what is wanted"))
}
