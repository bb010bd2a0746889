//! What a client may do: its rules, with the names filled in.
//!
//! A deny always wins and what no rule allows is denied, so the order of rules has no
//! meaning. Filters are judged whole: see [`Rights::may_subscribe`].

use tidings_protocol::topic::{Filter, TopicLimits, covers, matches};

use super::overlap::overlaps;
use crate::config::{Action, Effect, Rule, Subject, Unfilled};

/// The rights of one client, or of all clients for which they come out the same.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    publish: Grants,
    subscribe: Grants,
    receive: Grants,
}

/// The filters that allow and deny one action.
#[derive(Debug, Default, PartialEq, Eq)]
struct Grants {
    /// Neither users nor rules exist: everything is allowed.
    everything: bool,
    /// A deny could not be expressed for this client, so everything is denied.
    nothing: bool,
    allow: Vec<Box<str>>,
    deny: Vec<Box<str>>,
}

impl Rights {
    /// All rights, for when there are neither users nor rules.
    pub fn everything() -> Self {
        let grants = || Grants {
            everything: true,
            ..Grants::default()
        };
        Rights {
            publish: grants(),
            subscribe: grants(),
            receive: grants(),
        }
    }

    /// The rights that rules give to a client; `user` is `None` for an anonymous one.
    pub fn of(rules: &[Rule], user: Option<&str>, client_id: &str) -> Self {
        let mut rights = Rights::default();
        for rule in rules.iter().filter(|rule| concerns(&rule.subject, user)) {
            for template in &rule.topics {
                let filter = template.fill(user, client_id);
                for action in &rule.actions {
                    rights.grants(*action).add(rule.effect, &filter);
                }
            }
        }
        rights
    }

    fn grants(&mut self, action: Action) -> &mut Grants {
        match action {
            Action::Publish => &mut self.publish,
            Action::Subscribe => &mut self.subscribe,
            Action::Receive => &mut self.receive,
        }
    }

    /// Topics that begin with `$` are the broker's own: nobody else publishes there.
    pub fn may_publish(&self, topic: &str) -> bool {
        !topic.starts_with('$') && self.publish.permits(topic)
    }

    /// Whether a SUBSCRIBE to the filter is granted, of a shared subscription to the part after
    /// the share name. It is if
    /// - one allowed filter covers all of it: to be granted more than one is allowed would
    ///   be a hole, to be granted less than one asked for a lie;
    /// - no denied filter has a topic in common with it, for the same reasons;
    /// - and something of it can be received: a subscription that can never deliver is
    ///   refused too. That the rights to receive cover less than the whole of it is no
    ///   hindrance; they are asked again for each message.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let any_size = TopicLimits {
            bytes_max: usize::MAX,
            levels_max: usize::MAX,
        };
        let Ok(Filter { filter, .. }) = Filter::parse(filter, &any_size) else {
            return false;
        };
        self.subscribe.permits_all_of(filter) && self.receive.permits_some_of(filter)
    }

    pub fn may_receive(&self, topic: &str) -> bool {
        self.receive.permits(topic)
    }

    /// Whether every topic may be received, those that begin with `$` included.
    pub fn may_receive_all(&self) -> bool {
        self.receive.everything
    }

    /// Whether every topic that the filter matches may be received.
    pub fn may_receive_all_of(&self, filter: &str) -> bool {
        self.receive.permits_all_of(filter)
    }
}

fn concerns(subject: &Subject, user: Option<&str>) -> bool {
    match subject {
        Subject::Everyone => true,
        Subject::Anonymous => user.is_none(),
        Subject::User(name) => user == Some(name),
    }
}

impl Grants {
    fn add(&mut self, effect: Effect, filter: &Result<String, Unfilled>) {
        let list = match effect {
            Effect::Allow => &mut self.allow,
            Effect::Deny => &mut self.deny,
        };
        match filter {
            Ok(filter) if list.iter().any(|listed| **listed == **filter) => {}
            Ok(filter) => list.push(filter.as_str().into()),
            // A client must not rid itself of a deny by the choice of its name.
            Err(Unfilled::Unsafe) if effect == Effect::Deny => self.nothing = true,
            Err(Unfilled::Unsafe | Unfilled::NoUser) => {}
        }
    }

    fn permits(&self, topic: &str) -> bool {
        self.everything
            || !self.nothing
                && self.allow.iter().any(|filter| matches(filter, topic))
                && !self.deny.iter().any(|filter| matches(filter, topic))
    }

    fn permits_all_of(&self, filter: &str) -> bool {
        self.everything
            || !self.nothing
                && self.allow.iter().any(|allowed| covers(allowed, filter))
                && !self.deny.iter().any(|denied| overlaps(denied, filter))
    }

    /// Whether there is something to permit: no single deny takes all of the filter, and no
    /// allow misses it. (Several denies that only together leave nothing are not seen through.)
    fn permits_some_of(&self, filter: &str) -> bool {
        self.everything
            || !self.nothing
                && !self.deny.iter().any(|denied| covers(denied, filter))
                && self.allow.iter().any(|allowed| {
                    // What is allowed and asked for may be denied as a whole, though neither is.
                    overlaps(allowed, filter)
                        && !self.deny.iter().any(|denied| covers(denied, allowed))
                })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::Template;

    /// Rules in a short form: "user allow|deny actions topics", actions of the letters p, s and r.
    fn rules(lines: &[&str]) -> Vec<Rule> {
        let rule = |line: &&str| {
            let [subject, effect, actions, topics] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("four words: {line}")
            };
            Rule {
                subject: match subject {
                    "*" => Subject::Everyone,
                    "anonymous" => Subject::Anonymous,
                    name => Subject::User(name.to_owned()),
                },
                effect: if effect == "allow" {
                    Effect::Allow
                } else {
                    Effect::Deny
                },
                actions: actions
                    .chars()
                    .map(|letter| match letter {
                        'p' => Action::Publish,
                        's' => Action::Subscribe,
                        _ => Action::Receive,
                    })
                    .collect(),
                topics: topics
                    .split(',')
                    .map(|topic| Template::parse(topic).unwrap())
                    .collect(),
            }
        };
        lines.iter().map(rule).collect()
    }

    #[test]
    fn a_deny_wins_wherever_it_stands_and_silence_denies() {
        for lines in [
            ["* allow p a/#", "* deny p a/secret"],
            ["* deny p a/secret", "* allow p a/#"],
        ] {
            let rights = Rights::of(&rules(&lines), None, "c");
            assert!(rights.may_publish("a/b"));
            assert!(!rights.may_publish("a/secret"));
            assert!(!rights.may_publish("b"));
            assert!(!rights.may_receive("a/b"), "another action");
        }
        assert_eq!(Rights::of(&[], Some("bob"), "c"), Rights::default());
        assert!(!Rights::default().may_publish("a"));
    }

    #[test]
    fn rules_concern_whom_they_name() {
        let rules = rules(&[
            "bob allow p bob",
            "anonymous allow p anonymous",
            "* allow p all",
            "* deny p none",
        ]);
        let check = |user, topics: &[&str]| {
            let rights = Rights::of(&rules, user, "c");
            for topic in ["bob", "anonymous", "all", "none"] {
                assert_eq!(
                    rights.may_publish(topic),
                    topics.contains(&topic),
                    "{user:?} {topic}"
                );
            }
        };
        check(Some("bob"), &["bob", "all"]);
        check(Some("eve"), &["all"]);
        check(None, &["anonymous", "all"]);
        // Such users cannot exist, and would have no special rights if they did.
        check(Some("*"), &["all"]);
        check(Some("anonymous"), &["all"]);
    }

    #[test]
    fn a_name_smuggles_nothing_in_and_evades_nothing() {
        let rules = rules(&[
            "* allow psr users/%u/#,%c/#",
            "* deny p users/+/locked,%c/locked",
        ]);
        let of = |user, client_id| Rights::of(&rules, user, client_id);
        assert!(of(Some("bob"), "c1").may_publish("users/bob/x"));
        assert!(of(Some("bob"), "c1").may_publish("c1/x"));
        assert!(!of(Some("bob"), "c1").may_publish("c1/locked"));
        for hostile in ["#", "+", "a/b", "a\0b", "", "$SYS"] {
            for topic in [
                "users/eve/x",
                "users/x",
                "a/b/x",
                "eve/x",
                "$SYS/x",
                "users//x",
                "/x",
            ] {
                let (by_user, by_client) = (of(Some(hostile), "c"), of(Some("bob"), hostile));
                assert!(
                    !by_user.may_publish(topic) && !by_client.may_publish(topic),
                    "{hostile:?} {topic}"
                );
                assert!(!by_client.may_receive(topic), "{hostile:?} {topic}");
            }
            assert!(!of(Some("bob"), hostile).may_subscribe("#"));
            // It is locked out of "%c/locked" by being locked out of everything.
            assert!(!of(Some("bob"), hostile).may_publish("users/bob/x"));
            // Nothing is denied to receive, and what does not depend on the bad name is left.
            assert!(of(Some("bob"), hostile).may_receive("users/bob/x"));
        }
        // Filters with %u are not there for anonymous clients, either way.
        let anonymous = of(None, "c1");
        assert!(anonymous.may_publish("c1/x") && !anonymous.may_publish("users//x"));
    }

    #[test]
    fn subscriptions_are_granted_whole_or_not_at_all() {
        let check = |lines: &[&str], filter: &str, expected: bool| {
            let rights = Rights::of(&rules(lines), Some("bob"), "c");
            assert_eq!(rights.may_subscribe(filter), expected, "{lines:?} {filter}");
        };
        let plain = &["* allow sr a/#,b/+"];
        for filter in [
            "a",
            "a/#",
            "a/b/c",
            "a/+/c",
            "b/+",
            "b/x",
            "$share/g/a/#",
            "$share/g/b/x",
        ] {
            check(plain, filter, true);
        }
        for filter in [
            "#",
            "+/#",
            "b",
            "b/#",
            "+/x",
            "c",
            "$share/g/#",
            "$share/a/b",
            "$share/a",
            "$share//a",
            "a/#/b",
            "",
            "$SYS/#",
        ] {
            check(plain, filter, false);
        }
        check(&["* allow sr #"], "#", true);
        check(&["* allow sr #"], "$SYS/#", false);
        check(&["* allow sr $SYS/#"], "$SYS/broker/uptime", true);
        check(&["* allow sr $SYS/#"], "#", false);
        // Two halves do not cover a whole.
        check(&["* allow sr a/#", "* allow sr b/#"], "+/x", false);

        // A denied subscription takes with it all that reaches into it.
        let denied = &["* allow sr #", "* deny s secret/#"];
        for filter in ["#", "+/x", "secret", "secret/x", "+", "$share/g/#"] {
            check(denied, filter, false);
        }
        check(denied, "public/#", true);

        // A denied receipt does not, unless it takes everything.
        let withheld = &["* allow sr #", "* deny r secret/#"];
        for filter in ["#", "+/x", "public/#"] {
            check(withheld, filter, true);
        }
        for filter in ["secret/#", "secret/x", "secret", "$share/g/secret/+"] {
            check(withheld, filter, false);
        }
        // Nothing can be received at all, or nothing of it.
        check(&["* allow s #"], "a", false);
        check(&["* allow s #", "* allow r b"], "a", false);
        check(&["* allow s #", "* allow r b"], "+", true);
        check(
            &["* allow s #", "* allow r a/b", "* deny r a/b"],
            "a/+",
            false,
        );
    }

    #[test]
    fn the_fast_paths_mean_what_they_say() {
        assert!(Rights::everything().may_receive_all());
        assert!(Rights::everything().may_receive_all_of("$SYS/#"));
        let rights = Rights::of(&rules(&["* allow r #", "* deny r x/y"]), None, "c");
        assert!(!rights.may_receive_all());
        assert!(rights.may_receive_all_of("a/#"));
        assert!(!rights.may_receive_all_of("x/#") && !rights.may_receive_all_of("+/y"));
        assert!(
            !Rights::of(&rules(&["* allow r #"]), None, "c").may_receive_all(),
            "not $SYS"
        );
    }

    #[test]
    fn nobody_publishes_to_topics_of_the_broker() {
        for rights in [
            Rights::everything(),
            Rights::of(&rules(&["* allow p #,$SYS/#,$other"]), None, "c"),
        ] {
            assert!(!rights.may_publish("$SYS") && !rights.may_publish("$SYS/broker/uptime"));
            assert!(!rights.may_publish("$other") && rights.may_publish("a"));
        }
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$s"])
    }

    fn filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => level(), 1 => Just("+")];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(mut levels, multi)| {
            if multi {
                levels.pop();
                levels.push("#");
            }
            // The empty string is no filter; one slash is.
            let filter = levels.join("/");
            if filter.is_empty() {
                "/".to_owned()
            } else {
                filter
            }
        })
    }

    fn some_rules() -> impl Strategy<Value = Vec<Rule>> {
        let actions = prop::sample::subsequence(
            vec![Action::Publish, Action::Subscribe, Action::Receive],
            1..=3,
        );
        let rule = (
            any::<bool>(),
            actions,
            prop::collection::vec(filter(), 1..3),
        )
            .prop_map(|(allow, actions, topics)| Rule {
                subject: Subject::Everyone,
                effect: if allow { Effect::Allow } else { Effect::Deny },
                actions,
                topics: topics
                    .iter()
                    .map(|topic| Template::parse(topic).unwrap())
                    .collect(),
            });
        prop::collection::vec(rule, 0..5)
    }

    /// All Topic Names of up to four of the levels above, and one that no filter names.
    fn topics() -> Vec<String> {
        let levels = ["a", "b", "", "$s", "other"];
        let mut topics: Vec<String> = levels.iter().map(|level| level.to_string()).collect();
        let mut longer = topics.clone();
        for _ in 0..3 {
            longer = longer
                .iter()
                .flat_map(|topic| levels.map(|level| format!("{topic}/{level}")))
                .collect();
            topics.extend(longer.iter().cloned());
        }
        topics.retain(|topic| !topic.is_empty());
        topics
    }

    fn listed(rules: &[Rule], effect: Effect, action: Action, topic: &str) -> bool {
        let of_kind = rules
            .iter()
            .filter(|rule| rule.effect == effect && rule.actions.contains(&action));
        of_kind
            .flat_map(|rule| &rule.topics)
            .any(|filter| matches(&filter.to_string(), topic))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn overlaps_agrees_with_trying_all_topics(a in filter(), b in filter()) {
            let common = topics().iter().any(|topic| matches(&a, topic) && matches(&b, topic));
            prop_assert_eq!(overlaps(&a, &b), common);
            prop_assert_eq!(overlaps(&b, &a), common);
        }

        #[test]
        fn a_granted_subscription_reaches_no_further_than_the_rules(
            rules in some_rules(),
            filter in filter(),
        ) {
            reaches_no_further(&rules, &filter);
        }

        #[test]
        fn single_topics_are_judged_as_the_rules_say(rules in some_rules()) {
            judged_as_the_rules_say(&rules);
        }
    }

    /// No granted filter matches a topic that the subscribe rules do not allow, or deny.
    fn reaches_no_further(rules: &[Rule], filter: &str) {
        let rights = Rights::of(rules, None, "c");
        let reached = topics().into_iter().filter(|topic| matches(filter, topic));
        for topic in reached {
            if rights.may_subscribe(filter) {
                assert!(
                    listed(rules, Effect::Allow, Action::Subscribe, &topic),
                    "{topic}"
                );
                assert!(
                    !listed(rules, Effect::Deny, Action::Subscribe, &topic),
                    "{topic}"
                );
            }
            if rights.may_receive_all_of(filter) {
                assert!(rights.may_receive(&topic), "{topic}");
            }
        }
    }

    fn judged_as_the_rules_say(rules: &[Rule]) {
        let rights = Rights::of(rules, None, "c");
        for topic in topics() {
            let allowed = |action| {
                listed(rules, Effect::Allow, action, &topic)
                    && !listed(rules, Effect::Deny, action, &topic)
            };
            let publish = allowed(Action::Publish) && !topic.starts_with('$');
            assert_eq!(rights.may_publish(&topic), publish, "{topic}");
            assert_eq!(
                rights.may_receive(&topic),
                allowed(Action::Receive),
                "{topic}"
            );
            let both = allowed(Action::Subscribe) && allowed(Action::Receive);
            assert_eq!(rights.may_subscribe(&topic), both, "{topic}");
        }
    }
}
