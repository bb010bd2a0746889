//! What time it is: Unix milliseconds for what is kept, instants for what is waited for.

use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Duration, Instant};

use crate::broker::clock::Millis;

/// The broker's clock, read through tokio's: the same time without its steps, and one that stands
/// still when a test stops it.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    began: Instant,
    began_ms: u64,
}

impl Now {
    /// A clock that shows `now` at this moment.
    pub fn at(now: Millis) -> Now {
        Now {
            began: Instant::now(),
            began_ms: now.0,
        }
    }

    /// The time.
    pub fn ms(&self) -> u64 {
        self.began_ms + self.began.elapsed().as_millis() as u64
    }

    /// When it will be this time.
    pub fn instant(&self, ms: u64) -> Instant {
        self.began + Duration::from_millis(ms.saturating_sub(self.began_ms))
    }
}

/// What the rest of the world takes the time for, in Unix milliseconds: for what is signed, and for
/// dates of others. It goes along when the clock of the machine is set, as happens to one without a
/// battery after its start; a receiver takes a signature that is minutes off for an old one.
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}
