//! Where a client asks to begin.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{Cursor, CursorError};
use crate::time::{DurationError, TimeError, parse_duration, parse_rfc3339};

/// The value of a `since` parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Since {
    /// After this message: an id as it was received, such as `7.1042`.
    Cursor(Cursor),
    /// From this time on, in milliseconds since 1970: a time as of RFC 3339.
    Time(u64),
    /// From this long ago on: a duration, such as `10m`.
    Ago(Duration),
    /// From the oldest message that is kept: `earliest`.
    Earliest,
    /// Only what comes from now on: `latest`.
    Latest,
}

/// Why a text says no place to begin at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum SinceError {
    /// None of the five forms.
    Form,
    /// Meant as an id.
    Cursor(CursorError),
    /// Meant as a time.
    Time(TimeError),
    /// Meant as a duration.
    Duration(DurationError),
}

impl fmt::Display for SinceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SinceError::Form => f.write_str(
                "since is one of: an id as it was received (7.1042), a time as of RFC 3339 \
                 (2026-11-25T12:00:00Z), a duration (90s, 10m, 2h, 1d), earliest, latest",
            ),
            SinceError::Cursor(error) => error.fmt(f),
            SinceError::Time(error) => error.fmt(f),
            SinceError::Duration(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SinceError {}

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Since, SinceError> {
        match text {
            "earliest" => return Ok(Since::Earliest),
            "latest" => return Ok(Since::Latest),
            _ => {}
        }
        let bytes = text.as_bytes();
        if !bytes.first().is_some_and(u8::is_ascii_digit) {
            return Err(SinceError::Form);
        }
        // What is meant, to answer with the error that helps: a time has a dash after its year, an
        // id is two numbers and a dot, and all else that begins with a digit is a duration.
        let digits = bytes
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        if bytes.get(digits) == Some(&b'-') {
            let time = parse_rfc3339(text).map_err(SinceError::Time)?;
            return Ok(Since::Time(time));
        }
        let last = bytes[bytes.len() - 1];
        if bytes.get(digits) == Some(&b'.') && !last.is_ascii_alphabetic() {
            let cursor = text.parse().map_err(SinceError::Cursor)?;
            return Ok(Since::Cursor(cursor));
        }
        let duration = parse_duration(text).map_err(SinceError::Duration)?;
        Ok(Since::Ago(duration))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_five_forms() {
        let cursor = Cursor {
            epoch: 7,
            offset: 1_042,
        };
        for (text, since) in [
            ("7.1042", Since::Cursor(cursor)),
            ("1970-01-01T00:00:01Z", Since::Time(1_000)),
            ("500ms", Since::Ago(Duration::from_millis(500))),
            ("10m", Since::Ago(Duration::from_secs(600))),
            ("1d", Since::Ago(Duration::from_secs(86_400))),
            ("earliest", Since::Earliest),
            ("latest", Since::Latest),
        ] {
            assert_eq!(text.parse(), Ok(since), "{text}");
        }
    }

    #[test]
    fn an_error_is_of_the_form_that_was_meant() {
        for (text, error) in [
            ("", SinceError::Form),
            ("now", SinceError::Form),
            ("Earliest", SinceError::Form),
            ("-5m", SinceError::Form),
            (" 5m", SinceError::Form),
            ("5", SinceError::Duration(DurationError::UnitMissing)),
            ("5 minutes", SinceError::Duration(DurationError::Unit)),
            ("1.5h", SinceError::Duration(DurationError::Unit)),
            ("7.", SinceError::Cursor(CursorError::Offset)),
            ("7.1.2", SinceError::Cursor(CursorError::Form)),
            ("7.01", SinceError::Cursor(CursorError::LeadingZero)),
            ("2026-11-25", SinceError::Time(TimeError::Form)),
            (
                "2026-11-25T12:00:00",
                SinceError::Time(TimeError::OffsetMissing),
            ),
            (
                "2026-11-25T12:00:00 01:00",
                SinceError::Time(TimeError::OffsetWithSpace),
            ),
        ] {
            assert_eq!(text.parse::<Since>(), Err(error), "{text}");
            assert!(!error.to_string().is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9]{1,5}[-.msT:Z0-9]{0,20}") {
            for text in [text, near] {
                if let Err(error) = text.parse::<Since>() {
                    prop_assert!(!error.to_string().is_empty());
                }
            }
        }
    }
}
