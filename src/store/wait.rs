//! Waiting for commits: who waits for which ticket, and who waits for the pressure to go.
//!
//! A registration is one push under a short lock; a commit takes all that it satisfies in one
//! sweep, so thousands of waiting connections cost the committer one wake each and no more.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::{Condvar, Mutex};

use super::{Failure, Store, StoreError, Ticket, Waiting};

/// The durable ticket, the store's failure, and everyone who waits for either.
pub(crate) struct Progress {
    durable: AtomicU64,
    /// The last ticket that was flushed to the disk, and a signal that it moved.
    flushed: Mutex<Ticket>,
    flushed_moved: Condvar,
    failed: AtomicBool,
    failure: Mutex<Option<Arc<Failure>>>,
    waiters: Mutex<Vec<(Ticket, Waker)>>,
    pressure: AtomicBool,
    pressed: Mutex<Vec<Waker>>,
}

impl Progress {
    pub(crate) fn new() -> Progress {
        Progress {
            durable: AtomicU64::new(0),
            flushed: Mutex::new(Ticket(0)),
            flushed_moved: Condvar::new(),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
            waiters: Mutex::new(Vec::new()),
            pressure: AtomicBool::new(false),
            pressed: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn durable(&self) -> Ticket {
        Ticket(self.durable.load(Ordering::Acquire))
    }

    /// Everything up to `ticket` is durable: wakes those who waited for that.
    pub(crate) fn advance(&self, ticket: Ticket) {
        self.durable.fetch_max(ticket.0, Ordering::AcqRel);
        let mut ready = Vec::new();
        {
            let mut waiters = self.waiters.lock();
            let mut i = 0;
            while i < waiters.len() {
                if waiters[i].0 <= ticket {
                    ready.push(waiters.swap_remove(i).1);
                } else {
                    i += 1;
                }
            }
        }
        ready.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn set_flushed(&self, ticket: Ticket) {
        let mut flushed = self.flushed.lock();
        if *flushed < ticket {
            *flushed = ticket;
            self.flushed_moved.notify_all();
        }
    }

    /// The last ticket that was flushed.
    #[cfg(test)]
    pub(crate) fn flushed(&self) -> Ticket {
        *self.flushed.lock()
    }

    /// Blocks until `ticket` was flushed, whatever the durability, or the store has failed.
    pub(crate) fn wait_flushed(&self, ticket: Ticket) -> Result<(), StoreError> {
        let mut flushed = self.flushed.lock();
        while *flushed < ticket {
            self.check()?;
            self.flushed_moved.wait(&mut flushed);
        }
        Ok(())
    }

    /// The first failure stays; everyone is woken to see it.
    pub(crate) fn fail(&self, failure: Failure) {
        {
            let mut slot = self.failure.lock();
            if slot.is_none() {
                *slot = Some(Arc::new(failure));
            }
        }
        self.failed.store(true, Ordering::Release);
        {
            let _flushed = self.flushed.lock();
            self.flushed_moved.notify_all();
        }
        let waiters = std::mem::take(&mut *self.waiters.lock());
        waiters.into_iter().for_each(|(_, waker)| waker.wake());
        self.set_pressure(false);
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn failure(&self) -> Option<Arc<Failure>> {
        if !self.failed() {
            return None;
        }
        self.failure.lock().clone()
    }

    /// `Err` once the store has failed.
    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.failure()
            .map_or(Ok(()), |why| Err(StoreError::Failed(why)))
    }

    pub(crate) fn register(&self, ticket: Ticket, waker: &Waker) -> Waiting {
        if self.durable() >= ticket {
            return Waiting::Durable;
        }
        let mut waiters = self.waiters.lock();
        // Looked at again under the lock: a commit or failure after this finds the waiter.
        if self.durable() >= ticket {
            return Waiting::Durable;
        }
        if let Some(failure) = self.failure() {
            return Waiting::Failed(failure);
        }
        waiters.push((ticket, waker.clone()));
        Waiting::Registered
    }

    /// How many wait for a commit.
    #[cfg(test)]
    pub(crate) fn registered(&self) -> usize {
        self.waiters.lock().len()
    }

    pub(crate) fn pressure(&self) -> bool {
        self.pressure.load(Ordering::Relaxed)
    }

    pub(crate) fn set_pressure(&self, on: bool) {
        if self.pressure.load(Ordering::Relaxed) == on {
            return;
        }
        let woken = {
            let mut pressed = self.pressed.lock();
            self.pressure.store(on, Ordering::Relaxed);
            if on {
                Vec::new()
            } else {
                std::mem::take(&mut *pressed)
            }
        };
        woken.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn register_pressure(&self, waker: &Waker) -> bool {
        let mut pressed = self.pressed.lock();
        let on = self.pressure.load(Ordering::Relaxed);
        if on {
            pressed.push(waker.clone());
        }
        on
    }
}

/// Waits while the store is under pressure: what a publisher of QoS 1 and 2 does before its next
/// message. Ends when the store has failed, too.
pub async fn until_unpressed(store: &dyn Store) {
    poll_fn(|cx| match store.register_pressure(cx.waker()) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    })
    .await;
}

/// Ready when `ticket` is durable in `store`, or the store has failed.
pub fn until_durable(store: &dyn Store, ticket: Ticket) -> Durable<'_> {
    Durable { store, ticket }
}

/// The future of [`until_durable`].
#[must_use = "a future does nothing until it is awaited"]
pub struct Durable<'a> {
    store: &'a dyn Store,
    ticket: Ticket,
}

impl Future for Durable<'_> {
    type Output = Result<(), StoreError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.store.register(self.ticket, context.waker()) {
            Waiting::Durable => Poll::Ready(Ok(())),
            Waiting::Failed(failure) => Poll::Ready(Err(StoreError::Failed(failure))),
            Waiting::Registered => Poll::Pending,
        }
    }
}

/// Blocks until everything appended so far is durable.
#[cfg(test)]
pub(super) fn wait_blocking(store: &dyn Store) {
    let appended = store
        .append(&[super::Record::Clock { now_ms: 0 }])
        .expect("it takes it");
    while store.durable() < appended.ticket {
        std::thread::park_timeout(std::time::Duration::from_micros(100));
    }
}
