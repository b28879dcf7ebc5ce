//! What an ELF file says of itself.

use std::fs;
use std::path::Path;

/// Program header of a file that asks for a dynamic loader.
const PT_INTERP: u32 = 3;

/// Whether a 64-bit little-endian ELF file runs without a dynamic loader.
pub fn is_static(path: &Path) -> bool {
    let bytes = fs::read(path).expect("readable");
    assert_eq!(bytes[..6], *b"\x7fELF\x02\x01", "{} is a 64-bit little-endian ELF file", path.display());
    let word = |at: usize, length: usize| {
        bytes[at..at + length].iter().rev().fold(0usize, |value, byte| value << 8 | usize::from(*byte))
    };
    let (table, entry, count) = (word(0x20, 8), word(0x36, 2), word(0x38, 2));
    assert!(count > 0, "it has program headers");
    (0..count).all(|n| word(table + n * entry, 4) != PT_INTERP as usize)
}
