//! The dates of HTTP in their three forms (RFC 9110 §5.6.7).

use super::calendar::{SECS_PER_DAY, date_from_days, days_from_date, days_in_month};

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];
const DAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];

/// Seconds since 1970 of an HTTP-date; `None` if it is none, or lies before 1970.
///
/// The three forms are those that a recipient must accept (RFC 9110 §5.6.7): IMF-fixdate
/// (`Sun, 06 Nov 1994 08:49:37 GMT`), RFC 850 (`Sunday, 06-Nov-94 08:49:37 GMT`) and asctime
/// (`Sun Nov  6 08:49:37 1994`). A year of two digits is read with `now_secs`: the one that is not
/// more than 50 years in the future. Whether the day of the week is that of the date is not
/// checked.
pub fn parse_http_date(text: &str, now_secs: u64) -> Option<u64> {
    if !text.is_ascii() {
        return None;
    }
    let (weekday, rest) = text.split_once(' ')?;
    let Some(weekday) = weekday.strip_suffix(',') else {
        return asctime(weekday, rest);
    };
    let rest = rest.strip_suffix(" GMT")?;
    let (date, time) = rest.rsplit_once(' ')?;
    let secs = time_of_day(time)?;
    if DAYS.contains(&weekday) {
        let [day, month, year] = fields(date, '-')?;
        let year = near_year(number(year, 2)?, now_secs);
        return unix_secs(year, month_number(month)?, number(day, 2)?, secs);
    }
    is_short_day(weekday).then_some(())?;
    let [day, month, year] = fields(date, ' ')?;
    unix_secs(
        number(year, 4)?,
        month_number(month)?,
        number(day, 2)?,
        secs,
    )
}

/// `Nov  6 08:49:37 1994`, after the day of the week.
fn asctime(weekday: &str, rest: &str) -> Option<u64> {
    is_short_day(weekday).then_some(())?;
    let (month, rest) = rest.split_at_checked(3)?;
    let (day, rest) = rest.strip_prefix(' ')?.split_at_checked(2)?;
    let day = match day.strip_prefix(' ') {
        Some(digit) => number(digit, 1)?,
        None => number(day, 2)?,
    };
    let (time, year) = rest.strip_prefix(' ')?.split_once(' ')?;
    unix_secs(
        number(year, 4)?,
        month_number(month)?,
        day,
        time_of_day(time)?,
    )
}

fn fields(text: &str, separator: char) -> Option<[&str; 3]> {
    let mut fields = text.split(separator);
    let three = [fields.next()?, fields.next()?, fields.next()?];
    fields.next().is_none().then_some(three)
}

fn is_short_day(text: &str) -> bool {
    DAYS.iter().any(|day| day[..3] == *text)
}

fn month_number(text: &str) -> Option<u32> {
    let index = MONTHS.iter().position(|month| *month == text)?;
    Some(index as u32 + 1)
}

fn number(text: &str, digits: usize) -> Option<u32> {
    let well_formed = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    well_formed.then(|| text.parse().ok()).flatten()
}

/// Seconds since midnight; a leap second counts as the second after it.
fn time_of_day(text: &str) -> Option<u64> {
    let [hour, minute, second] = fields(text, ':')?;
    let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
    (hour < 24 && minute < 60 && second <= 60)
        .then(|| u64::from(hour * 3_600 + minute * 60 + second))
}

/// The year with these last two digits that is at most 50 years ahead of now.
fn near_year(two_digits: u32, now_secs: u64) -> u32 {
    let (now, ..) = date_from_days((now_secs / SECS_PER_DAY).min(2_932_896));
    let latest = now + 50;
    latest - (latest + 100 - two_digits) % 100
}

fn unix_secs(year: u32, month: u32, day: u32, secs: u64) -> Option<u64> {
    if day == 0 || day > days_in_month(year, month) {
        return None;
    }
    let days = u64::try_from(days_from_date(year, month, day)).ok()?;
    Some(days * SECS_PER_DAY + secs)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_795_600_000; // November 2026

    #[test]
    fn the_three_forms_of_one_date() {
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text, NOW), Some(784_111_777), "{text}");
        }
        assert_eq!(
            parse_http_date("Sat Nov 26 00:00:00 1994", NOW),
            Some(785_808_000)
        );
        assert_eq!(
            parse_http_date("Thu, 29 Feb 2024 23:59:60 GMT", NOW),
            Some(1_709_251_200)
        );
    }

    #[test]
    fn a_short_year_is_at_most_fifty_years_ahead() {
        for (two_digits, year) in [(26, 2026), (76, 2076), (77, 1977), (0, 2000), (99, 1999)] {
            assert_eq!(near_year(two_digits, NOW), year, "{two_digits}");
        }
    }

    #[test]
    fn what_is_no_date() {
        for text in [
            "",
            "Sun",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 UTC",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 31 Nov 1994 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:49:37 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, 06 Nov +994 08:49:37 GMT",
            "Sunday, 06 Nov 1994 08:49:37 GMT",
            "Sun, 06-Nov-94 08:49:37 GMT",
            "Sun Nov 6 08:49:37 1994",
            "Söndag, 06-Nov-94 08:49:37 GMT",
        ] {
            assert_eq!(parse_http_date(text, NOW), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(
            text in any::<String>(),
            near in "(Sun|Sunday),? ([0-9 ]{2}[ -])?(Nov|Feb)[ -][0-9 ]{2,4}[ -]?[0-9]{2}:[0-9]{2}:[0-9]{2}( GMT| [0-9]{4})?",
            now in any::<u64>(),
        ) {
            let _ = parse_http_date(&text, now);
            let _ = parse_http_date(&near, now);
        }
    }
}
