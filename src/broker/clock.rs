//! The broker's idea of now: a number that one task advances, cheap enough to read per message.
//!
//! Nothing else in `broker` asks the operating system for the time; functions that depend on it
//! receive it, so that a test can say what time it is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch, as a clock that never goes back sees them: the wall clock
/// at start plus what a monotonic clock measured since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// A point this many seconds later.
    pub fn plus_secs(self, seconds: u64) -> Millis {
        Millis(self.0.saturating_add(seconds.saturating_mul(1000)))
    }

    /// A point this many milliseconds later.
    pub fn plus_millis(self, millis: u64) -> Millis {
        Millis(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this; 0 if it is not earlier.
    pub fn since(self, earlier: Millis) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Holds the current time, to the precision with which [`Clock::advance`] is called.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    started_at: u64,
    now: AtomicU64,
}

impl Clock {
    /// A clock that shows the wall clock's time, or `earliest` if that is later: a machine without
    /// a battery wakes up in the past, and what was kept must not seem to come from the future.
    pub fn start(earliest: Millis) -> Clock {
        let started_at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
            .max(earliest.0);
        Clock {
            started: Instant::now(),
            started_at,
            now: AtomicU64::new(started_at),
        }
    }

    /// The time as of the last [`Clock::advance`].
    pub fn now(&self) -> Millis {
        Millis(self.now.load(Ordering::Relaxed))
    }

    /// When this clock was started.
    pub fn started_at(&self) -> Millis {
        Millis(self.started_at)
    }

    /// Reads the operating system's clock and shows it from now on.
    pub fn advance(&self) -> Millis {
        let now = self.started_at + self.started.elapsed().as_millis() as u64;
        self.now.store(now, Ordering::Relaxed);
        Millis(now)
    }
}
