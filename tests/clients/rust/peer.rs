//! rumqttc as a command, so that the client tests can let it talk to clients in other languages. `node/peer.mjs` is the
//! same for Node's mqtt.
//!
//! ```text
//! rumqttc_peer sub v311|v5 127.0.0.1:1883 FILTER           says `subscribed`, then a line per message, until stdin ends
//! rumqttc_peer pub v311|v5 127.0.0.1:1883 TOPIC QOS [NAME=VALUE]...    publishes stdin, with user properties in MQTT 5
//! ```
//!
//! A line is `message`, topic, QoS, payload as hexadecimal digits and user properties as `name=value`, between tabs.

// The tests use more of it than this.
#[allow(dead_code)]
#[path = "../../it/clients/rumqtt.rs"]
mod rumqtt;

use std::fmt::Write as _;
use std::io::Read as _;

use rumqtt::{Client, Message, Options, Version};
use rumqttc::v5::mqttbytes::v5::PublishProperties;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let [command, version, address, rest @ ..] = arguments.as_slice() else {
        anyhow::bail!("too few arguments")
    };
    let version = match *version {
        "v311" => Version::V311,
        "v5" => Version::V5,
        other => anyhow::bail!("no version {other}"),
    };
    let client_id = format!("rumqttc-{}", std::process::id());
    let client = Client::connect(
        address.parse()?,
        version,
        Options {
            client_id,
            ..Options::default()
        },
    )
    .await;
    match (*command, rest) {
        ("sub", [filter]) => subscribe(client, filter).await,
        ("pub", [topic, qos, properties @ ..]) => {
            publish(client, version, topic, qos.parse()?, properties).await
        }
        _ => anyhow::bail!("sub FILTER or pub TOPIC QOS"),
    }
}

async fn subscribe(mut client: Client, filter: &str) -> anyhow::Result<()> {
    anyhow::ensure!(
        client.subscribe(filter, 2).await == 2,
        "QoS 2 was not granted"
    );
    println!("subscribed");
    let (sender, mut stdin_ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    loop {
        tokio::select! {
            message = client.any_message() => println!("{}", line(&message)?),
            _ = &mut stdin_ended => break,
        }
    }
    client.disconnect().await;
    Ok(())
}

async fn publish(
    mut client: Client,
    version: Version,
    topic: &str,
    qos: u8,
    properties: &[&str],
) -> anyhow::Result<()> {
    let mut payload = Vec::new();
    std::io::stdin().read_to_end(&mut payload)?;
    if version == Version::V5 {
        let user_properties = properties
            .iter()
            .filter_map(|property| property.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        client
            .publish_with(
                topic,
                qos,
                payload,
                PublishProperties {
                    user_properties,
                    ..Default::default()
                },
            )
            .await;
    } else {
        client.publish(topic, qos, payload).await;
    }
    // What QoS 0 has no answer for is on its way before DISCONNECT is.
    client.disconnect().await;
    Ok(())
}

fn line(message: &Message) -> Result<String, std::fmt::Error> {
    let mut line = format!("message\t{}\t{}\t", message.topic, message.qos);
    for byte in &message.payload {
        write!(line, "{byte:02x}")?;
    }
    for (name, value) in &message.properties.user_properties {
        write!(line, "\t{name}={value}")?;
    }
    Ok(line)
}
