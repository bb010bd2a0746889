//! A life: many rounds on one directory. In each, the broker starts, everything is checked, clients
//! come and publish, and in the middle of that it ends badly.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::broker::{Process, Running, Setup};
use crate::clients::{Connection, Expiring, Habit, Publisher, Scene, Subscriber, Testator};
use crate::disk::{Recorder, Shim};
use crate::harness::{Connect, Packet, Subscribe, Version};
use crate::link::{DEADLINE, Link, Step, Stop, violation};
use crate::model::{Session, World};
use crate::random::Rng;

/// How a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// SIGKILL.
    Kill,
    /// SIGKILL, and what was not flushed is lost in part or in whole.
    PowerCut,
    /// The same on a disk that forgets what was flushed: the checks must find that.
    PowerCutAndLies,
    /// The broker goes on; all connections are cut. It tells whether the checks are right.
    Cut,
    /// SIGKILL, and the directory is emptied: the checks must find that.
    Empty,
}

/// Of a life, what can differ.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub ending: Ending,
    pub seed: u64,
    pub rounds: u64,
    /// The largest payload.
    pub size_max: u64,
}

/// Everybody and everything of a life.
struct Life {
    plan: Plan,
    rng: Rng,
    directory: PathBuf,
    setup: Setup,
    recorder: Option<Recorder>,
    world: Arc<Mutex<World>>,
    subscribers: Vec<Subscriber>,
    publishers: Vec<Publisher>,
    testators: Vec<Testator>,
    expiring: Expiring,
    /// A broker that goes on from one round to the next.
    running: Option<Running>,
    /// What the broker before this one logged.
    last_log: String,
    round: u64,
}

/// Somebody comes back from a round.
enum Back {
    Subscriber(Box<Subscriber>, Option<Connection>),
    Publisher(Publisher),
    Testator(Testator),
    Expiring(Expiring),
}

/// Lives a life. The error tells how to repeat it, and has the directory.
pub fn live(plan: Plan) -> Result<(), (String, TempDir)> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let directory = crate::harness::scratch();
    let mut life = Life::new(plan, directory.path());
    let result = runtime.block_on(life.run());
    result.map_err(|stop| {
        let what = match stop {
            Stop::Gone => "a connection ended although the broker was not killed".to_owned(),
            Stop::Violation(what) => what,
        };
        let log = life.running.as_ref().map(|running| running.process.log());
        let log = log.unwrap_or_else(|| life.last_log.clone());
        let what = format!(
            "round {} of {plan:?}\n{what}\nthe directory: {}\nthe broker's log:\n{}\nto repeat it: \
             TIDINGS_CRASH_SEED={}",
            life.round,
            directory.path().display(),
            log,
            plan.seed
        );
        (what, directory)
    })
}

impl Life {
    fn new(plan: Plan, directory: &Path) -> Life {
        let mut rng = Rng::new(plan.seed);
        let data = directory.join("data-0");
        let mut setup = Setup::new(&data);
        let cuts_power = matches!(plan.ending, Ending::PowerCut | Ending::PowerCutAndLies);
        let recorder = cuts_power.then(|| {
            let shim = Shim::new();
            setup.environment = shim.record(directory);
            Recorder::new(directory, plan.ending == Ending::PowerCut)
        });
        let persistent = 3600;
        let wishes: Vec<String> = (0..4)
            .flat_map(|number| {
                [
                    format!("t/+/{number}"),
                    format!("t/p{number}/#"),
                    format!("t/p{number}/{number}"),
                    format!("t/p{number}/+"),
                ]
            })
            .collect();
        let mut subscriber = |name, version, qos, habit, first: &[&str]| {
            let expiry = if habit == Habit::Clean { 0 } else { persistent };
            let session = Session::new(name, version, qos, expiry);
            Subscriber::new(session, habit, first, wishes.clone(), rng.fork())
        };
        use Version::{V5, V31, V311};
        let all = ["t/#", "w/#"];
        let mut subscribers = vec![
            subscriber("s0", V5, 2, Habit::Faithful, &all),
            subscriber("s1", V311, 2, Habit::Fickle, &["t/+/1", "w/#"]),
            subscriber("s2", V5, 1, Habit::Fickle, &["t/p0/#", "w/#"]),
            subscriber("s3", V311, 1, Habit::Faithful, &["t/p1/#", "t/+/2"]),
            subscriber("s4", V5, 2, Habit::Mortal, &["t/+/3"]),
            subscriber("s5", V5, 1, Habit::Mortal, &["t/+/0"]),
            subscriber("s6", V311, 2, Habit::Mortal, &["t/p3/#"]),
            subscriber("m0", V5, 2, Habit::Sharing, &["$share/g/s/#"]),
            subscriber("m1", V5, 2, Habit::Sharing, &["$share/g/s/#"]),
            subscriber("c0", V5, 2, Habit::Clean, &["t/+/1"]),
        ];
        subscribers[4].session.receive_maximum = Some(5);
        subscribers[8].session.receive_maximum = Some(3);
        let mut publisher = |name, version, expiry| {
            let session = Session::new(name, version, 0, expiry);
            Publisher::new(session, plan.size_max, rng.fork())
        };
        let publishers = vec![
            publisher("p0", V5, persistent),
            publisher("p1", V311, persistent),
            publisher("p2", V5, 0),
            publisher("p3", V31, persistent),
        ];
        let mut testator = |name, version, expiry, delay| {
            let session = Session::new(name, version, 0, expiry);
            Testator::new(session, delay, rng.fork())
        };
        let testators = vec![
            testator("w0", V5, persistent, 0),
            testator("w1", V5, persistent, 1),
            testator("w2", V311, persistent, 0),
            testator("w3", V5, 0, 0),
        ];
        Life {
            plan,
            directory: directory.to_owned(),
            setup,
            recorder,
            world: Arc::default(),
            subscribers,
            publishers,
            testators,
            expiring: Expiring::new("e0", rng.fork()),
            running: None,
            last_log: String::new(),
            round: 0,
            rng,
        }
    }

    async fn run(&mut self) -> Step<()> {
        self.begin().await?;
        for round in 1..=self.plan.rounds {
            self.round = round;
            self.one_round().await?;
        }
        self.round += 1;
        self.finish().await
    }

    /// Everybody gets to know the broker: sessions and subscriptions that are always there.
    async fn begin(&mut self) -> Step<()> {
        let (scene, _cut) = self.start().await?;
        for subscriber in &mut self.subscribers {
            subscriber.open(&scene).await?;
        }
        let mut world = scene.world();
        let now = world.now();
        world.shared_since = Some(now);
        Ok(())
    }

    /// A broker that serves clients.
    async fn start(&mut self) -> Step<(Scene, watch::Sender<bool>)> {
        if self.running.is_none() {
            if self.rng.chance(12) && self.round > 0 {
                // It is killed before it is ready, or just then.
                let delay = Duration::from_millis(self.rng.below(120));
                let process = self.setup.start_and_kill(delay).await;
                self.check_log(&process)?;
                self.killed()?;
            }
            self.running = Some(self.setup.start().await?);
        }
        let running = self.running.as_ref().expect("it is running");
        let (cut, is_cut) = watch::channel(false);
        let scene = Scene::new(running.address, is_cut, Arc::clone(&self.world));
        scene.world().down = false;
        let ready = Instant::now();
        for testator in &mut self.testators {
            testator.ready(&scene, ready);
        }
        self.expiring.ready(ready);
        Ok((scene, cut))
    }

    async fn one_round(&mut self) -> Step<()> {
        let (scene, cut) = self.start().await?;
        if self.rng.chance(70) {
            check_retained(&scene).await?;
        }
        let mut somebody = JoinSet::new();
        // First some receive what they have to get, and nothing is published meanwhile. Now and
        // then there is no time for that.
        if self.rng.chance(85) {
            let mut absent = Vec::new();
            for mut subscriber in std::mem::take(&mut self.subscribers) {
                if !self.rng.chance(60) {
                    absent.push(subscriber);
                    continue;
                }
                let scene = scene.clone();
                somebody.spawn(async move {
                    let drained = async {
                        let mut connection = subscriber.open(&scene).await?;
                        subscriber.drain(&scene, &mut connection, false).await?;
                        Ok(connection)
                    };
                    match drained.await {
                        Ok(connection) => (
                            Back::Subscriber(subscriber.into(), Some(connection)),
                            Ok(()),
                        ),
                        Err(stop) => (Back::Subscriber(subscriber.into(), None), Err(stop)),
                    }
                });
            }
            self.subscribers = absent;
        }
        let mut connected = Vec::new();
        while let Some(back) = somebody.join_next().await {
            let (back, result) = back.expect("no client panics");
            match back {
                Back::Subscriber(subscriber, connection) => {
                    connected.push((*subscriber, connection));
                }
                other => self.welcome(other),
            }
            result?;
        }
        // Then everybody at once.
        self.everybody(&scene, connected, &mut somebody);
        let pause = match self.rng.below(100) {
            0..25 => self.rng.below(30),
            25..80 => self.rng.between(30, 150),
            _ => self.rng.between(150, 350),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let at = Instant::now();
        self.end_badly(&scene, &cut);
        let mut result = Ok(());
        while let Some(back) = somebody.join_next().await {
            let (back, ended) = back.expect("no client panics");
            self.welcome(back);
            match ended {
                Ok(()) | Err(Stop::Gone) => {}
                Err(stop) => result = Err(stop),
            }
        }
        result?;
        let killed = self.plan.ending != Ending::Cut;
        if killed {
            for subscriber in &mut self.subscribers {
                subscriber.session.crashed(&scene.world());
            }
            for publisher in &mut self.publishers {
                publisher.session.crashed(&scene.world());
            }
        }
        for testator in &mut self.testators {
            testator.crashed(&scene, at);
        }
        self.expiring.crashed(at);
        if killed && let Some(running) = self.running.take() {
            self.last_log = running.process.log();
            self.check_log(&running.process)?;
            self.killed()?;
        }
        Ok(())
    }

    fn everybody(
        &mut self,
        scene: &Scene,
        connected: Vec<(Subscriber, Option<Connection>)>,
        somebody: &mut JoinSet<(Back, Step<()>)>,
    ) {
        let mut subscribers = connected;
        for subscriber in std::mem::take(&mut self.subscribers) {
            subscribers.push((subscriber, None));
        }
        for (mut subscriber, connection) in subscribers {
            if connection.is_none() && self.rng.chance(35) {
                self.subscribers.push(subscriber);
                continue;
            }
            let scene = scene.clone();
            somebody.spawn(async move {
                let ended = subscriber.live(&scene, connection).await;
                (
                    Back::Subscriber(subscriber.into(), None),
                    rightly(&scene, ended),
                )
            });
        }
        for mut publisher in std::mem::take(&mut self.publishers) {
            if self.rng.chance(10) {
                self.publishers.push(publisher);
                continue;
            }
            let scene = scene.clone();
            let count = self.rng.between(10, 60);
            somebody.spawn(async move {
                let ended = publisher.live(&scene, count).await;
                (Back::Publisher(publisher), rightly(&scene, ended))
            });
        }
        for mut testator in std::mem::take(&mut self.testators) {
            let scene = scene.clone();
            somebody.spawn(async move {
                let ended = testator.live(&scene).await;
                (Back::Testator(testator), rightly(&scene, ended))
            });
        }
        let scene = scene.clone();
        let nobody = Expiring::new("nobody", Rng::new(0));
        let mut expiring = std::mem::replace(&mut self.expiring, nobody);
        somebody.spawn(async move {
            let ended = expiring.live(&scene).await;
            (Back::Expiring(expiring), rightly(&scene, ended))
        });
    }

    fn welcome(&mut self, back: Back) {
        match back {
            Back::Subscriber(subscriber, _) => self.subscribers.push(*subscriber),
            Back::Publisher(publisher) => self.publishers.push(publisher),
            Back::Testator(testator) => self.testators.push(testator),
            Back::Expiring(expiring) => self.expiring = expiring,
        }
    }

    fn end_badly(&mut self, scene: &Scene, cut: &watch::Sender<bool>) {
        scene.world().down = true;
        match self.plan.ending {
            Ending::Cut => {
                cut.send_replace(true);
            }
            _ => {
                let running = self.running.as_mut().expect("it is running");
                running.process.kill();
            }
        }
    }

    /// The process is dead: what is left of the directory?
    fn killed(&mut self) -> Step<()> {
        match self.plan.ending {
            Ending::Kill | Ending::Cut => {}
            Ending::Empty => {
                self.setup
                    .move_to(&self.directory.join(format!("data-{}", self.round)));
            }
            Ending::PowerCut | Ending::PowerCutAndLies => {
                let recorder = self.recorder.as_mut().expect("there is one");
                recorder.look(&self.setup.data).map_err(Stop::Violation)?;
                if self.rng.chance(75) {
                    let left = self.directory.join(format!("data-{}", self.round));
                    let fresh = self.rng.next() % 1000;
                    let left = left.with_extension(fresh.to_string());
                    recorder.cut_power(&mut self.rng, &self.setup.data, &left);
                    let _ = std::fs::remove_dir_all(&self.setup.data);
                    self.setup.move_to(&left);
                }
            }
        }
        Ok(())
    }

    /// In the end nothing may be missing: everybody comes, and everything is acknowledged.
    async fn finish(&mut self) -> Step<()> {
        let (scene, _cut) = self.start().await?;
        check_retained(&scene).await?;
        for publisher in &mut self.publishers {
            publisher.finish(&scene).await?;
        }
        self.drain_all(&scene, true).await?;
        // Which member gets a message is the broker's choice, so that none of them misses it.
        let started = Instant::now();
        while !scene.world().shared_missing().is_empty() {
            if started.elapsed() > DEADLINE / 4 {
                let world = scene.world();
                let missing = world.shared_missing();
                return violation(format!(
                    "{} messages to the Shared Subscription are lost, the first of them {}: {:?}",
                    missing.len(),
                    missing[0],
                    world.messages[missing[0]]
                ));
            }
            self.drain_all(&scene, true).await?;
        }
        check_retained(&scene).await?;
        // And all of that is true after an orderly end, too.
        scene.world().down = true;
        if self.plan.ending != Ending::Cut
            && let Some(mut running) = self.running.take()
        {
            running.process.stop().await?;
            self.check_log(&running.process)?;
            let (scene, _cut) = self.start().await?;
            check_retained(&scene).await?;
            self.drain_all(&scene, true).await?;
            scene.world().down = true;
        }
        if let Some(running) = self.running.take() {
            self.check_log(&running.process)?;
        }
        Ok(())
    }

    fn check_log(&self, process: &Process) -> Step<()> {
        // sled does not always survive a power cut. The snapshot and the log stand in for it, and
        // nothing is lost by that, or else the clients miss it.
        let allowed = (self.plan.ending == Ending::PowerCut)
            .then_some("the checkpoint of the store is damaged and was moved aside");
        match process.complaint(allowed) {
            Some(line) => violation(format!("the broker complains: {line}\n{}", process.log())),
            None => Ok(()),
        }
    }

    async fn drain_all(&mut self, scene: &Scene, all: bool) -> Step<()> {
        for subscriber in &mut self.subscribers {
            let mut connection = subscriber.open(scene).await?;
            subscriber.drain(scene, &mut connection, all).await?;
        }
        Ok(())
    }
}

/// A connection may only have ended because the broker was killed.
fn rightly(scene: &Scene, ended: Step<()>) -> Step<()> {
    match ended {
        Err(Stop::Gone) if !scene.world().down => {
            violation("the broker closed a connection, and was not killed")
        }
        other => other,
    }
}

/// Subscribes to all topics of Retained Messages, and checks what comes.
async fn check_retained(scene: &Scene) -> Step<()> {
    let connect = Connect::v5("retained");
    let (mut link, _) = Link::connect(scene.address, &scene.cut, connect).await?;
    let mut subscribe = Subscribe::new([("r/#", 0)]);
    subscribe.packet_id = 1;
    link.send([subscribe.into(), Packet::PingReq]).await?;
    let started = Instant::now();
    let mut found = BTreeMap::new();
    let mut quiet = 0;
    loop {
        match link.next().await? {
            // A publisher that was cut off may still have been heard just now.
            Packet::Publish(publish) if publish.payload.is_empty() => {
                found.remove(&publish.topic);
                quiet = 0;
            }
            Packet::Publish(publish) => {
                let recognised = scene.world().recognise(&publish);
                let index = recognised.map_err(Stop::Violation)?;
                found.insert(publish.topic, index);
                quiet = 0;
            }
            Packet::PingResp => {
                quiet += 1;
                if quiet >= 2 {
                    // They come step by step, and nothing says which is the last.
                    match scene.world().check_retained(&found) {
                        Ok(()) => return Ok(()),
                        Err(_) if started.elapsed() < DEADLINE / 4 => {}
                        Err(what) => return violation(what),
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                link.send([Packet::PingReq]).await?;
            }
            _ => {}
        }
    }
}

/// Lives the lives that the environment asks for, or the one that is planned.
pub fn lives(plan: Plan) {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let mut left = number("TIDINGS_CRASH_ROUNDS").unwrap_or(plan.rounds);
    let mut plan = plan;
    if let Some(seed) = number("TIDINGS_CRASH_SEED") {
        plan.seed = seed;
    }
    // A life does not go on for ever: a new one begins with another seed.
    while left > 0 {
        let rounds = plan.rounds.min(left);
        left -= rounds;
        if let Err((what, directory)) = live(Plan { rounds, ..plan }) {
            // What the broker left is kept for a closer look.
            let _ = directory.keep();
            panic!("{what}");
        }
        plan.seed += 1;
    }
}
