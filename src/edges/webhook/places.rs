//! Requests at a time over all endpoints, shared so that none can take the places of the others.
//!
//! Endpoints whose last attempt failed have a small lane of their own: nine hundred that hang
//! cannot keep those waiting that answer. Those of which nothing is known yet have half of the wide
//! lane besides. In the wide lane an endpoint that has requests in flight takes another place only
//! while more are free than it holds itself, so that one alone gets half of them, two get a third
//! each, and whoever comes next always finds some.
//!
//! Endpoints that have not accepted their last attempt take turns as well: a thousand whose
//! connections are refused at once would take all of the processor's time for as long as that lasts.

use std::future::Future;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::breaker::Standing;
use super::rate::Rate;

/// One of so many places is in the lane of endpoints that fail.
const NARROW: usize = 8;

/// Turns a second.
const TURNS: u32 = 1_000;

/// A place for one request; free again when it is dropped.
#[derive(Debug)]
pub struct Place {
    _permit: OwnedSemaphorePermit,
}

/// Why there is no place at this moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoPlace {
    /// Once one of the endpoint's own requests has ended there may be one.
    OwnShare,
    /// To be waited for with [`Places::wait`].
    Full,
}

/// See the module.
pub struct Places {
    wide: Arc<Semaphore>,
    narrow: Arc<Semaphore>,
    /// So many free places of the wide lane are left to those that are proven.
    kept_free: usize,
    turns: Mutex<Rate>,
}

impl Places {
    /// As many places as this, at least one.
    pub fn new(concurrency: usize) -> Places {
        let narrow = concurrency / NARROW;
        let wide = (concurrency - narrow).max(1);
        let kept_free = wide / 2;
        let wide = Arc::new(Semaphore::new(wide));
        Places {
            kept_free,
            turns: Mutex::new(Rate::new(TURNS)),
            narrow: match narrow {
                0 => Arc::clone(&wide),
                _ => Arc::new(Semaphore::new(narrow)),
            },
            wide,
        }
    }

    /// Gives a turn to an endpoint that has not accepted its last attempt. Answers when it is, in
    /// Unix milliseconds.
    pub fn turn(&self, now: u64) -> u64 {
        let mut turns = self.turns.lock();
        let at = turns.free_at().max(now);
        turns.take(now);
        at
    }

    fn lane(&self, standing: Standing) -> &Arc<Semaphore> {
        match standing {
            Standing::Proven => &self.wide,
            Standing::New if self.wide.available_permits() > self.kept_free => &self.wide,
            Standing::New | Standing::Failing => &self.narrow,
        }
    }

    /// A place for an endpoint with so many requests in flight, if there is one at once.
    ///
    /// # Errors
    /// Says what to wait for.
    pub fn take(&self, standing: Standing, in_flight: usize) -> Result<Place, NoPlace> {
        let lane = self.lane(standing);
        if in_flight > 0 && lane.available_permits() <= in_flight {
            return Err(NoPlace::OwnShare);
        }
        let permit = Arc::clone(lane).try_acquire_owned();
        let permit = permit.map_err(|_| match in_flight {
            0 => NoPlace::Full,
            _ => NoPlace::OwnShare,
        })?;
        Ok(Place { _permit: permit })
    }

    /// A place for an endpoint without requests in flight, first come, first served.
    pub fn wait(&self, standing: Standing) -> impl Future<Output = Place> + Send + use<> {
        let lane = Arc::clone(self.lane(standing));
        async move {
            let permit = lane.acquire_owned().await;
            Place {
                _permit: permit.expect("the semaphore is never closed"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn those_that_fail_cannot_take_the_places_of_others() {
        let places = Places::new(16);
        let mut failing = Vec::new();
        while let Ok(place) = places.take(Standing::Failing, 0) {
            failing.push(place);
        }
        assert_eq!(failing.len(), 2);
        assert_eq!(
            places.take(Standing::Failing, 0).unwrap_err(),
            NoPlace::Full
        );
        assert!(places.take(Standing::Proven, 0).is_ok());
        // And they take turns.
        let mut first = Box::pin(places.wait(Standing::Failing));
        let mut second = Box::pin(places.wait(Standing::Failing));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        failing.pop();
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_some());
    }

    #[test]
    fn those_that_are_new_leave_half_to_those_that_are_proven() {
        let places = Places::new(16);
        let mut new = Vec::new();
        while let Ok(place) = places.take(Standing::New, 0) {
            new.push(place);
        }
        assert_eq!(new.len(), 7 + 2, "half of 14, and the narrow lane");
        for _ in 0..7 {
            new.push(places.take(Standing::Proven, 0).unwrap());
        }
        assert_eq!(places.take(Standing::Proven, 0).unwrap_err(), NoPlace::Full);
    }

    #[test]
    fn turns_come_one_after_the_other() {
        let places = Places::new(16);
        let now = 1_764_000_000_000;
        let turns: Vec<u64> = (0..1_050).map(|_| places.turn(now) - now).collect();
        assert_eq!(turns[0], 0);
        assert!(turns.is_sorted());
        let at_once = turns.iter().filter(|&&at| at == 0).count();
        assert!((45..=55).contains(&at_once), "{at_once}");
        assert!((990..=1_010).contains(&turns[1_049]), "{}", turns[1_049]);
    }

    #[test]
    fn nobody_takes_all() {
        let places = Places::new(16);
        let fill = |held: &mut Vec<Place>| {
            while let Ok(place) = places.take(Standing::Proven, held.len()) {
                held.push(place);
            }
            held.len()
        };
        let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
        assert_eq!(fill(&mut first), 7, "half of 14");
        assert_eq!(fill(&mut second), 4);
        assert_eq!(fill(&mut third), 2);
        assert_eq!(
            places.take(Standing::Proven, 7).unwrap_err(),
            NoPlace::OwnShare
        );
        assert!(places.take(Standing::Proven, 0).is_ok());
    }

    #[test]
    fn one_place_is_enough_for_all() {
        let places = Places::new(1);
        let place = places.take(Standing::Proven, 0).unwrap();
        assert_eq!(
            places.take(Standing::Failing, 0).unwrap_err(),
            NoPlace::Full
        );
        drop(place);
        assert!(places.take(Standing::Failing, 0).is_ok());
    }
}
