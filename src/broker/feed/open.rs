//! Where a reader begins.

use std::sync::Arc;

use super::reader::{Gap, Reader};
use super::{Feed, Kind};
use crate::access::Principal;
use crate::broker::Broker;
use crate::broker::clock::Millis;
use crate::store::{Offset, Ticket};
use tidings_protocol::sse::Since;
use tidings_protocol::topic::{self, Filter, TopicError};

/// A place in the log, as a client knows it: it means nothing in the log of another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub epoch: u64,
    pub offset: Offset,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With what is published from now on.
    Latest,
    /// With the oldest that is there.
    Earliest,
    /// With the first after this.
    After(Cursor),
    /// With the first that was published at this time, in Unix milliseconds, or later.
    Since(u64),
}

impl Start {
    /// What a client asked for at `now`.
    pub fn of(since: Since, now: Millis) -> Start {
        match since {
            Since::Cursor(at) => Start::After(Cursor {
                epoch: at.epoch,
                offset: Offset(at.offset),
            }),
            Since::Time(at_ms) => Start::Since(at_ms),
            Since::Ago(ago) => Start::Since(now.0.saturating_sub(ago.as_millis() as u64)),
            Since::Earliest => Start::Earliest,
            Since::Latest => Start::Latest,
        }
    }
}

/// A reader, opened.
pub struct OpenReader {
    pub reader: Reader,
    /// What is missing between where it wanted to begin and where it begins.
    pub gap: Option<Gap>,
    /// No cursor is to be given out before the store has this: it would mean nothing after a crash.
    pub ticket: Ticket,
}

/// Why there is no reader.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReaderError {
    #[error("no Topic Filter was given")]
    NoFilter,
    #[error("{filter:?} is not a Topic Filter: {error}")]
    InvalidFilter { filter: String, error: TopicError },
    #[error("{filter:?} is a Shared Subscription, which only a named session can have")]
    SharedFilter { filter: String },
    #[error("{filter:?} is how a session replays; here that is a filter and `since`")]
    ReplayFilter { filter: String },
    #[error("no right to subscribe to {filter:?}")]
    NotAuthorized { filter: String },
    #[error("there are too many different subscriptions already")]
    TooMany,
    #[error("the server is shutting down")]
    ShuttingDown,
}

impl Broker {
    /// The epoch of the log, which is part of every [`Cursor`].
    pub fn log_epoch(&self) -> u64 {
        self.feeds.epoch
    }

    /// Whether [`Broker::open_reader`] would open one, as far as that depends on who asks for what.
    ///
    /// # Errors
    /// When there is no filter, or one that is invalid or not allowed.
    pub fn check_reader(&self, principal: &Principal, filters: &[&str]) -> Result<(), ReaderError> {
        if filters.is_empty() {
            return Err(ReaderError::NoFilter);
        }
        for &filter in filters {
            let parsed = Filter::parse(filter, &self.topic_limits());
            let parsed = parsed.map_err(|error| ReaderError::InvalidFilter {
                filter: filter.to_owned(),
                error,
            })?;
            if parsed.share.is_some() {
                let filter = filter.to_owned();
                return Err(ReaderError::SharedFilter { filter });
            }
            if parsed.since.is_some() {
                let filter = filter.to_owned();
                return Err(ReaderError::ReplayFilter { filter });
            }
            if !principal.may_subscribe(filter) {
                let filter = filter.to_owned();
                return Err(ReaderError::NotAuthorized { filter });
            }
        }
        Ok(())
    }

    /// Opens a reader of what `filters` match. A stream that has all of them serves whoever wants
    /// what was before; everybody else, and who finds no such stream, gets their window.
    ///
    /// May wait for the disk if it begins at a time.
    ///
    /// # Errors
    /// When a filter is invalid or not allowed, and at the limit of windows.
    pub fn open_reader(
        &self,
        principal: &Principal,
        filters: &[&str],
        start: Start,
    ) -> Result<OpenReader, ReaderError> {
        let mut sorted: Vec<&str> = filters.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        self.check_reader(principal, &sorted)?;
        if self.is_stopping() {
            return Err(ReaderError::ShuttingDown);
        }
        if start != Start::Latest
            && let Some(stream) = self.feeds.stream_of(&sorted)
            && self.prefers_stream(&stream, &sorted, start)
        {
            let narrowed = narrowed(&stream, &sorted);
            let principal = Some(principal);
            return Ok(self.begin(stream, narrowed, principal, start, Ticket::default()));
        }
        let (window, ticket) = self.window(&sorted)?;
        Ok(self.begin(window, None, Some(principal), start, ticket))
    }

    /// Whether a stream has all that this filter matches.
    pub(in crate::broker) fn has_stream(&self, filter: &str) -> bool {
        self.feeds.stream_of(&[filter]).is_some()
    }

    /// Opens a reader for a session, which asks for its rights itself, of a stream that has all that
    /// this filter matches. None if there is no such stream.
    ///
    /// May wait for the disk if it begins at a time.
    pub(in crate::broker) fn open_stream(&self, filter: &str, start: Start) -> Option<OpenReader> {
        let filters = [filter];
        let stream = self.feeds.stream_of(&filters)?;
        let narrowed = narrowed(&stream, &filters);
        Some(self.begin(stream, narrowed, None, start, Ticket::default()))
    }

    /// Opens a reader of what `filters` match in a stream: in the one with this name, or without a
    /// name, in one that has all of it. None if there is no such stream.
    ///
    /// May wait for the disk if it begins at a time.
    pub fn open_named_stream(
        &self,
        name: Option<&str>,
        principal: &Principal,
        filters: &[&str],
        start: Start,
    ) -> Option<OpenReader> {
        let stream = match name {
            Some(name) => self.feeds.stream_named(name)?,
            None => self.feeds.stream_of(filters)?,
        };
        let narrowed = filters.iter().map(|&it| it.into()).collect();
        let ticket = Ticket::default();
        Some(self.begin(stream, Some(narrowed), Some(principal), start, ticket))
    }

    /// Whether a stream should serve a reader that a window could serve, too. One that leaves out
    /// QoS 0 does so only where the window does not reach back far enough.
    fn prefers_stream(&self, stream: &Feed, filters: &[&str], start: Start) -> bool {
        if stream.qos0 {
            return true;
        }
        let window = self.feeds.known_window(filters);
        let reaches = |window: Arc<Feed>| {
            let state = window.lock();
            match start {
                Start::After(cursor) => {
                    cursor.epoch == self.feeds.epoch && cursor.offset >= state.sequence.floor()
                }
                Start::Since(at_ms) => at_ms >= state.complete_since,
                Start::Earliest | Start::Latest => false,
            }
        };
        !window.is_some_and(reaches)
    }

    fn begin(
        &self,
        feed: Arc<Feed>,
        filters: Option<Box<[Arc<str>]>>,
        principal: Option<&Principal>,
        start: Start,
        ticket: Ticket,
    ) -> OpenReader {
        // Before looking where: what comes meanwhile is behind that place.
        let mut reader = Reader::new(Arc::clone(&feed), 0, Offset(0), filters, principal);
        let since = match start {
            Start::Since(at_ms) => Some(self.first_since(&feed, at_ms)),
            _ => None,
        };
        let state = feed.lock();
        let sequence = &state.sequence;
        let (first, end) = sequence.range();
        let oldest = sequence.place(first).map(|place| place.offset);
        let (at, is_whole) = match start {
            Start::Latest => (end, true),
            Start::Earliest => (first, true),
            Start::After(cursor) if cursor.epoch != self.feeds.epoch => (first, false),
            Start::After(cursor) if cursor.offset < sequence.floor() => (first, false),
            Start::After(cursor) => (sequence.after(cursor.offset), true),
            Start::Since(at_ms) => {
                let at = since.unwrap_or(first).max(first);
                (at, at_ms >= state.complete_since)
            }
        };
        let cursor = match at.checked_sub(1).and_then(|before| sequence.place(before)) {
            Some(place) => place.offset,
            None => sequence.floor(),
        };
        drop(state);
        let cursor = match start {
            Start::After(after) if is_whole => cursor.max(after.offset),
            _ => cursor,
        };
        let gap = Gap {
            oldest,
            lost: None,
            cursor,
        };
        reader.start_at(at, cursor);
        OpenReader {
            reader,
            gap: (!is_whole).then_some(gap),
            ticket,
        }
    }

    /// The index of the first message that was published at this time or later: by bisection, since
    /// the times of messages from before a restart are known to the disk alone.
    fn first_since(&self, feed: &Feed, at_ms: u64) -> u64 {
        let (mut low, mut high) = feed.lock().sequence.range();
        while low < high {
            let middle = low + (high - low) / 2;
            match self.time_of(feed, middle) {
                Some(time) if time >= at_ms => high = middle,
                // What is gone was before.
                Some(_) | None => low = middle + 1,
            }
        }
        low
    }

    /// When the message at an index was published; none if it is gone.
    pub(super) fn time_of(&self, feed: &Feed, index: u64) -> Option<u64> {
        let place = *feed.lock().sequence.place(index)?;
        if place.at_ms != 0 {
            return Some(place.at_ms);
        }
        let read = self.store.read(&[place.offset]).pop()?;
        match read {
            Ok(stored) => {
                let mut state = feed.lock();
                let at_ms = stored.published_ms;
                state.sequence.note_time(index, place.offset, at_ms);
                Some(at_ms)
            }
            Err(error) => {
                tracing::debug!(offset = %place.offset, %error, "a message cannot be read");
                None
            }
        }
    }
}

/// These filters, which are sorted, unless they are all that the feed has.
fn narrowed(feed: &Feed, filters: &[&str]) -> Option<Box<[Arc<str>]>> {
    let all = feed.filters.iter().map(|it| &**it);
    let same = all.eq(filters.iter().copied());
    (!same).then(|| filters.iter().map(|&it| it.into()).collect())
}

/// Whether a feed has everything that these filters match.
pub(super) fn has_all(feed: &Feed, filters: &[&str]) -> bool {
    let covered = |filter: &&str| feed.filters.iter().any(|it| topic::covers(it, filter));
    matches!(feed.kind, Kind::Stream(_)) && filters.iter().all(covered)
}
