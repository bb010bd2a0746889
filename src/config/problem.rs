//! What is wrong with a configuration, said so that the person who wrote it can mend it.

use std::fmt;
use std::sync::Arc;

/// Where a setting was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The defaults embedded in the binary.
    Default,
    /// A place in a file. Line and column count from 1, columns in characters.
    File {
        name: Arc<str>,
        line: usize,
        column: usize,
    },
    /// A file as a whole.
    WholeFile(Arc<str>),
    /// An environment variable, by its name.
    Environment(Arc<str>),
    /// A `--set` argument, by its key.
    Set(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Origin::WholeFile(name) => f.write_str(name),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Set(key) => write!(f, "--set {key}"),
        }
    }
}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub at: Origin,
    /// The dotted key concerned; empty where there is none, as in a file that cannot be read.
    pub key: String,
    pub kind: ProblemKind,
}

/// What kind of mistake it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// The file could not be read.
    Unreadable(String),
    /// The text is not TOML, or not of the form that its place wants.
    Syntax(String),
    /// No setting has this name. The nearest one that exists, spelled as in the same source.
    UnknownKey { nearest: Option<String> },
    /// The value has the wrong type or is out of range.
    Value { found: String, expected: String },
    /// Each setting is fine, but they do not go together.
    Conflict(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.at)?;
        if let ProblemKind::UnknownKey { nearest } = &self.kind {
            write!(f, "unknown setting {}", self.key)?;
            return match nearest {
                Some(nearest) => write!(f, "; did you mean {nearest}?"),
                None => Ok(()),
            };
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        match &self.kind {
            ProblemKind::Unreadable(why) => write!(f, "cannot be read: {why}"),
            ProblemKind::Syntax(why) | ProblemKind::Conflict(why) => f.write_str(why),
            ProblemKind::Value { found, expected } => {
                write!(f, "found {found}, expected {expected}")
            }
            ProblemKind::UnknownKey { .. } => Ok(()),
        }
    }
}

/// All that is wrong with a configuration, one problem a line when displayed, in the order
/// of the text. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `Ok(value)` if there are none.
    pub(crate) fn none_or<T>(mut problems: Vec<Problem>, value: T) -> Result<T, Problems> {
        if problems.is_empty() {
            return Ok(value);
        }
        // A stable sort: what was found at the same place stays in the order it was found.
        problems.sort_by(|a, b| a.at.cmp(&b.at));
        Err(Problems(problems))
    }

    pub(crate) fn one(at: Origin, key: &str, kind: ProblemKind) -> Problems {
        let key = key.to_owned();
        Problems(vec![Problem { at, key, kind }])
    }

    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The candidate most like `name`, if any is like it at all. A setting of the same name in
/// another section counts as nearest: to write it under the wrong heading is the usual slip.
pub(crate) fn nearest<'a>(
    name: &str,
    separator: char,
    candidates: impl Iterator<Item = &'a str> + Clone,
) -> Option<&'a str> {
    let leaf = |key: &'a str| key.split_once(separator).map(|(_, leaf)| leaf);
    if let Some((_, wanted)) = name.split_once(separator)
        && let Some(same) = candidates.clone().find(|key| leaf(key) == Some(wanted))
    {
        return Some(same);
    }
    candidates
        .map(|key| (edit_distance(name, key), key))
        .min()
        .filter(|(distance, key)| *distance <= (key.len() / 4).clamp(1, 3))
        .map(|(_, key)| key)
}

/// Insertions, deletions and substitutions that make `b` of `a` (Levenshtein).
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_setting_is_found_or_none_is_offered() {
        let keys = [
            "mqtt.listen",
            "mqtt.max_qos",
            "store.path",
            "access.allow_anonymous",
        ];
        let check = |name, expected: Option<&str>| {
            assert_eq!(nearest(name, '.', keys.into_iter()), expected, "{name}");
        };
        check("mqtt.lisen", Some("mqtt.listen"));
        check("mqtt.maxqos", Some("mqtt.max_qos"));
        check("mqtt.allow_anonymous", Some("access.allow_anonymous"));
        check("mqqt.listen", Some("mqtt.listen"));
        check("mqtt.websocket_port", None);
    }

    #[test]
    fn edit_distance_counts_edits() {
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", "abc"), 0);
        assert_eq!(edit_distance("kitten", "sitting"), 3);
    }
}
