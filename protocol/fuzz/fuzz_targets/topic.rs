//! Any two strings as filters and names.
//!
//! `cargo +nightly fuzz run topic` from `protocol/`. What the grammar accepts must agree with a
//! model of matching, and a filter that covers another must match all that the other matches.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidings_protocol::topic::{Filter, TopicLimits, covers, has_wildcard, matches, name_is_valid};

/// The rules of MQTT 5 §4.7 over whole levels, from the back, which no other code here does.
fn model(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut filter: Vec<_> = filter.split('/').collect();
    let mut topic: Vec<_> = topic.split('/').collect();
    if filter.last() == Some(&"#") {
        filter.pop();
        if topic.len() < filter.len() {
            return false;
        }
        topic.truncate(filter.len());
    }
    filter.len() == topic.len()
        && filter
            .iter()
            .zip(&topic)
            .rev()
            .all(|(filter, topic)| *filter == "+" || filter == topic)
}

fuzz_target!(|input: (&str, &str, &str)| {
    let (wider, narrower, topic) = input;
    let limits = TopicLimits::default();
    let _ = (matches(wider, topic), covers(wider, topic));
    let filters = (
        Filter::parse(wider, &limits),
        Filter::parse(narrower, &limits),
    );
    if name_is_valid(topic, &limits).is_ok() {
        assert!(!topic.is_empty() && !has_wildcard(topic) && !topic.contains('\0'));
        assert!(matches(topic, topic));
        if let Ok(Filter { filter, .. }) = filters.0 {
            assert_eq!(matches(filter, topic), model(filter, topic));
            // A name covers itself, and a filter covers a name exactly if it matches it.
            assert_eq!(covers(filter, topic), matches(filter, topic));
        }
    }
    if let (Ok(wider), Ok(narrower)) = filters {
        let (wider, narrower) = (wider.filter, narrower.filter);
        assert!(covers(wider, wider));
        if covers(wider, narrower) && name_is_valid(topic, &limits).is_ok() {
            assert!(!matches(narrower, topic) || matches(wider, topic));
        }
    }
});
