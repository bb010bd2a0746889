//! `Retry-After` (RFC 9110 §10.2.3).

use std::fmt;
use std::time::Duration;

use crate::time::parse_http_date;

/// The value is neither a whole number of seconds nor an HTTP-date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RetryAfterError;

impl fmt::Display for RetryAfterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Retry-After is neither a number of seconds nor an HTTP-date")
    }
}

impl std::error::Error for RetryAfterError {}

/// How long a receiver asks to be left alone: seconds, or a date of any of the three forms, which
/// `now_secs` turns into a duration. A date in the past is zero.
///
/// The answer is at most `max`: an endpoint must not be able to stop its queue for a year.
pub fn parse_retry_after(
    value: &[u8],
    now_secs: u64,
    max: Duration,
) -> Result<Duration, RetryAfterError> {
    let text = str::from_utf8(value).map_err(|_| RetryAfterError)?;
    let text = text.trim_matches([' ', '\t']);
    if text.is_empty() {
        return Err(RetryAfterError);
    }
    let secs = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Digits alone can only fail by being too many.
        text.parse().unwrap_or(u64::MAX)
    } else {
        let date = parse_http_date(text, now_secs).ok_or(RetryAfterError)?;
        date.saturating_sub(now_secs)
    };
    Ok(Duration::from_secs(secs).min(max))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn seconds_and_dates() {
        let now = 784_111_777; // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, expected) in [
            ("120", Ok(120)),
            (" 120\t", Ok(120)),
            ("0", Ok(0)),
            ("86401", Ok(86_400)),
            ("99999999999999999999999999", Ok(86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Ok(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Ok(60)),
            ("Sun Nov  6 08:50:37 1994", Ok(60)),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Ok(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Ok(86_400)),
            ("", Err(RetryAfterError)),
            ("-1", Err(RetryAfterError)),
            ("1.5", Err(RetryAfterError)),
            ("soon", Err(RetryAfterError)),
            ("1994-11-06T08:50:37Z", Err(RetryAfterError)),
        ] {
            assert_eq!(
                parse_retry_after(value.as_bytes(), now, DAY),
                expected.map(Duration::from_secs),
                "{value}"
            );
        }
        assert_eq!(parse_retry_after(b"1\xFF", now, DAY), Err(RetryAfterError));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(value in proptest::collection::vec(any::<u8>(), 0..40), now: u64) {
            if let Ok(delay) = parse_retry_after(&value, now, DAY) {
                prop_assert!(delay <= DAY);
            }
        }
    }
}
