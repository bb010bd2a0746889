//! A receiver: it keeps the Packet Identifiers of QoS 2 until they are released, answers some
//! messages and others not, subscribes and unsubscribes, comes and goes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::Scene;
use crate::harness::{
    Ack, Disconnect, Packet, Property, Publish, Reason, Subscribe, Subscription, Unsubscribe,
    Version,
};
use crate::link::{DEADLINE, Link, Step, Stop, violation};
use crate::model::{Moment, Session, identifier_of};
use crate::random::Rng;

/// What a receiver does besides receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// It keeps its subscriptions.
    Faithful,
    /// It subscribes and unsubscribes.
    Fickle,
    /// It ends its session now and then.
    Mortal,
    /// It is a member of the Shared Subscription.
    Sharing,
    /// Its session ends with each connection.
    Clean,
}

pub struct Subscriber {
    pub session: Session,
    pub habit: Habit,
    /// What a new session subscribes to.
    first: Vec<String>,
    /// What it may subscribe to besides.
    wishes: Vec<String>,
    rng: Rng,
}

/// A connection of a subscriber.
pub struct Connection {
    link: Link,
    next_id: u16,
    requests: HashMap<u16, Request>,
    /// Answers that were not sent yet.
    held: Vec<(Packet, Option<usize>)>,
    /// Messages whose PUBACK was sent since the last PINGREQ, and before it for each PINGREQ that
    /// was not answered.
    acknowledged: Vec<usize>,
    pings: VecDeque<Vec<usize>>,
    /// PUBLISH and PUBREL that arrived.
    arrived: u64,
}

enum Request {
    Subscribe {
        filter: String,
        sent_at: Moment,
    },
    /// With what was certain about the subscription before.
    Unsubscribe {
        filter: String,
        was: Option<bool>,
    },
}

/// Which messages are answered.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manners {
    All,
    Some,
}

impl Subscriber {
    pub fn new(
        session: Session,
        habit: Habit,
        first: &[&str],
        wishes: Vec<String>,
        rng: Rng,
    ) -> Subscriber {
        Subscriber {
            session,
            habit,
            first: first.iter().map(|filter| (*filter).to_owned()).collect(),
            wishes,
            rng,
        }
    }

    /// Connects. A new session subscribes to what it always subscribes to, and waits for that.
    pub async fn open(&mut self, scene: &Scene) -> Step<Connection> {
        self.open_as(scene, false).await
    }

    async fn open_as(&mut self, scene: &Scene, clean_start: bool) -> Step<Connection> {
        let (link, present) = scene
            .connect(&mut self.session, clean_start, |connect| connect)
            .await?;
        let mut connection = Connection {
            link,
            next_id: 0,
            requests: HashMap::new(),
            held: Vec::new(),
            acknowledged: Vec::new(),
            pings: VecDeque::new(),
            arrived: 0,
        };
        if !present {
            for filter in self.first.clone() {
                self.subscribe(scene, &mut connection, &filter).await?;
            }
            while !connection.requests.is_empty() {
                let packet = connection.link.next().await?;
                self.handle(scene, &mut connection, packet, Manners::Some)
                    .await?;
            }
        }
        Ok(connection)
    }

    /// Answers everything, until all that must have arrived is there and nothing more comes.
    pub async fn drain(
        &mut self,
        scene: &Scene,
        connection: &mut Connection,
        all: bool,
    ) -> Step<()> {
        for (packet, _) in std::mem::take(&mut connection.held) {
            connection.link.send([packet]).await?;
        }
        let mut progress = Instant::now();
        let mut quiet = 0;
        loop {
            let before = connection.arrived;
            self.ping(connection).await?;
            while !connection.pings.is_empty() {
                let packet = connection.link.next().await?;
                self.handle(scene, connection, packet, Manners::All).await?;
            }
            if connection.arrived > before {
                progress = Instant::now();
                quiet = 0;
                continue;
            }
            quiet += 1;
            let missing = self.session.missing(&scene.world(), all);
            if missing.is_empty() {
                // What was on its way at the first PINGRESP has come by the second.
                if quiet >= 2 {
                    return Ok(());
                }
                continue;
            }
            if progress.elapsed() > DEADLINE / 2 {
                return violation(self.complain(scene, &missing));
            }
            tokio::time::sleep(Duration::from_millis(quiet.min(20))).await;
        }
    }

    fn complain(&self, scene: &Scene, missing: &[usize]) -> String {
        let world = scene.world();
        let shown: Vec<String> = missing
            .iter()
            .take(5)
            .map(|index| format!("{index}: {:?}", world.messages[*index]))
            .collect();
        format!(
            "{}: {} messages are lost; they were acknowledged and it was subscribed. The first of \
             them:\n  {}\n{}",
            self.session.name,
            missing.len(),
            shown.join("\n  "),
            self.session.describe()
        )
    }

    /// Receives until the connection ends, and does this and that meanwhile.
    pub async fn live(&mut self, scene: &Scene, connection: Option<Connection>) -> Step<()> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => self.open(scene).await?,
        };
        loop {
            let pause = Duration::from_millis(self.rng.between(2, 25));
            let act_at = tokio::time::Instant::now() + pause;
            loop {
                tokio::select! {
                    packet = connection.link.next() => {
                        self.handle(scene, &mut connection, packet?, Manners::Some).await?;
                    }
                    () = tokio::time::sleep_until(act_at) => break,
                }
            }
            connection = self.act(scene, connection).await?;
        }
    }

    async fn act(&mut self, scene: &Scene, mut connection: Connection) -> Step<Connection> {
        let version = self.session.version;
        match (self.rng.below(100), self.habit) {
            (0..40, _) => {
                let held = std::mem::take(&mut connection.held);
                for (packet, index) in held {
                    if self.rng.chance(50) {
                        connection.link.send([packet]).await?;
                        connection.acknowledged.extend(index);
                    } else {
                        connection.held.push((packet, index));
                    }
                }
            }
            (40..60, _) => self.ping(&mut connection).await?,
            (60..72, Habit::Fickle | Habit::Mortal) if self.session.filters().len() < 8 => {
                let filter = self.rng.pick(&self.wishes).clone();
                self.subscribe(scene, &mut connection, &filter).await?;
            }
            (72..84, Habit::Fickle | Habit::Mortal) => {
                let filter = self.rng.pick(&self.wishes).clone();
                self.unsubscribe(scene, &mut connection, &filter).await?;
            }
            (84..88, _) => {
                // Lost: the next connection takes over while this one still stands.
                let taken_over = connection.link;
                connection = self.open(scene).await?;
                drop(taken_over);
            }
            (88..92, _) => {
                let goodbye = Disconnect::new(Reason::SUCCESS);
                scene.goodbye(connection.link, goodbye).await?;
                connection = self.open(scene).await?;
            }
            (92..95, Habit::Mortal) if version == Version::V5 => {
                let goodbye =
                    Disconnect::new(Reason::SUCCESS).property(Property::SessionExpiryInterval(0));
                self.session.ending(&mut scene.world());
                scene.goodbye(connection.link, goodbye).await?;
                self.session.ended(&mut scene.world());
                if self.rng.chance(50) {
                    // Its end is most interesting while nothing else happens to it.
                    tokio::time::sleep(Duration::from_millis(self.rng.below(200))).await;
                }
                connection = self.open(scene).await?;
            }
            (95..97, Habit::Mortal) if version == Version::V5 => {
                let taken_over = connection.link;
                connection = self.open_as(scene, true).await?;
                drop(taken_over);
            }
            (92..99, Habit::Mortal) => {
                let link = scene.end_session(&mut self.session).await?;
                if self.rng.chance(50) {
                    tokio::time::sleep(Duration::from_millis(self.rng.below(100))).await;
                }
                drop(link);
                connection = self.open(scene).await?;
            }
            _ => {}
        }
        Ok(connection)
    }

    async fn ping(&mut self, connection: &mut Connection) -> Step<()> {
        let acknowledged = std::mem::take(&mut connection.acknowledged);
        connection.pings.push_back(acknowledged);
        connection.link.send([Packet::PingReq]).await
    }

    async fn subscribe(
        &mut self,
        scene: &Scene,
        connection: &mut Connection,
        filter: &str,
    ) -> Step<()> {
        if connection.is_asking(filter) {
            return Ok(());
        }
        let sent_at = self.session.subscribing(&mut scene.world(), filter);
        let id = connection.fresh_id();
        let request = Request::Subscribe {
            filter: filter.to_owned(),
            sent_at,
        };
        connection.requests.insert(id, request);
        let subscription = Subscription::from((filter, self.session.qos));
        let mut subscribe = Subscribe::new([subscription]);
        subscribe.packet_id = id;
        if self.session.version == Version::V5 {
            subscribe = subscribe.identifier(identifier_of(filter));
        }
        connection.link.send([subscribe.into()]).await
    }

    async fn unsubscribe(
        &mut self,
        scene: &Scene,
        connection: &mut Connection,
        filter: &str,
    ) -> Step<()> {
        if connection.is_asking(filter) {
            return Ok(());
        }
        let was = self.session.is_subscribed(filter);
        self.session.unsubscribing(&mut scene.world(), filter);
        let id = connection.fresh_id();
        let request = Request::Unsubscribe {
            filter: filter.to_owned(),
            was,
        };
        connection.requests.insert(id, request);
        let mut unsubscribe = Unsubscribe::new(&[filter]);
        unsubscribe.packet_id = id;
        connection.link.send([unsubscribe.into()]).await
    }

    async fn handle(
        &mut self,
        scene: &Scene,
        connection: &mut Connection,
        packet: Packet,
        manners: Manners,
    ) -> Step<()> {
        match packet {
            Packet::Publish(publish) => {
                connection.arrived += 1;
                let received = self.session.receive(&mut scene.world(), &publish);
                let index = received.map_err(Stop::Violation)?;
                self.answer_publish(connection, &publish, index, manners)
                    .await
            }
            Packet::PubRel(ack) => {
                connection.arrived += 1;
                self.session.release(ack.packet_id);
                let answer = Packet::PubComp(Ack::new(ack.packet_id));
                self.answer(connection, answer, None, manners).await
            }
            Packet::SubAck(ack) => {
                let request = connection.requests.remove(&ack.packet_id);
                let Some(Request::Subscribe { filter, sent_at }) = request else {
                    return violation(format!("{}: unexpected {ack:?}", self.session.name));
                };
                if ack.reasons != [Reason(self.session.qos)] {
                    return violation(format!("{}: {filter}: {ack:?}", self.session.name));
                }
                self.session
                    .subscribed(&mut scene.world(), &filter, sent_at);
                Ok(())
            }
            Packet::UnsubAck(ack) => {
                let request = connection.requests.remove(&ack.packet_id);
                let Some(Request::Unsubscribe { filter, was }) = request else {
                    return violation(format!("{}: unexpected {ack:?}", self.session.name));
                };
                if self.session.version == Version::V5 {
                    let existed = ack.reasons == [Reason::SUCCESS];
                    if was.is_some_and(|was| was != existed) {
                        return violation(format!(
                            "{}: UNSUBACK for {filter} says {:?}, but that it was subscribed to \
                             is {was:?}: {}",
                            self.session.name,
                            ack.reasons,
                            self.session.describe()
                        ));
                    }
                }
                self.session.unsubscribed(&mut scene.world(), &filter);
                Ok(())
            }
            Packet::PingResp => {
                let world = &mut scene.world();
                for index in connection.pings.pop_front().unwrap_or_default() {
                    self.session.acknowledged(world, index);
                }
                Ok(())
            }
            other => violation(format!("{}: {other:?}", self.session.name)),
        }
    }

    async fn answer_publish(
        &mut self,
        connection: &mut Connection,
        publish: &Publish,
        index: usize,
        manners: Manners,
    ) -> Step<()> {
        let id = Ack::new(publish.packet_id);
        match publish.qos {
            0 => Ok(()),
            1 => {
                self.answer(connection, Packet::PubAck(id), Some(index), manners)
                    .await
            }
            _ => {
                self.answer(connection, Packet::PubRec(id), None, manners)
                    .await
            }
        }
    }

    /// Sends an answer now, later or never.
    async fn answer(
        &mut self,
        connection: &mut Connection,
        answer: Packet,
        index: Option<usize>,
        manners: Manners,
    ) -> Step<()> {
        let luck = match manners {
            Manners::All => 0,
            Manners::Some => self.rng.below(100),
        };
        match luck {
            0..70 => {
                connection.acknowledged.extend(index);
                connection.link.send([answer]).await
            }
            70..95 => {
                connection.held.push((answer, index));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Connection {
    /// Whether a request about this filter is on its way: nobody can say what the answer to
    /// another one must be.
    fn is_asking(&self, filter: &str) -> bool {
        self.requests.values().any(|request| match request {
            Request::Subscribe { filter: other, .. }
            | Request::Unsubscribe { filter: other, .. } => other == filter,
        })
    }

    fn fresh_id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }
}
