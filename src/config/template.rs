//! Topic Filters with places for names.

use std::fmt;

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
        let example = template
            .fill(Some("u"), "c")
            .map_err(|_| "it is not a Topic Filter")?;
        if example.starts_with("$share/") {
            return Err(
                "a rule names the filter of a shared subscription without $share and group",
            );
        }
        if !crate::access::topic::filter_is_valid(&example) {
            return Err("it is not a Topic Filter");
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
