//! One session as its client knows it, and the checks of everything that it is sent.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::world::{Message, Moment, SHARED, World};
use super::{identifier_of, matches};
use crate::harness::{Connect, Property, Publish, Version, subscription_identifiers};

/// By how much the broker's clock may be behind, and a deadline therefore early.
pub const TICK: Duration = Duration::from_millis(120);

/// Whether the broker has the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Present,
    Absent,
    /// A request was not answered: both are right.
    Either,
    /// The session was ended by this moment, for which there is no answer: should the broker be
    /// killed, it is gone for certain only if something later was durable.
    Ended(Moment),
}

/// A subscription.
#[derive(Clone, Debug)]
struct Held {
    filter: String,
    /// From here on it may be in force.
    sent_at: Moment,
    /// Since when it is certainly in force, as long as it is.
    since: Option<Moment>,
    /// Stretches of time in which it was certainly in force.
    stretches: Vec<(Moment, Moment)>,
    /// The client ended the session while it was in force, and does not know what came of that.
    left: bool,
    /// From here on it is certainly not in force.
    gone_at: Option<Moment>,
}

impl Held {
    /// Whether it was certainly in force from when the message was sent until `taken_at`.
    fn has_right_to(&self, message: &Message, taken_at: Moment) -> bool {
        let covers = |from: Moment, to: Moment| from < message.sent_at && taken_at <= to;
        matches(&self.filter, &message.topic)
            && (self.since.is_some_and(|since| covers(since, Moment::MAX))
                || self.stretches.iter().any(|(from, to)| covers(*from, *to)))
    }

    /// Whether it may have been in force when the message was on its way.
    fn may_receive(&self, message: &Message) -> bool {
        matches(&self.filter, &message.topic)
            && self.sent_at < message.taken_at.unwrap_or(Moment::MAX)
            && self.gone_at.is_none_or(|gone_at| message.sent_at < gone_at)
    }
}

/// What a client knows of a message that it received.
#[derive(Clone, Debug, Default)]
struct Delivery {
    packet_id: u16,
    times: u32,
    /// The broker had its acknowledgement by this moment.
    acknowledged_at: Option<Moment>,
}

/// A session as its client knows it.
pub struct Session {
    pub name: String,
    pub version: Version,
    /// The QoS of all its subscriptions.
    pub qos: u8,
    /// Session Expiry Interval in seconds; for version 3, whether the session outlives its
    /// connection.
    pub expiry_secs: u32,
    pub receive_maximum: Option<u16>,
    presence: Presence,
    /// What it was before the last CONNECT, and when that was sent.
    before: Presence,
    connect_at: Moment,
    doubtful: bool,
    subscriptions: Vec<Held>,
    received: HashMap<usize, Delivery>,
    /// Packet Identifiers of QoS 2 that were received and not released, and their messages.
    unreleased: HashMap<u16, usize>,
    /// The last message of each publisher, topic and QoS.
    last: HashMap<(String, String, u8), usize>,
    /// All messages before this one were received or need not be.
    settled: usize,
}

impl Session {
    pub fn new(name: &str, version: Version, qos: u8, expiry_secs: u32) -> Session {
        Session {
            name: name.to_owned(),
            version,
            qos,
            expiry_secs,
            receive_maximum: None,
            presence: Presence::Absent,
            before: Presence::Absent,
            connect_at: 0,
            doubtful: false,
            subscriptions: Vec::new(),
            received: HashMap::new(),
            unreleased: HashMap::new(),
            last: HashMap::new(),
            settled: 0,
        }
    }

    /// Whether it outlives its connection.
    pub fn is_persistent(&self) -> bool {
        self.expiry_secs > 0
    }

    /// The CONNECT that asks for this session.
    pub fn connect(&self, clean_start: bool) -> Connect {
        let mut connect = Connect::new(self.version, &self.name);
        match self.version {
            Version::V5 => {
                connect.clean_start = clean_start;
                if self.is_persistent() {
                    connect = connect.session_expiry(self.expiry_secs);
                }
                if let Some(maximum) = self.receive_maximum {
                    connect = connect.property(Property::ReceiveMaximum(maximum));
                }
            }
            // The clean session flag is both: forget what was, and do not keep what will be.
            _ => connect.clean_start = !self.is_persistent(),
        }
        connect
    }

    /// Whether the next CONNECT has to ask for a clean start: of two sessions that there may be,
    /// the client does not know which it would resume.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// CONNECT is about to be sent.
    pub fn connecting(&mut self, world: &mut World, clean_start: bool) {
        self.connect_at = world.now();
        self.before = self.presence;
        if !self.is_persistent() {
            return;
        }
        if clean_start {
            self.leave_subscriptions(self.connect_at);
        }
        match self.presence {
            Presence::Present if !clean_start => {}
            _ => {
                self.presence = Presence::Either;
                // Two empty sessions are as good as one.
                self.doubtful |= !self.subscriptions.is_empty();
            }
        }
    }

    /// Whether the last CONNECT asked for a session that is certainly there.
    pub fn was_present(&self) -> bool {
        self.before == Presence::Present
    }

    /// CONNACK came: is it honest about the session?
    pub fn connected(
        &mut self,
        world: &mut World,
        clean_start: bool,
        present: bool,
    ) -> Result<(), String> {
        let allowed = match self.before {
            _ if clean_start => !present,
            Presence::Present => present,
            Presence::Absent | Presence::Ended(_) => !present,
            Presence::Either => true,
        };
        if !allowed {
            return Err(format!(
                "{}: CONNACK says session present = {present}, but the session is {:?} (clean \
                 start: {clean_start})",
                self.name, self.before
            ));
        }
        let now = world.now();
        if !present {
            self.forget();
        }
        for held in &mut self.subscriptions {
            // It was thought to be gone, and is certainly there again.
            if std::mem::take(&mut held.left) {
                held.since = Some(now);
            }
        }
        self.doubtful = false;
        if self.is_persistent() {
            self.presence = Presence::Present;
            // CONNACK waited for the session, or for the fact that it is connected, to be durable.
            world.committed(self.connect_at);
        }
        Ok(())
    }

    /// The broker was killed. What it had done is durable, or may be forgotten.
    pub fn crashed(&mut self, world: &World) {
        if let Presence::Ended(at) = self.presence {
            self.presence = match world.is_durable(at) {
                true => Presence::Absent,
                false => Presence::Either,
            };
        }
        for delivery in self.received.values_mut() {
            delivery
                .acknowledged_at
                .take_if(|at| !world.is_durable(*at));
        }
    }

    /// A new session: nothing is known of the old one.
    fn forget(&mut self) {
        self.subscriptions.clear();
        self.received.clear();
        self.unreleased.clear();
        self.last.clear();
        self.settled = 0;
    }

    /// The client is about to end the session.
    pub fn ending(&mut self, world: &mut World) {
        let sent_at = world.now();
        self.leave_subscriptions(sent_at);
        self.presence = Presence::Either;
    }

    /// The broker has closed the connection over which the session was ended.
    pub fn ended(&mut self, world: &mut World) {
        self.presence = Presence::Ended(world.now());
    }

    /// The broker has confirmed that there is no such session.
    pub fn is_gone_for_certain(&mut self) {
        self.forget();
        self.presence = Presence::Absent;
        self.doubtful = false;
    }

    fn leave_subscriptions(&mut self, at: Moment) {
        for held in &mut self.subscriptions {
            if let Some(since) = held.since.take() {
                held.stretches.push((since, at));
                held.left = true;
            }
        }
    }

    /// For the report of a violation.
    pub fn describe(&self) -> String {
        format!(
            "the session is {:?}, with {:?}",
            self.presence, self.subscriptions
        )
    }

    // Subscriptions.

    /// Filters that are or may be subscribed to.
    pub fn filters(&self) -> Vec<String> {
        let held = self.subscriptions.iter();
        held.filter(|held| held.gone_at.is_none())
            .map(|held| held.filter.clone())
            .collect()
    }

    /// SUBSCRIBE is about to be sent.
    pub fn subscribing(&mut self, world: &mut World, filter: &str) -> Moment {
        let sent_at = world.now();
        self.subscriptions.push(Held {
            filter: filter.to_owned(),
            sent_at,
            since: None,
            stretches: Vec::new(),
            left: false,
            gone_at: None,
        });
        sent_at
    }

    /// SUBACK came for the SUBSCRIBE that was sent at `sent_at`.
    pub fn subscribed(&mut self, world: &mut World, filter: &str, sent_at: Moment) {
        let now = world.now();
        let held = self.subscriptions.iter_mut();
        for held in held.filter(|held| held.filter == filter && held.gone_at.is_none()) {
            held.since.get_or_insert(now);
        }
        if self.is_persistent() {
            world.committed(sent_at);
        }
    }

    /// UNSUBSCRIBE is about to be sent.
    pub fn unsubscribing(&mut self, world: &mut World, filter: &str) {
        let now = world.now();
        for held in &mut self.subscriptions {
            if held.filter == filter {
                held.left = false;
                if let Some(since) = held.since.take() {
                    held.stretches.push((since, now));
                }
            }
        }
    }

    /// Whether there certainly is (or is not) a subscription to this filter.
    pub fn is_subscribed(&self, filter: &str) -> Option<bool> {
        let mut live = self
            .subscriptions
            .iter()
            .filter(|held| held.filter == filter && held.gone_at.is_none())
            .peekable();
        if live.peek().is_none() {
            return Some(false);
        }
        live.any(|held| held.since.is_some()).then_some(true)
    }

    /// UNSUBACK came.
    pub fn unsubscribed(&mut self, world: &mut World, filter: &str) {
        let now = world.now();
        let held = self.subscriptions.iter_mut();
        for held in held.filter(|held| held.filter == filter) {
            held.gone_at.get_or_insert(now);
        }
    }

    /// Whether the message has to come, now or later.
    fn has_right_to(&self, message: &Message) -> bool {
        message.taken_at.is_some_and(|taken_at| {
            let mut held = self.subscriptions.iter();
            held.any(|held| held.has_right_to(message, taken_at))
        })
    }

    /// Whether it was certainly subscribed when the message was first sent. If not, and the message
    /// was sent again, it can come behind later ones, which were sent again, too.
    fn was_there(&self, message: &Message) -> bool {
        let matching = |held: &&Held| matches(&held.filter, &message.topic);
        self.subscriptions.iter().filter(matching).any(|held| {
            let mut stretches = held.stretches.iter();
            held.since.is_some_and(|since| since < message.sent_at)
                || stretches.any(|(from, to)| *from < message.sent_at && message.sent_at < *to)
        })
    }

    /// Whether the message may come.
    fn may_receive(&self, message: &Message) -> bool {
        let mut held = self.subscriptions.iter();
        held.any(|held| held.may_receive(message))
    }

    // Messages.

    /// A PUBLISH came. Answers its index, for the acknowledgement.
    pub fn receive(&mut self, world: &mut World, publish: &Publish) -> Result<usize, String> {
        let name = self.name.clone();
        self.check(world, publish)
            .map_err(|what| format!("{name}: {what}"))
    }

    fn check(&mut self, world: &mut World, publish: &Publish) -> Result<usize, String> {
        let index = world.recognise(publish)?;
        let message = world.messages[index].clone();
        let about = format!(
            "message {index} of {} to {} with QoS {}",
            message.publisher, message.topic, message.qos
        );
        let shared = message.topic.starts_with(SHARED);
        if !shared && !self.may_receive(&message) {
            return Err(format!(
                "{about} came, but no subscription matches: it was sent at {}, the subscriptions \
                 were {:?}",
                message.sent_at, self.subscriptions
            ));
        }
        let qos = message.qos.min(self.qos);
        if publish.qos != qos {
            return Err(format!("{about} came with QoS {}", publish.qos));
        }
        if !shared && self.version == Version::V5 {
            self.check_identifiers(&message, publish)
                .map_err(|what| format!("{about} came {what}"))?;
        }
        let marked = publish
            .properties
            .iter()
            .any(|property| matches!(property, Property::UserProperty(..)));
        if self.version == Version::V5 && message.marked && !marked {
            return Err(format!("{about} came without its User Property"));
        }
        if let Some(will) = message.will {
            let early = match will.from {
                Some(from) => from.saturating_duration_since(Instant::now()),
                // Its connection is being cut, and a broker that goes on was quicker than we are to
                // say so.
                None if world.down => Duration::ZERO,
                None => return Err(format!("{about} is a will that is not to be published")),
            };
            if early > TICK {
                return Err(format!("{about} is a will and came {early:?} too early"));
            }
        }
        let id = publish.packet_id;
        if qos == 2
            && let Some(other) = self.unreleased.get(&id)
        {
            if *other != index {
                return Err(format!(
                    "{about} came with Packet Identifier {id}, which message {other} has and \
                     which was not released: a receiver takes it for a repetition and loses it"
                ));
            }
            return Ok(index);
        }
        let was_there = self.was_there(&message);
        let delivery = self.received.entry(index).or_default();
        let again = delivery.times > 0;
        if again {
            let sent_once = message.transmissions == 1 && message.will.is_none();
            if qos == 2 && message.will.is_none() {
                return Err(format!(
                    "{about} came a second time; the first was completed: {delivery:?}, now with \
                     Packet Identifier {id}, DUP = {}",
                    publish.dup
                ));
            }
            if qos == 1 && sent_once {
                if !publish.dup {
                    return Err(format!("{about} was sent once and came twice, without DUP"));
                }
                if delivery.acknowledged_at.is_some() {
                    return Err(format!(
                        "{about} came again although the broker had its acknowledgement, and has \
                         made it durable or not been killed since: {delivery:?}"
                    ));
                }
                if delivery.packet_id != id {
                    return Err(format!(
                        "{about} came again with another Packet Identifier: {id} instead of {}",
                        delivery.packet_id
                    ));
                }
            }
        } else if message.will.is_none() && (message.transmissions == 1 || was_there) {
            let stream = (
                message.publisher.clone(),
                message.topic.clone(),
                message.qos,
            );
            let last = self.last.entry(stream).or_insert(index);
            if *last > index {
                return Err(format!("{about} came after the later message {last}"));
            }
            *last = index;
        }
        delivery.times += 1;
        delivery.packet_id = id;
        delivery.acknowledged_at = None;
        if qos == 2 {
            self.unreleased.insert(id, index);
        }
        if shared {
            world.shared_received(index, &self.name)?;
        }
        Ok(index)
    }

    /// A message carries the Subscription Identifiers of the subscriptions that it matched.
    fn check_identifiers(&self, message: &Message, publish: &Publish) -> Result<(), String> {
        let carried = subscription_identifiers(&publish.properties);
        for held in &self.subscriptions {
            let taken_at = message.taken_at.unwrap_or(Moment::MAX);
            let wanted = identifier_of(&held.filter);
            if held.has_right_to(message, taken_at) && !carried.contains(&wanted) {
                return Err(format!(
                    "without the identifier {wanted} of {held:?}: {carried:?}"
                ));
            }
        }
        for identifier in carried {
            let known = self
                .subscriptions
                .iter()
                .any(|held| identifier_of(&held.filter) == identifier && held.may_receive(message));
            if !known {
                return Err(format!(
                    "with the identifier {identifier} of no subscription that matches: {:?}",
                    self.subscriptions
                ));
            }
        }
        Ok(())
    }

    /// PUBREL came.
    pub fn release(&mut self, id: u16) {
        self.unreleased.remove(&id);
    }

    /// The broker has had the acknowledgement of this message by now.
    pub fn acknowledged(&mut self, world: &mut World, index: usize) {
        let now = world.now();
        if let Some(delivery) = self.received.get_mut(&index) {
            delivery.acknowledged_at = Some(now);
        }
    }

    /// What should be here and is not. With `all`, also what may take a while longer.
    pub fn missing(&mut self, world: &World, all: bool) -> Vec<usize> {
        let is_missing = |session: &Session, index: usize| {
            let message = &world.messages[index];
            message.qos.min(session.qos) > 0
                && session.has_right_to(message)
                && !session.received.contains_key(&index)
        };
        while let Some(message) = world.messages.get(self.settled)
            && (message.taken_at.is_some() || message.closed || message.qos == 0)
            && !is_missing(self, self.settled)
        {
            self.settled += 1;
        }
        (self.settled..world.messages.len())
            .filter(|index| world.is_due(*index, all) && is_missing(self, *index))
            .collect()
    }
}
