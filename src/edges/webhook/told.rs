//! What an endpoint is told to be, ready for use.

use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::attempt::Format;
use super::breaker::Breaker;
use super::client::Dial;
use super::flow::{Flow, Limits, Unit};
use super::rate::Rate;
use super::reading;
use super::worker::Common;
use crate::webhooks::{Definition, Endpoint, Ordering, PayloadMode, WebhooksConfig};

/// Events in one request of batch mode, and bytes of their messages.
const BATCH_MAX: usize = 100;
const BATCH_BYTES_MAX: u64 = 256 * 1024;
/// How long a breaker stays open at least and at most, in milliseconds.
const COOLDOWN_LEAST: u64 = 50;
const COOLDOWN_MAX: u64 = 60_000;
/// Units whose messages are read together.
const READ_MAX: usize = 64;

/// See the module.
pub(super) struct Told<X> {
    pub definition: Arc<Definition>,
    pub config: Arc<WebhooksConfig>,
    pub client: Result<Arc<X>, Box<str>>,
    pub format: Format,
}

impl<X: Send + Sync + 'static> Told<X> {
    /// As it is told now.
    pub async fn of<D: Dial<Exchange = X>>(
        common: &Arc<Common<D>>,
        endpoint: &Endpoint,
    ) -> Told<X> {
        let definition = endpoint.definition();
        let config = common.webhooks.config();
        let dialing = {
            let common = Arc::clone(common);
            let (definition, config) = (Arc::clone(&definition), Arc::clone(&config));
            spawn_blocking(move || common.dial.dial(&definition, config))
        };
        let client = match dialing.await {
            Ok(client) => client.map(Arc::new).map_err(Into::into),
            Err(error) => Err(error.to_string().into()),
        };
        Told {
            format: Format::of(&definition, common.broker.log_epoch()),
            definition,
            config,
            client,
        }
    }

    /// Whether several events go into one request.
    pub fn is_batch(&self) -> bool {
        self.definition.payload_mode == PayloadMode::Batch
    }

    pub fn limits(&self) -> Limits {
        Limits {
            batch_max: match self.is_batch() {
                true => BATCH_MAX,
                false => 1,
            },
            batch_bytes_max: BATCH_BYTES_MAX,
            waiting_max: self.config.retrying_max,
        }
    }

    /// A breaker that stays open for as long as the endpoint's own schedule waits, within bounds.
    pub fn breaker(&self) -> Breaker {
        let delays = self.definition.retry_schedule.delays().iter();
        let millis = delays.map(|delay| delay.as_millis() as u64);
        let (shortest, longest) = (millis.clone().min(), millis.max());
        let within = |millis: Option<u64>| millis.unwrap_or(0).clamp(COOLDOWN_LEAST, COOLDOWN_MAX);
        Breaker::new(
            self.definition.max_in_flight,
            within(shortest),
            within(longest),
        )
    }

    pub fn rate(&self) -> Rate {
        Rate::new(self.definition.rate_limit.map_or(0, NonZeroU32::get))
    }

    /// A flow that goes on with what waits.
    pub async fn flow<D: Dial>(&self, common: &Common<D>, mut waiting: Vec<(u64, Unit)>) -> Flow {
        let ordering = self.definition.ordering;
        if ordering == Ordering::Key {
            for some in waiting.chunks_mut(READ_MAX) {
                let units = some.iter().map(|(_, unit)| unit.clone()).collect();
                let Ok((_, read)) = reading::begin(&common.broker, units).await else {
                    continue;
                };
                let mut read = read.into_iter();
                for (_, unit) in some {
                    let messages: Vec<_> = read.by_ref().take(unit.entries.len()).collect();
                    let first = messages.iter().flatten().next();
                    unit.key = first.map(|message| common.random.hash_one(message.topic()));
                }
            }
        }
        Flow::new(ordering, self.limits(), waiting)
    }
}
