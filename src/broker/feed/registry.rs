//! All feeds: made, found again after a restart, trimmed, taken away.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use tidings_protocol::mqtt::{QoS, RetainHandling, SubscriptionOptions};

use super::open::{ReaderError, has_all};
use super::sequence::Sequence;
use super::{Extra, Feed, Kind, Retention};
use crate::broker::Broker;
use crate::broker::clock::Millis;
use crate::broker::session::Session;
use crate::broker::topics::{Subscriber, Terms};
use crate::config::StreamConfig;
use crate::store::{List, Offset, Record, RecoveredSession, SeqRange, SessionView, Ticket};

/// What the record of a feed's session begins with. No Client Identifier does [MQTT-1.5.4-2].
const MARK: char = '\0';
const STREAM: &str = "\0stream:";
const WINDOW: &str = "\0window";

/// What windows keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowConfig {
    /// How long a message stays, and a window after its last reader left.
    pub age: Duration,
    /// Bytes of topics, properties and payloads in one window.
    pub bytes_max: u64,
    /// Windows at a time.
    pub count_max: usize,
}

/// One feed's figures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedSummary {
    /// The name of a stream; none of a window.
    pub stream: Option<Box<str>>,
    pub filters: Vec<Arc<str>>,
    pub messages: u64,
    pub bytes: u64,
    pub readers: usize,
}

#[derive(Clone)]
struct Entry {
    /// What the subscription table and the store take it for.
    session: Arc<Session>,
    feed: Arc<Feed>,
}

/// The feeds of a broker.
#[derive(Default)]
pub struct Feeds {
    /// The epoch of the log.
    pub(super) epoch: u64,
    config: OnceLock<WindowConfig>,
    streams: RwLock<Vec<Entry>>,
    /// By their filters.
    windows: Mutex<HashMap<Box<str>, Entry, RandomState>>,
    /// What the store had, until the feeds are started.
    found: Mutex<Vec<RecoveredSession>>,
}

impl Feeds {
    pub(in crate::broker) fn set_epoch(&mut self, epoch: u64) {
        self.epoch = epoch;
    }

    /// Keeps the record of a feed for later, and gives back that of a session.
    pub(in crate::broker) fn take(&self, recovered: RecoveredSession) -> Option<RecoveredSession> {
        if recovered.record.client_id.starts_with(MARK) {
            self.found.lock().push(recovered);
            return None;
        }
        Some(recovered)
    }

    /// Of the streams that have all that these filters match, the one that reaches back furthest.
    pub(super) fn stream_of(&self, filters: &[&str]) -> Option<Arc<Feed>> {
        let streams = self.streams.read();
        let streams = streams.iter().filter(|it| has_all(&it.feed, filters));
        let stream = streams.min_by_key(|it| it.feed.lock().sequence.floor())?;
        Some(Arc::clone(&stream.feed))
    }

    pub(super) fn stream_named(&self, name: &str) -> Option<Arc<Feed>> {
        let streams = self.streams.read();
        let is_it = |it: &&Entry| matches!(&it.feed.kind, Kind::Stream(its) if **its == *name);
        let stream = streams.iter().find(is_it)?;
        Some(Arc::clone(&stream.feed))
    }

    pub(super) fn known_window(&self, filters: &[&str]) -> Option<Arc<Feed>> {
        let windows = self.windows.lock();
        let window = windows.get(&*window_name(filters))?;
        Some(Arc::clone(&window.feed))
    }

    fn all(&self) -> Vec<Entry> {
        let mut all = self.streams.read().clone();
        all.extend(self.windows.lock().values().cloned());
        all
    }
}

fn window_name(filters: &[&str]) -> String {
    let mut name = WINDOW.to_owned();
    for filter in filters {
        name.push(MARK);
        name.push_str(filter);
    }
    name
}

/// How a feed subscribes, and whatever else keeps what it gets: to all there is, as it was published.
pub(in crate::broker) fn terms() -> Terms {
    Terms {
        qos: QoS::ExactlyOnce,
        retain_as_published: true,
        through: None,
    }
}

/// The same as the store keeps it.
pub(in crate::broker) fn options() -> u8 {
    SubscriptionOptions {
        qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: true,
        retain_handling: RetainHandling::DoNotSend,
    }
    .as_byte()
}

impl Broker {
    /// Goes on with the feeds that the store kept, and makes those that are configured. To be
    /// called once, before anybody can publish.
    pub fn start_feeds(&self, streams: &[StreamConfig], windows: WindowConfig) {
        if self.feeds.config.set(windows).is_err() {
            return;
        }
        for found in std::mem::take(&mut *self.feeds.found.lock()) {
            self.restore_feed(&found, streams);
        }
        for stream in streams {
            let known = |it: &Entry| it.feed.kind == Kind::Stream(stream.name.as_str().into());
            if !self.feeds.streams.read().iter().any(known) {
                let kind = Kind::Stream(stream.name.as_str().into());
                let filters = stream.filters.iter().map(|it| it.as_str().into()).collect();
                let (entry, _) = self.make_feed(kind, filters, stream.qos0, retention(stream));
                self.feeds.streams.write().push(entry);
            }
        }
    }

    /// The figures of all feeds.
    pub fn feeds(&self) -> Vec<FeedSummary> {
        let summary = |entry: Entry| {
            let state = entry.feed.lock();
            FeedSummary {
                stream: match &entry.feed.kind {
                    Kind::Stream(name) => Some(name.clone()),
                    Kind::Window => None,
                },
                filters: entry.feed.filters.to_vec(),
                messages: state.sequence.len() as u64,
                bytes: state.sequence.bytes(),
                readers: state.reader_count(),
            }
        };
        self.feeds.all().into_iter().map(summary).collect()
    }

    /// The window of these filters, which are sorted, and what has to be durable before a cursor
    /// of it means anything.
    pub(super) fn window(&self, filters: &[&str]) -> Result<(Arc<Feed>, Ticket), ReaderError> {
        let Some(config) = self.feeds.config.get() else {
            return Err(ReaderError::TooMany);
        };
        let mut windows = self.feeds.windows.lock();
        let name = window_name(filters);
        if let Some(known) = windows.get(&*name) {
            known.feed.lock().idle_since = None;
            // Another reader may have made it a moment ago.
            return Ok((Arc::clone(&known.feed), self.store.appended()));
        }
        if windows.len() >= config.count_max {
            return Err(ReaderError::TooMany);
        }
        let retention = Retention {
            age_ms: config.age.as_millis() as u64,
            bytes: config.bytes_max,
            messages: u64::from(u32::MAX),
        };
        let filters = filters.iter().map(|&it| it.into()).collect();
        let (entry, ticket) = self.make_feed(Kind::Window, filters, true, retention);
        let feed = Arc::clone(&entry.feed);
        windows.insert(name.into(), entry);
        Ok((feed, ticket))
    }

    fn make_feed(
        &self,
        kind: Kind,
        filters: Box<[Arc<str>]>,
        qos0: bool,
        retention: Retention,
    ) -> (Entry, Ticket) {
        let now = self.clock.advance();
        let number = self
            .next_session
            .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let floor = match self.store.append(&[Record::Clock { now_ms: now.0 }]) {
            Ok(appended) => Offset(appended.first_offset.0.saturating_sub(1)),
            Err(_) => Offset(0),
        };
        let feed = Feed::new(
            kind,
            filters,
            qos0,
            retention,
            Arc::clone(&self.store),
            Sequence::new(floor),
            now.0,
        );
        let session = Arc::new(Session::of_feed(number, Arc::clone(&feed)));
        let entry = Entry { session, feed };
        let mut ticket = self.keep_feed(&entry);
        for filter in &entry.feed.filters {
            ticket = self.keep(&[Record::Subscribe {
                session: number,
                filter,
                options: options(),
                subscription_id: None,
            }]);
        }
        self.subscribe_feed(&entry);
        (entry, ticket)
    }

    fn subscribe_feed(&self, entry: &Entry) {
        for filter in &entry.feed.filters {
            let subscriber = Subscriber {
                session: Arc::clone(&entry.session),
                terms: terms(),
                no_local: false,
            };
            self.table.subscribe(filter, subscriber, false);
        }
    }

    /// Keeps a feed's record as it is now.
    fn keep_feed(&self, entry: &Entry) -> Ticket {
        let Entry { session, feed } = entry;
        let (floor, complete_since) = {
            let state = feed.lock();
            (state.sequence.floor(), state.complete_since)
        };
        let extra = Extra {
            floor,
            complete_since,
            retention: feed.retention,
            qos0: feed.qos0,
        };
        let filters: Vec<&str> = feed.filters.iter().map(|it| &**it).collect();
        let name = match &feed.kind {
            Kind::Stream(name) => format!("{STREAM}{name}"),
            Kind::Window => window_name(&filters),
        };
        self.keep(&[Record::SessionPut {
            session: session.number(),
            record: SessionView {
                client_id: &name,
                expiry_interval_secs: u32::MAX,
                extra: &extra.encode(),
                ..SessionView::default()
            },
        }])
    }

    fn restore_feed(&self, found: &RecoveredSession, streams: &[StreamConfig]) {
        let number = found.number;
        let Some(extra) = Extra::decode(&found.record.extra) else {
            tracing::error!(
                number,
                "the record of a stream is damaged; its messages are lost"
            );
            self.keep(&[Record::SessionRemove { session: number }]);
            return;
        };
        let name = &*found.record.client_id;
        let configured = |name: &str| streams.iter().find(|stream| stream.name == name);
        let mut filters: Vec<Arc<str>> = found
            .subscriptions
            .iter()
            .map(|it| (&*it.filter).into())
            .collect();
        let (mut retention, mut qos0) = (extra.retention, extra.qos0);
        let mut complete_since = extra.complete_since;
        let kind = match name.strip_prefix(STREAM) {
            None => Kind::Window,
            Some(name) => {
                let stream = configured(name);
                let wanted: Vec<Arc<str>> = stream
                    .iter()
                    .flat_map(|stream| &stream.filters)
                    .map(|it| it.as_str().into())
                    .collect();
                if wanted.iter().any(|it| !filters.contains(it)) {
                    // Of what it has not kept until now nobody knows what there was.
                    complete_since = self.clock.now().0 + 1;
                }
                self.change_filters(number, &filters, &wanted);
                filters = wanted;
                if let Some(stream) = stream {
                    (retention, qos0) = (self::retention(stream), stream.qos0);
                } else {
                    let messages = found.queue.entries.len();
                    tracing::warn!(
                        stream = name,
                        messages,
                        "a stream is not configured any more: it keeps what it has until that is too old"
                    );
                }
                Kind::Stream(name.into())
            }
        };
        let is_window = kind == Kind::Window;
        let mut sequence = Sequence::new(extra.floor);
        let places = found
            .queue
            .entries
            .iter()
            .map(|it| (it.seq, it.offset, it.size));
        sequence.restore(found.next_seq, places);
        let feed = Feed::new(
            kind,
            filters.into(),
            qos0,
            retention,
            Arc::clone(&self.store),
            sequence,
            complete_since,
        );
        let session = Arc::new(Session::of_feed(number, Arc::clone(&feed)));
        let entry = Entry { session, feed };
        if complete_since != extra.complete_since {
            self.keep_feed(&entry);
        }
        self.subscribe_feed(&entry);
        match is_window {
            true => {
                self.feeds.windows.lock().insert(name.into(), entry);
            }
            false => self.feeds.streams.write().push(entry),
        }
    }

    /// Keeps that a stream has other filters than before.
    fn change_filters(&self, session: u64, before: &[Arc<str>], wanted: &[Arc<str>]) {
        for filter in before.iter().filter(|it| !wanted.contains(it)) {
            self.keep(&[Record::Unsubscribe { session, filter }]);
        }
        for filter in wanted.iter().filter(|it| !before.contains(it)) {
            self.keep(&[Record::Subscribe {
                session,
                filter,
                options: options(),
                subscription_id: None,
            }]);
        }
    }

    /// Takes away what is too old, or too much. May wait for the disk: the times of messages from
    /// before a restart are known there alone. To be called every second or so.
    pub fn trim_feeds(&self) {
        let now = self.clock.now();
        for entry in self.feeds.all() {
            self.trim(&entry, now);
        }
        self.drop_idle(now);
    }

    fn trim(&self, entry: &Entry, now: Millis) {
        let feed = &entry.feed;
        let Retention {
            age_ms,
            bytes,
            messages,
        } = feed.retention;
        let oldest = now.0.saturating_sub(age_ms);
        let mut count = feed.lock().sequence.beyond(messages, bytes);
        // One after the other: mostly there is little to do, and no time is asked for twice.
        loop {
            let index = feed.lock().sequence.range().0 + count;
            match self.time_of(feed, index) {
                Some(at_ms) if at_ms < oldest => count += 1,
                Some(_) => break,
                None if feed.lock().sequence.place(index).is_some() => count += 1,
                None => break,
            }
        }
        if count == 0 {
            return;
        }
        let last = feed.lock().sequence.range().0 + count - 1;
        let at_ms = self.time_of(feed, last).unwrap_or(oldest);
        let mut seqs = {
            let mut state = feed.lock();
            state.complete_since = state.complete_since.max(at_ms + 1);
            state.sequence.trim(count)
        };
        seqs.sort_unstable();
        let ranges = SeqRange::all_of(&seqs);
        // The floor first: a crash between the two has a reader told of a gap that is none.
        self.keep_feed(entry);
        self.keep(&[Record::Done {
            session: entry.session.number(),
            ranges: List::from(&ranges[..]),
        }]);
    }

    /// Takes away windows that nobody came back to, and streams of old that are empty.
    fn drop_idle(&self, now: Millis) {
        let mut gone = Vec::new();
        self.feeds.windows.lock().retain(|_, entry| {
            let mut state = entry.feed.lock();
            if state.reader_count() > 0 {
                return true;
            }
            let idle_since = *state.idle_since.get_or_insert(now);
            let stays = now.since(idle_since) < entry.feed.retention.age_ms;
            drop(state);
            if !stays {
                gone.push(entry.clone());
                self.unsubscribe_feed(entry);
            }
            stays
        });
        self.feeds.streams.write().retain(|entry| {
            let is_old = entry.feed.filters.is_empty();
            let stays = !is_old || entry.feed.lock().sequence.len() > 0;
            if !stays {
                gone.push(entry.clone());
            }
            stays
        });
        for entry in gone {
            self.keep(&[Record::SessionRemove {
                session: entry.session.number(),
            }]);
        }
    }

    fn unsubscribe_feed(&self, entry: &Entry) {
        for filter in &entry.feed.filters {
            self.table.unsubscribe(filter, entry.session.number());
        }
    }
}

fn retention(stream: &StreamConfig) -> Retention {
    Retention {
        age_ms: stream.max_age.as_millis() as u64,
        bytes: stream.max_bytes,
        messages: stream.max_messages,
    }
}
