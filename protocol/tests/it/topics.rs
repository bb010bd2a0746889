//! Topic Names and Topic Filters: grammar by example, matching against a model.

use proptest::prelude::*;
use tidings_protocol::topic::{
    Filter, TopicError, TopicLimits, covers, has_wildcard, matches, name_is_valid,
};

#[test]
fn names() {
    let long = "x".repeat(65_536);
    let deep = "/".repeat(127);
    let deeper = "/".repeat(128);
    for (name, expected) in [
        ("a", Ok(())),
        ("/", Ok(())),
        ("a//b", Ok(())),
        ("$SYS/broker", Ok(())),
        ("ä/漢字/🦀 b", Ok(())),
        (&long[1..], Ok(())),
        (&deep, Ok(())),
        ("", Err(TopicError::Empty)),
        ("a\0b", Err(TopicError::NullCharacter)),
        ("a/#", Err(TopicError::WildcardInName)),
        ("a+", Err(TopicError::WildcardInName)),
        (&long, Err(TopicError::TooLong)),
        (&deeper, Err(TopicError::TooManyLevels)),
    ] {
        assert_eq!(
            name_is_valid(name, &TopicLimits::default()),
            expected,
            "{name:.20}"
        );
    }
    let limits = TopicLimits {
        bytes_max: 5,
        levels_max: 2,
    };
    assert_eq!(name_is_valid("a/bcd", &limits), Ok(()));
    assert_eq!(name_is_valid("a/bcde", &limits), Err(TopicError::TooLong));
    assert_eq!(
        name_is_valid("a/b/c", &limits),
        Err(TopicError::TooManyLevels)
    );
}

#[test]
fn filters() {
    use TopicError as E;
    let parts = |share, since, filter| {
        Ok(Filter {
            share,
            since,
            filter,
        })
    };
    let plain = |filter| parts(None, None, filter);
    let shared = |share, filter| parts(Some(share), None, filter);
    let replay = |since, filter| parts(None, Some(since), filter);
    let long = format!("$share/g/{}", "x".repeat(65_535 - 9));
    let too_long = format!("{long}x");
    let deep = format!("$share/g/{}", "/".repeat(127));
    let deeper = format!("{deep}/");
    for (text, expected) in [
        ("a", plain("a")),
        ("/", plain("/")),
        ("#", plain("#")),
        ("+", plain("+")),
        ("/#", plain("/#")),
        ("+/+/#", plain("+/+/#")),
        ("a/+/b", plain("a/+/b")),
        ("$SYS/#", plain("$SYS/#")),
        ("", Err(E::Empty)),
        ("a\0", Err(E::NullCharacter)),
        ("#/a", Err(E::MultiLevelWildcardMisplaced)),
        ("a/#/b", Err(E::MultiLevelWildcardMisplaced)),
        ("a#", Err(E::MultiLevelWildcardMisplaced)),
        ("a/#b", Err(E::MultiLevelWildcardMisplaced)),
        ("##", Err(E::MultiLevelWildcardMisplaced)),
        ("#/", Err(E::MultiLevelWildcardMisplaced)),
        ("+#", Err(E::MultiLevelWildcardMisplaced)),
        ("a+", Err(E::SingleLevelWildcardMisplaced)),
        ("+a/b", Err(E::SingleLevelWildcardMisplaced)),
        ("a/++", Err(E::SingleLevelWildcardMisplaced)),
        ("$share/g/a/b", shared("g", "a/b")),
        ("$share/g/#", shared("g", "#")),
        ("$share/g//a", shared("g", "/a")),
        ("$share/g/$share/h/a", shared("g", "$share/h/a")),
        ("$share/ä b/a", shared("ä b", "a")),
        // Without the slash it is a topic like any other that begins with $.
        ("$share", plain("$share")),
        ("$shared/g/a", plain("$shared/g/a")),
        ("$SHARE/g/a", plain("$SHARE/g/a")),
        ("$share/", Err(E::ShareNameInvalid)),
        ("$share//a", Err(E::ShareNameInvalid)),
        ("$share/+/a", Err(E::ShareNameInvalid)),
        ("$share/g#/a", Err(E::ShareNameInvalid)),
        ("$share/#", Err(E::ShareNameInvalid)),
        ("$share/g", Err(E::SharedFilterMissing)),
        ("$share/g/", Err(E::SharedFilterMissing)),
        ("$share/g/a#", Err(E::MultiLevelWildcardMisplaced)),
        ("$share/g\0/a", Err(E::NullCharacter)),
        ("$replay/10m/a/#", replay("10m", "a/#")),
        ("$replay/earliest//", replay("earliest", "/")),
        ("$replay/7.42/$SYS/#", replay("7.42", "$SYS/#")),
        // Where to begin is not matched with anything: what it may be is said elsewhere.
        (
            "$replay/2026-11-25T12:00:00+01:00/+",
            replay("2026-11-25T12:00:00+01:00", "+"),
        ),
        ("$replay", plain("$replay")),
        ("$replays/10m/a", plain("$replays/10m/a")),
        ("$replay/", Err(E::ReplayIncomplete)),
        ("$replay/10m", Err(E::ReplayIncomplete)),
        ("$replay/10m/", Err(E::ReplayIncomplete)),
        ("$replay//a", Err(E::ReplayIncomplete)),
        ("$replay/10m/a#", Err(E::MultiLevelWildcardMisplaced)),
        ("$replay/1\0/a", Err(E::NullCharacter)),
        ("$replay/10m/$share/g/a", Err(E::ReplayNested)),
        ("$replay/10m/$replay/10m/a", Err(E::ReplayNested)),
        ("$share/g/$replay/10m/a", Err(E::ReplayNested)),
        (&long, shared("g", &long[9..])),
        (&too_long, Err(E::TooLong)),
        (&deep, shared("g", &deep[9..])),
        (&deeper, Err(E::TooManyLevels)),
    ] {
        assert_eq!(
            Filter::parse(text, &TopicLimits::default()),
            expected,
            "{text:.30}"
        );
    }
    assert!(has_wildcard("a/+") && has_wildcard("#") && !has_wildcard("a/b"));
}

#[test]
fn errors_are_sentences() {
    let error = name_is_valid("", &TopicLimits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a topic must have at least one character"
    );
}

/// The examples of MQTT 5 §4.7, and what brokers got wrong.
#[test]
fn matching_by_example() {
    for (filter, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/ranking",
            true,
        ),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/#", "sport", true),
        ("sport/#", "sports", false),
        ("#", "a/b/c", true),
        ("#", "/", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("+/tennis/#", "sport/tennis", true),
        ("a/b", "a/b", true),
        ("a/b", "A/b", false),
        ("a/b", "a/b/", false),
        ("a/b/", "a/b", false),
        ("a//b", "a//b", true),
        ("a/+/b", "a//b", true),
        ("#", "$SYS/x", false),
        ("+/x", "$SYS/x", false),
        ("+/#", "$SYS", false),
        ("$SYS/#", "$SYS/x", true),
        ("$SYS/#", "$SYS", true),
        ("$SYS/+", "$SYS/x", true),
        ("a/#", "a/$b", true),
        ("a/+", "a/$b", true),
        ("ä/+", "ä/🦀", true),
        ("\u{e9}", "e\u{301}", false), // composed and decomposed: no normalization [MQTT-4.7.3-4]
    ] {
        assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
    }
}

/// A filter and a name of very many levels take no stack [CVE-2019-11779].
#[test]
fn matching_deep() {
    let slashes = "/".repeat(65_535);
    let pluses = format!("{}+", "+/".repeat(32_767));
    assert!(matches(&slashes, &slashes));
    assert!(matches(&pluses, &slashes[..32_767]));
    assert!(!matches(&pluses, &slashes));
    assert!(covers(&pluses, &slashes[..32_767]));
}

#[test]
fn covering_by_example() {
    for (wider, narrower, expected) in [
        ("#", "#", true),
        ("#", "a/+/b", true),
        ("#", "+/#", true),
        ("/+/#", "/#", true),
        ("+/+/#", "/#", true),
        ("a/+/#", "a/#", false),
        ("+/#", "#", true),
        ("+/#", "a", true),
        ("+/+/#", "#", false),
        ("+/+/#", "+/#", false),
        ("a/#", "a", true),
        ("a/#", "a/+/#", true),
        ("a/+/#", "a/#", false),
        ("a/+", "a/b", true),
        ("a/+", "a/+", true),
        ("a/+", "a/#", false),
        ("a/b", "a/+", false),
        ("a", "a/#", false),
        ("+", "a/b", false),
        ("+", "#", false),
        ("#", "$SYS/#", false),
        ("+/x", "$SYS/x", false),
        ("$SYS/#", "$SYS/+", true),
        ("a/+", "a/$b", true),
        ("", "a", false),
    ] {
        assert_eq!(covers(wider, narrower), expected, "{wider} {narrower}");
    }
}

/// The specification's rules as directly as they can be written, by recursion over levels.
fn model(filter: &[&str], topic: &[&str]) -> bool {
    match (filter, topic) {
        (["#"], _) => true,
        ([], []) => true,
        ([f, filter @ ..], [t, topic @ ..]) => (*f == "+" || f == t) && model(filter, topic),
        _ => false,
    }
}

fn model_matches(filter: &str, topic: &str) -> bool {
    let hidden = topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#'));
    let filter: Vec<_> = filter.split('/').collect();
    let topic: Vec<_> = topic.split('/').collect();
    !hidden && model(&filter, &topic)
}

/// Few different levels, so that matches are frequent.
fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["", "a", "b", "$a", "ä"]), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a character", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop::sample::select(vec!["", "a", "b", "$a", "ä", "+", "+", "+"]);
    (prop::collection::vec(level, 0..5), any::<bool>())
        .prop_map(|(mut levels, all)| {
            if all {
                levels.push("#");
            }
            levels.join("/")
        })
        .prop_filter("a filter has a character", |filter| !filter.is_empty())
}

/// Every topic of up to four levels from the alphabet of [`topic`].
fn all_topics() -> Vec<String> {
    let levels = ["", "a", "b", "$a", "ä"];
    let mut topics: Vec<String> = levels.iter().map(|&level| level.to_owned()).collect();
    let mut last = topics.clone();
    for _ in 1..5 {
        last = last
            .iter()
            .flat_map(|topic| levels.iter().map(move |level| format!("{topic}/{level}")))
            .collect();
        topics.extend(last.iter().cloned());
    }
    topics.retain(|topic| !topic.is_empty());
    topics
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn matching_agrees_with_the_model(filter in filter(), topic in topic()) {
        prop_assert_eq!(matches(&filter, &topic), model_matches(&filter, &topic));
    }

    #[test]
    fn arbitrary_strings_do_not_panic(one in "\\PC{0,20}", two in "[a+#/$]{0,12}") {
        let limits = TopicLimits::default();
        for (one, two) in [(&one, &two), (&two, &one), (&one, &one), (&two, &two)] {
            let _ = (matches(one, two), covers(one, two), name_is_valid(one, &limits));
            if let Ok(parsed) = Filter::parse(one, &limits) {
                let prefix = parsed.share.map_or(0, |share| "$share//".len() + share.len())
                    + parsed.since.map_or(0, |since| "$replay//".len() + since.len());
                prop_assert_eq!(parsed.filter, &one[prefix..]);
            }
        }
    }

    #[test]
    fn generated_filters_and_topics_are_valid(filter in filter(), topic in topic()) {
        let limits = TopicLimits::default();
        prop_assert_eq!(Filter::parse(&filter, &limits), Ok(Filter { share: None, since: None, filter: &filter }));
        prop_assert_eq!(name_is_valid(&topic, &limits), Ok(()));
        // A name is a filter that matches only itself.
        prop_assert!(matches(&topic, &topic) && covers(&topic, &topic));
    }
}

/// `covers` says exactly whether, among all topics of up to five levels, the one filter matches all
/// that the other matches. (The filters have up to five levels; what a `#` matches beyond that
/// begins with what it matches within.)
#[test]
fn covering_agrees_with_all_topics() {
    let topics = all_topics();
    let filters: Vec<String> = {
        let levels = ["", "a", "+", "$a"];
        let mut filters = vec![String::new()];
        let mut last: Vec<String> = levels.iter().map(|&level| level.to_owned()).collect();
        for _ in 0..3 {
            filters.extend(last.iter().cloned());
            filters.extend(last.iter().map(|filter| format!("{filter}/#")));
            last = last
                .iter()
                .flat_map(|filter| levels.iter().map(move |level| format!("{filter}/{level}")))
                .collect();
        }
        filters.push("#".to_owned());
        filters.retain(|filter| !filter.is_empty());
        filters
    };
    let matched: Vec<Vec<bool>> = filters
        .iter()
        .map(|filter| {
            topics
                .iter()
                .map(|topic| model_matches(filter, topic))
                .collect()
        })
        .collect();
    for (wider, by_wider) in filters.iter().zip(&matched) {
        for (narrower, by_narrower) in filters.iter().zip(&matched) {
            let expected = by_narrower
                .iter()
                .zip(by_wider)
                .all(|(narrower, wider)| !narrower | wider);
            assert_eq!(covers(wider, narrower), expected, "{wider} {narrower}");
        }
    }
}
