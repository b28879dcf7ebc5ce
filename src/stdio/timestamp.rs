//! A point in time as RFC 3339 with nanoseconds, in UTC: the first field of a CRI log line.

use std::time::Duration;

/// How long a timestamp is; always the same, so that lines sort as text.
pub const LENGTH: usize = 30;

const DAY: u64 = 86_400;
/// 400 Gregorian years, after which the calendar repeats.
const ERA_DAYS: u64 = 146_097;

/// `2006-01-02T15:04:05.000000000Z` for a time given as its distance from the Unix epoch.
pub fn rfc3339(since_epoch: Duration) -> [u8; LENGTH] {
    let (days, second) = (since_epoch.as_secs() / DAY, since_epoch.as_secs() % DAY);
    let (year, month, day) = civil(days);
    let mut text = *b"0000-00-00T00:00:00.000000000Z";
    let mut put = |from: usize, to: usize, mut value: u64| {
        for digit in text[from..to].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
    };
    put(0, 4, year);
    put(5, 7, month);
    put(8, 10, day);
    put(11, 13, second / 3600);
    put(14, 16, second / 60 % 60);
    put(17, 19, second % 60);
    put(20, 29, u64::from(since_epoch.subsec_nanos()));
    text
}

/// Year, month and day of the day that is `days` after 1970-01-01.
///
/// Counts from 1 March of year 0, so that the leap day is the last day of its year and the lengths of the months
/// follow one straight line: (153 m + 2) / 5 days lie before month m.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let months = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * months + 2) / 5 + 1;
    let (month, carry) = if months < 10 { (months + 3, 0) } else { (months - 9, 1) };
    (era * 400 + year_of_era + carry, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_moments() {
        for (seconds, nanoseconds, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_399, 999_999_999, "2000-02-28T23:59:59.999999999Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_709_251_199, 500_000_000, "2024-02-29T23:59:59.500000000Z"),
            (1_735_689_599, 0, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
            (253_402_300_799, 0, "9999-12-31T23:59:59.000000000Z"),
        ] {
            let text = rfc3339(Duration::new(seconds, nanoseconds));
            assert_eq!(std::str::from_utf8(&text).unwrap(), expected);
        }
    }

    #[test]
    fn days_follow_each_other_for_four_centuries() {
        let leap = |y: u64| y % 4 == 0 && (y % 100 != 0 || y % 400 == 0);
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..=ERA_DAYS {
            assert_eq!(civil(days), (year, month, day), "day {days}");
            day += 1;
            let length = match month {
                2 => 28 + u64::from(leap(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            if day > length {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }
}
