//! The fields of a JSON object, read one by one so that all that is wrong is told at once.

use serde_json::{Map, Value};

use crate::config::problem::nearest;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Its name, with the place in it where it has several: `topics[2]`, `headers.X-Shop`.
    pub field: String,
    /// A sentence that says how to mend it.
    pub detail: String,
}

/// Reads fields. One that is missing or null has its default.
pub(crate) struct Fields<'a> {
    object: &'a Map<String, Value>,
    pub errors: Vec<FieldError>,
}

impl<'a> Fields<'a> {
    pub fn of(object: &'a Map<String, Value>) -> Fields<'a> {
        Fields {
            object,
            errors: Vec::new(),
        }
    }

    pub fn error(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.errors.push(FieldError {
            field: field.into(),
            detail: detail.into(),
        });
    }

    /// Notes the fields that are not among `known`.
    pub fn refuse_unknown(&mut self, known: &[&str]) {
        let object = self.object;
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let detail = match nearest(key, '\0', known.iter().copied()) {
                Some(nearest) => format!("there is no such field; did you mean {nearest}?"),
                None => "there is no such field".to_owned(),
            };
            self.error(key, detail);
        }
    }

    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// A field as `parse` understands it.
    pub fn take<T>(
        &mut self,
        key: &str,
        default: T,
        parse: impl FnOnce(&'a Value) -> Result<T, String>,
    ) -> T {
        match self.get(key).map(parse) {
            None => default,
            Some(Ok(value)) => value,
            Some(Err(detail)) => {
                self.error(key, detail);
                default
            }
        }
    }

    /// A field of text, as `parse` understands it.
    pub fn text<T>(
        &mut self,
        key: &str,
        default: T,
        parse: impl FnOnce(&'a str) -> Result<T, String>,
    ) -> T {
        self.take(key, default, |value| match value.as_str() {
            Some(text) => parse(text),
            None => Err(format!("it is {}, and should be a string", kind(value))),
        })
    }

    pub fn flag(&mut self, key: &str, default: bool) -> bool {
        self.take(key, default, |value| {
            let is = || format!("it is {}, and should be true or false", kind(value));
            value.as_bool().ok_or_else(is)
        })
    }

    pub fn integer(&mut self, key: &str, default: u64, least: u64, most: u64) -> u64 {
        self.take(key, default, |value| {
            let number = value.as_u64().filter(|it| (least..=most).contains(it));
            number.ok_or_else(|| format!("it should be a whole number from {least} to {most}"))
        })
    }

    pub fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        let (_, default) = choices[0];
        self.text(key, default, |text| {
            let found = choices.iter().find(|(name, _)| *name == text);
            found.map(|(_, choice)| *choice).ok_or_else(|| {
                let names: Vec<String> = choices.iter().map(|(it, _)| format!("{it:?}")).collect();
                format!("{text:?} is none of {}", names.join(", "))
            })
        })
    }

    /// The strings of a field that is a list of them, with their places; one string is a list of
    /// one.
    pub fn strings(&mut self, key: &str) -> Option<Vec<&'a str>> {
        let value = self.get(key)?;
        if let Some(one) = value.as_str() {
            return Some(vec![one]);
        }
        let Some(list) = value.as_array() else {
            self.error(
                key,
                format!("it is {}, and should be a list of strings", kind(value)),
            );
            return None;
        };
        let mut strings = Vec::with_capacity(list.len());
        for (index, item) in list.iter().enumerate() {
            match item.as_str() {
                Some(text) => strings.push(text),
                None => self.error(
                    format!("{key}[{index}]"),
                    format!("it is {}, and should be a string", kind(item)),
                ),
            }
        }
        (strings.len() == list.len()).then_some(strings)
    }
}

/// What a value is, for a person.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
