//! rumqttc with its event loop turned into things that a test can wait for; MQTT 3.1.1 and 5 behind one face.
//!
//! Nothing reconnects by itself: a lost connection is something the test wants to see.
//!
//! Two habits of rumqttc 0.25 to know: it hands out a QoS 2 message when its PUBLISH arrives, not at PUBREL, and its
//! MQTT 5 decoder counts each Subscription Identifier one byte too long, so that with three of them the last ends up
//! in the payload.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5 as packet5;
use rumqttc::{QoS, v5};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(20);
const PACKET_SIZE_MAX: u32 = 4 * 1024 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V311,
    V5,
}

#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) client_id: String,
    /// A session that outlives the connection, for this many seconds in MQTT 5.
    pub(crate) session_expiry_secs: Option<u32>,
    pub(crate) will: Option<Will>,
    pub(crate) manual_acks: bool,
    pub(crate) keep_alive_secs: Option<u64>,
    pub(crate) receive_maximum: Option<u16>,
    pub(crate) topic_alias_maximum: Option<u16>,
}

#[derive(Clone)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: &'static str,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Option<packet5::LastWillProperties>,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// Empty in MQTT 3.1.1.
    pub(crate) properties: packet5::PublishProperties,
    packet: Packet,
}

impl Message {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("a payload of text")
    }
}

/// What rumqttc wants back for a manual acknowledgement.
#[derive(Clone, Debug)]
enum Packet {
    V311(rumqttc::Publish),
    V5(packet5::Publish),
}

#[derive(Debug)]
enum Event {
    Connected {
        session_present: bool,
        assigned_client_id: Option<String>,
        topic_alias_maximum: u16,
    },
    Subscribed(Vec<u8>),
    Unsubscribed(Vec<u8>),
    /// PUBACK or PUBCOMP.
    Acknowledged,
    Pong,
    Message(Box<Message>),
}

/// Why a connection ended: the Reason Code of the broker's DISCONNECT, if there was one.
type Closed = Option<packet5::DisconnectReasonCode>;

enum Requests {
    V311(rumqttc::AsyncClient),
    V5(v5::AsyncClient),
}

pub(crate) struct Client {
    requests: Requests,
    connection: JoinHandle<Closed>,
    events: UnboundedReceiver<Event>,
    /// Messages that arrived while something else was waited for.
    messages: std::collections::VecDeque<Message>,
    pub(crate) session_present: bool,
    pub(crate) assigned_client_id: Option<String>,
    pub(crate) topic_alias_maximum: u16,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr, version: Version, options: Options) -> Client {
        let (sender, events) = unbounded_channel();
        let (requests, connection) = match version {
            Version::V311 => connect_v311(addr, options, sender),
            Version::V5 => connect_v5(addr, options, sender),
        };
        let mut client = Client {
            requests,
            connection,
            events,
            messages: Default::default(),
            session_present: false,
            assigned_client_id: None,
            topic_alias_maximum: 0,
        };
        let connected = client.wait("CONNACK", |event| match event {
            Event::Connected {
                session_present,
                assigned_client_id,
                topic_alias_maximum,
            } => Ok((session_present, assigned_client_id, topic_alias_maximum)),
            other => Err(other),
        });
        (
            client.session_present,
            client.assigned_client_id,
            client.topic_alias_maximum,
        ) = connected.await;
        client
    }

    /// The next event that `pick` takes. Messages are kept for later; anything else out of turn is a failure.
    async fn wait<T>(&mut self, what: &str, pick: impl Fn(Event) -> Result<T, Event>) -> T {
        loop {
            let event = timeout(TIMEOUT, self.events.recv())
                .await
                .unwrap_or_else(|_| panic!("no {what} arrived"));
            let event = event.unwrap_or_else(|| panic!("the connection ended before {what}"));
            match pick(event) {
                Ok(picked) => return picked,
                Err(Event::Message(message)) => self.messages.push_back(*message),
                Err(Event::Pong) => {}
                Err(other) => panic!("expected {what}, got {other:?}"),
            }
        }
    }

    /// Subscribes, waits for SUBACK and gives its code: the granted QoS, or 0x80 and above.
    pub(crate) async fn subscribe(&mut self, filter: &str, qos: u8) -> u8 {
        match &self.requests {
            Requests::V311(client) => client
                .subscribe(filter, qos_of(qos))
                .await
                .expect("an open connection"),
            Requests::V5(client) => client
                .subscribe(filter, qos_of_v5(qos))
                .await
                .expect("an open connection"),
        }
        self.subscribed().await
    }

    /// Subscribes with all that MQTT 5 offers.
    pub(crate) async fn subscribe_v5(
        &mut self,
        filter: packet5::Filter,
        identifier: Option<usize>,
    ) -> u8 {
        let Requests::V5(client) = &self.requests else {
            panic!("an MQTT 5 client")
        };
        let sent = match identifier {
            Some(id) => {
                let properties = packet5::SubscribeProperties {
                    id: Some(id),
                    user_properties: Vec::new(),
                };
                client
                    .subscribe_many_with_properties([filter], properties)
                    .await
            }
            None => client.subscribe_many([filter]).await,
        };
        sent.expect("an open connection");
        self.subscribed().await
    }

    async fn subscribed(&mut self) -> u8 {
        let take = |event| match event {
            Event::Subscribed(codes) => Ok(codes[0]),
            other => Err(other),
        };
        self.wait("SUBACK", take).await
    }

    /// Unsubscribes and waits for UNSUBACK; its code in MQTT 5.
    pub(crate) async fn unsubscribe(&mut self, filter: &str) -> Option<u8> {
        match &self.requests {
            Requests::V311(client) => client
                .unsubscribe(filter)
                .await
                .expect("an open connection"),
            Requests::V5(client) => client
                .unsubscribe(filter)
                .await
                .expect("an open connection"),
        }
        let take = |event| match event {
            Event::Unsubscribed(codes) => Ok(codes.first().copied()),
            other => Err(other),
        };
        self.wait("UNSUBACK", take).await
    }

    /// Publishes and, at QoS 1 and 2, waits until the broker has acknowledged it.
    pub(crate) async fn publish(&mut self, topic: &str, qos: u8, payload: impl Into<Vec<u8>>) {
        self.send(topic, qos, false, payload).await;
        self.acknowledged(usize::from(qos > 0)).await;
    }

    pub(crate) async fn publish_retained(
        &mut self,
        topic: &str,
        qos: u8,
        payload: impl Into<Vec<u8>>,
    ) {
        self.send(topic, qos, true, payload).await;
        self.acknowledged(usize::from(qos > 0)).await;
    }

    /// Publishes with the properties of MQTT 5.
    pub(crate) async fn publish_with(
        &mut self,
        topic: &str,
        qos: u8,
        payload: impl Into<Vec<u8>>,
        properties: packet5::PublishProperties,
    ) {
        let Requests::V5(client) = &self.requests else {
            panic!("an MQTT 5 client")
        };
        let sent = client
            .publish_with_properties(topic, qos_of_v5(qos), false, payload.into(), properties)
            .await;
        sent.expect("an open connection");
        self.acknowledged(usize::from(qos > 0)).await;
    }

    /// Publishes without waiting for the acknowledgement.
    pub(crate) async fn send(
        &mut self,
        topic: &str,
        qos: u8,
        retain: bool,
        payload: impl Into<Vec<u8>>,
    ) {
        let payload = payload.into();
        match &self.requests {
            Requests::V311(client) => {
                client
                    .publish(topic, qos_of(qos), retain, payload)
                    .await
                    .expect("an open connection");
            }
            Requests::V5(client) => {
                client
                    .publish(topic, qos_of_v5(qos), retain, payload)
                    .await
                    .expect("an open connection");
            }
        }
    }

    pub(crate) async fn acknowledged(&mut self, count: usize) {
        for _ in 0..count {
            let take = |event| match event {
                Event::Acknowledged => Ok(()),
                other => Err(other),
            };
            self.wait("acknowledgement", take).await;
        }
    }

    pub(crate) async fn pong(&mut self) {
        let take = |event| match event {
            Event::Pong => Ok(()),
            other => Err(other),
        };
        self.wait("PINGRESP", take).await;
    }

    /// The next message, however long that takes.
    pub(crate) async fn any_message(&mut self) -> Message {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return message;
            }
            match self.events.recv().await.expect("an open connection") {
                Event::Message(message) => return *message,
                Event::Pong => {}
                other => panic!("expected a message, got {other:?}"),
            }
        }
    }

    /// The next message, in the order of arrival.
    pub(crate) async fn message(&mut self) -> Message {
        timeout(TIMEOUT, self.any_message())
            .await
            .expect("a message")
    }

    pub(crate) async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            all.push(self.message().await);
        }
        all
    }

    /// No message is waiting. Meaningful behind something that makes sure that all would be there.
    pub(crate) fn nothing_else(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Message(message) = event {
                self.messages.push_back(*message);
            }
        }
        assert!(self.messages.is_empty(), "unexpected: {:?}", self.messages);
    }

    pub(crate) async fn ack(&mut self, message: &Message) {
        match (&self.requests, &message.packet) {
            (Requests::V311(client), Packet::V311(publish)) => {
                client.ack(publish).await.expect("an open connection")
            }
            (Requests::V5(client), Packet::V5(publish)) => {
                client.ack(publish).await.expect("an open connection")
            }
            _ => panic!("a message of another client"),
        }
    }

    /// Waits until the broker has closed the connection; the Reason Code of its DISCONNECT in MQTT 5.
    pub(crate) async fn closed(&mut self) -> Closed {
        let ended = timeout(TIMEOUT, &mut self.connection)
            .await
            .expect("the end of the connection");
        ended.expect("the event loop does not panic")
    }

    /// An MQTT DISCONNECT, then the end of the connection.
    pub(crate) async fn disconnect(mut self) {
        match &self.requests {
            Requests::V311(client) => client.disconnect().await.expect("an open connection"),
            Requests::V5(client) => client.disconnect().await.expect("an open connection"),
        }
        self.closed().await;
    }

    /// The end of the connection without a DISCONNECT, as when a device loses power.
    pub(crate) async fn abort(mut self) {
        self.connection.abort();
        // The socket is closed when the task is gone; that it was cancelled is no news.
        let _ = (&mut self.connection).await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

fn connect_v311(
    addr: SocketAddr,
    options: Options,
    events: UnboundedSender<Event>,
) -> (Requests, JoinHandle<Closed>) {
    let mut mqtt = rumqttc::MqttOptions::new(options.client_id, addr.ip().to_string(), addr.port());
    mqtt.set_clean_session(options.session_expiry_secs.is_none());
    mqtt.set_max_packet_size(PACKET_SIZE_MAX as usize, PACKET_SIZE_MAX as usize);
    mqtt.set_manual_acks(options.manual_acks);
    mqtt.set_keep_alive(Duration::from_secs(options.keep_alive_secs.unwrap_or(60)));
    if let Some(will) = options.will {
        mqtt.set_last_will(rumqttc::LastWill::new(
            will.topic,
            will.payload,
            qos_of(will.qos),
            will.retain,
        ));
    }
    let (client, mut connection) = rumqttc::AsyncClient::new(mqtt, 10);
    let task = tokio::spawn(async move {
        // An error is the end of the connection: polling again would open another.
        while let Ok(event) = connection.poll().await {
            if let Some(event) = event_v311(event) {
                let _ = events.send(event);
            }
        }
        None
    });
    (Requests::V311(client), task)
}

fn event_v311(event: rumqttc::Event) -> Option<Event> {
    use rumqttc::{Packet as Incoming, SubscribeReasonCode};
    let rumqttc::Event::Incoming(packet) = event else {
        return None;
    };
    Some(match packet {
        Incoming::ConnAck(connack) => Event::Connected {
            session_present: connack.session_present,
            assigned_client_id: None,
            topic_alias_maximum: 0,
        },
        Incoming::SubAck(suback) => Event::Subscribed(
            suback
                .return_codes
                .into_iter()
                .map(|code| match code {
                    SubscribeReasonCode::Success(qos) => qos as u8,
                    SubscribeReasonCode::Failure => 0x80,
                })
                .collect(),
        ),
        Incoming::UnsubAck(_) => Event::Unsubscribed(Vec::new()),
        Incoming::PubAck(_) | Incoming::PubComp(_) => Event::Acknowledged,
        Incoming::PingResp => Event::Pong,
        Incoming::Publish(publish) => Event::Message(Box::new(Message {
            topic: publish.topic.clone(),
            payload: publish.payload.clone(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            properties: Default::default(),
            packet: Packet::V311(publish),
        })),
        _ => return None,
    })
}

fn connect_v5(
    addr: SocketAddr,
    options: Options,
    events: UnboundedSender<Event>,
) -> (Requests, JoinHandle<Closed>) {
    let mut mqtt = v5::MqttOptions::new(options.client_id, addr.ip().to_string(), addr.port());
    mqtt.set_clean_start(options.session_expiry_secs.is_none());
    mqtt.set_session_expiry_interval(options.session_expiry_secs);
    mqtt.set_max_packet_size(Some(PACKET_SIZE_MAX));
    mqtt.set_receive_maximum(options.receive_maximum);
    mqtt.set_topic_alias_max(options.topic_alias_maximum);
    mqtt.set_manual_acks(options.manual_acks);
    // rumqttc refuses less than five seconds in MQTT 5.
    mqtt.set_keep_alive(Duration::from_secs(options.keep_alive_secs.unwrap_or(60)));
    if let Some(will) = options.will {
        let qos = qos_of_v5(will.qos);
        mqtt.set_last_will(packet5::LastWill::new(
            will.topic,
            will.payload,
            qos,
            will.retain,
            will.properties,
        ));
    }
    let (client, mut connection) = v5::AsyncClient::new(mqtt, 10);
    let task = tokio::spawn(async move {
        loop {
            match connection.poll().await {
                Ok(event) => {
                    if let Some(event) = event_v5(event) {
                        let _ = events.send(event);
                    }
                }
                Err(v5::ConnectionError::MqttState(v5::StateError::ServerDisconnect {
                    reason_code,
                    ..
                })) => {
                    return Some(reason_code);
                }
                Err(_) => return None,
            }
        }
    });
    (Requests::V5(client), task)
}

fn event_v5(event: v5::Event) -> Option<Event> {
    use packet5::Packet as Incoming;
    let v5::Event::Incoming(packet) = event else {
        return None;
    };
    Some(match packet {
        Incoming::ConnAck(connack) => {
            let properties = connack.properties;
            Event::Connected {
                session_present: connack.session_present,
                topic_alias_maximum: properties
                    .as_ref()
                    .and_then(|p| p.topic_alias_max)
                    .unwrap_or(0),
                assigned_client_id: properties.and_then(|p| p.assigned_client_identifier),
            }
        }
        Incoming::SubAck(suback) => Event::Subscribed(
            suback
                .return_codes
                .into_iter()
                .map(|code| match code {
                    packet5::SubscribeReasonCode::Success(qos) => qos as u8,
                    packet5::SubscribeReasonCode::TopicFilterInvalid => 0x8f,
                    packet5::SubscribeReasonCode::NotAuthorized => 0x87,
                    _ => 0x80,
                })
                .collect(),
        ),
        Incoming::UnsubAck(unsuback) => Event::Unsubscribed(
            unsuback
                .reasons
                .into_iter()
                .map(|reason| match reason {
                    packet5::UnsubAckReason::Success => 0x00,
                    packet5::UnsubAckReason::NoSubscriptionExisted => 0x11,
                    _ => 0x80,
                })
                .collect(),
        ),
        Incoming::PubAck(_) | Incoming::PubComp(_) => Event::Acknowledged,
        Incoming::PingResp(_) => Event::Pong,
        Incoming::Publish(publish) => Event::Message(Box::new(Message {
            topic: String::from_utf8(publish.topic.to_vec()).expect("a topic is UTF-8"),
            payload: publish.payload.clone(),
            qos: publish.qos as u8,
            retain: publish.retain,
            dup: publish.dup,
            properties: publish.properties.clone().unwrap_or_default(),
            packet: Packet::V5(publish),
        })),
        _ => return None,
    })
}

fn qos_of(qos: u8) -> QoS {
    rumqttc::qos(qos).expect("QoS 0, 1 or 2")
}

fn qos_of_v5(qos: u8) -> v5::mqttbytes::QoS {
    v5::mqttbytes::qos(qos).expect("QoS 0, 1 or 2")
}
