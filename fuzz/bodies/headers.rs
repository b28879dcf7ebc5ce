//! Header blocks of a SPDY client, several in one zlib stream: before each stands its length in two bytes.

use cricket::streaming::spdy::headers::{Reader, MAX_BLOCK};

/// One input.
pub fn run(mut bytes: &[u8]) {
    let mut reader = Reader::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let (block, rest) = rest.split_at(rest.len().min(u16::from_be_bytes(*length).into()));
        bytes = rest;
        match reader.read(block) {
            Ok(headers) => {
                let length: usize = headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
                assert!(4 + length <= MAX_BLOCK, "{length} bytes of headers");
                assert!(headers.iter().all(|(name, _)| *name == name.to_ascii_lowercase()));
            }
            // The connection ends here.
            Err(_) => return,
        }
    }
}
