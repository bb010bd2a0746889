//! Which messages are meant: by topic, time and status.

use tidings_protocol::topic;

use super::documents::DeadRecord;

/// Messages that fit all that is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A Topic Filter.
    pub topic: Option<String>,
    /// Of a dead letter, when the last attempt was made; of a message of a stream, when it was
    /// published. In Unix milliseconds, both ends included.
    pub since_ms: Option<u64>,
    pub until_ms: Option<u64>,
    /// The status of the last response; 0 for none at all.
    pub status: Option<u16>,
}

impl Selection {
    /// Whether a dead letter is meant.
    pub fn has(&self, letter: &DeadRecord) -> bool {
        self.has_message(&letter.topic, letter.last_ms)
            && self
                .status
                .is_none_or(|status| letter.status.unwrap_or(0) == status)
    }

    /// Whether a message is meant, of which no attempt was made.
    pub fn has_message(&self, topic: &str, at_ms: u64) -> bool {
        self.topic
            .as_deref()
            .is_none_or(|filter| topic::matches(filter, topic))
            && self.since_ms.is_none_or(|since_ms| at_ms >= since_ms)
            && self.until_ms.is_none_or(|until_ms| at_ms <= until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_given_has_to_fit() {
        let letter = |topic: &str, last_ms, status| DeadRecord {
            offset: 1,
            size: 1,
            qos: 1,
            retain: false,
            topic: topic.into(),
            attempts: 10,
            first_ms: 0,
            last_ms,
            status,
            error: "".into(),
        };
        let selection = Selection {
            topic: Some("a/+".to_owned()),
            since_ms: Some(10),
            until_ms: Some(20),
            status: Some(500),
        };
        for (topic, last_ms, status, expected) in [
            ("a/b", 10, Some(500), true),
            ("a/b", 20, Some(500), true),
            ("a", 15, Some(500), false),
            ("a/b", 9, Some(500), false),
            ("a/b", 21, Some(500), false),
            ("a/b", 15, Some(503), false),
            ("a/b", 15, None, false),
        ] {
            let letter = letter(topic, last_ms, status);
            assert_eq!(selection.has(&letter), expected, "{letter:?}");
            assert!(Selection::default().has(&letter));
        }
        let unanswered = Selection {
            status: Some(0),
            ..Selection::default()
        };
        assert!(unanswered.has(&letter("a", 1, None)));
        assert!(!unanswered.has(&letter("a", 1, Some(500))));
    }
}
