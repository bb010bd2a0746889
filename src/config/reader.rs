//! From values as written to settings as meant: layers, types, ranges, unknown keys.
//!
//! The reader is asked for every setting by its key. It looks at what each layer says,
//! notes what is wrong with it, and answers with the topmost value that is good. Whatever
//! nobody has asked for in the end is unknown.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::problem::{Origin, Problem, ProblemKind, nearest};
use super::units::{parse_duration, parse_integer, parse_size, show_duration, show_size};
use super::value::{Located, Member, Value, parse_value};

const ENVIRONMENT_PREFIX: &str = "TIDINGS_";

pub(crate) struct Reader {
    /// By dotted key, lowest layer first.
    entries: BTreeMap<String, Vec<Entry>>,
    known: Vec<&'static str>,
    /// The sections that there are: those of the defaults.
    sections: Vec<String>,
    problems: Vec<Problem>,
}

struct Entry {
    key_at: Origin,
    value: Located,
}

impl Reader {
    /// Starts with the lowest layer, which must hold every setting that has a default.
    pub fn new(defaults: Vec<Member>) -> Self {
        let mut reader = Reader {
            entries: BTreeMap::new(),
            known: Vec::new(),
            sections: defaults.iter().map(|section| section.key.clone()).collect(),
            problems: Vec::new(),
        };
        reader.document(defaults);
        reader
    }

    /// Adds a document: sections, each with its settings.
    pub fn document(&mut self, sections: Vec<Member>) {
        for section in sections {
            match section.value.value {
                Value::Table(settings) if self.sections.contains(&section.key) => {
                    for setting in settings {
                        let key = format!("{}.{}", section.key, setting.key);
                        self.add(key, setting.key_at, setting.value);
                    }
                }
                // A section that does not exist, or a value outside of every section. `finish`
                // tells them apart.
                _ => self.add(section.key, section.key_at, section.value),
            }
        }
    }

    /// Adds those variables that begin with `TIDINGS_`. The names are matched with the
    /// settings at the end, when those are known.
    pub fn environment(&mut self, name: &str, value: Option<&str>) {
        if !name.starts_with(ENVIRONMENT_PREFIX) {
            return;
        }
        let at = Origin::Environment(name.into());
        match value {
            Some(value) => self.add(name.to_owned(), at.clone(), text(at, value)),
            None => self.problem(
                at,
                "",
                ProblemKind::Syntax("the value is not UTF-8".to_owned()),
            ),
        }
    }

    /// Adds a `key=value` of the command line.
    pub fn set(&mut self, argument: &str) {
        let Some((key, value)) = argument.split_once('=') else {
            let kind = ProblemKind::Value {
                found: format!("{argument:?}"),
                expected: "section.key=value, such as mqtt.listen=127.0.0.1:1883".to_owned(),
            };
            return self.problem(Origin::Set(argument.into()), "", kind);
        };
        let at = Origin::Set(key.trim().into());
        self.add(key.trim().to_owned(), at.clone(), text(at, value));
    }

    pub fn problem(&mut self, at: Origin, key: &str, kind: ProblemKind) {
        let key = key.to_owned();
        self.problems.push(Problem { at, key, kind });
    }

    /// Notes that `key`'s value, good by itself, does not go with others.
    pub fn conflict(&mut self, at: Origin, key: &str, why: String) {
        self.problem(at, key, ProblemKind::Conflict(why));
    }

    /// Where the topmost value of `key` stands.
    pub fn origin(&self, key: &str) -> Origin {
        let entries = self.entries_of(key);
        entries
            .last()
            .map_or(Origin::Default, |entry| entry.value.at.clone())
    }

    /// All problems: those met so far, and the settings that nobody asked for.
    pub fn finish(mut self) -> Vec<Problem> {
        let known = std::mem::take(&mut self.known);
        let environment: Vec<String> = known.iter().map(|key| environment_name(key)).collect();
        for (key, entries) in &self.entries {
            if known.contains(&key.as_str()) || environment.contains(key) {
                continue;
            }
            for Entry { key_at, value } in entries {
                let nearest = match key_at {
                    Origin::Environment(_) => {
                        nearest(key, '\0', environment.iter().map(String::as_str))
                    }
                    _ if key.contains('.') => nearest(key, '.', known.iter().copied()),
                    _ => nearest(key, '\0', self.sections.iter().map(String::as_str)),
                };
                let kind = match nearest {
                    // Only a file has sections, and only there can one be mistaken for a setting.
                    Some(section) if section == key && matches!(key_at, Origin::File { .. }) => {
                        let found = value.value.describe();
                        let expected = format!("a section: [{key}]");
                        ProblemKind::Value { found, expected }
                    }
                    nearest => ProblemKind::UnknownKey {
                        nearest: nearest.filter(|nearest| nearest != key).map(str::to_owned),
                    },
                };
                let problem = Problem {
                    at: key_at.clone(),
                    key: key.clone(),
                    kind,
                };
                self.problems.push(problem);
            }
        }
        self.problems
    }

    // The types of settings.

    pub fn flag(&mut self, key: &'static str) -> bool {
        self.setting(key, "true or false", |value| match value {
            Value::Boolean(value) => Some(*value),
            Value::Text(text) => text.trim().parse().ok(),
            _ => None,
        })
    }

    pub fn integer<T: TryFrom<u64>>(&mut self, key: &'static str, range: RangeInclusive<u64>) -> T {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.setting(key, &expected, |value| match value {
            Value::Integer(text) => within(parse_integer(text)?, &range)?.try_into().ok(),
            Value::Text(text) => within(parse_integer(text.trim())?, &range)?.try_into().ok(),
            _ => None,
        })
    }

    pub fn size<T: TryFrom<u64>>(&mut self, key: &'static str, range: RangeInclusive<u64>) -> T {
        let (least, most) = (show_size(*range.start()), show_size(*range.end()));
        let expected = format!("a size from {least} to {most}, such as \"16MiB\"");
        self.setting(key, &expected, |value| match value {
            Value::Integer(text) => within(parse_integer(text)?, &range)?.try_into().ok(),
            Value::String(text) => within(parse_size(text)?, &range)?.try_into().ok(),
            Value::Text(text) => within(parse_size(text.trim())?, &range)?.try_into().ok(),
            _ => None,
        })
    }

    pub fn duration(&mut self, key: &'static str, range: RangeInclusive<Duration>) -> Duration {
        self.duration_where(key, "", |duration| range.contains(&duration), &range)
    }

    /// A duration of which zero means that there is none.
    pub fn duration_or_off(
        &mut self,
        key: &'static str,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let good = |duration: Duration| duration.is_zero() || range.contains(&duration);
        Some(self.duration_where(key, "\"0s\" or ", good, &range))
            .filter(|duration| !duration.is_zero())
    }

    fn duration_where(
        &mut self,
        key: &'static str,
        or: &str,
        good: impl Fn(Duration) -> bool,
        range: &RangeInclusive<Duration>,
    ) -> Duration {
        let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
        let expected = format!("{or}a duration from {least} to {most}, such as \"10s\"");
        self.setting(key, &expected, |value| match value {
            Value::String(text) => parse_duration(text).filter(|duration| good(*duration)),
            Value::Text(text) => parse_duration(text.trim()).filter(|duration| good(*duration)),
            _ => None,
        })
    }

    /// A string for which `parse` has a meaning.
    pub fn string<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        self.setting(key, expected, |value| match value {
            Value::String(text) | Value::Text(text) => parse(text),
            _ => None,
        })
    }

    pub fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> T {
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        let (last, rest) = names
            .split_last()
            .expect("a choice has something to choose");
        let expected = format!("{} or {last}", rest.join(", "));
        self.string(key, &expected, |text| {
            choices
                .iter()
                .find(|(name, _)| *name == text)
                .map(|(_, choice)| *choice)
        })
    }

    /// A string or an array of strings; in the environment and `--set`, a list with commas.
    pub fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<(T, Origin)> {
        self.known(key);
        let mut problems = Vec::new();
        let mut list = Vec::new();
        for entry in self.entries_of(key) {
            let mut good = Vec::new();
            let before = problems.len();
            for item in items(&entry.value) {
                let parsed = match &item.value {
                    Value::String(text) | Value::Text(text) => parse(text),
                    _ => None,
                };
                match parsed {
                    Some(parsed) => good.push((parsed, item.at)),
                    None => problems.push(wrong(item.at, key, &item.value, expected)),
                }
            }
            if good.is_empty() && problems.len() == before {
                let kind = ProblemKind::Value {
                    found: "an empty list".to_owned(),
                    expected: expected.to_owned(),
                };
                let at = entry.value.at.clone();
                problems.push(Problem {
                    at,
                    key: key.to_owned(),
                    kind,
                });
            }
            if problems.len() == before {
                list = good;
            }
        }
        self.problems.append(&mut problems);
        list
    }

    /// The tables of an array of tables; of the topmost layer only, and none by default.
    pub fn tables(&mut self, key: &'static str) -> Vec<(Origin, Vec<Member>)> {
        self.known(key);
        let mut problems = Vec::new();
        let mut tables = Vec::new();
        for entry in self.entries_of(key) {
            tables.clear();
            let expected = format!("tables: [[{key}]]");
            let items = match &entry.value.value {
                Value::Array(items) => items.clone(),
                Value::Text(text) => match parse_value(text, &entry.value.at) {
                    Some(Value::Array(items)) => items,
                    _ => vec![entry.value.clone()],
                },
                _ => vec![entry.value.clone()],
            };
            for item in items {
                match item.value {
                    Value::Table(members) => tables.push((item.at, members)),
                    other => problems.push(wrong(item.at, key, &other, &expected)),
                }
            }
        }
        self.problems.append(&mut problems);
        tables
    }

    /// The members of one of [`Reader::tables`] that are among `keys`; the others are noted.
    pub fn members(
        &mut self,
        table: &str,
        keys: &[&str],
        members: Vec<Member>,
    ) -> BTreeMap<String, Member> {
        let mut named = BTreeMap::new();
        for member in members {
            if keys.contains(&member.key.as_str()) {
                named.insert(member.key.clone(), member);
            } else {
                let nearest = nearest(&member.key, '\0', keys.iter().copied()).map(str::to_owned);
                let key = format!("{table}.{}", member.key);
                self.problem(member.key_at, &key, ProblemKind::UnknownKey { nearest });
            }
        }
        named
    }

    /// A member of a table that is a string or an array of strings, at least one. `parse` may say what
    /// is wrong with one.
    pub fn strings<T>(
        &mut self,
        table: &str,
        member: &Member,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let key = format!("{table}.{}", member.key);
        let list = items(&member.value);
        let mut parsed = Vec::with_capacity(list.len());
        for item in &list {
            let result = match &item.value {
                Value::String(text) => parse(text),
                _ => Err(String::new()),
            };
            match result {
                Ok(good) => parsed.push(good),
                Err(why) => {
                    let found = item.value.describe();
                    let found = if why.is_empty() {
                        found
                    } else {
                        format!("{found} ({why})")
                    };
                    let kind = ProblemKind::Value {
                        found,
                        expected: expected.to_owned(),
                    };
                    self.problem(item.at.clone(), &key, kind);
                }
            }
        }
        if list.is_empty() {
            let kind = ProblemKind::Value {
                found: "an empty list".to_owned(),
                expected: expected.to_owned(),
            };
            self.problem(member.value.at.clone(), &key, kind);
        }
        (!parsed.is_empty() && parsed.len() == list.len()).then_some(parsed)
    }

    /// How many problems were noted so far.
    pub fn problem_count(&self) -> usize {
        self.problems.len()
    }

    fn setting<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> T {
        self.known(key);
        let mut effective = None;
        let mut problems = Vec::new();
        for Entry { value, .. } in self.entries_of(key) {
            match parse(&value.value) {
                Some(good) => effective = Some(good),
                None => problems.push(wrong(value.at.clone(), key, &value.value, expected)),
            }
        }
        self.problems.append(&mut problems);
        effective.expect("the embedded defaults hold a good value for every setting")
    }

    fn known(&mut self, key: &'static str) {
        debug_assert!(!self.known.contains(&key), "{key} is read twice");
        self.known.push(key);
    }

    fn add(&mut self, key: String, key_at: Origin, value: Located) {
        self.entries
            .entry(key)
            .or_default()
            .push(Entry { key_at, value });
    }

    /// All layers of a setting, lowest first: defaults, file, environment, `--set`.
    fn entries_of(&self, key: &str) -> Vec<&Entry> {
        let dotted = self.entries.get(key).into_iter().flatten();
        let environment = self
            .entries
            .get(&environment_name(key))
            .into_iter()
            .flatten();
        let mut entries: Vec<&Entry> = dotted.chain(environment).collect();
        entries.sort_by_key(|entry| match entry.key_at {
            Origin::Default => 0,
            Origin::File { .. } | Origin::WholeFile(_) => 1,
            Origin::Environment(_) => 2,
            Origin::Set(_) => 3,
        });
        entries
    }
}

/// `mqtt.listen` is `TIDINGS_MQTT_LISTEN` in the environment.
fn environment_name(key: &str) -> String {
    format!(
        "{ENVIRONMENT_PREFIX}{}",
        key.replace('.', "_").to_ascii_uppercase()
    )
}

/// A value given as text; quotes around the whole of it, as in TOML, are allowed and taken off.
fn text(at: Origin, value: &str) -> Located {
    let unquoted = match value.trim().starts_with(['"', '\'']) {
        true => parse_value(value.trim(), &at),
        false => None,
    };
    let value = match unquoted {
        Some(Value::String(unquoted)) => unquoted,
        _ => value.to_owned(),
    };
    Located {
        at,
        value: Value::Text(value),
    }
}

pub(crate) fn wrong(at: Origin, key: &str, found: &Value, expected: &str) -> Problem {
    let kind = ProblemKind::Value {
        found: found.describe(),
        expected: expected.to_owned(),
    };
    Problem {
        at,
        key: key.to_owned(),
        kind,
    }
}

/// The items of a list: an array's, or one string; of text, an array in TOML or the parts between commas.
fn items(list: &Located) -> Vec<Located> {
    match &list.value {
        Value::Array(items) => items.clone(),
        Value::Text(text) => match parse_value(text, &list.at) {
            Some(Value::Array(items)) => items,
            _ => {
                let item = |part: &str| Located {
                    at: list.at.clone(),
                    value: Value::Text(part.trim().to_owned()),
                };
                text.split(',').map(item).collect()
            }
        },
        _ => vec![list.clone()],
    }
}

fn within<T: PartialOrd + Display>(number: T, range: &RangeInclusive<T>) -> Option<T> {
    range.contains(&number).then_some(number)
}
