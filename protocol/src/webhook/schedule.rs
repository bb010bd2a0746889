//! When a failed attempt is repeated.

use std::fmt;
use std::time::Duration;

use crate::time::{DurationError, parse_duration};

/// How many retries a schedule may have.
pub const RETRIES_MAX: usize = 64;
/// How long one delay of a schedule may be: 30 days.
pub const DELAY_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The delays before each retry. The first attempt is made at once and is not part of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule(Vec<Duration>);

impl Default for Schedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: ten attempts in about three days.
    fn default() -> Schedule {
        const SECS: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
        Schedule(SECS.into_iter().map(Duration::from_secs).collect())
    }
}

impl Schedule {
    /// A schedule of these delays: at most [`RETRIES_MAX`], each at most [`DELAY_MAX`]. Without any
    /// there is one attempt and no other.
    pub fn new(delays: Vec<Duration>) -> Result<Schedule, ScheduleError> {
        if delays.len() > RETRIES_MAX {
            return Err(ScheduleError::TooMany(delays.len()));
        }
        match delays.iter().position(|delay| *delay > DELAY_MAX) {
            Some(index) => Err(ScheduleError::TooLong { index }),
            None => Ok(Schedule(delays)),
        }
    }

    /// Reads delays such as `["5s", "5m", "2h"]`.
    pub fn parse<T: AsRef<str>>(delays: &[T]) -> Result<Schedule, ScheduleError> {
        if delays.len() > RETRIES_MAX {
            return Err(ScheduleError::TooMany(delays.len()));
        }
        let delays: Result<_, _> = delays
            .iter()
            .enumerate()
            .map(|(index, delay)| {
                parse_duration(delay.as_ref())
                    .map_err(|error| ScheduleError::Duration { index, error })
            })
            .collect();
        Schedule::new(delays?)
    }

    /// The delays before each retry, without jitter.
    pub fn delays(&self) -> &[Duration] {
        &self.0
    }

    /// How many attempts there are in all, at least one.
    pub fn attempts(&self) -> usize {
        self.0.len() + 1
    }

    /// How long to wait before the next attempt when `failed` attempts have been made: zero before
    /// the first, `None` when there is no other.
    ///
    /// `random` spreads the delay evenly over ±20 %, so that what failed together does not come
    /// back together.
    pub fn delay(&self, failed: usize, random: u64) -> Option<Duration> {
        let Some(index) = failed.checked_sub(1) else {
            return Some(Duration::ZERO);
        };
        self.0.get(index).map(|delay| jittered(*delay, random))
    }
}

/// From 80 % of the delay (`random` is 0) to 120 % of it, in whole milliseconds.
fn jittered(delay: Duration, random: u64) -> Duration {
    let ms = delay.as_millis();
    // At most DELAY_MAX: 32 bits of milliseconds times 64 bits of chance fit into 128.
    let spread = ((ms * 2 / 5 + 1) * u128::from(random)) >> 64;
    Duration::from_millis((ms - ms / 5 + spread) as u64)
}

/// Why delays are no schedule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ScheduleError {
    /// More than [`RETRIES_MAX`]: this many.
    TooMany(usize),
    /// One is longer than [`DELAY_MAX`].
    TooLong {
        /// Its place, from 0.
        index: usize,
    },
    /// One is not a duration.
    Duration {
        /// Its place, from 0.
        index: usize,
        /// What is wrong with it.
        error: DurationError,
    },
}

impl fmt::Display for ScheduleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ScheduleError::TooMany(count) => {
                write!(
                    f,
                    "there are {count} retries, and at most {RETRIES_MAX} are allowed"
                )
            }
            ScheduleError::TooLong { index } => {
                write!(f, "retry {} waits longer than 30 days", index + 1)
            }
            ScheduleError::Duration { index, error } => {
                write!(f, "retry {}: {error}", index + 1)
            }
        }
    }
}

impl std::error::Error for ScheduleError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_is_as_it_is_written() {
        let written = ["5s", "5m", "30m", "2h", "5h", "10h", "14h", "20h", "24h"];
        assert_eq!(Schedule::parse(&written), Ok(Schedule::default()));
        assert_eq!(Schedule::default().attempts(), 10);
    }

    #[test]
    fn attempts_are_counted() {
        let schedule = Schedule::parse(&["10s", "100s"]).unwrap();
        for random in [0, u64::MAX] {
            assert_eq!(schedule.delay(0, random), Some(Duration::ZERO));
            assert_eq!(schedule.delay(3, random), None);
            assert_eq!(schedule.delay(usize::MAX, random), None);
        }
        assert_eq!(schedule.delay(1, 0), Some(Duration::from_secs(8)));
        assert_eq!(schedule.delay(1, u64::MAX), Some(Duration::from_secs(12)));
        assert_eq!(schedule.delay(2, 1 << 63), Some(Duration::from_secs(100)));
        let once = Schedule::parse::<&str>(&[]).unwrap();
        assert_eq!((once.attempts(), once.delay(1, 0)), (1, None));
    }

    #[test]
    fn bad_schedules_get_their_reason() {
        let many = vec!["1s"; RETRIES_MAX + 1];
        for (delays, expected) in [
            (
                many.as_slice(),
                "there are 65 retries, and at most 64 are allowed",
            ),
            (&["1s", "31d"], "retry 2 waits longer than 30 days"),
            (
                &["1s", "5"],
                "retry 2: the duration has no unit: append ms, s, m, h or d",
            ),
        ] {
            let error = Schedule::parse(delays).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
        assert!(Schedule::parse(&many[1..]).is_ok());
        assert!(Schedule::parse(&["30d"]).is_ok());
    }

    proptest! {
        #[test]
        fn jitter_is_within_a_fifth(ms in 0..=DELAY_MAX.as_millis() as u64, random: u64) {
            let schedule = Schedule::new(vec![Duration::from_millis(ms)]).unwrap();
            let delay = schedule.delay(1, random).unwrap().as_millis() as u64;
            prop_assert!(delay * 5 >= ms * 4 && delay * 5 <= ms * 6, "{ms} became {delay}");
        }

        #[test]
        fn no_text_panics(delays in proptest::collection::vec(any::<String>(), 0..70)) {
            let _ = Schedule::parse(&delays);
        }
    }
}
