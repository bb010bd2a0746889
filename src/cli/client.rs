//! A small MQTT client, for `tidings pub` and `tidings sub`: one connection, one packet at a time.

use std::io;
use std::net::ToSocketAddrs;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use tidings_protocol::mqtt::{
    Connect, Disconnect, FixedHeader, PACKET_SIZE_MAX, Packet, PacketId, Properties, QoS,
    ReasonCode, Version, decode, fixed_header,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::terminal;

const KEEP_ALIVE_SECS: u16 = 60;

/// How long the broker may take for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to connect, and as whom.
#[derive(Debug, Args)]
pub struct ConnectOptions {
    /// The broker
    #[arg(
        short,
        long,
        value_name = "HOST:PORT",
        default_value = "127.0.0.1:1883"
    )]
    broker: String,
    /// Log in as this user; the password is asked for, unless it is given
    #[arg(short, long, value_name = "NAME")]
    user: Option<String>,
    /// The password, which others on this machine can see for as long as the command runs
    #[arg(short = 'P', long, requires = "user")]
    password: Option<String>,
    /// The Client Identifier; without one the broker chooses
    #[arg(short = 'i', long, value_name = "ID", default_value = "")]
    client_id: String,
    /// The version of MQTT
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "5")]
    mqtt_version: MqttVersion,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum MqttVersion {
    #[value(name = "3.1")]
    V31,
    #[value(name = "3.1.1")]
    V311,
    #[value(name = "5")]
    V5,
}

/// 0, 1 or 2, on a command line.
pub fn parse_qos(text: &str) -> Result<QoS, &'static str> {
    let qos = text.parse().ok().and_then(QoS::from_u8);
    qos.ok_or("0, 1 or 2")
}

pub struct Client {
    stream: TcpStream,
    version: Version,
    /// What has arrived. The first `taken` bytes are the packet that was received last.
    inbox: Vec<u8>,
    taken: usize,
    last_packet_id: u16,
    keep_alive: Option<Duration>,
}

impl Client {
    /// Connects with a clean session and waits until the broker lets it in.
    pub async fn connect(options: &ConnectOptions) -> anyhow::Result<Client> {
        let password = match (&options.user, &options.password) {
            (Some(_), None) => Some(terminal::ask_secret("Password: ").context("no password")?),
            (_, password) => password.clone(),
        };
        let (broker, waited) = (
            &options.broker,
            timeout(PATIENCE, open(&options.broker)).await,
        );
        let stream = waited
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .with_context(|| format!("cannot connect to {broker}"))?;
        let version = match options.mqtt_version {
            MqttVersion::V31 => Version::V31,
            MqttVersion::V311 => Version::V311,
            MqttVersion::V5 => Version::V5,
        };
        let mut client = Client {
            stream,
            version,
            inbox: Vec::new(),
            taken: 0,
            last_packet_id: 0,
            keep_alive: Some(Duration::from_secs(KEEP_ALIVE_SECS.into())),
        };
        // Version 3.1 has no empty Client Identifier.
        let made_up = format!("tidings-{}", std::process::id());
        let client_id = match (version, options.client_id.as_str()) {
            (Version::V31, "") => &made_up,
            (_, given) => given,
        };
        let connect = Connect {
            version,
            clean_start: true,
            keep_alive_secs: KEEP_ALIVE_SECS,
            client_id,
            will: None,
            username: options.user.as_deref(),
            password: password.as_deref().map(str::as_bytes),
            properties: Properties::default(),
        };
        client.send(&Packet::Connect(connect)).await?;
        let header = client.receive_soon().await?;
        let keep_alive_secs = match client.packet(header)? {
            Packet::ConnAck(answer) if answer.reason.is_error() => {
                return Err(refusal(
                    &format!("{broker} refuses"),
                    answer.reason,
                    answer.properties,
                ));
            }
            Packet::ConnAck(answer) => answer.properties.server_keep_alive(),
            other => bail!("{broker} answers CONNECT with {other:?}"),
        };
        let keep_alive_secs = keep_alive_secs.unwrap_or(KEEP_ALIVE_SECS);
        client.keep_alive =
            (keep_alive_secs > 0).then(|| Duration::from_secs(keep_alive_secs.into()));
        Ok(client)
    }

    /// How long may pass without a packet from us; `None`: for ever.
    pub fn keep_alive(&self) -> Option<Duration> {
        self.keep_alive
    }

    pub fn next_packet_id(&mut self) -> PacketId {
        self.last_packet_id = self.last_packet_id.checked_add(1).unwrap_or(1);
        PacketId::new(self.last_packet_id).expect("never 0: it goes from 65535 to 1")
    }

    pub async fn send(&mut self, packet: &Packet<'_>) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.stream
            .write_all(&bytes)
            .await
            .context("the connection is lost")
    }

    /// Waits for a packet, which [`Client::packet`] then shows. May be dropped and called again.
    pub async fn receive(&mut self) -> anyhow::Result<FixedHeader> {
        self.inbox.drain(..self.taken);
        self.taken = 0;
        loop {
            let header =
                fixed_header(&self.inbox, PACKET_SIZE_MAX).context("the broker sends nonsense")?;
            if let Some(header) = header.filter(|header| header.total_len() <= self.inbox.len()) {
                self.taken = header.total_len();
                return Ok(header);
            }
            let read = self
                .stream
                .read_buf(&mut self.inbox)
                .await
                .context("the connection is lost")?;
            if read == 0 {
                bail!("the broker has closed the connection");
            }
        }
    }

    /// Waits for an answer, but not for ever.
    pub async fn receive_soon(&mut self) -> anyhow::Result<FixedHeader> {
        let waited = timeout(PATIENCE, self.receive()).await;
        waited.map_err(|_| anyhow!("the broker does not answer"))?
    }

    /// The packet that was received last. A DISCONNECT is an error that says why.
    pub fn packet(&self, header: FixedHeader) -> anyhow::Result<Packet<'_>> {
        let packet = decode(self.version, header, &self.inbox[..self.taken]);
        match packet.context("the broker sends nonsense")? {
            Packet::Disconnect(end) => Err(refusal(
                "the broker ends the connection",
                end.reason,
                end.properties,
            )),
            packet => Ok(packet),
        }
    }

    /// Leaves in good order.
    pub async fn disconnect(mut self) -> anyhow::Result<()> {
        let packet = Disconnect {
            reason: ReasonCode::Success,
            properties: Properties::default(),
        };
        self.send(&Packet::Disconnect(packet)).await?;
        self.stream
            .shutdown()
            .await
            .context("the connection is lost")
    }
}

async fn open(broker: &str) -> io::Result<TcpStream> {
    let broker = broker.to_owned();
    let addresses = tokio::task::spawn_blocking(move || broker.to_socket_addrs());
    let addresses: Vec<_> = addresses.await.map_err(io::Error::other)??.collect();
    let stream = TcpStream::connect(&addresses[..]).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What was refused, with the broker's reason in code and, if it gave any, in words.
pub fn refusal(what: &str, reason: ReasonCode, properties: Properties<'_>) -> anyhow::Error {
    match properties.reason_string() {
        Some(words) => anyhow!("{what}: {reason} ({words})"),
        None => anyhow!("{what}: {reason}"),
    }
}
