//! A broker of the scenario's own: in this process, on a port that the system chooses, in a
//! directory that goes with it.

use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;
use tidings::Server;
use tidings::config::{Config, Sources};

use super::wire::{Connect, Version};
use super::{Client, panics};

pub struct Broker {
    /// Another one after each start.
    pub address: SocketAddr,
    /// That of HTTP; another one after each start.
    pub http: SocketAddr,
    server: Option<Server>,
    settings: String,
    /// Goes with the broker.
    directory: TempDir,
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
        let (server, address, http) = start(&directory, settings).await;
        Broker {
            address,
            http,
            server: Some(server),
            settings: settings.to_owned(),
            directory,
        }
    }

    /// The directory that `{dir}` stands for.
    pub fn directory(&self) -> &Path {
        self.directory.path()
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
        self.stop().await;
    }

    /// Graceful, with the directory left for another start.
    pub async fn stop(&mut self) {
        let server = self.server.take().expect("it runs until here");
        server.shutdown().await;
    }

    /// Starts it again, after [`Broker::stop`], on its directory.
    pub async fn start_again(&mut self) {
        let (server, address, http) = start(&self.directory, &self.settings).await;
        (self.server, self.address, self.http) = (Some(server), address, http);
    }

    /// The same with other settings.
    pub async fn start_again_with(&mut self, settings: &str) {
        self.settings = settings.to_owned();
        self.start_again().await;
    }

    /// Stops and starts again on the same directory.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start_again().await;
    }
}

async fn start(directory: &TempDir, settings: &str) -> (Server, SocketAddr, SocketAddr) {
    let server = Server::start(configuration(directory, settings))
        .await
        .expect("the broker starts");
    let address = server.addresses().mqtt[0];
    let http = server.addresses().http[0];
    (server, address, http)
}

/// The settings of a scenario that starts its own server.
pub fn configuration(directory: &TempDir, settings: &str) -> Config {
    let path = directory.path().to_str().expect("a path of UTF-8");
    let sources = Sources::new()
        .file("the scenario's settings", settings.replace("{dir}", path))
        .set([
            "mqtt.listen=127.0.0.1:0".to_owned(),
            "http.listen=127.0.0.1:0".to_owned(),
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
