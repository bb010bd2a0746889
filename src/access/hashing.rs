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
use super::crypto::{constant_time_eq, hmac};
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::line;
    use super::super::users::Users;
    use super::*;

    fn user() -> Arc<User> {
        let users = Users::parse(&"passwd".into(), line("bob", "secret", None).as_bytes());
        users.unwrap().get("bob").unwrap().clone()
    }

    #[tokio::test]
    async fn one_more_than_can_wait_is_told_that_we_are_busy() {
        let hashing = Hashing {
            waiting_max: 2,
            ..Hashing::new(1)
        };
        let busy_thread = hashing.threads.clone().acquire_owned().await.unwrap();
        let verify = || hashing.verify(user(), b"secret");
        let (mut first, mut second) = (Box::pin(verify()), Box::pin(verify()));
        let pause = Duration::from_millis(1);
        assert!(
            tokio::time::timeout(pause, &mut first).await.is_err(),
            "it waits"
        );
        assert!(
            tokio::time::timeout(pause, &mut second).await.is_err(),
            "it waits"
        );
        assert_eq!(verify().await, Err(AuthError::Busy));
        // Who gives up makes room.
        drop(second);
        let mut third = Box::pin(verify());
        assert!(
            tokio::time::timeout(pause, &mut third).await.is_err(),
            "it waits"
        );
        drop(busy_thread);
        assert_eq!((first.await, third.await), (Ok(true), Ok(true)));
        assert_eq!(hashing.waiting.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn digests_tell_names_passwords_and_keys_apart() {
        let all = [
            digest(&[0; 32], "ab", b"c"),
            digest(&[0; 32], "a", b"bc"),
            digest(&[0; 32], "a", b"bcd"),
            digest(&[1; 32], "ab", b"c"),
        ];
        for (i, one) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|other| one != other));
        }
        assert_eq!(all[0], digest(&[0; 32], "ab", b"c"));
    }
}
