//! Base64 as the text variants of the WebSocket protocols carry it: the common alphabet, padded.

use crate::error::{Error, Result};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Appends `bytes` in base64.
pub fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for three in bytes.chunks(3) {
        let number = three.iter().fold(0u32, |n, byte| n << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            out.push(match digit <= three.len() {
                true => ALPHABET[(number >> (18 - 6 * digit) & 63) as usize],
                false => b'=',
            });
        }
    }
}

/// Reads a text piece by piece.
#[derive(Default)]
pub struct Decoder {
    number: u32,
    digits: u32,
    padding: u32,
    /// What came was not base64.
    broken: bool,
}

impl Decoder {
    /// Appends what the next piece of the text means, as far as it is complete, and up to what is not base64: where the
    /// pieces end makes no difference. See [`Decoder::check`].
    pub fn decode(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for character in text {
            let value = match character {
                b'A'..=b'Z' => character - b'A',
                b'a'..=b'z' => character - b'a' + 26,
                b'0'..=b'9' => character - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                b'=' if self.digits >= 2 => 0,
                _ => return self.broken = true,
            };
            if *character == b'=' {
                self.padding += 1;
            } else if self.padding > 0 {
                return self.broken = true;
            }
            self.number = self.number << 6 | u32::from(value);
            self.digits += 1;
            if self.digits == 4 {
                let [_, bytes @ ..] = self.number.to_be_bytes();
                out.extend_from_slice(&bytes[..3 - self.padding as usize]);
                (self.number, self.digits) = (0, 0);
            }
        }
    }

    /// Whether all so far was base64; if not, nothing that comes is.
    ///
    /// # Errors
    /// If it was not.
    pub fn check(&self) -> Result<()> {
        match self.broken {
            false => Ok(()),
            true => Err(Error::invalid("WebSocket: a text is not base64")),
        }
    }

    /// The text is over; the next one may begin.
    ///
    /// # Errors
    /// As [`Decoder::check`], or it ended within a group of four.
    pub fn finish(&mut self) -> Result<()> {
        self.broken |= self.digits != 0;
        self.check()?;
        *self = Decoder::default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back_in_any_pieces() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob\u{ff}", "Zm9vYsO/")] {
            let mut encoded = Vec::new();
            encode(plain.as_bytes(), &mut encoded);
            assert_eq!(String::from_utf8_lossy(&encoded), text);
            for size in 1..=8 {
                let (mut decoder, mut out) = (Decoder::default(), Vec::new());
                encoded.chunks(size).for_each(|piece| decoder.decode(piece, &mut out));
                decoder.finish().unwrap();
                assert_eq!(out, plain.as_bytes());
            }
        }
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in ["Z", "Zg", "Zg=", "Z===", "====", "Zg==Zg==", "Zg=A", "Z-==", "Zg==\n"] {
            let mut decoder = Decoder::default();
            decoder.decode(text.as_bytes(), &mut Vec::new());
            assert!(decoder.finish().is_err() && decoder.check().is_err(), "{text}");
        }
    }
}
