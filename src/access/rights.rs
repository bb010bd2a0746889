//! What a client may do: its rules, with the names filled in.
//!
//! A deny always wins and what no rule allows is denied, so the order of rules has no
//! meaning. Filters are judged whole: see [`Rights::may_subscribe`].

use super::overlap::overlaps;
use super::topic::{covers, matches};
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

    /// `$SYS` is the broker's own: nobody publishes there.
    pub fn may_publish(&self, topic: &str) -> bool {
        let internal = topic == "$SYS" || topic.starts_with("$SYS/");
        !internal && self.publish.permits(topic)
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
        let filter = match filter.strip_prefix("$share/") {
            Some(shared) => match shared.split_once('/') {
                Some((_, filter)) => filter,
                None => return false,
            },
            None => filter,
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
