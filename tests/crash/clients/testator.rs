//! A client with a will. It is published because the broker was killed, which ended the connection
//! without DISCONNECT.

use std::time::{Duration, Instant};

use super::Scene;
use crate::harness::{Disconnect, Property, Reason, Version};
use crate::link::{Step, violation};
use crate::model::{Message, Moment, Session, Will};
use crate::random::Rng;

/// By how much a will may be late after the broker is ready again.
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Testator {
    pub session: Session,
    delay: Duration,
    rng: Rng,
    /// The will of the connection that stands, and when CONNACK came.
    current: Option<(usize, Option<Moment>)>,
    /// A will that was discarded with DISCONNECT, and when the broker had closed the connection.
    discarded: Option<(usize, Option<Moment>)>,
    /// Wills that are to be published, each with the end of its delay.
    due: Vec<(usize, Instant)>,
    /// Rounds for which it stays away.
    away: u64,
}

impl Testator {
    pub fn new(session: Session, delay_secs: u32, rng: Rng) -> Testator {
        Testator {
            session,
            delay: Duration::from_secs(u64::from(delay_secs)),
            rng,
            current: None,
            discarded: None,
            due: Vec::new(),
            away: 0,
        }
    }

    /// Connects, if it is not away, and stays until the connection ends or it says goodbye.
    pub async fn live(&mut self, scene: &Scene) -> Step<()> {
        if self.away > 0 {
            self.away -= 1;
            return Ok(());
        }
        self.cancel(scene);
        let topic = format!("w/{}", self.session.name);
        let index = scene.world().publish(Message {
            publisher: self.session.name.clone(),
            topic: topic.clone(),
            qos: 1,
            retain: false,
            size: 20,
            marked: false,
            sent_at: 0,
            taken_at: None,
            closed: false,
            transmissions: 0,
            will: Some(Will::default()),
        });
        let publish = scene.world().packet(index);
        self.current = Some((index, None));
        let delay = self.delay.as_secs() as u32;
        let version = self.session.version;
        let connected = scene.connect(&mut self.session, false, |connect| {
            let mut will = crate::harness::Will::new(&topic, &publish.payload).qos(1);
            if version == Version::V5 && delay > 0 {
                will = will.property(Property::WillDelayInterval(delay));
            }
            connect.will(will)
        });
        let (mut link, _) = connected.await?;
        self.current = Some((index, Some(scene.world().now())));
        if self.rng.chance(20) {
            tokio::time::sleep(Duration::from_millis(self.rng.below(60))).await;
            scene.world().messages[index].closed = true;
            self.current = None;
            self.discarded = Some((index, None));
            scene
                .goodbye(link, Disconnect::new(Reason::SUCCESS))
                .await?;
            self.discarded = Some((index, Some(scene.world().now())));
            return Ok(());
        }
        match link.next().await {
            Ok(packet) => violation(format!("{}: {packet:?}", self.session.name)),
            Err(stop) => Err(stop),
        }
    }

    /// The client comes back: a will whose delay has not passed is not published any more.
    fn cancel(&mut self, scene: &Scene) {
        if self.delay.is_zero() {
            return;
        }
        let mut world = scene.world();
        for (index, _) in self.due.drain(..) {
            let message = &mut world.messages[index];
            let will = message.will.expect("it is a will");
            if will.until.is_none_or(|until| Instant::now() < until) {
                message.taken_at = None;
                message.closed = true;
            }
        }
    }

    /// The broker was killed, not before `at`.
    pub fn crashed(&mut self, scene: &Scene, at: Instant) {
        let mut world = scene.world();
        self.session.crashed(&world);
        let from = at + self.delay;
        if let Some((index, connected_at)) = self.current.take() {
            // CONNACK promises that the session is kept. One that ends with its connection is not,
            // and its will is published if there was time to write it down.
            let kept = self.session.is_persistent();
            let promised = connected_at.is_some_and(|at| kept || world.is_durable(at));
            let message = &mut world.messages[index];
            message.will = Some(Will {
                from: Some(from),
                until: None,
            });
            if promised {
                self.due.push((index, from));
            } else {
                message.closed = true;
            }
            if !self.delay.is_zero() && self.rng.chance(60) {
                self.away = self.rng.between(1, 8);
            }
        }
        if let Some((index, closed_at)) = self.discarded.take() {
            // That it was discarded is durable, or else it may be published.
            let durable = closed_at.is_some_and(|at| world.is_durable(at));
            if !durable {
                world.messages[index].will = Some(Will {
                    from: Some(at),
                    until: None,
                });
            }
        }
    }

    /// The broker serves clients again.
    pub fn ready(&mut self, scene: &Scene, at: Instant) {
        let mut world = scene.world();
        let now = world.now();
        for (index, from) in &self.due {
            let message = &mut world.messages[*index];
            message.taken_at.get_or_insert(now);
            let will = message.will.as_mut().expect("it is a will");
            will.until = Some((at + self.delay).max(*from) + PATIENCE);
        }
    }
}
