//! A publisher: it keeps what was not acknowledged, and sends it again after it was cut off, in
//! order and with DUP.

use std::time::Duration;

use super::Scene;
use crate::harness::{Ack, Packet, Reason, Version};
use crate::link::{Link, Step, violation};
use crate::model::{Message, Session};
use crate::random::Rng;

/// Packet Identifiers are used again soon: one that the broker did not release would be noticed.
const IDENTIFIERS: u16 = 40;

pub struct Publisher {
    pub session: Session,
    pending: Vec<Pending>,
    last_id: u16,
    /// The largest payload.
    size_max: u64,
    rng: Rng,
}

/// A message that is on its way.
#[derive(Clone, Copy, Debug)]
struct Pending {
    id: u16,
    message: usize,
    qos: u8,
    /// PUBREC came: PUBREL is due.
    received: bool,
    /// What it waits for was sent on an earlier connection.
    again: bool,
}

impl Publisher {
    pub fn new(session: Session, size_max: u64, rng: Rng) -> Publisher {
        Publisher {
            session,
            pending: Vec::new(),
            last_id: 0,
            size_max,
            rng,
        }
    }

    /// Connects, and sends again what was not acknowledged.
    async fn open(&mut self, scene: &Scene) -> Step<Link> {
        let connected = scene.connect(&mut self.session, false, |connect| connect);
        let (mut link, present) = connected.await?;
        if !present {
            // The broker has forgotten them, and so does the client.
            let mut world = scene.world();
            for pending in self.pending.drain(..) {
                let message = &mut world.messages[pending.message];
                message.closed = message.taken_at.is_none();
            }
        }
        let mut packets = Vec::new();
        for pending in &mut self.pending {
            pending.again = true;
            packets.push(if pending.received {
                Packet::PubRel(Ack::new(pending.id))
            } else {
                let packet = scene.world().packet(pending.message);
                Packet::Publish(packet.id(pending.id).dup())
            });
        }
        link.send(packets).await?;
        Ok(link)
    }

    /// Publishes until the connection ends, or up to `count` messages.
    pub async fn live(&mut self, scene: &Scene, count: u64) -> Step<()> {
        let mut link = self.open(scene).await?;
        let mut left = count;
        loop {
            let window = self.rng.below(17) as usize;
            while self.pending.len() > window {
                let packet = link.next().await?;
                self.handle(scene, &mut link, packet).await?;
            }
            if left == 0 {
                let packet = link.next().await?;
                self.handle(scene, &mut link, packet).await?;
                continue;
            }
            let burst = self.rng.between(1, 8).min(left);
            left -= burst;
            let packets: Vec<Packet> = (0..burst).map(|_| self.next_message(scene)).collect();
            link.send(packets).await?;
            if self.rng.chance(40) {
                let pause = Duration::from_millis(self.rng.between(1, 12));
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Waits until everything is acknowledged.
    pub async fn finish(&mut self, scene: &Scene) -> Step<()> {
        let mut link = self.open(scene).await?;
        while !self.pending.is_empty() {
            let packet = link.next().await?;
            self.handle(scene, &mut link, packet).await?;
        }
        Ok(())
    }

    fn next_message(&mut self, scene: &Scene) -> Packet {
        let rng = &mut self.rng;
        let name = &self.session.name;
        let mut qos = *rng.pick(&[0, 1, 1, 1, 2, 2, 2]);
        let number = rng.below(4);
        let (topic, retain) = match rng.below(100) {
            0..75 => (format!("t/{name}/{number}"), false),
            75..87 => (format!("s/{name}/{number}"), false),
            _ => (format!("r/{name}/{number}"), true),
        };
        let size = match rng.below(100) {
            0..50 => rng.between(10, 200),
            50..85 => rng.between(200, 2_000),
            85..97 => rng.between(2_000, 12_000),
            _ => rng.between(12_000, self.size_max),
        };
        let clears = retain && rng.chance(25);
        if retain && qos > 0 {
            // Sent again, QoS 1 takes effect again and QoS 2 does not: mixed, nobody knows which
            // was last.
            qos = 1 + (number % 2) as u8;
        }
        let mut world = scene.world();
        let index = world.publish(Message {
            publisher: name.clone(),
            topic,
            qos,
            retain,
            size: if clears { 0 } else { size as usize },
            marked: self.session.version == Version::V5,
            sent_at: 0,
            taken_at: None,
            closed: false,
            transmissions: 0,
            will: None,
        });
        let mut publish = world.packet(index);
        if qos > 0 {
            let id = self.free_id();
            publish.packet_id = id;
            self.pending.push(Pending {
                id,
                message: index,
                qos,
                received: false,
                again: false,
            });
        }
        Packet::Publish(publish)
    }

    fn free_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id % IDENTIFIERS + 1;
            let id = self.last_id;
            if self.pending.iter().all(|pending| pending.id != id) {
                return id;
            }
        }
    }

    async fn handle(&mut self, scene: &Scene, link: &mut Link, packet: Packet) -> Step<()> {
        let name = &self.session.name;
        let (ack, qos) = match &packet {
            Packet::PubAck(ack) => (ack, 1),
            Packet::PubRec(ack) | Packet::PubComp(ack) => (ack, 2),
            other => return violation(format!("{name}: {other:?}")),
        };
        let id = ack.packet_id;
        let known = self
            .pending
            .iter()
            .position(|pending| pending.id == id && pending.qos == qos);
        let Some(at) = known else {
            return violation(format!("{name}: nothing with this identifier: {packet:?}"));
        };
        let kept = self.session.is_persistent();
        let pending = &mut self.pending[at];
        // A released identifier is not known any more.
        let released_before = pending.again
            && matches!(packet, Packet::PubComp(_))
            && ack.reason == Reason::PACKET_IDENTIFIER_NOT_FOUND;
        if ack.reason.is_error() && !released_before {
            return violation(format!("{name}: {packet:?} for {pending:?}"));
        }
        match packet {
            Packet::PubComp(_) if pending.received => {
                self.pending.remove(at);
                Ok(())
            }
            Packet::PubComp(_) => violation(format!("{name}: {packet:?} before PUBREC")),
            Packet::PubRec(_) => {
                if !pending.received {
                    scene.world().acknowledged(pending.message, kept);
                    pending.received = true;
                    pending.again = false;
                }
                link.send([Packet::PubRel(Ack::new(id))]).await
            }
            _ => {
                scene.world().acknowledged(pending.message, kept);
                self.pending.remove(at);
                Ok(())
            }
        }
    }
}
