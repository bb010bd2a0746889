//! Requests a second. A pure state machine (GCRA): times are Unix milliseconds.

const NANOS: u64 = 1_000_000_000;

/// How much of what was not used may be made up for, in nanoseconds, at rates at which several go
/// in that time: timers are no finer than a millisecond.
const BURST: u64 = NANOS / 20;

/// Spreads requests evenly over time.
#[derive(Debug)]
pub struct Rate {
    /// Nanoseconds for each; 0: no limit.
    interval: u64,
    /// When the next is due if none came too late, in nanoseconds.
    next: u64,
}

impl Rate {
    /// At most so many a second; 0 is no limit.
    pub fn new(per_second: u32) -> Rate {
        Rate {
            interval: NANOS.checked_div(per_second.into()).unwrap_or(0),
            next: 0,
        }
    }

    /// When the next may go.
    pub fn free_at(&self) -> u64 {
        let burst = match self.interval < BURST {
            true => BURST,
            false => 0,
        };
        self.next.saturating_sub(burst).div_ceil(1_000_000)
    }

    /// One goes.
    pub fn take(&mut self, now: u64) {
        if self.interval > 0 {
            self.next = self.next.max(now * 1_000_000) + self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many go within some milliseconds, looked at every millisecond.
    fn passed(per_second: u32, millis: u64) -> u64 {
        let start = 1_764_000_000_000;
        let mut rate = Rate::new(per_second);
        let mut passed = 0;
        for now in start..start + millis {
            while rate.free_at() <= now && passed < 1_000_000 {
                rate.take(now);
                passed += 1;
            }
        }
        passed
    }

    #[test]
    fn no_more_than_the_rate_and_no_less() {
        assert_eq!(passed(1, 10_000), 10);
        assert_eq!(passed(3, 10_000), 30);
        for rate in [100, 10_000] {
            let burst = u64::from(rate) / 20 + 1;
            let all = passed(rate, 10_000);
            let expected = u64::from(rate) * 10;
            assert!(
                (expected..=expected + burst).contains(&all),
                "{rate}: {all}"
            );
        }
        assert_eq!(passed(0, 1), 1_000_000, "no limit");
    }
}
