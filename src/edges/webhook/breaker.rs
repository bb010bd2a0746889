//! How much an endpoint is trusted with at this moment: slow start, circuit breaker, and what it
//! asked for with `Retry-After`. A pure state machine: times are Unix milliseconds that the caller
//! passes in.
//!
//! An endpoint begins with one request at a time; each success allows one more, each failure takes
//! all but one away, so that a dead endpoint holds one place and no more. When some attempts in a
//! row failed, or most of the last ones, the breaker opens: nothing is sent for a while, then one
//! probe. A success closes it, a failure opens it for twice as long.

/// Outcomes that are looked at.
const OUTCOMES: u32 = 20;
/// Failures among them that open the breaker: three quarters.
const OPENS_AT: u32 = 15;
/// Failures in a row that open it.
const IN_A_ROW: u32 = 5;
/// The same for an endpoint that has not accepted anything yet.
const IN_A_ROW_AT_FIRST: u32 = 3;

/// What is known of an endpoint.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// Nothing yet, or nothing since it was changed.
    New,
    /// It accepted the last attempt.
    Proven,
    /// The last attempt failed.
    Failing,
}

/// How an attempt ended, as far as the endpoint's health is concerned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It accepted.
    Well,
    /// It answered, and did not accept.
    Refusing,
    /// It did not answer, or said that it cannot.
    Ill,
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    window_max: usize,
    window: usize,
    /// The last outcomes, a set bit for a failure, the latest lowest.
    outcomes: u32,
    seen: u32,
    /// Since when the breaker is open, until when nothing is sent.
    open_until: Option<u64>,
    cooldown: u64,
    cooldown_min: u64,
    cooldown_max: u64,
    /// It asked to be left alone until then.
    held_until: u64,
    standing: Standing,
    /// Whether it has ever accepted anything.
    has_accepted: bool,
}

impl Breaker {
    /// For an endpoint of which nothing is known: at most `window_max` requests at a time, and a
    /// breaker that stays open for `cooldown_min` at first and `cooldown_max` at most.
    pub fn new(window_max: usize, cooldown_min: u64, cooldown_max: u64) -> Breaker {
        Breaker {
            window_max: window_max.max(1),
            window: 1,
            outcomes: 0,
            seen: 0,
            open_until: None,
            cooldown: cooldown_min,
            cooldown_min,
            cooldown_max: cooldown_max.max(cooldown_min),
            held_until: 0,
            standing: Standing::New,
            has_accepted: false,
        }
    }

    /// How many requests may be in flight.
    pub fn window(&self, now: u64) -> usize {
        match self.opens_at() {
            Some(at) if now < at => 0,
            Some(_) if self.open_until.is_some() => 1,
            _ => self.window,
        }
    }

    /// When something may be sent again, if it is a matter of time.
    pub fn opens_at(&self) -> Option<u64> {
        let until = self.open_until.unwrap_or(0).max(self.held_until);
        (until > 0).then_some(until)
    }

    /// Whether nothing but a probe is sent.
    pub fn is_open(&self) -> bool {
        self.open_until.is_some()
    }

    /// What is known of the endpoint.
    pub fn standing(&self) -> Standing {
        self.standing
    }

    /// Leaves it alone until then.
    pub fn hold(&mut self, until: u64) {
        self.held_until = self.held_until.max(until);
    }

    /// Takes in how an attempt ended.
    pub fn record(&mut self, now: u64, health: Health) {
        self.standing = match health {
            Health::Well => Standing::Proven,
            Health::Refusing | Health::Ill => Standing::Failing,
        };
        if health == Health::Well {
            self.has_accepted = true;
            if self.open_until.take().is_some() {
                (self.outcomes, self.seen) = (0, 0);
            }
            self.cooldown = self.cooldown_min;
            self.window = (self.window + 1).min(self.window_max);
            self.note(0);
            return;
        }
        self.window = match health {
            Health::Refusing => (self.window / 2).max(1),
            _ => 1,
        };
        self.note(1);
        match self.open_until {
            // The probe.
            Some(until) if now >= until => {
                self.cooldown = (self.cooldown * 2).min(self.cooldown_max);
                self.open_until = Some(now + self.cooldown);
            }
            // Sent before it opened.
            Some(_) => {}
            None if self.is_hopeless() => self.open_until = Some(now + self.cooldown),
            None => {}
        }
    }

    fn is_hopeless(&self) -> bool {
        let in_a_row = match self.has_accepted {
            true => IN_A_ROW,
            false => IN_A_ROW_AT_FIRST,
        };
        self.outcomes.trailing_ones() >= in_a_row
            || self.seen >= OUTCOMES && self.outcomes.count_ones() >= OPENS_AT
    }

    fn note(&mut self, failed: u32) {
        self.outcomes = (self.outcomes << 1 | failed) & ((1 << OUTCOMES) - 1);
        self.seen = (self.seen + 1).min(OUTCOMES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened() -> Breaker {
        let mut breaker = Breaker::new(64, 1_000, 8_000);
        for _ in 0..IN_A_ROW_AT_FIRST {
            assert!(!breaker.is_open());
            breaker.record(0, Health::Ill);
        }
        assert!(breaker.is_open());
        breaker
    }

    #[test]
    fn whoever_has_accepted_something_has_some_more_tries() {
        let mut breaker = Breaker::new(8, 1, 1);
        assert_eq!(breaker.standing(), Standing::New);
        breaker.record(0, Health::Well);
        assert_eq!(breaker.standing(), Standing::Proven);
        for _ in 0..IN_A_ROW {
            assert!(!breaker.is_open());
            breaker.record(0, Health::Refusing);
            assert_eq!(breaker.standing(), Standing::Failing);
        }
        assert!(breaker.is_open());
    }

    #[test]
    fn most_of_the_last_attempts_open_it_if_no_run_of_them_does() {
        let mut breaker = Breaker::new(8, 1, 1);
        let mut recorded = 0;
        while !breaker.is_open() {
            let health = match recorded % 5 {
                0 => Health::Well,
                _ => Health::Ill,
            };
            breaker.record(0, health);
            recorded += 1;
        }
        assert_eq!(recorded, OUTCOMES);
    }

    #[test]
    fn the_window_grows_with_success_and_shrinks_with_failure() {
        let mut breaker = Breaker::new(4, 1, 1);
        let mut window_after = |health| {
            breaker.record(0, health);
            breaker.window(0)
        };
        for expected in [2, 3, 4, 4] {
            assert_eq!(window_after(Health::Well), expected);
        }
        assert_eq!(window_after(Health::Refusing), 2);
        assert_eq!(window_after(Health::Well), 3);
        assert_eq!(window_after(Health::Ill), 1);
    }

    #[test]
    fn an_open_breaker_lets_one_probe_through_at_growing_intervals() {
        let mut breaker = opened();
        let mut at = 0;
        for cooldown in [1_000, 2_000, 4_000, 8_000, 8_000] {
            at += cooldown;
            assert_eq!(breaker.opens_at(), Some(at));
            assert_eq!(breaker.window(at - 1), 0);
            assert_eq!(breaker.window(at), 1);
            breaker.record(at, Health::Ill);
        }
        at += 8_000;
        breaker.record(at, Health::Well);
        assert!(!breaker.is_open() && breaker.standing() == Standing::Proven);
        assert_eq!(breaker.window(at), 2);
        assert_eq!(breaker.opens_at(), None);
        // And it forgot the past: one failure does not open it.
        breaker.record(at, Health::Ill);
        assert!(!breaker.is_open());
    }

    #[test]
    fn what_was_sent_before_it_opened_prolongs_nothing() {
        let mut breaker = opened();
        breaker.record(500, Health::Ill);
        assert_eq!(breaker.opens_at(), Some(1_000));
        breaker.record(600, Health::Well);
        assert!(!breaker.is_open());
    }

    #[test]
    fn some_failures_among_successes_do_not_open_it() {
        let mut breaker = Breaker::new(8, 1, 1);
        for index in 0..1_000 {
            let health = match index % 4 {
                0 => Health::Well,
                1 | 2 => Health::Ill,
                _ => Health::Well,
            };
            breaker.record(0, health);
            assert!(!breaker.is_open());
        }
    }

    #[test]
    fn an_endpoint_is_left_alone_as_long_as_it_asked() {
        let mut breaker = Breaker::new(8, 1, 1);
        breaker.hold(5_000);
        breaker.hold(3_000);
        assert_eq!((breaker.window(4_999), breaker.window(5_000)), (0, 1));
        assert_eq!(breaker.opens_at(), Some(5_000));
        assert!(!breaker.is_open());
    }
}
