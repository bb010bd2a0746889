//! `[access]`: who is let in, and what they may do.

use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Origin, ProblemKind};
use super::reader::Reader;
use super::template::Template;
use super::value::{Located, Member, Value};

/// Tokens count in seconds.
const TOKEN_EXPIRES_LEAST: Duration = Duration::from_secs(1);
/// Ten years.
const TOKEN_EXPIRES_MOST: Duration = Duration::from_secs(3650 * 24 * 3600);

/// `[access]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    pub allow_anonymous: bool,
    /// `None`: there are no users.
    pub password_file: Option<PathBuf>,
    /// How many passwords are verified at once.
    pub hash_threads: usize,
    /// The longest that a token may be good for.
    pub token_expires_max: Duration,
    /// How many one-time tickets can wait to be used.
    pub tickets_max: usize,
    pub rules: Vec<Rule>,
}

/// One `[[access.rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub subject: Subject,
    pub effect: Effect,
    /// Never empty.
    pub actions: Vec<Action>,
    /// Never empty.
    pub topics: Vec<Template>,
}

/// Whom a rule concerns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    User(String),
    /// Those who gave no user name.
    Anonymous,
    /// All who are let in, anonymous or not.
    Everyone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Allow,
    Deny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Publish,
    Subscribe,
    Receive,
}

const ACTIONS: [(&str, Action); 3] = [
    ("publish", Action::Publish),
    ("subscribe", Action::Subscribe),
    ("receive", Action::Receive),
];

impl AccessConfig {
    pub(super) fn read(r: &mut Reader) -> Self {
        let allow_anonymous = r.flag("access.allow_anonymous");
        let password_file = r.string(
            "access.password_file",
            "the path of a file, or \"\"",
            |text| (!text.contains('\0')).then(|| (!text.is_empty()).then(|| PathBuf::from(text))),
        );
        let hash_threads = r.integer("access.hash_threads", 1..=256);
        let token_expires_max = r.duration(
            "access.token_expires_max",
            TOKEN_EXPIRES_LEAST..=TOKEN_EXPIRES_MOST,
        );
        let tickets_max = r.integer("access.tickets_max", 1..=10_000_000);
        let mut rules = Vec::new();
        for (at, members) in r.tables("access.rule") {
            let named_at = members
                .iter()
                .find(|member| member.key == "user")
                .map(|member| member.value.at.clone());
            let Some(rule) = read_rule(r, &at, members) else {
                continue;
            };
            if let (Subject::User(name), None) = (&rule.subject, &password_file) {
                let why = format!(
                    "a rule for {name:?}, but there are no users: access.password_file is empty"
                );
                r.conflict(named_at.unwrap_or(at), "access.rule.user", why);
            }
            rules.push(rule);
        }
        AccessConfig {
            allow_anonymous,
            password_file,
            hash_threads,
            token_expires_max,
            tickets_max,
            rules,
        }
    }

    /// Whether those who give no user name are let in. Without a password file nobody else
    /// could be; then the listeners are on loopback, or `allow_anonymous` was written.
    pub fn anonymous_allowed(&self) -> bool {
        self.allow_anonymous || self.password_file.is_none()
    }

    /// Whether everybody may do everything: there are neither users nor rules.
    pub fn unrestricted(&self) -> bool {
        self.password_file.is_none() && self.rules.is_empty()
    }

    pub(super) fn warnings(&self, warnings: &mut Vec<String>) {
        if self.password_file.is_some() && self.rules.is_empty() {
            warnings.push(
                "access.password_file is set, but there is no [[access.rule]]: \
                 users can connect, and may neither publish nor subscribe"
                    .to_owned(),
            );
        }
        if !self.anonymous_allowed()
            && self
                .rules
                .iter()
                .any(|rule| rule.subject == Subject::Anonymous)
        {
            warnings.push(
                "there is a rule for anonymous clients, but none are let in: access.allow_anonymous is false".to_owned(),
            );
        }
    }
}

/// Reads one rule, noting all that is wrong with it.
fn read_rule(r: &mut Reader, at: &Origin, members: Vec<Member>) -> Option<Rule> {
    const KEYS: [&str; 4] = ["user", "allow", "deny", "topics"];
    let mut named = r.members("access.rule", &KEYS, members);
    let missing = |r: &mut Reader, key: &str, found: &str, expected: &str| {
        let kind = ProblemKind::Value {
            found: found.to_owned(),
            expected: expected.to_owned(),
        };
        r.problem(at.clone(), key, kind);
    };

    const USER: &str = "a user's name, \"anonymous\", or \"*\" for everyone";
    let subject = named
        .remove("user")
        .map(|member| read_subject(r, &member.value, USER));
    if subject.is_none() {
        missing(r, "access.rule.user", "a rule without it", USER);
    }

    const ACTION: &str = "\"publish\", \"subscribe\" or \"receive\", or an array of them";
    let (effect, actions) = match (named.remove("allow"), named.remove("deny")) {
        (Some(allow), None) => (
            Effect::Allow,
            r.strings("access.rule", &allow, ACTION, parse_action),
        ),
        (None, Some(deny)) => (
            Effect::Deny,
            r.strings("access.rule", &deny, ACTION, parse_action),
        ),
        (Some(_), Some(deny)) => {
            let why = "a rule either allows or denies; write a second rule for the other";
            r.conflict(deny.key_at, "access.rule", why.to_owned());
            (Effect::Deny, None)
        }
        (None, None) => {
            missing(
                r,
                "access.rule",
                "a rule with neither allow nor deny",
                "one of them, such as allow = [\"publish\"]",
            );
            (Effect::Deny, None)
        }
    };

    const TOPICS: &str = "Topic Filters, such as [\"devices/%u/#\"]";
    let topics = match named.remove("topics") {
        Some(topics) => r.strings("access.rule", &topics, TOPICS, |text| {
            Template::parse(text).map_err(str::to_owned)
        }),
        None => {
            missing(r, "access.rule.topics", "a rule without it", TOPICS);
            None
        }
    };
    Some(Rule {
        subject: subject??,
        effect,
        actions: actions?,
        topics: topics?,
    })
}

fn read_subject(r: &mut Reader, value: &Located, expected: &str) -> Option<Subject> {
    match &value.value {
        Value::String(name) if name == "*" => Some(Subject::Everyone),
        Value::String(name) if name == "anonymous" => Some(Subject::Anonymous),
        Value::String(name) if !name.is_empty() => Some(Subject::User(name.clone())),
        other => {
            let kind = ProblemKind::Value {
                found: other.describe(),
                expected: expected.to_owned(),
            };
            r.problem(value.at.clone(), "access.rule.user", kind);
            None
        }
    }
}

fn parse_action(text: &str) -> Result<Action, String> {
    let action = ACTIONS.iter().find(|(name, _)| *name == text);
    action.map(|(_, action)| *action).ok_or_else(String::new)
}
