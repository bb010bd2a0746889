//! Retained Messages: the last one of each topic, and their delivery to new subscriptions.
//!
//! They are kept in the order of their topics, so that a subscription's share is one stretch of
//! the map. A subscription may match millions of them, so delivery is a [`Replay`] that goes on
//! from where it stopped whenever the receiver has room: paced, but complete.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::RwLock;
use tidings_protocol::mqtt::QoS;
use tidings_protocol::topic;

use super::Broker;
use super::clock::Millis;
use super::message::Message;
use super::topics::Terms;

/// The Retained Messages of all topics.
#[derive(Default)]
pub struct Retained {
    table: RwLock<Table>,
}

#[derive(Default)]
struct Table {
    messages: BTreeMap<Topic, Arc<Message>>,
    /// How often a message was set.
    settings: u64,
    bytes: u64,
    /// Messages under `$`-topics, which the broker keeps itself.
    internal: usize,
}

/// Orders by topic, looked up by `str`, without a second copy of the topic.
type Topic = Arc<str>;

/// Retained Messages that a subscription is still to receive.
pub struct Replay {
    filter: Arc<str>,
    /// How the subscription receives.
    pub terms: Terms,
    /// No Local: the session's own messages are left out [MQTT-3.8.3-3].
    no_local: bool,
    /// Messages set later than this reach the subscription by themselves.
    until: u64,
    /// The last topic that was looked at.
    after: Option<Topic>,
    /// Where the step before began.
    before: Option<Topic>,
}

impl Replay {
    /// Whether this message is for the subscription of this session.
    pub fn wants(&self, message: &Message, session: u64) -> bool {
        message.retained_as.load(Ordering::Relaxed) <= self.until
            && !(self.no_local && message.publisher == session)
    }

    /// Goes on after `topic` next time, or from the start.
    pub fn go_back(&mut self, topic: Option<Topic>) {
        self.after = topic.or_else(|| self.before.take());
    }

    /// The filter whose messages these are.
    pub fn filter(&self) -> &Arc<str> {
        &self.filter
    }
}

/// How many topics [`Retained::next`] looks at while it holds the lock.
const LOOK_MAX: usize = 4096;

/// The part of `filter` before its first wildcard: every topic that matches begins with it, except
/// that `a/#` matches `a` too, so a separator at the end is left out.
fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        Some(at) => filter[..at].trim_end_matches('/'),
        None => filter,
    }
}

impl Retained {
    /// All messages that match `filter` and are there now, for a subscription that is being made.
    pub fn replay(&self, filter: Arc<str>, terms: Terms, no_local: bool) -> Replay {
        Replay {
            filter,
            terms,
            no_local,
            until: self.table.read().settings,
            after: None,
            before: None,
        }
    }

    /// How many messages there are, without those under `$`.
    pub fn count(&self) -> usize {
        let table = self.table.read();
        table.messages.len() - table.internal
    }

    /// Bytes they occupy, about, without those under `$`.
    pub fn bytes(&self) -> u64 {
        self.table.read().bytes
    }

    /// The message of one topic.
    pub fn get(&self, topic: &str) -> Option<Arc<Message>> {
        self.table.read().messages.get(topic).cloned()
    }

    /// Whether a message for `topic` of this size fits in the limits.
    pub fn has_room(&self, topic: &str, size: usize, count_max: usize, bytes_max: u64) -> bool {
        let table = self.table.read();
        match table.messages.get(topic) {
            Some(old) => table.bytes - old.size() as u64 + size as u64 <= bytes_max,
            None => {
                table.messages.len() - table.internal < count_max
                    && table.bytes + size as u64 <= bytes_max
            }
        }
    }

    /// Keeps a message as the one of its topic [MQTT-3.3.1-5].
    pub fn set(&self, message: Arc<Message>) {
        let mut table = self.table.write();
        table.settings += 1;
        message.retained_as.store(table.settings, Ordering::Relaxed);
        let internal = message.topic().starts_with('$');
        let size = |message: &Message| if internal { 0 } else { message.size() as u64 };
        let added = size(&message);
        let old = match table.messages.get_mut(message.topic()) {
            Some(kept) => Some(std::mem::replace(kept, message)),
            None => {
                let topic: Topic = message.topic().into();
                table.internal += usize::from(internal);
                table.messages.insert(topic, message)
            }
        };
        table.bytes += added;
        table.bytes -= old.map_or(0, |old| size(&old));
    }

    /// Forgets the message of a topic [MQTT-3.3.1-6]; false if there was none.
    pub fn clear(&self, topic: &str) -> bool {
        let mut table = self.table.write();
        let old = table.messages.remove(topic);
        if let Some(old) = &old {
            if topic.starts_with('$') {
                table.internal -= 1;
            } else {
                table.bytes -= old.size() as u64;
            }
        }
        old.is_some()
    }

    /// The next topics of a replay, at most `count`. The replay is over once the answer is false.
    ///
    /// Only topics are handed out: the message is looked up when it is delivered, so that a
    /// subscriber never receives an old one after a newer one.
    pub fn next(&self, replay: &mut Replay, count: usize, topics: &mut Vec<Topic>) -> bool {
        let table = self.table.read();
        if !topic::has_wildcard(&replay.filter) {
            if replay.after.is_none()
                && let Some((topic, _)) = table.messages.get_key_value(&*replay.filter)
            {
                topics.push(Arc::clone(topic));
            }
            return false;
        }
        let prefix = literal_prefix(&replay.filter);
        let from = match &replay.after {
            Some(after) => Bound::Excluded(&**after),
            None => Bound::Included(prefix),
        };
        replay.before = replay.after.clone();
        let mut looked = 0;
        let mut found = 0;
        for (topic, _) in table.messages.range::<str, _>((from, Bound::Unbounded)) {
            if !topic.starts_with(prefix) {
                return false;
            }
            looked += 1;
            if topic::matches(&replay.filter, topic) {
                topics.push(Arc::clone(topic));
                found += 1;
            }
            if found == count || looked == LOOK_MAX {
                replay.after = Some(Arc::clone(topic));
                return true;
            }
        }
        false
    }

    /// Messages that match `filter`, by topic, at most `count` after the topic `after`; and where to
    /// go on, unless that was all. There may be fewer although there are more.
    pub fn list(
        &self,
        filter: &str,
        after: Option<&str>,
        count: usize,
    ) -> (Vec<Arc<Message>>, Option<Topic>) {
        let prefix = literal_prefix(filter);
        let from = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let table = self.table.read();
        let mut found = Vec::new();
        let range = table.messages.range::<str, _>((from, Bound::Unbounded));
        for (looked, (topic, message)) in range.enumerate() {
            if !topic.starts_with(prefix) {
                break;
            }
            if topic::matches(filter, topic) {
                found.push(Arc::clone(message));
            }
            if found.len() == count || looked + 1 == LOOK_MAX {
                return (found, Some(Arc::clone(topic)));
            }
        }
        (found, None)
    }

    /// Finds messages whose Message Expiry Interval has run out, looking at no more than `count`
    /// topics after `after`. Answers where to go on, or nothing at the end.
    pub fn find_expired(
        &self,
        after: Option<&str>,
        count: usize,
        now: Millis,
        expired: &mut Vec<Topic>,
    ) -> Option<Topic> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let table = self.table.read();
        let mut range = table.messages.range::<str, _>((from, Bound::Unbounded));
        let mut last = None;
        for _ in 0..count {
            let (topic, message) = range.next()?;
            if message.is_expired(now) {
                expired.push(Arc::clone(topic));
            }
            last = Some(Arc::clone(topic));
        }
        last
    }
}

impl Broker {
    /// The Retained Message of a topic.
    pub fn retained(&self, topic: &str) -> Option<Arc<Message>> {
        let message = self.retained.get(topic)?;
        (!message.is_expired(self.clock.now())).then_some(message)
    }

    /// Retained Messages that match a Topic Filter, by topic: see [`Retained::list`].
    pub fn retained_list(
        &self,
        filter: &str,
        after: Option<&str>,
        count: usize,
    ) -> (Vec<Arc<Message>>, Option<Arc<str>>) {
        let (mut found, next) = self.retained.list(filter, after, count);
        let now = self.clock.now();
        found.retain(|message| !message.is_expired(now));
        (found, next)
    }

    /// How many Retained Messages there are.
    pub fn retained_count(&self) -> usize {
        self.retained.count()
    }
}

/// Whether a Retained Message goes out with this QoS.
pub fn effective_qos(message: &Message, terms: &Terms) -> QoS {
    message.qos.min(terms.qos)
}

#[cfg(test)]
mod tests {
    use tidings_protocol::mqtt::Properties;

    use super::super::message::MessageParts;
    use super::*;

    fn message(topic: &str) -> Arc<Message> {
        Arc::new(Message::new(
            &MessageParts {
                topic,
                properties: Properties::EMPTY,
                payload: b"x",
                shared_payload: None,
                qos: QoS::AtMostOnce,
                retain: true,
                publisher: 0,
                held_from_all: false,
                bell: None,
            },
            Millis(0),
        ))
    }

    fn all(retained: &Retained, filter: &str, step: usize) -> Vec<String> {
        let terms = Terms {
            qos: QoS::AtMostOnce,
            retain_as_published: false,
            through: None,
        };
        let mut replay = retained.replay(filter.into(), terms, false);
        let mut topics = Vec::new();
        while retained.next(&mut replay, step, &mut topics) {}
        topics.iter().map(|topic| topic.to_string()).collect()
    }

    #[test]
    fn a_replay_finds_exactly_what_matches_in_steps_of_any_size() {
        let topics = [
            "a", "a/", "a/b", "a/b/c", "a.b", "a-b/c", "a0", "b", "b/c", "$SYS/x", "/", "/a", "é/b",
        ];
        let retained = Retained::default();
        for topic in topics {
            retained.set(message(topic));
        }
        for filter in [
            "#",
            "a/#",
            "a",
            "+",
            "+/+",
            "a/+",
            "a/+/c",
            "+/b",
            "/#",
            "/+",
            "$SYS/#",
            "b/c",
            "é/#",
            "nothing/#",
        ] {
            let mut expected: Vec<&str> = topics
                .into_iter()
                .filter(|topic| topic::matches(filter, topic))
                .collect();
            expected.sort_unstable();
            for step in [1, 2, 100] {
                assert_eq!(all(&retained, filter, step), expected, "{filter}");
            }
        }
        assert_eq!(retained.count(), topics.len() - 1);
    }

    #[test]
    fn bytes_return_to_nothing() {
        let retained = Retained::default();
        retained.set(message("a"));
        retained.set(message("a"));
        retained.set(message("$SYS/b"));
        assert!(retained.clear("a"));
        assert!(!retained.clear("a"));
        assert!(retained.clear("$SYS/b"));
        assert_eq!((retained.count(), retained.bytes()), (0, 0));
    }
}
