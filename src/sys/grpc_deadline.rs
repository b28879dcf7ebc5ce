//! How much time a gRPC deadline leaves. grpcio tells only whether a deadline has passed, so its one field is read here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The C core's `gpr_timespec`, which is all that a `grpcio::Deadline` holds; its clock is the wall clock.
#[repr(C)]
#[derive(Clone, Copy)]
struct Timespec {
    seconds: i64,
    nanoseconds: i32,
    _clock: i32,
}

const _: () = assert!(size_of::<grpcio::Deadline>() == size_of::<Timespec>());
const _: () = assert!(align_of::<grpcio::Deadline>() == align_of::<Timespec>());

/// The time left until `deadline`: zero if it has passed, `None` if there is none.
pub fn left(deadline: grpcio::Deadline) -> Option<Duration> {
    // SAFETY: `Deadline` is a struct of one field, a `gpr_timespec`, whose C layout `Timespec` repeats; with equal
    // sizes the field can only be at offset 0, and every bit pattern of these integers is valid.
    let at = unsafe { (&raw const deadline).cast::<Timespec>().read() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    time_left(at, now)
}

/// The C core writes "never" as the greatest number of seconds.
fn time_left(at: Timespec, now: Duration) -> Option<Duration> {
    match at.seconds {
        i64::MAX => None,
        s => {
            let at = u64::try_from(s).map_or(Duration::ZERO, Duration::from_secs)
                + Duration::from_nanos(u64::try_from(at.nanoseconds).unwrap_or(0));
            Some(at.saturating_sub(now))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timespec(seconds: i64, nanoseconds: i32) -> Timespec {
        Timespec { seconds, nanoseconds, _clock: 1 }
    }

    #[test]
    fn the_field_of_the_library_is_the_wall_clock_time_of_the_deadline() {
        let hour = Duration::from_secs(3600);
        let left = left(grpcio::Deadline::from(hour)).expect("a deadline");
        assert!(left <= hour && left > hour / 2, "{left:?}");
    }

    #[test]
    fn a_passed_deadline_leaves_nothing_and_none_is_none() {
        let now = Duration::from_secs(100);
        assert_eq!(time_left(timespec(99, 999_999_999), now), Some(Duration::ZERO));
        assert_eq!(time_left(timespec(-1, 0), now), Some(Duration::ZERO));
        assert_eq!(time_left(timespec(100, 5), now), Some(Duration::from_nanos(5)));
        assert_eq!(time_left(timespec(i64::MAX, 0), now), None);
    }
}
