//! The secrets of one endpoint: what signs now, and what still does for a while.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidings_protocol::webhook::{Secret, SigningKey};

/// Old pairs that are kept at most: who rotates more often ends the oldest early.
const OLD_MAX: usize = 3;

/// What signs an attempt: see [`signature_header`](tidings_protocol::webhook::signature_header).
#[derive(Clone, Debug, Default)]
pub struct Signers {
    /// The present one first.
    pub secrets: Vec<Secret>,
    /// None unless the endpoint wants `v1a`.
    pub keys: Vec<SigningKey>,
}

#[derive(Clone)]
struct Old {
    secret: Secret,
    key: Option<SigningKey>,
    /// In Unix milliseconds.
    until_ms: u64,
}

/// The secrets of one endpoint.
#[derive(Clone)]
pub(super) struct Keyring {
    secret: Secret,
    key: Option<SigningKey>,
    /// The latest first.
    old: Vec<Old>,
    /// What is worked out, and until when that is right.
    signers: Arc<Signers>,
    signers_until_ms: u64,
}

/// As it is sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct StoredKeyring {
    secret: String,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    old: Vec<StoredOld>,
}

#[derive(Serialize, Deserialize)]
struct StoredOld {
    secret: String,
    #[serde(default)]
    key: Option<String>,
    until_ms: u64,
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("a broker without randomness must not make secrets");
    bytes
}

impl Keyring {
    /// With this secret, or a new one.
    pub fn new(secret: Option<Secret>, signature_v1a: bool) -> Keyring {
        Keyring::of(
            secret.unwrap_or_else(|| Secret::from_random(random())),
            signature_v1a.then(|| SigningKey::from_random(random())),
            Vec::new(),
        )
    }

    fn of(secret: Secret, key: Option<SigningKey>, old: Vec<Old>) -> Keyring {
        Keyring {
            secret,
            key,
            old,
            signers: Arc::default(),
            signers_until_ms: 0,
        }
    }

    /// The present secret, to be shown once.
    pub fn reveal(&self) -> String {
        self.secret.reveal()
    }

    /// The public key of the present key, if there is one.
    pub fn public_key(&self) -> Option<String> {
        Some(self.key.as_ref()?.public_key().to_string())
    }

    /// A new secret and key. The ones that were sign until `grace` has passed.
    pub fn rotate(&mut self, secret: Option<Secret>, now_ms: u64, grace: Duration) {
        let next = Keyring::new(secret, self.key.is_some());
        let until_ms = now_ms.saturating_add(grace.as_millis() as u64);
        self.old.insert(
            0,
            Old {
                secret: std::mem::replace(&mut self.secret, next.secret),
                key: std::mem::replace(&mut self.key, next.key),
                until_ms,
            },
        );
        self.old.retain(|old| old.until_ms > now_ms);
        self.old.truncate(OLD_MAX);
        self.signers_until_ms = 0;
    }

    /// Has it sign with ed25519 too, or not.
    pub fn sign_v1a(&mut self, wanted: bool) {
        match wanted {
            true if self.key.is_none() => self.key = Some(SigningKey::from_random(random())),
            true => {}
            false => {
                self.key = None;
                self.old.iter_mut().for_each(|old| old.key = None);
            }
        }
        self.signers_until_ms = 0;
    }

    /// What signs at this time.
    pub fn signers(&mut self, now_ms: u64) -> Arc<Signers> {
        if now_ms >= self.signers_until_ms {
            let old = || self.old.iter().filter(|old| old.until_ms > now_ms);
            let secrets = std::iter::once(&self.secret).chain(old().map(|old| &old.secret));
            let keys = self
                .key
                .iter()
                .chain(old().filter_map(|old| old.key.as_ref()));
            self.signers = Arc::new(Signers {
                secrets: secrets.cloned().collect(),
                keys: keys.cloned().collect(),
            });
            self.signers_until_ms = old().map(|old| old.until_ms).min().unwrap_or(u64::MAX);
        }
        Arc::clone(&self.signers)
    }

    /// Until when an old secret signs, in Unix milliseconds.
    pub fn old_until_ms(&self, now_ms: u64) -> Option<u64> {
        let old = self.old.iter().map(|old| old.until_ms);
        old.filter(|&until_ms| until_ms > now_ms).max()
    }

    pub fn to_stored(&self) -> StoredKeyring {
        let reveal = |key: &Option<SigningKey>| key.as_ref().map(SigningKey::reveal);
        StoredKeyring {
            secret: self.secret.reveal(),
            key: reveal(&self.key),
            old: self
                .old
                .iter()
                .map(|old| StoredOld {
                    secret: old.secret.reveal(),
                    key: reveal(&old.key),
                    until_ms: old.until_ms,
                })
                .collect(),
        }
    }

    /// None if that is not what [`Keyring::to_stored`] gave.
    pub fn from_stored(stored: &StoredKeyring) -> Option<Keyring> {
        let key = |text: &Option<String>| match text {
            Some(text) => text.parse().ok().map(Some),
            None => Some(None),
        };
        let old = stored.old.iter().map(|old| {
            Some(Old {
                secret: old.secret.parse().ok()?,
                key: key(&old.key)?,
                until_ms: old.until_ms,
            })
        });
        Some(Keyring::of(
            stored.secret.parse().ok()?,
            key(&stored.key)?,
            old.collect::<Option<_>>()?,
        ))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_millis(100);

    #[test]
    fn old_and_new_sign_during_the_grace_period() {
        let mut ring = Keyring::new(None, true);
        let first = ring.reveal();
        let sizes = |ring: &mut Keyring, now| {
            let signers = ring.signers(now);
            (signers.secrets.len(), signers.keys.len())
        };
        assert_eq!(sizes(&mut ring, 0), (1, 1));
        ring.rotate(None, 1000, GRACE);
        assert_ne!(ring.reveal(), first);
        assert_eq!(ring.signers(1000).secrets[0].reveal(), ring.reveal());
        assert_eq!(ring.signers(1000).secrets[1].reveal(), first);
        assert_eq!(ring.old_until_ms(1000), Some(1100));

        let stored = serde_json::to_string(&ring.to_stored()).unwrap();
        let stored = serde_json::from_str(&stored).unwrap();
        let mut ring = Keyring::from_stored(&stored).unwrap();
        assert_eq!(sizes(&mut ring, 1099), (2, 2));
        assert_eq!(sizes(&mut ring, 1100), (1, 1));
        assert_eq!(ring.old_until_ms(1100), None);

        for now in 2000..2010 {
            ring.rotate(None, now, GRACE);
        }
        assert_eq!(sizes(&mut ring, 2010), (1 + OLD_MAX, 1 + OLD_MAX));
        ring.sign_v1a(false);
        assert_eq!(sizes(&mut ring, 2010), (1 + OLD_MAX, 0));
        assert_eq!(ring.public_key(), None);
        ring.sign_v1a(true);
        assert_eq!(sizes(&mut ring, 3000), (1, 1));
        assert!(ring.public_key().unwrap().starts_with("whpk_"));
        assert!(!format!("{ring:?} {:?}", ring.signers(0)).contains("whs"));
    }

    #[test]
    fn without_a_grace_period_the_old_one_ends_at_once() {
        let mut ring = Keyring::new(None, false);
        ring.rotate(None, 1000, Duration::ZERO);
        assert_eq!(ring.signers(1000).secrets.len(), 1);
    }
}
