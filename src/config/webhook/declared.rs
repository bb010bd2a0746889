//! `[[webhook]]`: endpoints that the configuration declares.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value as Json};
use tidings_protocol::webhook::Secret;

use super::definition::{DEFINITION_FIELDS, Definition, Policy};
use super::fields::FieldError;
use super::hidden::Hidden;
use super::section::WebhooksConfig;
use crate::config::problem::{Origin, ProblemKind};
use crate::config::reader::Reader;
use crate::config::template::UNLIMITED;
use crate::config::value::{Located, Member, Value};

/// Characters in the name of an endpoint.
pub const DECLARED_NAME_MAX: usize = 64;
/// What the identifiers begin with that the broker makes: no declared name does.
pub const GENERATED_PREFIX: &str = "wh_";

/// One `[[webhook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeclaredWebhook {
    /// Its identifier, unlike that of every other.
    pub name: String,
    pub definition: Definition,
    /// The secret that it signs with; without one, the broker makes one.
    pub secret: Option<Hidden>,
}

impl DeclaredWebhook {
    pub(in crate::config) fn read_all(
        r: &mut Reader,
        webhooks: &WebhooksConfig,
    ) -> Vec<DeclaredWebhook> {
        let mut declared: Vec<DeclaredWebhook> = Vec::new();
        for (at, members) in r.tables("webhook") {
            let Some(webhook) = read_one(r, &at, members, webhooks) else {
                continue;
            };
            if declared.iter().any(|other| other.name == webhook.name) {
                let why = format!("there are two webhooks with the name {:?}", webhook.name);
                r.conflict(at, "webhook.name", why);
                continue;
            }
            declared.push(webhook);
        }
        declared
    }
}

fn read_one(
    r: &mut Reader,
    at: &Origin,
    members: Vec<Member>,
    webhooks: &WebhooksConfig,
) -> Option<DeclaredWebhook> {
    let problems = r.problem_count();
    let mut keys = vec!["name", "secret", "user"];
    keys.extend(DEFINITION_FIELDS);
    let mut named = r.members("webhook", &keys, members);
    let name = take_text(r, at, &mut named, "name", true);
    let is_name = |name: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        (1..=DECLARED_NAME_MAX).contains(&name.len())
            && name.bytes().all(allowed)
            && !name.starts_with(GENERATED_PREFIX)
    };
    if let Some((name, at)) = name.as_ref().filter(|(name, _)| !is_name(name)) {
        let kind = ProblemKind::Value {
            found: format!("{name:?}"),
            expected: format!(
                "up to {DECLARED_NAME_MAX} letters, digits, dots, dashes and underscores, \
                 not beginning with {GENERATED_PREFIX}"
            ),
        };
        r.problem(at.clone(), "webhook.name", kind);
    }
    let user = take_text(r, at, &mut named, "user", false);
    let secret = take_text(r, at, &mut named, "secret", false);
    if let Some((secret, at)) = &secret
        && let Err(error) = secret.parse::<Secret>()
    {
        r.conflict(at.clone(), "webhook.secret", error.to_string());
    }
    let object: Map<String, Json> = named
        .iter()
        .map(|(key, member)| (key.clone(), to_json(&member.value)))
        .collect();
    let policy = Policy {
        allow_http: webhooks.allow_http,
        allow_networks: &webhooks.allow_networks,
        topic_limits: UNLIMITED,
    };
    let read = Definition::read(&object, &[], &policy);
    let definition = match read {
        Ok(definition) => definition,
        Err(errors) => {
            errors.into_iter().for_each(|it| note(r, at, &named, it));
            return None;
        }
    };
    if r.problem_count() > problems {
        return None;
    }
    Some(DeclaredWebhook {
        name: name?.0,
        definition: Definition {
            user: user.map(|(user, _)| user),
            ..definition
        },
        secret: secret.map(|(secret, _)| Hidden::new(secret)),
    })
}

/// Notes what is wrong with a field, at its place if it has one.
fn note(r: &mut Reader, at: &Origin, named: &BTreeMap<String, Member>, error: FieldError) {
    let name = error.field.split(['[', '.']).next().unwrap_or_default();
    let at = named.get(name).map_or(at, |member| &member.value.at);
    let key = format!("webhook.{}", error.field);
    r.conflict(at.clone(), &key, error.detail);
}

fn take_text(
    r: &mut Reader,
    at: &Origin,
    named: &mut BTreeMap<String, Member>,
    key: &str,
    is_needed: bool,
) -> Option<(String, Origin)> {
    let (found, at) = match named.remove(key).map(|member| member.value) {
        Some(Located {
            at,
            value: Value::String(text),
        }) => return Some((text, at)),
        Some(Located { at, value }) => (value.describe(), at),
        None if is_needed => ("a webhook without it".to_owned(), at.clone()),
        None => return None,
    };
    let kind = ProblemKind::Value {
        found,
        expected: "a string".to_owned(),
    };
    r.problem(at, &format!("webhook.{key}"), kind);
    None
}

/// A value as the API would get it.
fn to_json(value: &Located) -> Json {
    match &value.value {
        Value::Text(text) | Value::String(text) | Value::Datetime(text) => text.as_str().into(),
        Value::Integer(text) => text
            .parse::<i64>()
            .map_or_else(|_| text.as_str().into(), Json::from),
        Value::Float(text) => {
            let number = text.parse().ok().and_then(Number::from_f64);
            number.map_or_else(|| text.as_str().into(), Json::Number)
        }
        Value::Boolean(value) => (*value).into(),
        Value::Array(items) => items.iter().map(to_json).collect(),
        Value::Table(members) => {
            let members = members.iter();
            let members = members.map(|it| (it.key.clone(), to_json(&it.value)));
            Json::Object(members.collect())
        }
    }
}
