//! `tidings sub`: messages to standard output as they come.

use std::collections::HashSet;
use std::future::{Future, pending};
use std::io::Write;

use anyhow::{anyhow, bail, ensure};
use clap::Args;
use tidings_protocol::mqtt::{
    Ack, FiltersBuilder, Packet, PacketId, Properties, Publish, QoS, ReasonCode, Subscribe,
    SubscriptionOptions,
};
use tidings_protocol::topic::{Filter, TopicLimits};
use tokio::time::{Instant, sleep_until};

use super::client::{Client, ConnectOptions, parse_qos, refusal};

/// The options of `tidings sub`.
#[derive(Debug, Args)]
pub struct Options {
    /// A Topic Filter; may be given many times
    #[arg(short, long = "topic", value_name = "FILTER", required = true)]
    topics: Vec<String>,
    /// The highest quality of service to receive with
    #[arg(short, long, default_value = "1", value_parser = parse_qos)]
    qos: QoS,
    /// Write the Topic Name and a space before each payload
    #[arg(short, long)]
    verbose: bool,
    /// Leave after N messages
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    connect: ConnectOptions,
}

/// Writes each payload and a line end to `out`, until `stop` or the count is reached.
pub async fn run(options: &Options, out: &mut impl Write, stop: impl Future) -> anyhow::Result<()> {
    for topic in &options.topics {
        Filter::parse(topic, &TopicLimits::default())
            .map_err(|error| anyhow!("{topic}: {error}"))?;
    }
    let mut client = Client::connect(&options.connect).await?;
    let asked_as = subscribe(&mut client, options).await?;
    let mut received = Received {
        options,
        left: options.count,
        seen: HashSet::new(),
    };
    let mut last_sent = Instant::now();
    tokio::pin!(stop);
    loop {
        let keep_alive = client.keep_alive().map(|interval| last_sent + interval);
        let reply = tokio::select! {
            header = client.receive() => {
                let header = header?;
                match client.packet(header)? {
                    Packet::SubAck(answer) => {
                        ensure!(answer.packet_id == asked_as, "the broker answers another SUBSCRIBE");
                        granted(&options.topics, answer.reasons, answer.properties)?;
                        None
                    }
                    packet => received.take(&packet, out)?,
                }
            }
            () = async { match keep_alive {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            } } => Some(Packet::PingReq),
            _ = &mut stop => return client.disconnect().await,
        };
        if let Some(reply) = reply {
            client.send(&reply).await?;
            last_sent = Instant::now();
        }
        // The last message of QoS 2 is over when it was released and that was acknowledged.
        if received.left == Some(0) && received.seen.is_empty() {
            return client.disconnect().await;
        }
    }
}

async fn subscribe(client: &mut Client, options: &Options) -> anyhow::Result<PacketId> {
    let wanted = SubscriptionOptions {
        qos: options.qos,
        ..SubscriptionOptions::default()
    };
    let mut filters = FiltersBuilder::default();
    for topic in &options.topics {
        filters.push(topic, wanted);
    }
    let packet_id = client.next_packet_id();
    let properties = Properties::default();
    let subscribe = Subscribe {
        packet_id,
        properties,
        filters: filters.as_filters(),
    };
    client.send(&Packet::Subscribe(subscribe)).await?;
    Ok(packet_id)
}

fn granted(topics: &[String], reasons: &[u8], properties: Properties<'_>) -> anyhow::Result<()> {
    ensure!(
        reasons.len() == topics.len(),
        "the broker answers for other subscriptions than were asked for"
    );
    for (topic, reason) in topics.iter().zip(reasons) {
        match ReasonCode::from_u8(*reason) {
            Some(reason) if !reason.is_error() => {}
            Some(reason) => {
                return Err(refusal(&format!("{topic} is refused"), reason, properties));
            }
            None => bail!("the broker answers a subscription with {reason:#04x}"),
        }
    }
    Ok(())
}

/// What has come in.
struct Received<'a> {
    options: &'a Options,
    left: Option<u64>,
    /// QoS 2 messages that were written and not released yet [MQTT-4.3.3-10].
    seen: HashSet<PacketId>,
}

impl Received<'_> {
    /// Writes a message, and says what to answer.
    fn take(
        &mut self,
        packet: &Packet<'_>,
        out: &mut impl Write,
    ) -> anyhow::Result<Option<Packet<'static>>> {
        let ack = |packet_id| Ack {
            packet_id,
            reason: ReasonCode::Success,
            properties: Properties::default(),
        };
        match packet {
            Packet::Publish(publish) => {
                if self.left == Some(0) {
                    // Not ours to acknowledge: we are only waiting for what came before it.
                    return Ok(None);
                }
                let reply = match (publish.qos, publish.packet_id) {
                    (QoS::AtLeastOnce, Some(id)) => Some(Packet::PubAck(ack(id))),
                    (QoS::ExactlyOnce, Some(id)) if self.seen.contains(&id) => {
                        return Ok(Some(Packet::PubRec(ack(id))));
                    }
                    (QoS::ExactlyOnce, Some(id)) => {
                        self.seen.insert(id);
                        Some(Packet::PubRec(ack(id)))
                    }
                    _ => None,
                };
                self.write(publish, out)?;
                Ok(reply)
            }
            Packet::PubRel(release) => {
                self.seen.remove(&release.packet_id);
                Ok(Some(Packet::PubComp(ack(release.packet_id))))
            }
            Packet::PingResp => Ok(None),
            other => bail!("the broker sends {other:?}"),
        }
    }

    fn write(&mut self, publish: &Publish<'_>, out: &mut impl Write) -> anyhow::Result<()> {
        if self.options.verbose {
            write!(out, "{} ", publish.topic)?;
        }
        out.write_all(publish.payload)?;
        out.write_all(b"\n")?;
        out.flush()?;
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }
}
