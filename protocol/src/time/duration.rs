//! Durations as people write them: `"500ms"`, `"90s"`, `"10m"`, `"2h"`, `"1d"`.

use std::fmt;
use std::time::Duration;

/// Why a text is not a duration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DurationError {
    /// Does not begin with a whole number.
    Number,
    /// A number without a unit after it.
    UnitMissing,
    /// A unit that is none of `ms`, `s`, `m`, `h`, `d`.
    Unit,
    /// More milliseconds than fit into 64 bits.
    TooLong,
}

impl DurationError {
    /// A sentence that says how to mend it.
    pub const fn as_str(self) -> &'static str {
        match self {
            DurationError::Number => {
                "a duration is a whole number and a unit, for instance 90s or 10m"
            }
            DurationError::UnitMissing => "the duration has no unit: append ms, s, m, h or d",
            DurationError::Unit => "the unit of a duration is one of ms, s, m, h and d",
            DurationError::TooLong => "the duration is too long",
        }
    }
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for DurationError {}

/// A whole number and a unit (`ms`, `s`, `m`, `h`, `d`), with nothing between or around them.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    if number.is_empty() {
        return Err(DurationError::Number);
    }
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "" => return Err(DurationError::UnitMissing),
        _ => return Err(DurationError::Unit),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit_ms))
        .map(Duration::from_millis)
        .ok_or(DurationError::TooLong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("500ms", Ok(500)),
            ("90s", Ok(90_000)),
            ("10m", Ok(600_000)),
            ("2h", Ok(7_200_000)),
            ("1d", Ok(86_400_000)),
            ("0s", Ok(0)),
            ("007s", Ok(7_000)),
            ("", Err(DurationError::Number)),
            ("m", Err(DurationError::Number)),
            ("-1s", Err(DurationError::Number)),
            ("+1s", Err(DurationError::Number)),
            ("10", Err(DurationError::UnitMissing)),
            ("1.5s", Err(DurationError::Unit)),
            ("10 m", Err(DurationError::Unit)),
            ("10M", Err(DurationError::Unit)),
            ("10min", Err(DurationError::Unit)),
            ("1h30m", Err(DurationError::Unit)),
            ("99999999999999999999s", Err(DurationError::TooLong)),
            ("600000000000000000d", Err(DurationError::TooLong)),
        ] {
            assert_eq!(
                parse_duration(text),
                expected.map(Duration::from_millis),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9]{0,22}(ms|s|m|h|d|x)?") {
            let _ = parse_duration(&text);
            let _ = parse_duration(&near);
        }
    }
}
