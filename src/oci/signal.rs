//! Stop signals in all their spellings.

use cricket_proto::runtime::{ContainerConfig, Signal};
use protobuf::Enum;

use super::facts::ImageFacts;
use crate::error::{Error, Result};

const SIGTERM: u32 = 15;
/// As glibc and Go count: libc keeps the first two real-time signals of the kernel for itself.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// Names without `SIG`, the usual name of a number before its synonyms; numbers of every Linux that we run on.
const NAMES: [(&str, u32); 34] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("IOT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", SIGTERM),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("POLL", 29),
    ("PWR", 30),
    ("SYS", 31),
];

/// The signal that stops the container: of the request, else of the image, else SIGTERM.
///
/// # Errors
/// `InvalidArgument` if either names no signal.
pub fn of(config: &ContainerConfig, image: &ImageFacts) -> Result<u32> {
    match config.stop_signal.enum_value() {
        Ok(Signal::RUNTIME_DEFAULT) if image.stop_signal.is_empty() => Ok(SIGTERM),
        Ok(Signal::RUNTIME_DEFAULT) => parse(&image.stop_signal),
        Ok(signal) => parse(&format!("{signal:?}")),
        Err(unknown) => Err(Error::invalid(format!("stop signal: the CRI has no signal {unknown}"))),
    }
}

/// A signal's number from `SIGTERM`, `term`, `15`, `SIGRTMIN+3`, `RTMAX-1` or a name of the CRI, `SIGRTMINPLUS3`.
///
/// # Errors
/// `InvalidArgument` if it is none.
pub fn parse(text: &str) -> Result<u32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    number(name).ok_or_else(|| Error::invalid(format!("stop signal: {text:?} is not a signal")))
}

/// The CRI's name of a signal, for a status. Signals outside its list are `RUNTIME_DEFAULT`.
pub fn to_cri(number: u32) -> Signal {
    let named = NAMES.iter().find(|(_, n)| *n == number).map(|(name, _)| format!("SIG{name}"));
    let name = named.unwrap_or_else(|| match number {
        RTMIN => "SIGRTMIN".into(),
        RTMAX => "SIGRTMAX".into(),
        35..=49 => format!("SIGRTMINPLUS{}", number - RTMIN),
        _ => format!("SIGRTMAXMINUS{}", RTMAX.saturating_sub(number)),
    });
    Signal::from_str(&name).unwrap_or(Signal::RUNTIME_DEFAULT)
}

fn number(name: &str) -> Option<u32> {
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return name.parse().ok().filter(|n| (1..=RTMAX).contains(n));
    }
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let (base, distance) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (RTMIN, offset(rest, &["+", "PLUS"])?)
    } else {
        (RTMAX, -offset(name.strip_prefix("RTMAX")?, &["-", "MINUS"])?)
    };
    base.checked_add_signed(distance).filter(|n| (RTMIN..=RTMAX).contains(n))
}

/// "" is 0; else one of `signs` and one or two digits.
fn offset(rest: &str, signs: &[&str]) -> Option<i32> {
    if rest.is_empty() {
        return Some(0);
    }
    let digits = signs.iter().find_map(|sign| rest.strip_prefix(sign))?;
    let plain = (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn every_spelling() {
        let cases = [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("1", 1),
            ("64", 64),
            ("SIGKILL", 9),
            ("SIGIOT", 6),
            ("SIGCLD", 17),
            ("SIGPOLL", 29),
            ("SIGRTMIN", 34),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMIN+0", 34),
            ("RTMAX-1", 63),
            ("SIGRTMAX-30", 34),
            ("SIGRTMINPLUS15", 49),
            ("SIGRTMAXMINUS14", 50),
            ("SIGRTMAX", 64),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn refused() {
        for text in [
            "",
            "SIG",
            "0",
            "65",
            "-9",
            "+9",
            "9 ",
            "SIGFOO",
            "SIGRTMIN+31",
            "SIGRTMIN-1",
            "SIGRTMIN+",
            "SIGRTMAX+1",
            "SIGRTMAX-31",
            "RTMIN+-1",
            "RTMIN++1",
            "99999999999",
            "SIGSIGTERM",
        ] {
            assert_eq!(parse(text).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{text:?}");
        }
    }

    #[test]
    fn every_signal_of_the_cri_is_one_and_comes_back() {
        for signal in Signal::VALUES.iter().filter(|s| **s != Signal::RUNTIME_DEFAULT) {
            let number = parse(&format!("{signal:?}")).expect("known");
            let back = to_cri(number);
            assert_eq!(parse(&format!("{back:?}")).expect("known"), number, "{signal:?} {back:?}");
        }
        assert_eq!(to_cri(15), Signal::SIGTERM);
        assert_eq!(to_cri(17), Signal::SIGCHLD);
        assert_eq!(to_cri(32), Signal::RUNTIME_DEFAULT);
    }

    #[test]
    fn request_before_image_before_sigterm() {
        let image = |signal: &str| ImageFacts { stop_signal: signal.into(), ..Default::default() };
        let config = |signal: i32| ContainerConfig {
            stop_signal: protobuf::EnumOrUnknown::from_i32(signal),
            ..Default::default()
        };
        assert_eq!(of(&config(Signal::SIGINT as i32), &image("SIGQUIT")).expect("valid"), 2);
        assert_eq!(of(&config(0), &image("SIGQUIT")).expect("valid"), 3);
        assert_eq!(of(&config(0), &image("")).expect("valid"), 15);
        assert_eq!(of(&config(0), &image("SIGNONE")).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        assert_eq!(of(&config(99), &image("")).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }
}
