//! The proleptic Gregorian calendar, from days to dates and back.

pub(super) const SECS_PER_DAY: u64 = 86_400;

/// Days from 1970-01-01 to a date; negative before it. The date must exist.
pub(super) fn days_from_date(year: u32, month: u32, day: u32) -> i64 {
    // Years that begin in March put the leap day last, so that months have a regular pattern.
    let year = i64::from(year) - i64::from(month <= 2);
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    // 719,468 days lie between 0000-03-01 and 1970-01-01.
    365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// Year, month (1 to 12) and day (1 to 31) of the day so many days after 1970-01-01.
pub fn date_from_days(days: u64) -> (u32, u32, u32) {
    const DAYS_PER_ERA: u64 = 146_097;
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year as u32, month as u32, day as u32)
}

/// How many days a month (1 to 12) has.
pub(super) fn days_in_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counted day by day, over more than one cycle of 400 years.
    #[test]
    fn days_and_dates_are_inverse_and_without_gap() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..200_000_u64 {
            assert_eq!(date_from_days(days), (year, month, day));
            assert_eq!(days_from_date(year, month, day), days as i64);
            day += 1;
            if day > days_in_month(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!(days_from_date(1969, 12, 31), -1);
        assert_eq!(days_from_date(1900, 1, 1), -25_567);
    }
}
