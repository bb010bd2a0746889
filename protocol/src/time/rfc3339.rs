//! RFC 3339, such as `2026-11-25T12:00:00.250Z`.

use std::fmt;

use super::calendar::{SECS_PER_DAY, date_from_days, days_from_date, days_in_month};

/// The last time that RFC 3339, with four digits for the year, can say:
/// `9999-12-31T23:59:59.999Z`.
pub const UNIX_MS_MAX: u64 = 253_402_300_799_999;

/// A time in UTC with milliseconds, written as RFC 3339 in 24 bytes; allocates nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339([u8; 24]);

impl Rfc3339 {
    /// The text for milliseconds since 1970; beyond [`UNIX_MS_MAX`] it stays at that.
    pub fn from_unix_ms(unix_ms: u64) -> Rfc3339 {
        let unix_ms = unix_ms.min(UNIX_MS_MAX);
        let (secs, ms) = (unix_ms / 1_000, (unix_ms % 1_000) as u32);
        let (year, month, day) = date_from_days(secs / SECS_PER_DAY);
        let second = (secs % SECS_PER_DAY) as u32;
        let mut text = *b"0000-00-00T00:00:00.000Z";
        put(&mut text[..4], year);
        put(&mut text[5..7], month);
        put(&mut text[8..10], day);
        put(&mut text[11..13], second / 3_600);
        put(&mut text[14..16], second / 60 % 60);
        put(&mut text[17..19], second % 60);
        put(&mut text[20..23], ms);
        Rfc3339(text)
    }

    /// The text, always 24 characters of ASCII.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default()
    }
}

fn put(digits: &mut [u8], mut value: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is not a time of RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum TimeError {
    /// Not of the form date, `T`, time, offset.
    Form,
    /// The month, the day of the month or the time of the day does not exist.
    NoSuchTime,
    /// No `Z` and no offset from UTC after the time.
    OffsetMissing,
    /// A space where the offset begins: a `+` in a query that was not written as `%2B`.
    OffsetWithSpace,
    /// Before 1970.
    TooEarly,
}

impl TimeError {
    /// A sentence that says how to mend it.
    pub const fn as_str(self) -> &'static str {
        match self {
            TimeError::Form => {
                "a time is written as in RFC 3339, for instance 2026-11-25T12:00:00Z or \
                 2026-11-25T13:00:00.250+01:00"
            }
            TimeError::NoSuchTime => {
                "no such time exists: check the month, the day of the month, the time and the offset"
            }
            TimeError::OffsetMissing => {
                "the time does not say its offset from UTC: append Z for UTC, or an offset such as \
                 +01:00"
            }
            TimeError::OffsetWithSpace => {
                "the time has a space before its offset: in a query the + must be written as %2B"
            }
            TimeError::TooEarly => "the time lies before 1970",
        }
    }
}

impl fmt::Display for TimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::error::Error for TimeError {}

/// Milliseconds since 1970 of a `date-time` of RFC 3339 §5.6.
///
/// `t`, `z` and a space instead of `T` are allowed, as there; digits beyond the millisecond are
/// cut off. A leap second (`23:59:60` in UTC) is the second after it.
pub fn parse_rfc3339(text: &str) -> Result<u64, TimeError> {
    let bytes = text.as_bytes();
    let Some((head, mut rest)) = bytes.split_first_chunk::<19>() else {
        return Err(TimeError::Form);
    };
    let form = head[4] == b'-'
        && head[7] == b'-'
        && matches!(head[10], b'T' | b't' | b' ')
        && head[13] == b':'
        && head[16] == b':';
    if !form {
        return Err(TimeError::Form);
    }
    let number = |digits: &[u8]| number(digits).ok_or(TimeError::Form);
    let (year, month, day) = (
        number(&head[..4])?,
        number(&head[5..7])?,
        number(&head[8..10])?,
    );
    let (hour, minute, second) = (
        number(&head[11..13])?,
        number(&head[14..16])?,
        number(&head[17..19])?,
    );

    let mut ms = 0;
    if let Some(fraction) = rest.strip_prefix(b".") {
        let len = fraction.iter().take_while(|b| b.is_ascii_digit()).count();
        if len == 0 {
            return Err(TimeError::Form);
        }
        for place in 0..3 {
            let digit = fraction[..len].get(place).map_or(0, |b| b - b'0');
            ms = ms * 10 + i64::from(digit);
        }
        rest = &fraction[len..];
    }

    let (sign, offset_hour, offset_minute) = match *rest {
        [b'Z' | b'z'] => (0, 0, 0),
        [] => return Err(TimeError::OffsetMissing),
        [sign @ (b'+' | b'-' | b' '), h1, h2, b':', m1, m2] => {
            let (hour, minute) = (number(&[h1, h2])?, number(&[m1, m2])?);
            match sign {
                b' ' => return Err(TimeError::OffsetWithSpace),
                b'-' => (-1, hour, minute),
                _ => (1, hour, minute),
            }
        }
        _ => return Err(TimeError::Form),
    };

    let exists = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60
        && offset_hour < 24
        && offset_minute < 60;
    if !exists {
        return Err(TimeError::NoSuchTime);
    }
    let offset_minutes = sign * i64::from(offset_hour * 60 + offset_minute);
    let minutes =
        days_from_date(year, month, day) * 1_440 + i64::from(hour * 60 + minute) - offset_minutes;
    if second == 60 && minutes.rem_euclid(1_440) != 1_439 {
        return Err(TimeError::NoSuchTime);
    }
    let unix_ms = (minutes * 60 + i64::from(second)) * 1_000 + ms;
    u64::try_from(unix_ms).map_err(|_| TimeError::TooEarly)
}

/// The value of decimal digits, at most four of them.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u32::from(byte - b'0'))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_written() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (1_614_265_330_007, "2021-02-25T15:02:10.007Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (UNIX_MS_MAX, "9999-12-31T23:59:59.999Z"),
            (u64::MAX, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Rfc3339::from_unix_ms(unix_ms).as_str(), text);
        }
    }

    /// The examples of RFC 3339 §5.8 are among them.
    #[test]
    fn times_are_read() {
        for (text, unix_ms) in [
            ("1985-04-12T23:20:50.52Z", 482_196_050_520),
            ("1996-12-19T16:39:57-08:00", 851_042_397_000),
            ("1990-12-31T23:59:60Z", 662_688_000_000),
            ("1990-12-31T15:59:60-08:00", 662_688_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00.001999z", 1),
            ("1970-01-01 00:00:00-00:00", 0),
            ("1969-12-31T23:00:00-01:00", 0),
            ("2024-02-29T00:00:00+00:00", 1_709_164_800_000),
            ("9999-12-31T23:59:59.999999999Z", UNIX_MS_MAX),
        ] {
            assert_eq!(parse_rfc3339(text), Ok(unix_ms), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_gets_its_reason() {
        for (text, error) in [
            ("", TimeError::Form),
            ("2026-11-25", TimeError::Form),
            ("2026-11-25T12:00Z", TimeError::Form),
            ("2026-11-25T12:00:00.Z", TimeError::Form),
            ("2026-11-25T12:00:00,5Z", TimeError::Form),
            ("2026-11-25T12:00:00+0100", TimeError::Form),
            ("2026-11-25T12:00:00ZZ", TimeError::Form),
            ("2026/11/25T12:00:00Z", TimeError::Form),
            ("+026-11-25T12:00:00Z", TimeError::Form),
            ("２026-11-25T12:00:00Z", TimeError::Form),
            ("2026-11-25T12:00:00", TimeError::OffsetMissing),
            ("2026-11-25T12:00:00.5", TimeError::OffsetMissing),
            ("2026-11-25T12:00:00 01:00", TimeError::OffsetWithSpace),
            ("2026-02-29T12:00:00Z", TimeError::NoSuchTime),
            ("1900-02-29T12:00:00Z", TimeError::NoSuchTime),
            ("2026-13-01T12:00:00Z", TimeError::NoSuchTime),
            ("2026-00-01T12:00:00Z", TimeError::NoSuchTime),
            ("2026-04-31T12:00:00Z", TimeError::NoSuchTime),
            ("2026-04-00T12:00:00Z", TimeError::NoSuchTime),
            ("2026-11-25T24:00:00Z", TimeError::NoSuchTime),
            ("2026-11-25T12:60:00Z", TimeError::NoSuchTime),
            ("2026-11-25T12:00:61Z", TimeError::NoSuchTime),
            ("2026-11-25T12:00:60Z", TimeError::NoSuchTime),
            ("2026-11-25T12:00:00+24:00", TimeError::NoSuchTime),
            ("2026-11-25T12:00:00+01:60", TimeError::NoSuchTime),
            ("1969-12-31T23:59:59.999Z", TimeError::TooEarly),
            ("0000-01-01T00:00:00Z", TimeError::TooEarly),
        ] {
            assert_eq!(parse_rfc3339(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(unix_ms in 0..=UNIX_MS_MAX) {
            prop_assert_eq!(parse_rfc3339(Rfc3339::from_unix_ms(unix_ms).as_str()), Ok(unix_ms));
        }

        #[test]
        fn no_text_panics(text in any::<String>(), near in "[0-9T:+Zz. -]{0,32}") {
            let _ = parse_rfc3339(&text);
            let _ = parse_rfc3339(&near);
        }

        #[test]
        fn fields_in_any_range_do_not_panic(
            text in "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,12})?(Z|[+-][0-9]{2}:[0-9]{2})",
        ) {
            if let Ok(unix_ms) = parse_rfc3339(&text) {
                // 23:59 behind UTC, and a leap second.
                prop_assert!(unix_ms <= UNIX_MS_MAX + 86_400_000);
            }
        }
    }
}
