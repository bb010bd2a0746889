//! The brokers that can be compared: what each can do, and the configurations that it is run with.

use crate::web::{PublishOver, Server, SubscribeOver};
use crate::wire::Version;

/// What is known about a broker in general.
pub struct Kind {
    pub name: &'static str,
    /// Its program on the PATH; empty where it is only found by being told of.
    pub program: &'static str,
    /// Configuration files.
    files: Files,
    pub arguments: &'static [&'static str],
    pub version_arguments: &'static [&'static str],
    /// Version 5 has its own port.
    pub two_ports: bool,
    pub versions: &'static [Version],
    pub qos_max: u8,
    pub shared: bool,
    /// What an acknowledgement of QoS 1 means with this configuration.
    pub keeps: &'static str,
    /// Whether there is a configuration that loses less.
    pub durable: Durable,
    /// What it has for browsers.
    pub web: Option<Web>,
    /// The package to install it by, if there is one.
    pub install: Option<Package>,
}

/// How a broker is run where its persistence is to be at its best.
#[derive(Clone, Copy)]
pub enum Durable {
    /// As always: it has no persistence, or none that could be measured.
    No,
    /// As always: it is what it is.
    Already,
    /// With other files, and what an acknowledgement of QoS 1 means then.
    With(Files, &'static str),
}

/// How a broker is run where browsers connect to it.
#[derive(Clone, Copy)]
pub struct Web {
    files: Files,
    /// With webhooks to this machine allowed; empty where there are none.
    webhooks: Files,
    pub subscribe: &'static [SubscribeOver],
    pub publish: PublishOver,
    pub server: Server,
}

/// Which configuration a run needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    Usual,
    /// Persistence at its best.
    Durable,
    /// With a port for HTTP and WebSockets.
    Web,
    /// That, and webhooks to this machine.
    Webhooks,
}

/// Names and templates. The first one is what `@FILE@` stands for.
pub type Files = &'static [(&'static str, &'static str)];

/// What it is installed by.
#[derive(Clone, Copy)]
pub enum Package {
    Debian(&'static str),
    Cargo(&'static str),
}

macro_rules! files {
    ($($name:literal),+) => {
        &[$(($name, include_str!(concat!("../../peers/", $name)))),+]
    };
}

const BOTH: &[Version] = &[Version::V311, Version::V5];

/// MQTT over WebSocket and nothing else.
const fn mqtt_over_websocket(files: Files) -> Option<Web> {
    Some(Web {
        files,
        webhooks: &[],
        subscribe: &[SubscribeOver::MqttWs],
        publish: PublishOver::Mqtt,
        server: Server::Tidings,
    })
}

pub const TIDINGS: &str = "tidings";
pub const FLOOR: &str = "floor";

pub const KINDS: &[Kind] = &[
    Kind {
        name: TIDINGS,
        program: "tidings",
        files: files!["tidings.toml"],
        arguments: &["--config", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "on disk, flushed",
        durable: Durable::Already,
        web: Some(Web {
            files: files!["tidings-web.toml"],
            webhooks: files!["tidings-webhooks.toml"],
            subscribe: &[SubscribeOver::MqttWs, SubscribeOver::Sse, SubscribeOver::Ws],
            publish: PublishOver::Mqtt,
            server: Server::Tidings,
        }),
        install: None,
    },
    Kind {
        name: "mosquitto-2.1",
        program: "",
        files: files!["mosquitto.conf"],
        arguments: &["-c", "@FILE@"],
        version_arguments: &["-h"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::With(files!["mosquitto-2.1-durable.conf"], "in SQLite"),
        web: mqtt_over_websocket(files!["mosquitto-web.conf"]),
        install: None,
    },
    Kind {
        name: "mosquitto",
        program: "mosquitto",
        files: files!["mosquitto.conf"],
        arguments: &["-c", "@FILE@"],
        version_arguments: &["-h"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::With(
            files!["mosquitto-durable.conf"],
            "in memory, saved once a second",
        ),
        web: mqtt_over_websocket(files!["mosquitto-web.conf"]),
        install: Some(Package::Debian("mosquitto")),
    },
    Kind {
        name: "flashmq",
        program: "flashmq",
        files: files!["flashmq.conf"],
        arguments: &["--config-file", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::With(
            files!["flashmq-durable.conf"],
            "in memory, saved every 5 minutes",
        ),
        web: mqtt_over_websocket(files!["flashmq-web.conf"]),
        install: None,
    },
    Kind {
        name: "flashmq-1-thread",
        program: "",
        files: files!["flashmq-1-thread.conf"],
        arguments: &["--config-file", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        web: mqtt_over_websocket(files!["flashmq-1-thread-web.conf"]),
        install: None,
    },
    Kind {
        name: "rumqttd",
        program: "rumqttd",
        files: files!["rumqttd.toml"],
        arguments: &["--quiet", "--config", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: true,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        web: mqtt_over_websocket(files!["rumqttd-web.toml"]),
        install: Some(Package::Cargo("rumqttd")),
    },
    Kind {
        name: "nats-server",
        program: "nats-server",
        files: files!["nats.conf"],
        arguments: &["-c", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: &[Version::V311],
        qos_max: 1,
        shared: false,
        keeps: "written, not flushed",
        durable: Durable::With(files!["nats-durable.conf"], "on disk, flushed"),
        web: mqtt_over_websocket(files!["nats-web.conf"]),
        install: Some(Package::Debian("nats-server")),
    },
    Kind {
        name: "nanomq",
        program: "nanomq",
        files: files!["nanomq.conf"],
        arguments: &["start", "--conf", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        web: mqtt_over_websocket(files!["nanomq-web.conf"]),
        install: None,
    },
    Kind {
        name: "rmqtt",
        program: "rmqttd",
        files: files!["rmqtt.toml", "rmqtt-retainer.toml"],
        arguments: &["--config", "@FILE@"],
        version_arguments: &["--version"],
        two_ports: false,
        versions: BOTH,
        qos_max: 2,
        shared: true,
        keeps: "in memory",
        durable: Durable::No,
        web: mqtt_over_websocket(files!["rmqtt-web.toml", "rmqtt-retainer.toml"]),
        install: Some(Package::Cargo("rmqttd")),
    },
    Kind {
        name: "nchan",
        program: "nginx",
        files: files!["nchan.conf"],
        arguments: &["-c", "@FILE@", "-p", "@DIR@"],
        version_arguments: &["-v"],
        two_ports: false,
        versions: &[],
        qos_max: 0,
        shared: false,
        keeps: "in memory",
        durable: Durable::No,
        web: Some(Web {
            files: files!["nchan.conf"],
            webhooks: &[],
            subscribe: &[SubscribeOver::Sse, SubscribeOver::Ws],
            publish: PublishOver::Http,
            server: Server::Nchan,
        }),
        install: Some(Package::Debian("libnginx-mod-nchan")),
    },
    Kind {
        name: "nchan-1-process",
        program: "",
        files: files!["nchan-1-process.conf"],
        arguments: &["-c", "@FILE@", "-p", "@DIR@"],
        version_arguments: &["-v"],
        two_ports: false,
        versions: &[],
        qos_max: 0,
        shared: false,
        keeps: "in memory",
        durable: Durable::No,
        web: Some(Web {
            files: files!["nchan-1-process.conf"],
            webhooks: &[],
            subscribe: &[SubscribeOver::Sse, SubscribeOver::Ws],
            publish: PublishOver::Http,
            server: Server::Nchan,
        }),
        install: None,
    },
    Kind {
        name: FLOOR,
        program: "",
        files: &[],
        arguments: &["relay", "--listen", "127.0.0.1:@PORT@"],
        version_arguments: &[],
        two_ports: false,
        versions: BOTH,
        qos_max: 0,
        shared: false,
        keeps: "",
        durable: Durable::No,
        web: None,
        install: None,
    },
];

impl Kind {
    /// All configuration files, those for durability and for browsers behind the others.
    pub fn all_files(&self) -> impl Iterator<Item = &'static (&'static str, &'static str)> {
        let more: Files = match self.durable {
            Durable::With(files, _) => files,
            Durable::No | Durable::Already => &[],
        };
        let web: [Files; 2] = self.web.map_or([&[], &[]], |web| [web.files, web.webhooks]);
        let new = |file: &&(&str, &str)| self.files.iter().all(|known| known.0 != file.0);
        let web = web.into_iter().flatten().filter(new);
        self.files.iter().chain(more).chain(web)
    }

    /// Those of a run. The first one is the one that it is started with.
    pub fn files(&self, setup: Setup) -> Files {
        match (setup, self.durable, self.web) {
            (Setup::Durable, Durable::With(files, _), _) => files,
            (Setup::Web, _, Some(web)) => web.files,
            (Setup::Webhooks, _, Some(web)) => web.webhooks,
            _ => self.files,
        }
    }
}
