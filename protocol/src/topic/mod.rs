//! Topic Names and Topic Filters (MQTT 5 §4.7, §4.8): their grammar, and what matches what.
//!
//! The functions here work on two strings at a time and keep no state. Finding the subscriptions
//! that match a name among very many is the broker's trie; these functions are what its tests
//! compare it with.

mod matching;

pub use matching::{covers, has_wildcard, matches};

/// How long and how deep a topic may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicLimits {
    /// Bytes of UTF-8; MQTT itself allows 65,535 [MQTT-4.7.3-3].
    pub bytes_max: usize,
    /// Levels, one more than there are `/`. A limit of the server's: 65,000 levels cost one packet
    /// to send and a tree of 65,000 nodes to store.
    pub levels_max: usize,
}

impl Default for TopicLimits {
    fn default() -> TopicLimits {
        TopicLimits {
            bytes_max: 65_535,
            levels_max: 128,
        }
    }
}

/// What is wrong with a Topic Name or Topic Filter.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TopicError {
    /// Not one character long [MQTT-4.7.3-1].
    Empty,
    /// Contains U+0000 [MQTT-4.7.3-2].
    NullCharacter,
    /// Longer than [`TopicLimits::bytes_max`].
    TooLong,
    /// More levels than [`TopicLimits::levels_max`].
    TooManyLevels,
    /// A Topic Name with `+` or `#` [MQTT-4.7.0-1].
    WildcardInName,
    /// A `#` that is not the whole last level [MQTT-4.7.1-1].
    MultiLevelWildcardMisplaced,
    /// A `+` that is not a whole level [MQTT-4.7.1-2].
    SingleLevelWildcardMisplaced,
    /// `$share/` without a ShareName of at least one character, or with a wildcard in it
    /// [MQTT-4.8.2-1] [MQTT-4.8.2-2].
    ShareNameInvalid,
    /// `$share/name` without a Topic Filter after it [MQTT-4.8.2-2].
    SharedFilterMissing,
    /// `$replay/` without a place to begin at, or without a Topic Filter after it.
    ReplayIncomplete,
    /// `$replay/` as the filter of a Shared Subscription, or the other way round, or of itself.
    ReplayNested,
}

impl TopicError {
    /// A sentence for the person who wrote the client.
    pub const fn as_str(self) -> &'static str {
        match self {
            TopicError::Empty => "a topic must have at least one character",
            TopicError::NullCharacter => "a topic must not contain the null character U+0000",
            TopicError::TooLong => "the topic is longer than this server allows",
            TopicError::TooManyLevels => "the topic has more levels than this server allows",
            TopicError::WildcardInName => "a Topic Name must not contain the wildcards + and #",
            TopicError::MultiLevelWildcardMisplaced => {
                "the wildcard # must be the whole last level of a Topic Filter"
            }
            TopicError::SingleLevelWildcardMisplaced => {
                "the wildcard + must be a whole level of a Topic Filter"
            }
            TopicError::ShareNameInvalid => {
                "$share/ must be followed by a name without / + #, a / and a Topic Filter"
            }
            TopicError::SharedFilterMissing => {
                "$share/name must be followed by a / and a Topic Filter"
            }
            TopicError::ReplayIncomplete => {
                "$replay/ must be followed by where to begin, a / and a Topic Filter, as in \
                 $replay/10m/orders/#"
            }
            TopicError::ReplayNested => {
                "$replay/ cannot be shared, nor stand in another $replay/: each client replays for \
                 itself"
            }
        }
    }
}

impl std::fmt::Display for TopicError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for TopicError {}

/// Judges a Topic Name, such as a PUBLISH carries.
pub fn name_is_valid(topic: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    check_size(topic, topic, limits)?;
    if has_wildcard(topic) {
        return Err(TopicError::WildcardInName);
    }
    Ok(())
}

/// A Topic Filter, taken apart if it is one of a Shared Subscription, or of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Filter<'a> {
    /// The ShareName of `$share/{ShareName}/{filter}`; `None` for an ordinary subscription.
    pub share: Option<&'a str>,
    /// Where to begin, of `$replay/{since}/{filter}`: what [`Since`](crate::sse::Since) reads. It is
    /// not judged here. `None` for a subscription to what comes.
    pub since: Option<&'a str>,
    /// What is matched against Topic Names.
    pub filter: &'a str,
}

impl<'a> Filter<'a> {
    /// Parses and judges what a SUBSCRIBE asks for.
    ///
    /// `bytes_max` bounds the whole string, `levels_max` the part that is matched.
    pub fn parse(text: &'a str, limits: &TopicLimits) -> Result<Filter<'a>, TopicError> {
        let plain = |filter| Filter {
            share: None,
            since: None,
            filter,
        };
        let parsed = if let Some(rest) = text.strip_prefix("$share/") {
            let (name, filter) = rest.split_once('/').unwrap_or((rest, ""));
            if name.is_empty() || has_wildcard(name) {
                return Err(TopicError::ShareNameInvalid);
            }
            if filter.is_empty() {
                return Err(TopicError::SharedFilterMissing);
            }
            if filter.starts_with(REPLAY) {
                return Err(TopicError::ReplayNested);
            }
            Filter {
                share: Some(name),
                ..plain(filter)
            }
        } else if let Some(rest) = text.strip_prefix(REPLAY) {
            let (since, filter) = rest.split_once('/').unwrap_or((rest, ""));
            if since.is_empty() || filter.is_empty() {
                return Err(TopicError::ReplayIncomplete);
            }
            if filter.starts_with(REPLAY) || filter.starts_with("$share/") {
                return Err(TopicError::ReplayNested);
            }
            Filter {
                since: Some(since),
                ..plain(filter)
            }
        } else {
            plain(text)
        };
        check_size(text, parsed.filter, limits)?;
        check_wildcards(parsed.filter)?;
        Ok(parsed)
    }
}

/// What the Topic Filter of a replay begins with. No topic does: those under `$` are the server's.
const REPLAY: &str = "$replay/";

/// What names and filters have in common: `levels` is the part whose levels count.
fn check_size(text: &str, levels: &str, limits: &TopicLimits) -> Result<(), TopicError> {
    if text.is_empty() {
        return Err(TopicError::Empty);
    }
    if text.len() > limits.bytes_max {
        return Err(TopicError::TooLong);
    }
    if text.as_bytes().contains(&0) {
        return Err(TopicError::NullCharacter);
    }
    if levels.bytes().filter(|&byte| byte == b'/').count() >= limits.levels_max {
        return Err(TopicError::TooManyLevels);
    }
    Ok(())
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        if level.contains('#') && (level != "#" || levels.peek().is_some()) {
            return Err(TopicError::MultiLevelWildcardMisplaced);
        }
        if level.contains('+') && level != "+" {
            return Err(TopicError::SingleLevelWildcardMisplaced);
        }
    }
    Ok(())
}
