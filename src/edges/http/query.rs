//! Query parameters: each known by name, with errors that say how to mend them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use tidings_protocol::topic::{self, TopicLimits};

use super::problem::Problem;

/// Messages in one answer, unless `limit` says otherwise, and at most.
const PAGE_DEFAULT: usize = 100;
pub(super) const PAGE_MAX: usize = 1000;

/// Parameters that may be given several times, beside those that a dot stands for.
const REPEATED: [&str; 2] = ["topic", "filter"];

/// The parameters of a request, in order.
pub(super) struct Query<'a> {
    pairs: Vec<(Cow<'a, str>, String)>,
    /// Parameters whose value had a `+` as it was sent, which means a space.
    plus: Vec<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    /// Takes a query apart. `known` are the parameters that there may be; one that ends with a dot
    /// stands for all that begin with it.
    ///
    /// # Errors
    /// For one that is not known, and for what is not UTF-8.
    pub(super) fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Query<'a>, Problem> {
        let mut parsed = Query {
            pairs: Vec::new(),
            plus: Vec::new(),
        };
        for pair in query
            .unwrap_or("")
            .split('&')
            .filter(|pair| !pair.is_empty())
        {
            let (raw_name, raw) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_in_query("the name of a parameter", raw_name)?;
            let is_known = |it: &&str| match it.ends_with('.') {
                true => name.starts_with(*it),
                false => **it == *name,
            };
            if !known.iter().any(is_known) {
                return Err(Problem::bad_request(
                    "unknown-parameter",
                    "A parameter that does not exist here",
                    format!(
                        "{name:?} is not a parameter of this path; there are {}",
                        known.join(", ")
                    ),
                ));
            }
            let may_repeat = REPEATED.contains(&&*name) || !known.contains(&&*name);
            if !may_repeat && parsed.get(&name).is_some() {
                return Err(Problem::bad_request(
                    "repeated-parameter",
                    "A parameter is given twice",
                    format!("{name:?} is given twice, and only one of them can be meant"),
                ));
            }
            if raw.contains('+') {
                parsed.plus.push(name.clone());
            }
            let value = decode_in_query(&name, raw)?.into_owned();
            parsed.pairs.push((name, value));
        }
        Ok(parsed)
    }

    /// The value of a parameter that is given once.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.pairs.iter().rev();
        all.find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }

    /// The values of a parameter that may be given several times.
    pub(super) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let of = self.pairs.iter().filter(move |(it, _)| it == name);
        of.map(|(_, value)| value.as_str())
    }

    /// The parameters whose names begin with `prefix`, without it.
    pub(super) fn with_prefix<'s>(
        &'s self,
        prefix: &'s str,
    ) -> impl Iterator<Item = (&'s str, &'s str)> {
        let strip = move |(name, value): &'s (Cow<'a, str>, String)| {
            Some((name.strip_prefix(prefix)?, value.as_str()))
        };
        self.pairs.iter().filter_map(strip)
    }

    /// The Topic Filters of the parameter `name`. A `+` in a query means a space, so a filter that
    /// was sent with one was meant otherwise.
    pub(super) fn filters<'s>(&'s self, name: &'s str) -> Result<Vec<&'s str>, Problem> {
        self.no_plus(name, "the wildcard +, %23 for #, and %20 for a space")?;
        Ok(self.all(name).collect())
    }

    /// Refuses a parameter that was sent with a `+` where a space makes no sense. `instead` goes on
    /// from "write %2B for".
    pub(super) fn no_plus(&self, name: &str, instead: &str) -> Result<(), Problem> {
        match self.plus.iter().any(|it| it == name) {
            true => Err(Problem::bad_request(
                "plus-in-query",
                "A + in a query means a space",
                format!("in {name}= write %2B for {instead}"),
            )),
            false => Ok(()),
        }
    }

    /// A parameter as `parse` understands it.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match parse(value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(invalid(name, value, expected)),
        }
    }

    /// How many messages an answer is to have at most: the parameter `limit`.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        let expected = format!("a number from 1 to {PAGE_MAX}");
        let limit = self.parsed("limit", &expected, |it| {
            it.parse()
                .ok()
                .filter(|limit| (1..=PAGE_MAX).contains(limit))
        })?;
        Ok(limit.unwrap_or(PAGE_DEFAULT))
    }

    /// A parameter that is `true` or `false`; one without a value is `true`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        let parse = |value: &str| match value {
            "true" | "1" | "" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        };
        Ok(self.parsed(name, "true or false", parse)?.unwrap_or(false))
    }
}

/// The problem of a parameter with a wrong value.
pub(super) fn invalid(name: &str, value: &str, expected: &str) -> Problem {
    Problem::bad_request(
        "invalid-parameter",
        "A parameter has a wrong value",
        format!("{name}={value:?} should be {expected}"),
    )
}

/// A part of a path as it is meant, where `+` is itself. `name` says what it is.
pub(super) fn decode(name: &str, raw: &str) -> Result<String, Problem> {
    Ok(decode_strictly(name, raw)?.into_owned())
}

/// Takes percent-encoding away. A lenient decoder leaves a `%` that begins none as it is, and a message
/// would go to a topic that nobody meant.
fn decode_strictly<'r>(name: &str, raw: &'r str) -> Result<Cow<'r, str>, Problem> {
    let mut parts = raw.split('%').skip(1);
    let is_encoded = parts.all(|part| {
        let digits = part.as_bytes().first_chunk::<2>();
        digits.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit))
    });
    let decoded = percent_decode_str(raw).decode_utf8();
    match decoded {
        Ok(decoded) if is_encoded => Ok(decoded),
        _ => Err(invalid(
            name,
            raw,
            "UTF-8, percent-encoded: write %25 for %",
        )),
    }
}

/// A name or a value in a query as it is meant, where `+` is a space.
fn decode_in_query<'r>(name: &str, raw: &'r str) -> Result<Cow<'r, str>, Problem> {
    if raw.contains('+') {
        return Ok(Cow::Owned(decode(name, &raw.replace('+', " "))?));
    }
    decode_strictly(name, raw)
}

/// The Topic Name at the end of a path.
///
/// # Errors
/// When it is not one that can be published to.
pub(super) fn topic_of(raw: &str, limits: &TopicLimits) -> Result<String, Problem> {
    let topic = decode("topic", raw)?;
    match topic::name_is_valid(&topic, limits) {
        Ok(()) => Ok(topic),
        Err(error) => Err(Problem::bad_request(
            "invalid-topic",
            "Not a Topic Name",
            format!("{topic:?}: {}", error.as_str()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded_and_judged() {
        let known = ["topic", "qos", "user."];
        let query = Query::parse(
            Some("topic=a/%2B&topi%63=b/%23&qos=1&user.a%3D+b=x+y"),
            &known,
        )
        .expect("good");
        assert_eq!(query.filters("topic").expect("good"), ["a/+", "b/#"]);
        assert_eq!(
            query.with_prefix("user.").collect::<Vec<_>>(),
            [("a= b", "x y")]
        );
        for (text, detail) in [
            ("topci=a", "\"topci\" is not a parameter"),
            ("topic=%ff", "UTF-8"),
            ("topic=a%2", "%25"),
            ("topic=100%", "%25"),
            ("qos=1&qos=2", "twice"),
        ] {
            let problem = Query::parse(Some(text), &known).err().expect(text);
            assert!(problem.detail.contains(detail), "{}", problem.detail);
        }
        let query = Query::parse(Some("topic=a/+/b"), &known).expect("good so far");
        assert!(
            query
                .filters("topic")
                .expect_err("a plus")
                .detail
                .contains("%2B")
        );
    }

    #[test]
    fn topics_are_judged() {
        let limits = TopicLimits {
            bytes_max: 20,
            levels_max: 4,
        };
        assert_eq!(topic_of("a//b%2Fc", &limits).expect("good"), "a//b/c");
        for bad in [
            "",
            "a/%23",
            "%2B",
            "a%00",
            "a/b/c/d/e",
            "%ff",
            "%zz",
            "a%",
            "a%2",
        ] {
            assert!(topic_of(bad, &limits).is_err(), "{bad}");
        }
    }
}
