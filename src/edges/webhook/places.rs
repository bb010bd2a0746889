//! Requests at a time over all endpoints, shared so that none can take the places of the others.
//!
//! Endpoints whose last attempt failed have a small lane of their own: nine hundred that hang
//! cannot keep those waiting that answer. In the wide lane an endpoint that has requests in flight
//! takes another place only while more are free than it holds itself, so that one alone gets half of
//! them, two get a third each, and whoever comes next always finds some.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One of so many places is in the lane of endpoints that fail.
const NARROW: usize = 8;

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
}

impl Places {
    /// As many places as this, at least one.
    pub fn new(concurrency: usize) -> Places {
        let narrow = concurrency / NARROW;
        let wide = Arc::new(Semaphore::new((concurrency - narrow).max(1)));
        Places {
            narrow: match narrow {
                0 => Arc::clone(&wide),
                _ => Arc::new(Semaphore::new(narrow)),
            },
            wide,
        }
    }

    fn lane(&self, is_failing: bool) -> &Arc<Semaphore> {
        match is_failing {
            true => &self.narrow,
            false => &self.wide,
        }
    }

    /// A place for an endpoint with so many requests in flight, if there is one at once.
    ///
    /// # Errors
    /// Says what to wait for.
    pub fn take(&self, is_failing: bool, in_flight: usize) -> Result<Place, NoPlace> {
        let lane = self.lane(is_failing);
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
    pub fn wait(&self, is_failing: bool) -> impl Future<Output = Place> + Send + use<> {
        let lane = Arc::clone(self.lane(is_failing));
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
        while let Ok(place) = places.take(true, 0) {
            failing.push(place);
        }
        assert_eq!(failing.len(), 2);
        assert_eq!(places.take(true, 0).unwrap_err(), NoPlace::Full);
        assert!(places.take(false, 0).is_ok());
        // And they take turns.
        let mut first = Box::pin(places.wait(true));
        let mut second = Box::pin(places.wait(true));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        failing.pop();
        assert!((&mut second).now_or_never().is_none());
        assert!((&mut first).now_or_never().is_some());
    }

    #[test]
    fn nobody_takes_all() {
        let places = Places::new(16);
        let fill = |held: &mut Vec<Place>| {
            while let Ok(place) = places.take(false, held.len()) {
                held.push(place);
            }
            held.len()
        };
        let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
        assert_eq!(fill(&mut first), 7, "half of 14");
        assert_eq!(fill(&mut second), 4);
        assert_eq!(fill(&mut third), 2);
        assert_eq!(places.take(false, 7).unwrap_err(), NoPlace::OwnShare);
        assert!(places.take(false, 0).is_ok());
    }

    #[test]
    fn one_place_is_enough_for_all() {
        let places = Places::new(1);
        let place = places.take(false, 0).unwrap();
        assert_eq!(places.take(true, 0).unwrap_err(), NoPlace::Full);
        drop(place);
        assert!(places.take(true, 0).is_ok());
    }
}
