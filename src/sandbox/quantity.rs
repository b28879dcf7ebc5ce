//! Kubernetes quantities, as far as traffic limits use them.

use crate::error::{Error, Result};

/// The limits that Kubernetes puts on a traffic limit: 1k to 1P bits per second.
const RANGE: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// Suffixes and what they multiply with.
const SUFFIXES: [(&str, u64); 11] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
    ("", 1),
];

/// A rate: `10M`, `1.5G`, `1000Ki`, `2e6`.
///
/// # Errors
/// `InvalidArgument` for anything else, and for less than 1k or more than 1P.
pub fn bits_per_second(text: &str) -> Result<u64> {
    let bad = || Error::invalid(format!("bandwidth {text:?} is not a quantity between 1k and 1P, such as 10M"));
    let (suffix, factor) = SUFFIXES.iter().find(|(suffix, _)| text.ends_with(suffix)).ok_or_else(bad)?;
    let number = &text[..text.len() - suffix.len()];
    if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+')) {
        return Err(bad());
    }
    let value = number.parse::<f64>().map_err(|_| bad())? * *factor as f64;
    // Beyond the range of the cast it saturates, and the check refuses it.
    let bits = value.round() as u64;
    if RANGE.contains(&bits) {
        Ok(bits)
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn quantities() {
        for (text, bits) in
            [("10M", 10_000_000), ("1.5G", 1_500_000_000), ("1000Ki", 1_024_000), ("2e6", 2_000_000), ("1k", 1000)]
        {
            assert_eq!(bits_per_second(text).unwrap(), bits, "{text}");
        }
        for text in ["", "M", "999", "2P", "ten", "-5M", "10m", "NaN", "inf", "1e99"] {
            assert_eq!(bits_per_second(text).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{text}");
        }
    }
}
