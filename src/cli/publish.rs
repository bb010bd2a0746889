//! `tidings pub`: one message, acknowledged as its QoS promises.

use std::io::Read;

use anyhow::{Context, bail, ensure};
use clap::Args;
use tidings_protocol::mqtt::{Ack, Packet, PacketId, Properties, Publish, QoS, ReasonCode};

use super::client::{Client, ConnectOptions, parse_qos, refusal};

/// The options of `tidings pub`.
#[derive(Debug, Args)]
pub struct Options {
    /// The Topic Name
    #[arg(short, long)]
    topic: String,
    /// The payload; without it, all of standard input
    #[arg(short, long)]
    message: Option<String>,
    /// Quality of service: 0 at most once, 1 at least once, 2 exactly once
    #[arg(short, long, default_value = "1", value_parser = parse_qos)]
    qos: QoS,
    /// Have the message retained; an empty one deletes what is retained
    #[arg(short, long)]
    retain: bool,
    #[command(flatten)]
    connect: ConnectOptions,
}

/// Returns once the broker has acknowledged the message.
pub async fn run(options: &Options) -> anyhow::Result<()> {
    let payload = match &options.message {
        Some(message) => message.clone().into_bytes(),
        None => {
            let mut payload = Vec::new();
            std::io::stdin()
                .read_to_end(&mut payload)
                .context("standard input cannot be read")?;
            payload
        }
    };
    let limits = tidings_protocol::topic::TopicLimits::default();
    tidings_protocol::topic::name_is_valid(&options.topic, &limits)?;
    let mut client = Client::connect(&options.connect).await?;
    let packet_id = (options.qos != QoS::AtMostOnce).then(|| client.next_packet_id());
    let publish = Publish {
        dup: false,
        qos: options.qos,
        retain: options.retain,
        topic: &options.topic,
        packet_id,
        properties: Properties::default(),
        payload: &payload,
    };
    client.send(&Packet::Publish(publish)).await?;
    if let Some(packet_id) = packet_id {
        settle(&mut client, packet_id).await?;
    }
    client.disconnect().await
}

/// Goes through the acknowledgements of one QoS 1 or QoS 2 message.
async fn settle(client: &mut Client, id: PacketId) -> anyhow::Result<()> {
    loop {
        let header = client.receive_soon().await?;
        let answer = match client.packet(header)? {
            Packet::PubAck(answer) | Packet::PubRec(answer) | Packet::PubComp(answer) => answer,
            other => bail!("the broker answers PUBLISH with {other:?}"),
        };
        ensure!(
            answer.packet_id == id,
            "the broker acknowledges another message"
        );
        if answer.reason.is_error() {
            return Err(refusal(
                "the message is refused",
                answer.reason,
                answer.properties,
            ));
        }
        match client.packet(header)? {
            Packet::PubRec(_) => {
                let release = Ack {
                    packet_id: id,
                    reason: ReasonCode::Success,
                    properties: Properties::default(),
                };
                client.send(&Packet::PubRel(release)).await?;
            }
            _ => return Ok(()),
        }
    }
}
