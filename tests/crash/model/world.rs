//! What is common to all clients: the messages, the Retained Messages, and what is certainly on
//! disk.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use crate::harness::{Property, Publish};

/// A moment, counted in events.
pub type Moment = u64;

/// A message of a client, or a will.
#[derive(Clone, Debug)]
pub struct Message {
    pub publisher: String,
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    /// Bytes of its payload; 0 clears a Retained Message.
    pub size: usize,
    /// Whether it carries a User Property.
    pub marked: bool,
    /// When it was first on its way.
    pub sent_at: Moment,
    /// When the broker had taken it for certain: from here on it has to arrive.
    pub taken_at: Option<Moment>,
    /// It need not arrive, and never will have to: its publisher has given it up.
    pub closed: bool,
    /// How often it was sent to the broker.
    pub transmissions: u32,
    pub will: Option<Will>,
}

/// When a will may and when it has to be published.
#[derive(Clone, Copy, Debug, Default)]
pub struct Will {
    /// From when on it may.
    pub from: Option<Instant>,
    /// By when it has to be.
    pub until: Option<Instant>,
}

/// One setting of a Retained Message.
#[derive(Clone, Copy, Debug)]
struct Write {
    message: usize,
    /// None if it was cleared.
    value: Option<usize>,
    acknowledged: bool,
}

#[derive(Default)]
pub struct World {
    clock: Moment,
    /// What the broker had done at this moment, it had made durable.
    durable: Moment,
    /// The broker was killed, or all connections were cut: whoever loses his may.
    pub down: bool,
    pub messages: Vec<Message>,
    retained: BTreeMap<String, Vec<Write>>,
    /// Of messages to a Shared Subscription, who received them.
    shared: HashMap<usize, String>,
    /// When all members had their Shared Subscription.
    pub shared_since: Option<Moment>,
}

/// Topics of Shared Subscriptions begin with it.
pub const SHARED: &str = "s/";

impl World {
    /// The next moment.
    pub fn now(&mut self) -> Moment {
        self.clock += 1;
        self.clock
    }

    /// The broker answered, after a commit, to what it was sent at `sent_at`. Commits are in the
    /// order of events, so everything that it had done by then is durable, too.
    pub fn committed(&mut self, sent_at: Moment) {
        self.durable = self.durable.max(sent_at);
    }

    /// Whether what the broker had certainly done at `moment` is certainly durable.
    pub fn is_durable(&self, moment: Moment) -> bool {
        moment < self.durable
    }

    /// A new message, on its way for the first time.
    pub fn publish(&mut self, mut message: Message) -> usize {
        message.sent_at = self.now();
        self.messages.push(message);
        self.messages.len() - 1
    }

    /// The packet for a message; DUP and the Packet Identifier are the publisher's business.
    pub fn packet(&mut self, index: usize) -> Publish {
        let message = &mut self.messages[index];
        message.transmissions += 1;
        if message.retain {
            let write = Write {
                message: index,
                value: (message.size > 0).then_some(index),
                acknowledged: false,
            };
            let topic = message.topic.clone();
            self.retained.entry(topic).or_default().push(write);
        }
        let message = &self.messages[index];
        let mut publish = Publish::new(&message.topic, payload(index, message.size));
        publish.qos = message.qos;
        publish.retain = message.retain;
        if message.marked {
            let property = Property::user("index", &index.to_string());
            publish.properties.push(property);
        }
        publish
    }

    /// PUBACK or PUBREC came for it; `publisher_is_kept` says whether the publisher's session
    /// outlives its connection.
    pub fn acknowledged(&mut self, index: usize, publisher_is_kept: bool) {
        let now = self.now();
        let message = &mut self.messages[index];
        message.taken_at.get_or_insert(now);
        let sent_at = message.sent_at;
        if message.retain {
            let writes = self.retained.get_mut(&message.topic);
            let mut times = writes
                .into_iter()
                .flatten()
                .filter(|write| write.message == index);
            // With QoS 1 it took effect each time, with QoS 2 once: the first time for all we know.
            let write = match message.qos {
                2 => times.next(),
                _ => times.last(),
            };
            write.expect("it was sent").acknowledged = true;
        }
        // A message that all its receivers have acknowledged need not be kept; but a Retained
        // Message must be, and so must a Packet Identifier of QoS 2.
        if message.retain || (message.qos == 2 && publisher_is_kept) {
            self.committed(sent_at);
        }
    }

    /// The message that arrived, recognised by its payload, every byte of which is checked.
    pub fn recognise(&self, publish: &Publish) -> Result<usize, String> {
        let digits = publish.payload.split(|byte| *byte == b' ').next();
        let index = digits
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse::<usize>().ok());
        let found = index.and_then(|index| Some((index, self.messages.get(index)?)));
        let Some((index, message)) = found else {
            return Err(format!("a message that nobody sent: {publish:?}"));
        };
        if publish.topic != message.topic || publish.payload != payload(index, message.size) {
            return Err(format!(
                "message {index} came damaged, as {publish:?}; it was {message:?}"
            ));
        }
        if let Some(Property::UserProperty(_, value)) = publish
            .properties
            .iter()
            .find(|property| matches!(property, Property::UserProperty(..)))
            && *value != index.to_string()
        {
            return Err(format!("message {index} came with the mark {value}"));
        }
        Ok(index)
    }

    /// Whether everybody who must have it by now has to have it now; with `all`, whether it has to
    /// arrive some time.
    pub fn is_due(&self, index: usize, all: bool) -> bool {
        let message = &self.messages[index];
        match message.will {
            None => message.taken_at.is_some(),
            Some(will) => {
                message.taken_at.is_some()
                    && will
                        .until
                        .is_some_and(|until| all || until <= Instant::now())
            }
        }
    }

    /// What a new subscriber finds on the topics `r/...`: for each the last value that was
    /// acknowledged, or a later one.
    pub fn check_retained(&self, found: &BTreeMap<String, usize>) -> Result<(), String> {
        for (topic, value) in found {
            if !self.retained.contains_key(topic) {
                return Err(format!("{topic} has a value, {value}, but never got one"));
            }
        }
        for (topic, writes) in &self.retained {
            let last = writes.iter().rposition(|write| write.acknowledged);
            let mut right: Vec<Option<usize>> = writes[last.unwrap_or(0)..]
                .iter()
                .map(|write| write.value)
                .collect();
            if last.is_none() {
                right.push(None);
            }
            let value = found.get(topic).copied();
            if !right.contains(&value) {
                return Err(format!(
                    "retained on {topic}: {value:?}; right is the last value that was \
                     acknowledged, {:?}, or one that was sent after it: {right:?}",
                    right.first()
                ));
            }
        }
        Ok(())
    }

    /// A member of the Shared Subscription received a message.
    pub fn shared_received(&mut self, index: usize, member: &str) -> Result<(), String> {
        let message = &self.messages[index];
        match self.shared.insert(index, member.to_owned()) {
            Some(other) if other != member && message.qos == 2 => Err(format!(
                "message {index} to {} with QoS 2 came to {other}, and to {member} as well",
                message.topic
            )),
            _ => Ok(()),
        }
    }

    /// Messages to the Shared Subscription that no member received.
    pub fn shared_missing(&self) -> Vec<usize> {
        let Some(since) = self.shared_since else {
            return Vec::new();
        };
        (0..self.messages.len())
            .filter(|index| {
                let message = &self.messages[*index];
                message.topic.starts_with(SHARED)
                    && message.qos > 0
                    && message.sent_at > since
                    && message.taken_at.is_some()
                    && !self.shared.contains_key(index)
            })
            .collect()
    }
}

/// The payload of a message: its index, and letters up to its size.
pub fn payload(index: usize, size: usize) -> Vec<u8> {
    if size == 0 {
        return Vec::new();
    }
    let mut payload = format!("{index} ").into_bytes();
    let letter = b'a' + (index % 26) as u8;
    payload.resize(size.max(payload.len()), letter);
    payload
}
