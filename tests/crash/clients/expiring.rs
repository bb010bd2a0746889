//! A client whose session expires soon: it goes on counting while the broker is down, and is
//! neither lost too early nor back too late.

use std::time::{Duration, Instant};

use super::Scene;
use crate::harness::{Connect, Disconnect, Property, Reason};
use crate::link::{Link, Step, violation};
use crate::model::TICK;
use crate::random::Rng;

/// The Session Expiry Interval.
const EXPIRY: Duration = Duration::from_secs(1);
/// By how much it may be late.
const PATIENCE: Duration = Duration::from_secs(2);

pub struct Expiring {
    pub name: String,
    rng: Rng,
    /// Whether the broker has acknowledged the session.
    known: bool,
    /// When its last connection ended, at the earliest and at the latest.
    ended: Option<(Instant, Option<Instant>)>,
    connected: bool,
    /// How often the broker was killed since then.
    crashes: u32,
    come_back_at: Instant,
}

impl Expiring {
    pub fn new(name: &str, rng: Rng) -> Expiring {
        Expiring {
            name: name.to_owned(),
            rng,
            known: false,
            ended: None,
            connected: false,
            crashes: 0,
            come_back_at: Instant::now(),
        }
    }

    pub async fn live(&mut self, scene: &Scene) -> Step<()> {
        if Instant::now() < self.come_back_at {
            return Ok(());
        }
        let was_known = std::mem::take(&mut self.known);
        let sent = Instant::now();
        let connect = Connect::v5(&self.name)
            .resume()
            .property(Property::SessionExpiryInterval(EXPIRY.as_secs() as u32));
        let (mut link, connack) = Link::connect(scene.address, &scene.cut, connect).await?;
        let answered = Instant::now();
        if let (true, Some((earliest, latest))) = (was_known, self.ended) {
            let present = connack.session_present;
            if !present && answered + TICK < earliest + EXPIRY {
                let away = answered - earliest;
                return violation(format!(
                    "{}: the session expires after {EXPIRY:?}, but is gone after {away:?}",
                    self.name
                ));
            }
            let latest = latest.unwrap_or(sent);
            if present && sent > latest + EXPIRY + PATIENCE {
                let away = sent - latest;
                return violation(format!(
                    "{}: the session expires after {EXPIRY:?}, but is there after {away:?}",
                    self.name
                ));
            }
        }
        self.known = true;
        self.connected = true;
        self.ended = None;
        self.crashes = 0;
        if self.rng.chance(50) {
            tokio::time::sleep(Duration::from_millis(self.rng.below(60))).await;
            let earliest = Instant::now();
            self.ended = Some((earliest, None));
            scene
                .goodbye(link, Disconnect::new(Reason::SUCCESS))
                .await?;
            self.connected = false;
            self.ended = Some((earliest, Some(Instant::now())));
            self.plan();
            return Ok(());
        }
        match link.next().await {
            Ok(packet) => violation(format!("{}: {packet:?}", self.name)),
            Err(stop) => Err(stop),
        }
    }

    fn plan(&mut self) {
        let away = if self.rng.chance(50) {
            self.rng.below(EXPIRY.as_millis() as u64)
        } else {
            (EXPIRY + PATIENCE).as_millis() as u64 + self.rng.below(500)
        };
        self.come_back_at = Instant::now() + Duration::from_millis(away);
    }

    /// The broker was killed, not before `at`.
    pub fn crashed(&mut self, at: Instant) {
        if std::mem::take(&mut self.connected) {
            self.ended.get_or_insert((at, None));
            self.plan();
        }
        // That the connection had ended may be forgotten: then a start is its end, the next one or,
        // should that be killed before it kept the fact, the one after it. From there on it counts.
        self.crashes += 1;
        if let Some((_, latest)) = &mut self.ended
            && self.crashes <= 2
        {
            *latest = None;
        }
    }

    /// The broker serves clients again.
    pub fn ready(&mut self, at: Instant) {
        if let Some((_, latest)) = &mut self.ended {
            latest.get_or_insert(at);
        }
    }
}
