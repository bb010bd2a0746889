//! The HTTP edge from outside: exact bytes over TCP, with MQTT clients on the other side.

pub mod client;
mod raw;

pub use client::send;

mod access;
mod bodies;
mod cors;
mod events;
mod figures;
mod h2;
mod head;
mod login;
mod paths;
mod places;
mod polls;
mod publish;
mod replay;
mod retained;
mod sessions;
mod sockets;
mod survival;
mod transport;
mod webhooks;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::credentials::user;
use crate::harness::*;

/// A broker with the users alice (password "wonderland"), who may do everything, and bob
/// ("builder"), who may do everything under `b` and read the list of all; and these further settings.
async fn broker_with_users(settings: &str) -> Broker {
    let directory = scratch();
    let users = [user("alice", "wonderland"), user("bob", "builder")].concat();
    std::fs::write(directory.path().join("users"), users).expect("the password file is written");
    let rules = r##"
        [[access.rule]]
        user = "alice"
        allow = ["publish", "subscribe", "receive"]
        topics = "#"
        [[access.rule]]
        user = "bob"
        allow = ["publish", "receive"]
        topics = "b/#"
        [[access.rule]]
        user = "bob"
        allow = ["subscribe"]
        topics = "#"
    "##;
    let settings = format!("access.password_file = '{{dir}}/users'\n{settings}\n{rules}");
    Broker::within(directory, &settings).await
}

/// The header of somebody who says a user and a password.
fn basic(user: &str, password: &str) -> String {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    format!("authorization: Basic {encoded}\r\n")
}

fn alice() -> String {
    basic("alice", "wonderland")
}

fn bob() -> String {
    basic("bob", "builder")
}
