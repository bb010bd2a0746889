//! A broker of the scenario's own: in this process, on a port that the system chooses, in a
//! directory that goes with it.

use std::net::SocketAddr;

use tempfile::TempDir;
use tidings::Server;
use tidings::config::{Config, Sources};

use super::wire::{Connect, Version};
use super::{Client, panics};

pub struct Broker {
    pub address: SocketAddr,
    server: Option<Server>,
    /// Goes with the broker.
    _directory: TempDir,
}

impl Broker {
    /// With the defaults.
    pub async fn start() -> Broker {
        Broker::with("").await
    }

    /// With these settings, written as in `broker.toml`: `"mqtt.receive_maximum = 2"` or whole
    /// sections.
    pub async fn with(settings: &str) -> Broker {
        Broker::within(scratch(), settings).await
    }

    /// With files that are already in `directory`; in the settings, `{dir}` stands for its path.
    pub async fn within(directory: TempDir, settings: &str) -> Broker {
        panics::watch();
        let server = Server::start(configuration(&directory, settings))
            .await
            .expect("the broker starts");
        let address = server.addresses().mqtt[0];
        Broker {
            address,
            server: Some(server),
            _directory: directory,
        }
    }

    pub async fn connect(&self, connect: Connect) -> Client {
        Client::connect(self.address, connect).await
    }

    /// A clean version 5 client without options.
    pub async fn client(&self, client_id: &str) -> Client {
        self.connect(Connect::v5(client_id)).await
    }

    /// A network connection without CONNECT.
    pub async fn open(&self, version: Version) -> Client {
        Client::open(self.address, version).await
    }

    /// Graceful, as at SIGTERM.
    pub async fn shutdown(mut self) {
        self.server
            .take()
            .expect("it runs until here")
            .shutdown()
            .await;
    }
}

fn configuration(directory: &TempDir, settings: &str) -> Config {
    let path = directory.path().to_str().expect("a path of UTF-8");
    let sources = Sources::new()
        .file("the scenario's settings", settings.replace("{dir}", path))
        .set([
            "mqtt.listen=127.0.0.1:0".to_owned(),
            format!("store.path={path}/data"),
        ]);
    Config::load(&sources).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidings-it-")
        .tempdir()
        .expect("a temporary directory")
}

impl Drop for Broker {
    /// A panic in a connection's task looks like an ordinary close from outside, so it is asked
    /// for.
    fn drop(&mut self) {
        panics::assert_none();
    }
}
