//! Rust's rumqttc against the built binary, in MQTT 3.1.1 and 5 (it has no 3.1).
//!
//! The other real clients (paho-mqtt, mosquitto_pub and mosquitto_sub, Node's mqtt) live in `tests/clients/`; the
//! scenarios are the same. Each test has a broker process of its own, and expects it to end in good order.
//! `TIDINGS_TEST_BROKER=host:port` points the tests at a broker that already runs instead: a way to find out whether a
//! test is wrong or the broker is.

mod rumqtt;
mod scenarios;
mod v5;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::ProcessBroker;
use rumqtt::{Client, Options, Version};

/// What a scenario gets: a broker, a protocol version, and a name to live under.
struct Scene {
    address: SocketAddr,
    version: Version,
    /// Topics begin with it and Client Identifiers too, so that scenarios can share a broker that already runs.
    name: String,
    serial: AtomicUsize,
    process: Option<ProcessBroker>,
}

impl Scene {
    fn new(version: Version) -> Scene {
        static SERIAL: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "r{}-{}",
            std::process::id(),
            SERIAL.fetch_add(1, Ordering::Relaxed)
        );
        let (address, process) = match std::env::var("TIDINGS_TEST_BROKER") {
            Ok(running) => (
                running
                    .parse()
                    .expect("TIDINGS_TEST_BROKER is an address and a port"),
                None,
            ),
            Err(_) => {
                let process = ProcessBroker::start(&[]);
                (process.address(), Some(process))
            }
        };
        Scene {
            address,
            version,
            name,
            serial: AtomicUsize::new(0),
            process,
        }
    }

    fn topic(&self, below: &str) -> String {
        format!("{}/{below}", self.name)
    }

    /// A clean client whose Client Identifier nobody else has.
    async fn client(&self) -> Client {
        self.connect(Options::default()).await
    }

    /// Without a Client Identifier in the options it gets one of its own.
    async fn connect(&self, mut options: Options) -> Client {
        if options.client_id.is_empty() {
            options.client_id = format!(
                "{}-{}",
                self.name,
                self.serial.fetch_add(1, Ordering::Relaxed)
            );
        }
        Client::connect(self.address, self.version, options).await
    }

    /// Ends the broker as systemd would, and expects it to go in good order.
    fn end(mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal("TERM");
            let status = process.wait();
            assert!(
                status.success(),
                "after SIGTERM: {status}; it logged:\n{}",
                process.log()
            );
            assert!(
                !process.log().contains("panicked"),
                "the broker panicked:\n{}",
                process.log()
            );
        }
    }
}

impl Drop for Scene {
    /// A scenario that failed shows what the broker had to say.
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            eprintln!("broker log:\n{}", process.log());
        }
    }
}

/// One test per scenario, in a module named for the version.
macro_rules! tests {
    ($module:ident, $version:expr, $($scenario:ident),+ $(,)?) => {
        mod $module {
            $(
                #[tokio::test]
                async fn $scenario() {
                    let scene = super::Scene::new($version);
                    super::$scenario(&scene).await;
                    scene.end();
                }
            )+
        }
    };
}
use tests;
