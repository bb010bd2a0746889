//! `Idempotency-Key`: a publish that is sent again, because its answer got lost, is done once.
//!
//! What was answered is a document in the same append as the message: after a crash either both are
//! there or neither is.

use std::collections::HashMap;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::http::request::Parts;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::envelope::Outgoing;
use super::problem::Problem;
use crate::access::Principal;
use crate::broker::{Broker, Remembered};
use crate::store::{RecoveredDocument, Ticket};

/// What the documents' keys begin with.
const PREFIX: &str = "http/idempotency/";

/// How long a key is remembered, in milliseconds.
const KEPT_MS: u64 = 24 * 3600 * 1000;

/// Keys remembered at a time.
const KEYS_MAX: usize = 100_000;

/// Milliseconds between two looks for keys that are too old.
const CLEAN_EVERY: u64 = 60_000;

const KEY_BYTES_MAX: usize = 255;

#[derive(Clone, Serialize, Deserialize)]
struct Answered {
    /// Of the request, so that one key for two different ones is noticed.
    request: String,
    answer: Value,
}

enum State {
    InFlight,
    Answered {
        answered: Answered,
        ticket: Ticket,
        expires_ms: u64,
    },
}

/// The keys that are known.
#[derive(Default)]
pub(super) struct Keys(Mutex<Known>);

#[derive(Default)]
struct Known {
    by_key: HashMap<Box<str>, State>,
    cleaned_at: u64,
}

/// What a key says.
pub(super) enum Begin<'k> {
    /// It is new: publish.
    New(Claim<'k>),
    /// It was done: this was the answer, true once the store has the ticket.
    Known(Value, Ticket),
}

/// A key whose request is being handled. If it is dropped unanswered it is as if it was never seen.
pub(super) struct Claim<'k> {
    keys: &'k Keys,
    key: Box<str>,
    request: String,
    expires_ms: u64,
    answered: bool,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.keys.0.lock().by_key.remove(&self.key);
        }
    }
}

impl Keys {
    /// The keys that the store kept.
    pub(super) fn restore(documents: &[RecoveredDocument]) -> Keys {
        let mut known = Known::default();
        for document in documents {
            let answered = serde_json::from_slice(&document.value);
            if let (true, Ok(answered)) = (document.key.starts_with(PREFIX), answered) {
                let state = State::Answered {
                    answered,
                    ticket: Ticket::default(),
                    expires_ms: document.expires_ms.unwrap_or(u64::MAX),
                };
                known.by_key.insert(document.key.clone(), state);
            }
        }
        Keys(Mutex::new(known))
    }

    /// Looks at the key of a request; none if it has none.
    ///
    /// # Errors
    /// For a key that cannot be one, that is in use at this moment, or that was another request's.
    pub(super) fn begin(
        &self,
        broker: &Arc<Broker>,
        principal: &Principal,
        parts: &Parts,
        message: &Outgoing,
    ) -> Result<Option<Begin<'_>>, Problem> {
        let Some(given) = parts.headers.get("idempotency-key") else {
            return Ok(None);
        };
        let bytes = given.as_bytes();
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX {
            let detail = format!("an Idempotency-Key has 1 to {KEY_BYTES_MAX} bytes");
            return Err(Problem::bad_request(
                "invalid-key",
                "Not an Idempotency-Key",
                detail,
            ));
        }
        // Keys of two users have nothing to do with each other.
        let user = principal.user().unwrap_or_default().as_bytes();
        let key = format!("{PREFIX}{}", digest(&[user, b"\0", bytes])).into_boxed_str();
        let qos = [message.qos.as_u8(), u8::from(message.retain)];
        let properties = format!("{:?}", message.properties);
        let topic = message.topic.as_bytes();
        let request = digest(&[
            topic,
            b"\0",
            &qos,
            properties.as_bytes(),
            b"\0",
            &message.payload,
        ]);
        let now = broker.clock.now().0;
        let mut known = self.0.lock();
        known.clean(broker, now);
        match known.by_key.get(&key) {
            Some(State::InFlight) => Err(Problem::new(
                StatusCode::CONFLICT,
                "key-in-use",
                "This Idempotency-Key is in use",
                "the same request is being handled at this moment: ask again",
            )),
            Some(State::Answered { answered, .. }) if answered.request != request => {
                Err(Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "key-reused",
                    "This Idempotency-Key was another request's",
                    "make a new key for each message; nothing was published",
                ))
            }
            Some(State::Answered {
                answered, ticket, ..
            }) => Ok(Some(Begin::Known(answered.answer.clone(), *ticket))),
            None if known.by_key.len() >= KEYS_MAX => Err(Problem::unavailable(
                "too many Idempotency-Keys are remembered; nothing was published",
            )),
            None => {
                known.by_key.insert(key.clone(), State::InFlight);
                Ok(Some(Begin::New(Claim {
                    keys: self,
                    key,
                    request,
                    expires_ms: now + KEPT_MS,
                    answered: false,
                })))
            }
        }
    }
}

impl Known {
    fn clean(&mut self, broker: &Broker, now: u64) {
        if now.saturating_sub(self.cleaned_at) < CLEAN_EVERY {
            return;
        }
        self.cleaned_at = now;
        self.by_key.retain(|key, state| {
            let stays = !matches!(state, State::Answered { expires_ms, .. } if *expires_ms <= now);
            if !stays {
                broker.forget(key);
            }
            stays
        });
    }
}

impl Claim<'_> {
    /// What is to be kept with the message; `answer` is made from how many it matched.
    pub(super) fn document(
        &self,
        answer: impl FnOnce(usize) -> Value + Send + 'static,
    ) -> Remembered {
        let request = self.request.clone();
        Remembered {
            key: self.key.clone(),
            value: Box::new(move |matched| {
                let answer = answer(matched);
                // Strings and numbers: there is nothing in it that JSON cannot say.
                serde_json::to_vec(&Answered { request, answer }).unwrap_or_default()
            }),
            expires_ms: self.expires_ms,
        }
    }

    /// It was published, and answered so.
    pub(super) fn answered(mut self, answer: Value, ticket: Ticket) {
        self.answered = true;
        let state = State::Answered {
            answered: Answered {
                request: self.request.clone(),
                answer,
            },
            ticket,
            expires_ms: self.expires_ms,
        };
        self.keys.0.lock().by_key.insert(self.key.clone(), state);
    }
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    let mut text = String::with_capacity(64);
    for byte in hasher.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}
