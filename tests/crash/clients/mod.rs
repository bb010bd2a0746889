//! The clients of a life. Each keeps what a real client would keep on its own disk, and behaves
//! badly in its own way: it leaves messages unanswered, stays away, changes its mind.

mod expiring;
mod publisher;
mod subscriber;
mod testator;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

pub use expiring::Expiring;
pub use publisher::Publisher;
pub use subscriber::{Connection, Habit, Subscriber};
pub use testator::Testator;

use crate::harness::Version;
use crate::link::{Link, Step, Stop, violation};
use crate::model::{Session, World};

/// Where the broker is, and what the clients of a life know together.
#[derive(Clone)]
pub struct Scene {
    pub address: SocketAddr,
    /// Turns true when all connections are to be cut.
    pub cut: watch::Receiver<bool>,
    world: Arc<Mutex<World>>,
}

impl Scene {
    pub fn new(address: SocketAddr, cut: watch::Receiver<bool>, world: Arc<Mutex<World>>) -> Scene {
        Scene {
            address,
            cut,
            world,
        }
    }

    /// What all clients know together. Not to be held while waiting.
    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("nobody panics with it")
    }

    /// Connects a session, and checks what CONNACK says of it. True if it was resumed.
    pub async fn connect(
        &self,
        session: &mut Session,
        clean_start: bool,
        prepare: impl FnOnce(crate::harness::Connect) -> crate::harness::Connect,
    ) -> Step<(Link, bool)> {
        let mut clean_start = clean_start || session.is_doubtful();
        if clean_start && session.version != Version::V5 && session.is_persistent() {
            // A clean session that is kept does not exist in version 3.
            self.end_session(session).await?;
            clean_start = false;
        }
        session.connecting(&mut self.world(), clean_start);
        let connect = prepare(session.connect(clean_start));
        let (link, connack) = Link::connect(self.address, &self.cut, connect).await?;
        // CONNACK of MQTT 3.1 does not say it: there, it shows in what is delivered.
        let present = match session.version {
            Version::V31 => session.was_present(),
            _ => connack.session_present,
        };
        session
            .connected(&mut self.world(), clean_start, present)
            .map_err(Stop::Violation)?;
        Ok((link, present))
    }

    /// A session that ends with its connection takes the place of the one that is kept.
    pub async fn end_session(&self, session: &mut Session) -> Step<Link> {
        session.ending(&mut self.world());
        let mut connect = session.connect(true).clean_start();
        if session.version == Version::V5 {
            connect = connect.session_expiry(0);
        }
        let (link, connack) = Link::connect(self.address, &self.cut, connect).await?;
        if connack.session_present {
            return violation(format!("{}: {connack:?} to a clean start", session.name));
        }
        session.is_gone_for_certain();
        Ok(link)
    }

    /// Sends DISCONNECT, and waits until the broker, alive, has closed the connection.
    pub async fn goodbye(&self, link: Link, disconnect: crate::harness::Disconnect) -> Step<()> {
        link.goodbye(disconnect).await?;
        match self.world().down {
            true => Err(Stop::Gone),
            false => Ok(()),
        }
    }
}
