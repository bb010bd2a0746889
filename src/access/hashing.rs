//! Passwords are expensive to verify. That cost is bounded here, and spared where it can be.
//!
//! At most `access.hash_threads` verifications run at once, on threads of their own, and
//! a bounded number waits; one more is told that the broker is busy. A user who has logged
//! in before is recognised by a keyed digest of name and password, which lives as long as
//! the password file that the user was read from, and is worth nothing to another process.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use super::AuthError;
use super::scram::{constant_time_eq, hmac};
use super::users::User;

/// How many logins wait for a thread: what two threads can do within a connect timeout of
/// ten seconds, about. More would only wait to time out.
const WAITING_MAX: usize = 1000;

pub(super) struct Hashing {
    threads: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Hashing {
    pub fn new(threads: usize) -> Self {
        Hashing {
            threads: Arc::new(Semaphore::new(threads)),
            waiting: AtomicUsize::new(0),
            waiting_max: WAITING_MAX,
        }
    }

    /// Verifies the password against the user's hash.
    pub async fn verify(&self, user: Arc<User>, password: &[u8]) -> Result<bool, AuthError> {
        let permit = {
            let _place = Place::take(self)?;
            let threads = self.threads.clone();
            threads
                .acquire_owned()
                .await
                .expect("the semaphore is never closed")
        };
        let password = password.to_vec();
        // The permit goes along: a client that hangs up meanwhile does not free its thread.
        let verified = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            user.verify(&password)
        });
        // It fails only if it panicked or the runtime is stopping.
        verified.await.map_err(|_| AuthError::Busy)
    }
}

/// A place in the queue for a thread, given back when dropped.
struct Place<'a>(&'a Hashing);

impl<'a> Place<'a> {
    fn take(hashing: &'a Hashing) -> Result<Self, AuthError> {
        let place = Place(hashing);
        match hashing.waiting.fetch_add(1, Ordering::Relaxed) < hashing.waiting_max {
            true => Ok(place),
            false => Err(AuthError::Busy),
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The keyed digest by which a password that was right before is recognised.
pub(super) fn digest(key: &[u8; 32], user: &str, password: &[u8]) -> [u8; 32] {
    // The length keeps "ab" with "c" apart from "a" with "bc".
    hmac(key, &[&user.len().to_be_bytes(), user.as_bytes(), password])
}

pub(super) fn is_known(user: &User, digest: &[u8; 32]) -> bool {
    user.known()
        .get()
        .is_some_and(|known| constant_time_eq(known, digest))
}
