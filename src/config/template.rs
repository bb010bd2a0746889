//! Topic Filters with places for names.

use std::fmt;

use tidings_protocol::topic::{Filter, TopicError, TopicLimits};

/// What a client may ask for is limited elsewhere; what is configured may be as long as MQTT allows.
pub(super) const UNLIMITED: TopicLimits = TopicLimits {
    bytes_max: 65_535,
    levels_max: 65_536,
};

/// A Topic Filter in which `%u` stands for the user name and `%c` for the Client Identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    User,
    ClientId,
}

/// Why a template has no filter for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfilled {
    /// It names the user, and the client is anonymous.
    NoUser,
    /// The name would change the shape of the filter: more levels, a wildcard, a `$` in front.
    Unsafe,
}

impl Template {
    /// Reads a filter; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Template, &'static str> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            let part = match (c, if c == '%' { chars.next() } else { None }) {
                ('%', Some('u')) => Part::User,
                ('%', Some('c')) => Part::ClientId,
                ('%', Some('%')) => {
                    literal.push('%');
                    continue;
                }
                ('%', _) => return Err("% is followed by u, c or another %"),
                _ => {
                    literal.push(c);
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let template = Template { parts };
        let Ok(example) = template.fill(Some("u"), "c") else {
            return Err("it is not a Topic Filter");
        };
        let filter = Filter::parse(&example, &UNLIMITED).map_err(TopicError::as_str)?;
        if filter.share.is_some() {
            return Err(
                "a rule names the filter of a shared subscription without $share and group",
            );
        }
        if filter.since.is_some() {
            return Err("a rule names the filter of a replay without $replay and where it begins");
        }
        Ok(template)
    }

    /// Whether the filter is the same for every client.
    pub fn is_fixed(&self) -> bool {
        self.parts
            .iter()
            .all(|part| matches!(part, Part::Literal(_)))
    }

    /// The filter for a client. A name can never add a level, a wildcard or a `$` in front:
    /// such a name has no filter (CVE-2017-7650).
    pub fn fill(&self, user: Option<&str>, client_id: &str) -> Result<String, Unfilled> {
        let mut filter = String::new();
        for part in &self.parts {
            let name = match part {
                Part::Literal(text) => {
                    filter.push_str(text);
                    continue;
                }
                Part::User => user.ok_or(Unfilled::NoUser)?,
                Part::ClientId => client_id,
            };
            let dollar = filter.is_empty() && name.starts_with('$');
            if name.is_empty() || dollar || name.contains(['+', '#', '/', '\0']) {
                return Err(Unfilled::Unsafe);
            }
            filter.push_str(name);
        }
        Ok(filter)
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(&text.replace('%', "%%")),
            Part::User => f.write_str("%u"),
            Part::ClientId => f.write_str("%c"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_and_shown() {
        for text in [
            "#",
            "a/+/b",
            "%u",
            "devices/%u-%c/#",
            "100%%/%%u",
            "$SYS/#",
            "/",
            "%c%u",
        ] {
            let template = Template::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(template.to_string(), text);
        }
        for text in [
            "",
            "a/#/b",
            "a+",
            "%",
            "a/%",
            "%U",
            "%x",
            "a/%u#",
            "+%u",
            "$share/g/a",
            "a\0b",
            "$share/x",
        ] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn names_are_filled_in_and_cannot_change_the_shape() {
        let check = |template, user, client_id, expected: Result<&str, Unfilled>| {
            let template = Template::parse(template).expect("a good template");
            let filled = template.fill(user, client_id);
            assert_eq!(
                filled.as_deref().map_err(|why| *why),
                expected,
                "{template} {user:?} {client_id}"
            );
        };
        check("a/%u/%c/#", Some("bob"), "c1", Ok("a/bob/c1/#"));
        check("%%u/%u", Some("bob"), "c1", Ok("%u/bob"));
        // What is filled in is not read again.
        check("%u/x", Some("%c"), "c1", Ok("%c/x"));
        check("%u/x", None, "c1", Err(Unfilled::NoUser));
        check("%c/x", None, "c1", Ok("c1/x"));
        for hostile in [
            "", "#", "+", "a/b", "/", "a#", "+a", "a\0", "$SYS", "$share",
        ] {
            check("%u/x", Some(hostile), "c", Err(Unfilled::Unsafe));
            check("%c/x", Some("bob"), hostile, Err(Unfilled::Unsafe));
        }
        // A dollar sign has a meaning at the beginning only.
        check("a/%u", Some("$SYS"), "c", Ok("a/$SYS"));
        check("%u%c", Some("a"), "$c", Ok("a$c"));
        // A name that the template does not use does no harm.
        check("a/%u", Some("bob"), "#", Ok("a/bob"));
    }
}
