//! A client of raw packets for every version: it sends what it is told, right or wrong, and shows
//! all that arrives.
//!
//! It reads its socket only while a scenario waits for something, so a client that nobody asks is a
//! slow consumer. Every wait has the one [`DEADLINE`]; nothing here sleeps. A failure prints the
//! whole conversation.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::wire::*;

/// How long a scenario waits for what must happen. Generous: it is reached only by a failure.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub struct Client {
    pub version: Version,
    pub id: String,
    /// What the broker answered to [`Client::connect`].
    pub connack: ConnAck,
    stream: TcpStream,
    unread: Vec<u8>,
    arrived: VecDeque<Packet>,
    transcript: Vec<String>,
    packet_id: u16,
}

impl Client {
    /// A network connection on which nothing has been sent. `version` is how arriving bytes are
    /// read.
    pub async fn open(address: SocketAddr, version: Version) -> Client {
        let stream = timeout(DEADLINE, TcpStream::connect(address))
            .await
            .expect("the broker accepts in time")
            .unwrap_or_else(|error| panic!("no connection to {address}: {error}"));
        stream
            .set_nodelay(true)
            .expect("a connected socket takes TCP_NODELAY");
        Client {
            version,
            id: "?".to_owned(),
            connack: ConnAck {
                session_present: false,
                reason: Reason::UNSPECIFIED_ERROR,
                properties: Vec::new(),
            },
            stream,
            unread: Vec::new(),
            arrived: VecDeque::new(),
            transcript: Vec::new(),
            packet_id: 0,
        }
    }

    /// Connects and requires success.
    pub async fn connect(address: SocketAddr, connect: Connect) -> Client {
        let (mut client, connack) = Client::attempt(address, connect).await;
        if connack.reason != Reason::SUCCESS {
            client.fail(&format!("CONNACK is not a success: {connack:?}"));
        }
        client.connack = connack;
        client
    }

    /// Sends CONNECT and returns the CONNACK, whatever it says.
    pub async fn attempt(address: SocketAddr, connect: Connect) -> (Client, ConnAck) {
        let mut client = Client::open(address, connect.version).await;
        client.id = connect.client_id.clone();
        client.send(connect).await;
        let connack = client.expect_connack().await;
        (client, connack)
    }

    // Sending.

    /// A connection that the broker has closed swallows what is sent; the next read tells.
    pub async fn send_bytes(&mut self, bytes: &[u8]) {
        let shown = bytes
            .iter()
            .take(24)
            .map(|byte| format!("{byte:02x}"))
            .collect::<Vec<_>>()
            .join(" ");
        let ellipsis = if bytes.len() > 24 { " …" } else { "" };
        self.note(format!("-> {} bytes: {shown}{ellipsis}", bytes.len()));
        self.write(bytes).await;
    }

    pub async fn send(&mut self, packet: impl Into<Packet>) {
        let packet = packet.into();
        let bytes = packet.bytes(self.version);
        self.note(format!("-> {packet:?}"));
        self.write(&bytes).await;
    }

    /// Several packets in one write, so that they reach the broker as one batch.
    pub async fn send_all(&mut self, packets: impl IntoIterator<Item = Packet>) {
        let mut bytes = Vec::new();
        for packet in packets {
            bytes.extend(packet.bytes(self.version));
            self.note(format!("-> {packet:?}"));
        }
        self.write(&bytes).await;
    }

    async fn write(&mut self, bytes: &[u8]) {
        match timeout(DEADLINE, self.stream.write_all(bytes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.note(format!("   not sent: {error}")),
            Err(_) => self.fail("the broker takes no more bytes"),
        }
    }

    /// A Packet Identifier that this client has not used yet.
    pub fn fresh_id(&mut self) -> u16 {
        self.packet_id += 1;
        self.packet_id
    }

    // Receiving.

    /// The next packet, or `None` once the broker has closed the connection.
    pub async fn next_or_closed(&mut self) -> Option<Packet> {
        match self.arrived.pop_front() {
            Some(packet) => Some(packet),
            None => self.read().await,
        }
    }

    pub async fn next(&mut self) -> Packet {
        match self.next_or_closed().await {
            Some(packet) => packet,
            None => self.fail("the broker closed the connection, a packet was expected"),
        }
    }

    /// The first packet that `pick` accepts. The others stay, in order, for later.
    pub async fn take<T>(&mut self, what: &str, pick: impl Fn(&Packet) -> Option<T>) -> T {
        let waiting = self
            .arrived
            .iter()
            .enumerate()
            .find_map(|(index, packet)| Some((index, pick(packet)?)));
        if let Some((index, found)) = waiting {
            self.arrived.remove(index);
            return found;
        }
        loop {
            let Some(packet) = self.read().await else {
                self.fail(&format!("closed, but expected {what}"))
            };
            match pick(&packet) {
                Some(found) => return found,
                None => self.arrived.push_back(packet),
            }
        }
    }

    async fn read(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(self.version, &self.unread) {
                Ok(Some((packet, length))) => {
                    self.second_opinion(&packet, length);
                    self.unread.drain(..length);
                    self.note(format!("<- {packet:?}"));
                    return Some(packet);
                }
                Ok(None) => {}
                Err(error) => self.fail(&format!(
                    "the broker sent a malformed packet: {error}\n{:02x?}",
                    self.unread
                )),
            }
            let mut chunk = [0; 16 * 1024];
            match timeout(DEADLINE, self.stream.read(&mut chunk)).await {
                Ok(Ok(0)) | Ok(Err(_)) => {
                    self.note("<- closed".to_owned());
                    if !self.unread.is_empty() {
                        self.fail(&format!("closed inside of a packet: {:02x?}", self.unread));
                    }
                    return None;
                }
                Ok(Ok(length)) => self.unread.extend_from_slice(&chunk[..length]),
                Err(_) => self.fail("nothing arrived in time"),
            }
        }
    }

    /// The product's own decoder must take what the broker sends, and re-encode it to the same
    /// bytes.
    fn second_opinion(&self, packet: &Packet, length: usize) {
        use tidings_protocol::mqtt;
        let version = match self.version {
            Version::V31 => mqtt::Version::V31,
            Version::V311 => mqtt::Version::V311,
            Version::V5 => mqtt::Version::V5,
        };
        let bytes = &self.unread[..length];
        let decoded = mqtt::fixed_header(bytes, usize::MAX)
            .map(|header| header.expect("a whole packet"))
            .and_then(|header| mqtt::decode(version, header, bytes));
        match decoded {
            Ok(decoded) => {
                let mut again = Vec::new();
                decoded.encode(version, &mut again);
                if again != bytes {
                    self.fail(&format!(
                        "{packet:?} is re-encoded differently:\n{bytes:02x?}\n{again:02x?}"
                    ));
                }
            }
            Err(error) => self.fail(&format!(
                "the product's decoder refuses {packet:?}: {error}"
            )),
        }
    }

    // Expectations.

    pub async fn expect(&mut self, expected: impl Into<Packet>) {
        let expected = expected.into();
        let packet = self.next().await;
        if packet != expected {
            self.fail(&format!("expected {expected:?}\n but got {packet:?}"));
        }
    }

    pub async fn expect_connack(&mut self) -> ConnAck {
        match self.next().await {
            Packet::ConnAck(connack) => connack,
            other => self.fail(&format!("expected CONNACK, got {other:?}")),
        }
    }

    /// The next packet must be a PUBLISH. It is not acknowledged.
    pub async fn expect_publish(&mut self) -> Publish {
        match self.next().await {
            Packet::Publish(publish) => publish,
            other => self.fail(&format!("expected PUBLISH, got {other:?}")),
        }
    }

    /// The next packet must be a PUBLISH; completes its handshake.
    pub async fn receive(&mut self) -> Publish {
        let publish = self.expect_publish().await;
        self.acknowledge(&publish).await;
        publish
    }

    /// Receives one PUBLISH with this topic and payload and returns it.
    pub async fn receive_exactly(&mut self, topic: &str, payload: &str) -> Publish {
        let publish = self.receive().await;
        if publish.topic != topic || publish.payload != payload.as_bytes() {
            self.fail(&format!(
                "expected {payload:?} on {topic:?}, got {publish:?}"
            ));
        }
        publish
    }

    /// The receiver's side of the handshake for `publish`, to its end.
    pub async fn acknowledge(&mut self, publish: &Publish) {
        let id = publish.packet_id;
        match publish.qos {
            0 => {}
            1 => self.send(Packet::PubAck(Ack::new(id))).await,
            _ => {
                self.send(Packet::PubRec(Ack::new(id))).await;
                self.expect_pubrel(id).await;
                self.send(Packet::PubComp(Ack::new(id))).await;
            }
        }
    }

    pub async fn expect_puback(&mut self, id: u16) -> Ack {
        self.take(&format!("PUBACK {id}"), |packet| match packet {
            Packet::PubAck(ack) if ack.packet_id == id => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    pub async fn expect_pubrec(&mut self, id: u16) -> Ack {
        self.take(&format!("PUBREC {id}"), |packet| match packet {
            Packet::PubRec(ack) if ack.packet_id == id => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    pub async fn expect_pubrel(&mut self, id: u16) -> Ack {
        self.take(&format!("PUBREL {id}"), |packet| match packet {
            Packet::PubRel(ack) if ack.packet_id == id => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    pub async fn expect_pubcomp(&mut self, id: u16) -> Ack {
        self.take(&format!("PUBCOMP {id}"), |packet| match packet {
            Packet::PubComp(ack) if ack.packet_id == id => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    pub async fn expect_suback(&mut self, id: u16) -> SubAck {
        self.take(&format!("SUBACK {id}"), |packet| match packet {
            Packet::SubAck(ack) if ack.packet_id == id => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    pub async fn expect_unsuback(&mut self, id: u16) -> UnsubAck {
        self.take(&format!("UNSUBACK {id}"), |packet| match packet {
            Packet::UnsubAck(ack) if ack.packet_id == id => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    pub async fn expect_auth(&mut self) -> Auth {
        match self.next().await {
            Packet::Auth(auth) => auth,
            other => self.fail(&format!("expected AUTH, got {other:?}")),
        }
    }

    /// The broker closes the connection without another packet.
    pub async fn expect_closed(&mut self) {
        if let Some(packet) = self.next_or_closed().await {
            self.fail(&format!(
                "expected the end of the connection, got {packet:?}"
            ));
        }
    }

    /// All bytes up to the broker's end of the connection.
    pub async fn bytes_until_closed(&mut self) -> Vec<u8> {
        loop {
            let mut chunk = [0; 4096];
            match timeout(DEADLINE, self.stream.read(&mut chunk)).await {
                Ok(Ok(0)) | Ok(Err(_)) => return std::mem::take(&mut self.unread),
                Ok(Ok(length)) => self.unread.extend_from_slice(&chunk[..length]),
                Err(_) => self.fail("not closed in time"),
            }
        }
    }

    /// CONNACK with this reason code, without a session, then the end of the connection.
    pub async fn expect_connack_refusal(&mut self, reason: Reason) -> ConnAck {
        let connack = self.expect_connack().await;
        if connack.reason != reason || connack.session_present {
            self.fail(&format!("expected CONNACK {reason:?}, got {connack:?}"));
        }
        self.expect_closed().await;
        connack
    }

    /// Version 5: DISCONNECT with this reason, then the end of the connection.
    pub async fn expect_disconnect(&mut self, reason: Reason) -> Disconnect {
        match self.next_or_closed().await {
            Some(Packet::Disconnect(disconnect)) if disconnect.reason == reason => {
                self.expect_closed().await;
                disconnect
            }
            other => self.fail(&format!("expected DISCONNECT {reason:?}, got {other:?}")),
        }
    }

    /// The connection ends as its version prescribes: in 5 with a DISCONNECT that gives the reason,
    /// in 3 without.
    pub async fn expect_refused(&mut self, reason: Reason) {
        match self.version {
            Version::V5 => drop(self.expect_disconnect(reason).await),
            _ => self.expect_closed().await,
        }
    }

    /// All that was on its way to this client has arrived when this returns: the broker handles the
    /// packets of a connection in order, and whatever it had queued for the first PINGRESP's moment
    /// is written by the second's.
    pub async fn fence(&mut self) {
        for _ in 0..2 {
            self.send(Packet::PingReq).await;
            self.take("PINGRESP", |packet| {
                matches!(packet, Packet::PingResp).then_some(())
            })
            .await;
        }
    }

    /// Nothing has arrived, and nothing was on its way.
    pub async fn expect_nothing(&mut self) {
        self.fence().await;
        if let Some(packet) = self.arrived.front() {
            let packet = format!("{packet:?}");
            self.fail(&format!("expected nothing, got {packet}"));
        }
    }

    // Whole exchanges.

    /// Subscribes and returns the reason codes.
    pub async fn subscribe(&mut self, mut subscribe: Subscribe) -> Vec<Reason> {
        if subscribe.packet_id == 0 {
            subscribe.packet_id = self.fresh_id();
        }
        let id = subscribe.packet_id;
        self.send(subscribe).await;
        self.expect_suback(id).await.reasons
    }

    /// Subscribes to one filter and requires that exactly this QoS is granted.
    pub async fn subscribe_to(&mut self, filter: &str, qos: u8) {
        let reasons = self.subscribe(Subscribe::new([(filter, qos)])).await;
        if reasons != [Reason(qos)] {
            self.fail(&format!(
                "subscription to {filter:?} with QoS {qos} got {reasons:?}"
            ));
        }
    }

    /// Subscribes to one filter with options and requires success.
    pub async fn subscribe_with(&mut self, subscription: Subscription) {
        let reasons = self.subscribe(Subscribe::new([subscription])).await;
        if reasons.len() != 1 || reasons[0].is_error() {
            self.fail(&format!("subscription got {reasons:?}"));
        }
    }

    /// Unsubscribes and returns the reason codes, of which version 3 has none.
    pub async fn unsubscribe(&mut self, filters: &[&str]) -> Vec<Reason> {
        let mut unsubscribe = Unsubscribe::new(filters);
        unsubscribe.packet_id = self.fresh_id();
        let id = unsubscribe.packet_id;
        self.send(unsubscribe).await;
        self.expect_unsuback(id).await.reasons
    }

    /// Publishes with the complete handshake and returns the reason code of PUBACK or PUBREC.
    /// A QoS 0 message counts as handled when the broker answers a ping behind it.
    pub async fn publish(&mut self, mut publish: Publish) -> Reason {
        if publish.qos > 0 && publish.packet_id == 0 {
            publish.packet_id = self.fresh_id();
        }
        let (qos, id) = (publish.qos, publish.packet_id);
        self.send(publish).await;
        match qos {
            0 => {
                self.fence().await;
                Reason::SUCCESS
            }
            1 => self.expect_puback(id).await.reason,
            _ => {
                let reason = self.expect_pubrec(id).await.reason;
                if !reason.is_error() {
                    self.send(Packet::PubRel(Ack::new(id))).await;
                    let pubcomp = self.expect_pubcomp(id).await;
                    assert_eq!(pubcomp.reason, Reason::SUCCESS, "PUBCOMP of {}", self.id);
                }
                reason
            }
        }
    }

    /// Publishes a text and requires that the broker takes it.
    pub async fn publish_text(&mut self, topic: &str, payload: &str, qos: u8) {
        let reason = self.publish(Publish::new(topic, payload).qos(qos)).await;
        if reason.is_error() {
            self.fail(&format!("publish to {topic:?} got {reason:?}"));
        }
    }

    /// A normal DISCONNECT, and the broker's end of the connection.
    pub async fn disconnect(self) {
        self.disconnect_with(Disconnect::new(Reason::SUCCESS)).await;
    }

    pub async fn disconnect_with(mut self, disconnect: Disconnect) {
        self.send(disconnect).await;
        self.wait_until_closed().await;
    }

    /// The network connection ends without DISCONNECT. Returns when the broker has noticed and
    /// closed its side.
    pub async fn lose(mut self) {
        self.note("-> (end of the network connection)".to_owned());
        // An error means that the broker closed first, which is as good.
        let _ = self.stream.shutdown().await;
        self.wait_until_closed().await;
    }

    /// Reads and forgets what still arrives, to the end of the connection.
    pub async fn wait_until_closed(&mut self) {
        while self.next_or_closed().await.is_some() {}
    }

    /// Stops the scenario and shows the conversation.
    pub fn fail(&self, problem: &str) -> ! {
        let from = self.transcript.len().saturating_sub(60);
        panic!(
            "client {:?} ({:?}): {problem}\nconversation{}:\n  {}\narrived and not looked at: {:?}",
            self.id,
            self.version,
            if from > 0 { ", last lines" } else { "" },
            self.transcript[from..].join("\n  "),
            self.arrived,
        )
    }

    fn note(&mut self, mut line: String) {
        if let Some((cut, _)) = line.char_indices().nth(300) {
            line.truncate(cut);
            line.push('…');
        }
        self.transcript.push(line);
    }
}
