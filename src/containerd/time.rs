//! Time as containerd writes it: protobuf timestamps and RFC 3339 text, from and to nanoseconds since the epoch.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::MessageField;

use super::UnixNanos;

const NANOS: i64 = 1_000_000_000;

/// Now. A clock before 1970 reads as 0.
pub(super) fn now() -> UnixNanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A timestamp as nanoseconds; a missing one, or Go's zero time (year 1), is 0.
pub(super) fn nanos(at: &MessageField<Timestamp>) -> UnixNanos {
    let whole = at.seconds.checked_mul(NANOS).and_then(|s| s.checked_add(i64::from(at.nanos)));
    whole.unwrap_or(0).max(0)
}

/// `2006-01-02T15:04:05Z`, rounded down to a second.
pub(super) fn rfc3339(at: UnixNanos) -> String {
    let seconds = at.div_euclid(NANOS);
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The Gregorian date of a day counted from 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Counted from 0000-03-01, so that the leap day is the last of its year and the months have a fixed pattern.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_of_known_instants() {
        // From `date -u -d @N +%FT%TZ`.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds * NANOS), text);
        }
        assert_eq!(rfc3339(NANOS - 1), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn a_missing_time_and_year_one_are_zero() {
        assert_eq!(nanos(&MessageField::none()), 0);
        let year_one = Timestamp { seconds: -62_135_596_800, ..Timestamp::default() };
        assert_eq!(nanos(&MessageField::some(year_one)), 0);
        let some = Timestamp { seconds: 2, nanos: 7, ..Timestamp::default() };
        assert_eq!(nanos(&MessageField::some(some)), 2_000_000_007);
    }
}
