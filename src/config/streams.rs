//! `[[stream]]`: messages that are kept for replay.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use tidings_protocol::topic::Filter;

use super::problem::{Origin, ProblemKind};
use super::reader::Reader;
use super::template::UNLIMITED;
use super::units::{parse_duration, parse_integer, parse_size, show_duration, show_size};
use super::value::{Member, Value};

const KEYS: [&str; 6] = [
    "name",
    "filters",
    "qos0",
    "max_age",
    "max_bytes",
    "max_messages",
];

const NAME_MAX: usize = 64;
const AGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(100 * 365 * 24 * 3600);
const BYTES: RangeInclusive<u64> = 1024..=1 << 50;
/// What is kept takes 48 bytes of memory a message.
const MESSAGES: RangeInclusive<u64> = 1..=1_000_000_000;

/// One `[[stream]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Unlike that of every other stream.
    pub name: String,
    /// Never empty; plain Topic Filters.
    pub filters: Vec<String>,
    /// Whether messages of QoS 0 are kept too.
    pub qos0: bool,
    /// Older messages go.
    pub max_age: Duration,
    /// The oldest go when topics, properties and payloads are more bytes than this.
    pub max_bytes: u64,
    /// The oldest go when there are more messages than this.
    pub max_messages: u64,
}

impl StreamConfig {
    pub(super) fn read_all(r: &mut Reader) -> Vec<StreamConfig> {
        let mut streams: Vec<StreamConfig> = Vec::new();
        for (at, members) in r.tables("stream") {
            let Some(stream) = read_one(r, &at, members) else {
                continue;
            };
            if streams.iter().any(|other| other.name == stream.name) {
                let why = format!("there are two streams with the name {:?}", stream.name);
                r.conflict(at, "stream.name", why);
                continue;
            }
            streams.push(stream);
        }
        streams
    }
}

/// Reads the members of one table, each known key once.
struct Members<'r> {
    reader: &'r mut Reader,
    at: Origin,
    named: BTreeMap<String, Member>,
}

impl Members<'_> {
    fn wrong(&mut self, at: Origin, key: &str, found: String, expected: &str) {
        let expected = expected.to_owned();
        let key = format!("stream.{key}");
        self.reader
            .problem(at, &key, ProblemKind::Value { found, expected });
    }

    /// A member as `parse` understands it; `missing` if it is not there, `None` if that is wrong.
    fn take<T>(
        &mut self,
        key: &str,
        expected: &str,
        missing: Option<T>,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Option<T> {
        let Some(member) = self.named.remove(key) else {
            if missing.is_none() {
                let found = "a stream without it".to_owned();
                self.wrong(self.at.clone(), key, found, expected);
            }
            return missing;
        };
        let parsed = parse(&member.value.value);
        if parsed.is_none() {
            let found = member.value.value.describe();
            self.wrong(member.value.at, key, found, expected);
        }
        parsed
    }
}

fn read_one(r: &mut Reader, at: &Origin, members: Vec<Member>) -> Option<StreamConfig> {
    let problems = r.problem_count();
    let named = r.members("stream", &KEYS, members);
    let mut members = Members {
        reader: r,
        at: at.clone(),
        named,
    };
    let name = members.take(
        "name",
        "a name of up to 64 letters, digits, dots, dashes and underscores",
        None,
        |value| match value {
            Value::String(name) if is_name(name) => Some(name.clone()),
            _ => None,
        },
    );
    let filters = read_filters(&mut members);
    let qos0 = members.take("qos0", "true or false", Some(true), |value| match value {
        Value::Boolean(value) => Some(*value),
        _ => None,
    });
    let expected = format!(
        "a duration from {} to {}, such as \"7d\"",
        show_duration(*AGE.start()),
        show_duration(*AGE.end())
    );
    let week = Duration::from_secs(7 * 24 * 3600);
    let max_age = members.take("max_age", &expected, Some(week), |value| match value {
        Value::String(text) => parse_duration(text).filter(|age| AGE.contains(age)),
        _ => None,
    });
    let expected = format!(
        "a size from {} to {}, such as \"1GiB\"",
        show_size(*BYTES.start()),
        show_size(*BYTES.end())
    );
    let max_bytes = members.take("max_bytes", &expected, Some(1 << 30), |value| {
        let bytes = match value {
            Value::Integer(text) => parse_integer(text),
            Value::String(text) => parse_size(text),
            _ => None,
        };
        bytes.filter(|bytes| BYTES.contains(bytes))
    });
    let expected = format!(
        "a whole number from {} to {}",
        MESSAGES.start(),
        MESSAGES.end()
    );
    let max_messages = members.take("max_messages", &expected, Some(1_000_000), |value| {
        let Value::Integer(text) = value else {
            return None;
        };
        parse_integer(text).filter(|count| MESSAGES.contains(count))
    });
    if r.problem_count() > problems {
        return None;
    }
    Some(StreamConfig {
        name: name?,
        filters: filters?,
        qos0: qos0?,
        max_age: max_age?,
        max_bytes: max_bytes?,
        max_messages: max_messages?,
    })
}

fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=NAME_MAX).contains(&name.len()) && name.bytes().all(allowed)
}

fn read_filters(members: &mut Members<'_>) -> Option<Vec<String>> {
    const FILTERS: &str = "Topic Filters, such as [\"orders/#\"]";
    let Some(member) = members.named.remove("filters") else {
        let found = "a stream without it".to_owned();
        members.wrong(members.at.clone(), "filters", found, FILTERS);
        return None;
    };
    let mut filters = members.reader.strings("stream", &member, FILTERS, |text| {
        parse_filter(text).map(|()| text.to_owned())
    })?;
    filters.sort_unstable();
    filters.dedup();
    Some(filters)
}

fn parse_filter(text: &str) -> Result<(), String> {
    match Filter::parse(text, &UNLIMITED) {
        Ok(filter) if filter.share.is_some() => {
            Err("a stream cannot share a subscription".to_owned())
        }
        Ok(filter) if filter.since.is_some() => {
            Err("a stream is what is replayed: it names its topics without $replay".to_owned())
        }
        // What the broker tells of itself would fill it.
        Ok(filter) if filter.filter.starts_with('$') => {
            Err("topics under $ cannot be kept".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.as_str().to_owned()),
    }
}
