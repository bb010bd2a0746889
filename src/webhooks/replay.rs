//! Sending messages of a stream again.
//!
//! They are queued behind everything else, in the background and at a bounded rate, never far ahead
//! of what the endpoint takes. How far it got is kept after each step: after a crash it goes on
//! there, and may queue the last step twice.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::documents::{replay_key, to_json};
use super::endpoint::Endpoint;
use super::error::WebhookError;
use super::registry::Webhooks;
use super::selection::Selection;
use crate::access::Principal;
use crate::broker::endpoint::Change;
use crate::broker::feed::{Cursor, Event, Next, Reader, Start};
use crate::store::{Offset, Ticket, message_size};

/// Messages of a stream a second, unless the request says otherwise, and at most.
pub const RATE_DEFAULT: u32 = 1000;
pub const RATE_MAX: u32 = 100_000;

/// A replay waits while this many messages are queued: it keeps no more of the stream from being
/// cleaned up than that.
const AHEAD_MAX: u64 = 10_000;
/// How often it looks whether there is room.
const ROOM_EVERY: Duration = Duration::from_millis(200);
const READ_BYTES: usize = 1 << 20;

/// A replay out of a stream: what is asked for, and how far it got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamReplay {
    /// The name of the stream; without one, any that has all topics of the endpoint.
    pub stream: Option<String>,
    /// A Topic Filter.
    pub topic: Option<String>,
    /// When the messages were published, in Unix milliseconds, both ends included.
    pub since_ms: Option<u64>,
    pub until_ms: u64,
    /// Messages a second.
    pub rate: u32,
    /// Messages that were queued.
    #[serde(default)]
    pub queued: u64,
    /// Everything up to here is done: log epoch and offset.
    #[serde(default)]
    pub after: Option<(u64, u64)>,
}

/// How a replay out of a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayProgress {
    pub request: StreamReplay,
    /// False once it has ended.
    pub is_running: bool,
    /// Why it ended early.
    pub error: Option<String>,
    /// Which one it is, of all since the start.
    run: u64,
}

impl Webhooks {
    /// Counts the messages of a stream that a replay would queue. Waits for the disk.
    ///
    /// # Errors
    /// When there is no such endpoint or stream, or too many are being counted.
    pub fn count_stream(
        &self,
        principal: &Principal,
        id: &str,
        request: &StreamReplay,
    ) -> Result<u64, WebhookError> {
        let endpoint = self.get(principal, id)?;
        let Ok(_permit) = self.replays.try_acquire() else {
            return Err(TOO_MANY);
        };
        let mut reader = self.reader(&endpoint, request)?;
        let mut matched = 0;
        while let Some(page) = self.next(&mut reader, request) {
            matched += page.len() as u64;
        }
        Ok(matched)
    }

    /// Begins to queue messages of a stream. Needs a tokio runtime.
    ///
    /// # Errors
    /// When there is no such endpoint or stream, a replay is under way, or it cannot be kept.
    pub fn replay_stream(
        self: &Arc<Self>,
        principal: &Principal,
        id: &str,
        request: StreamReplay,
    ) -> Result<Ticket, WebhookError> {
        let endpoint = self.get(principal, id)?;
        // Before anything is promised.
        let reader = self.reader(&endpoint, &request)?;
        let ticket = {
            let mut replay = endpoint.replay.lock();
            if replay.as_ref().is_some_and(|it| it.is_running) {
                return Err(WebhookError::Conflict(
                    "a replay out of a stream is under way: wait for it, or cancel it",
                ));
            }
            *replay = Some(ReplayProgress {
                request: request.clone(),
                is_running: true,
                error: None,
                run: self.next_run(),
            });
            keep(&endpoint, &request)
        };
        self.spawn_replay(&endpoint, reader, request);
        Ok(ticket)
    }

    /// Ends a replay out of a stream; what is queued already stays.
    ///
    /// # Errors
    /// When there is no such endpoint, or no replay under way.
    pub fn cancel_replay(&self, principal: &Principal, id: &str) -> Result<Ticket, WebhookError> {
        let endpoint = self.get(principal, id)?;
        let mut replay = endpoint.replay.lock();
        let running = replay.as_mut().filter(|it| it.is_running);
        let progress = running.ok_or(WebhookError::Conflict("no replay is under way"))?;
        progress.is_running = false;
        progress.error = Some("cancelled".to_owned());
        let key = replay_key(id);
        Ok(endpoint.queue.keep(&[Change::Remove { key: &key }]))
    }

    /// Goes on with a replay that the store kept.
    pub(super) fn restore_replay(self: &Arc<Self>, endpoint: &Arc<Endpoint>, value: &[u8]) {
        let Ok(request) = serde_json::from_slice::<StreamReplay>(value) else {
            self.broker.forget(&replay_key(&endpoint.id));
            return;
        };
        let reader = self.reader(endpoint, &request);
        *endpoint.replay.lock() = Some(ReplayProgress {
            request: request.clone(),
            is_running: reader.is_ok(),
            error: reader.as_ref().err().map(ToString::to_string),
            run: self.next_run(),
        });
        match reader {
            Ok(reader) => self.spawn_replay(endpoint, reader, request),
            Err(error) => {
                tracing::warn!(endpoint = &*endpoint.id, %error, "a replay cannot go on");
                self.broker.forget(&replay_key(&endpoint.id));
            }
        }
    }

    fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed)
    }

    fn spawn_replay(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        reader: Reader,
        request: StreamReplay,
    ) {
        let run = endpoint.replay.lock().as_ref().map(|it| it.run);
        let (webhooks, endpoint) = (Arc::clone(self), Arc::clone(endpoint));
        tokio::spawn(async move { webhooks.run_replay(endpoint, reader, request, run).await });
    }

    fn reader(&self, endpoint: &Endpoint, request: &StreamReplay) -> Result<Reader, WebhookError> {
        let (filters, principal) = {
            let status = endpoint.status();
            (status.definition.topics.clone(), status.principal.clone())
        };
        let principal = principal.ok_or(WebhookError::Conflict(
            "its owner is not let in any more, and may receive nothing",
        ))?;
        let allowed = |filter: &&str| principal.may_subscribe(filter);
        let filters: Vec<&str> = filters.iter().map(|it| &**it).filter(allowed).collect();
        let start = match (request.after, request.since_ms) {
            (Some((epoch, offset)), _) => Start::After(Cursor {
                epoch,
                offset: Offset(offset),
            }),
            (None, Some(since_ms)) => Start::Since(since_ms),
            (None, None) => Start::Earliest,
        };
        let stream = request.stream.as_deref();
        let opened = self
            .broker
            .open_named_stream(stream, &principal, &filters, start);
        if let Some(opened) = opened {
            return Ok(opened.reader);
        }
        let streams: Vec<String> = self
            .broker
            .feeds()
            .into_iter()
            .filter_map(|feed| feed.stream.map(String::from))
            .collect();
        let there_are = match streams.is_empty() {
            true => "there are none: see [[stream]] in broker.toml".to_owned(),
            false => format!("there are {}", streams.join(", ")),
        };
        let detail = match stream {
            Some(stream) => format!("there is no stream {stream:?}; {there_are}"),
            None => {
                format!(
                    "no stream has all that this webhook's filters match: name one; {there_are}"
                )
            }
        };
        Err(WebhookError::field("stream", detail))
    }

    /// The next messages that are meant, perhaps none; `None` at the end. Waits for the disk.
    fn next(&self, reader: &mut Reader, request: &StreamReplay) -> Option<Vec<(Offset, u32)>> {
        let mut events: Vec<Arc<Event>> = Vec::new();
        match self
            .broker
            .read_events(reader, Waker::noop(), READ_BYTES, &mut events)
        {
            // What is too old to be there is not to be replayed either.
            Next::Events | Next::Gap(_) => {}
            Next::Page => self.broker.load_events(reader, &mut events),
            Next::Waiting | Next::Failed => return None,
        }
        if events.first().is_some_and(|it| it.at_ms > request.until_ms) {
            return None;
        }
        let selection = Selection {
            topic: request.topic.clone(),
            since_ms: request.since_ms,
            until_ms: Some(request.until_ms),
            status: None,
        };
        let wanted = events
            .iter()
            .filter(|it| selection.has_message(it.message.topic(), it.at_ms));
        let place = |event: &Arc<Event>| {
            let message = &event.message;
            let properties = message.properties();
            let size = message_size(message.topic(), properties.as_bytes(), message.payload());
            (event.offset, size)
        };
        Some(wanted.map(place).collect())
    }

    async fn run_replay(
        self: Arc<Self>,
        endpoint: Arc<Endpoint>,
        reader: Reader,
        mut request: StreamReplay,
        run: Option<u64>,
    ) {
        let outcome = self.queue_all(&endpoint, reader, &mut request, run).await;
        let mut replay = endpoint.replay.lock();
        let is_it = |it: &&mut ReplayProgress| it.is_running && Some(it.run) == run;
        let Some(progress) = replay.as_mut().filter(is_it) else {
            return;
        };
        progress.is_running = false;
        progress.error = outcome.err();
        if endpoint.is_removed() || self.broker.is_stopping() {
            return;
        }
        let key = replay_key(&endpoint.id);
        endpoint.queue.keep(&[Change::Remove { key: &key }]);
        tracing::info!(
            endpoint = &*endpoint.id,
            queued = request.queued,
            "replay ended"
        );
    }

    /// Queues all that is meant; ends early when it is cancelled.
    async fn queue_all(
        self: &Arc<Self>,
        endpoint: &Arc<Endpoint>,
        mut reader: Reader,
        request: &mut StreamReplay,
        run: Option<u64>,
    ) -> Result<(), String> {
        let goes_on = || {
            let replay = endpoint.replay.lock();
            !endpoint.is_removed()
                && !self.broker.is_stopping()
                && replay
                    .as_ref()
                    .is_some_and(|it| it.is_running && Some(it.run) == run)
        };
        let rate = request.rate.clamp(1, RATE_MAX);
        // Five steps a second, so that a slow replay is an even one.
        let step = (rate / 5).max(1) as usize;
        let mut next_step = Instant::now();
        loop {
            let permit = Arc::clone(&self.replays).acquire_owned().await;
            let (webhooks, wanted) = (Arc::clone(self), request.clone());
            let reading = tokio::task::spawn_blocking(move || {
                let page = webhooks.next(&mut reader, &wanted);
                (reader, page)
            });
            let page;
            (reader, page) = reading.await.map_err(|error| error.to_string())?;
            drop(permit);
            let Some(page) = page else {
                return Ok(());
            };
            for messages in page.chunks(step) {
                while endpoint.queue.len() >= AHEAD_MAX && goes_on() {
                    tokio::time::sleep(ROOM_EVERY).await;
                }
                tokio::time::sleep_until(next_step).await;
                if !goes_on() {
                    return Ok(());
                }
                let queued = endpoint.queue.enqueue(messages);
                queued.map_err(|error| error.to_string())?;
                request.queued += messages.len() as u64;
                let last = messages.last().map_or(Offset(0), |it| it.0);
                request.after = Some((self.broker.log_epoch(), last.0));
                let mut replay = endpoint.replay.lock();
                let is_it = |it: &&mut ReplayProgress| it.is_running && Some(it.run) == run;
                // Whoever has ended it meanwhile has removed what was kept: it is not to come back.
                let Some(progress) = replay.as_mut().filter(is_it) else {
                    return Ok(());
                };
                progress.request = request.clone();
                keep(endpoint, request);
                drop(replay);
                let pause = Duration::from_secs(messages.len() as u64) / rate;
                next_step = next_step.max(Instant::now() - pause) + pause;
            }
        }
    }
}

const TOO_MANY: WebhookError =
    WebhookError::Conflict("too many streams are being read through: try again in a moment");

fn keep(endpoint: &Endpoint, request: &StreamReplay) -> Ticket {
    endpoint.queue.keep(&[Change::Put {
        key: &replay_key(&endpoint.id),
        value: &to_json(request),
        expires_ms: None,
    }])
}
