//! Values as they were written, each with its place.

use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Origin, Problem, ProblemKind};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Located {
    pub at: Origin,
    pub value: Value,
}

/// A value as written, before anyone has asked what it should be.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// From the environment or `--set`, where everything is text: the setting decides what it is.
    Text(String),
    String(String),
    Integer(String),
    Float(String),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Located>),
    Table(Vec<Member>),
}

/// A key of a table with its value; the key has a place of its own.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub key: String,
    pub key_at: Origin,
    pub value: Located,
}

impl Value {
    /// The value as an error message names it.
    pub fn describe(&self) -> String {
        match self {
            Value::Text(text) | Value::String(text) => format!("{text:?}"),
            Value::Integer(text) | Value::Float(text) | Value::Datetime(text) => text.clone(),
            Value::Boolean(value) => value.to_string(),
            Value::Array(_) => "an array".to_owned(),
            Value::Table(_) => "a table".to_owned(),
        }
    }
}

/// Reads the embedded defaults.
pub(crate) fn parse_defaults(text: &str) -> Vec<Member> {
    let table = DeTable::parse(text).expect("the embedded defaults are TOML");
    members(table.get_ref(), &|_| Origin::Default)
}

/// Reads TOML into members with places. What can be read of a text with mistakes is
/// returned too, so that the rest of its problems can be reported along with them.
pub(crate) fn parse_document(name: &str, text: &str, problems: &mut Vec<Problem>) -> Vec<Member> {
    let places = Places::new(name, text);
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = match error.span() {
            Some(span) => places.at(span.start),
            None => Origin::WholeFile(places.name.clone()),
        };
        let kind = ProblemKind::Syntax(error.message().to_owned());
        problems.push(Problem {
            at,
            key: String::new(),
            kind,
        });
    }
    members(table.get_ref(), &|offset| places.at(offset))
}

/// Reads a single TOML value, every part of which is said to stand at `at`.
pub(crate) fn parse_value(text: &str, at: &Origin) -> Option<Value> {
    let value = DeValue::parse(text).ok()?;
    Some(convert(&value, &|_| at.clone()).value)
}

fn members(table: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) -> Vec<Member> {
    let member = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| Member {
        key: AsRef::<str>::as_ref(key.get_ref() as &std::borrow::Cow<'_, str>).to_owned(),
        key_at: at(key.span().start),
        value: convert(value, at),
    };
    table.iter().map(member).collect()
}

fn convert(value: &Spanned<DeValue<'_>>, at: &dyn Fn(usize) -> Origin) -> Located {
    let here = at(value.span().start);
    let value = match value.get_ref() {
        DeValue::String(text) => Value::String(text.clone().into_owned()),
        DeValue::Integer(number) => Value::Integer(decimal(
            number.as_str(),
            number.radix(),
            &number.to_string(),
        )),
        DeValue::Float(number) => Value::Float(number.to_string()),
        DeValue::Boolean(value) => Value::Boolean(*value),
        DeValue::Datetime(value) => Value::Datetime(value.to_string()),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| convert(item, at)).collect()),
        DeValue::Table(table) => Value::Table(members(table, at)),
    };
    Located { at: here, value }
}

/// Decimal digits, as settings read them; an integer that does not fit is left as written,
/// and refused by whoever asks for it.
fn decimal(digits: &str, radix: u32, written: &str) -> String {
    match i64::from_str_radix(digits, radix) {
        Ok(number) => number.to_string(),
        Err(_) => written.to_owned(),
    }
}

/// Turns byte offsets into lines and columns.
struct Places<'a> {
    name: Arc<str>,
    text: &'a str,
    line_starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(name: &str, text: &'a str) -> Self {
        let after_newline = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let line_starts = std::iter::once(0)
            .chain(after_newline.map(|(i, _)| i + 1))
            .collect();
        Places {
            name: name.into(),
            text,
            line_starts,
        }
    }

    fn at(&self, offset: usize) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        let before = self.text.get(start..offset).unwrap_or_default();
        Origin::File {
            name: self.name.clone(),
            line,
            column: before.chars().count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_from_one() {
        let places = Places::new("f", "ab\n\nñé x\r\nlast");
        let check = |offset, line, column| {
            let name = "f".into();
            assert_eq!(
                places.at(offset),
                Origin::File { name, line, column },
                "offset {offset}"
            );
        };
        check(0, 1, 1);
        check(2, 1, 3);
        check(3, 2, 1);
        check(4, 3, 1);
        check(9, 3, 4);
        check(12, 4, 1);
        check(16, 4, 5);
    }

    #[test]
    fn all_syntax_errors_of_a_text_are_reported() {
        let mut problems = Vec::new();
        parse_document(
            "f",
            "[a]\nx = = 1\ny = 2\nz = \"open\n[b]\ny = 1 2\n",
            &mut problems,
        );
        let lines: Vec<usize> = problems
            .iter()
            .filter_map(|problem| match problem.at {
                Origin::File { line, .. } => Some(line),
                _ => None,
            })
            .collect();
        for line in [2, 4, 6] {
            assert!(lines.contains(&line), "{problems:#?}");
        }
    }
}
