//! Header blocks: names and values through one zlib stream for each direction, which begins with SPDY's dictionary.
//!
//! What we read may be compressed in any way, so the stream's whole state is kept. What we write is short and always
//! the same, and goes into blocks that are stored as they are: a valid stream that needs no compressor.

use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::{dictionary, ADLER32};
use crate::error::{Error, Result};

/// What is decompressed at once.
const ROOM: usize = 1 << 10;
/// The most bytes of one block when decompressed. What clients send has a few hundred.
pub const MAX_BLOCK: usize = 16 << 10;
/// The most names in a block.
const MAX_NAMES: usize = 64;
/// Method deflate with a 32 KiB window, a dictionary is named, check bits.
const ZLIB_HEADER: [u8; 2] = [0x78, 0xbb];
const WITH_DICTIONARY: u8 = 0x20;

/// Reads the header blocks of one direction.
pub struct Reader {
    inflate: Decompress,
    /// The zlib header before the first block, as far as it is here.
    preface: Vec<u8>,
    begun: bool,
}

impl Reader {
    /// Before the first block.
    pub fn new() -> Reader {
        let mut inflate = Decompress::new(false);
        // Without the header, which is read here, any dictionary is the right one.
        let known = inflate.set_dictionary(&dictionary());
        debug_assert!(known.is_ok());
        Reader { inflate, preface: Vec::new(), begun: false }
    }

    /// The names, in lower case, and values of the next block. All blocks must be read, also those nobody wants: each
    /// may refer back to the one before it.
    ///
    /// # Errors
    /// What is no zlib stream, or decompresses to more than [`MAX_BLOCK`], or is no list of headers.
    pub fn read(&mut self, block: &[u8]) -> Result<Vec<(String, String)>> {
        let mut rest = block;
        while !self.begun {
            let Some((byte, after)) = rest.split_first() else { return Err(broken("it is cut short")) };
            self.preface.push(*byte);
            rest = after;
            self.begun = preface_is_whole(&self.preface)?;
        }
        parse(&self.inflate(rest)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        loop {
            plain.reserve(ROOM);
            let before = self.inflate.total_in();
            let status = self.inflate.decompress_vec(input, &mut plain, FlushDecompress::Sync);
            let read = usize::try_from(self.inflate.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(read..).unwrap_or_default();
            if plain.len() > MAX_BLOCK {
                return Err(broken("it is too long when decompressed"));
            }
            let is_full = plain.len() == plain.capacity();
            match status {
                Ok(Status::Ok | Status::BufError) if input.is_empty() && !is_full => return Ok(plain),
                Ok(Status::Ok) if read > 0 || is_full => {}
                _ => return Err(broken("it is not compressed as it should be")),
            }
        }
    }
}

impl Default for Reader {
    fn default() -> Self {
        Reader::new()
    }
}

/// Whether this is the whole zlib header; one without a dictionary is a zlib stream too, but not SPDY's.
fn preface_is_whole(preface: &[u8]) -> Result<bool> {
    match *preface {
        [cmf, flags, ref id @ ..] => {
            let sound = cmf & 0x0f == 8 && cmf >> 4 <= 7 && (u32::from(cmf) << 8 | u32::from(flags)) % 31 == 0;
            if !sound || flags & WITH_DICTIONARY == 0 {
                return Err(broken("it is not compressed with SPDY's dictionary"));
            }
            match <[u8; 4]>::try_from(id) {
                Ok(id) if u32::from_be_bytes(id) == ADLER32 => Ok(true),
                Ok(_) => Err(broken("it is compressed with another dictionary")),
                Err(_) => Ok(false),
            }
        }
        _ => Ok(false),
    }
}

fn parse(mut plain: &[u8]) -> Result<Vec<(String, String)>> {
    let count = number(&mut plain)?;
    if count > MAX_NAMES {
        return Err(broken("it has too many names"));
    }
    let mut all = Vec::with_capacity(count);
    for _ in 0..count {
        let name = text(&mut plain)?.to_ascii_lowercase();
        all.push((name, text(&mut plain)?));
    }
    match plain {
        [] => Ok(all),
        _ => Err(broken("more follows after its last value")),
    }
}

fn number(plain: &mut &[u8]) -> Result<usize> {
    let (number, rest) = plain.split_first_chunk::<4>().ok_or_else(|| broken("it ends within a number"))?;
    *plain = rest;
    usize::try_from(u32::from_be_bytes(*number)).map_err(|_| broken("a number is too great"))
}

fn text(plain: &mut &[u8]) -> Result<String> {
    let length = number(plain)?;
    let (text, rest) = plain.split_at_checked(length).ok_or_else(|| broken("it ends within a text"))?;
    *plain = rest;
    String::from_utf8(text.to_vec()).map_err(|_| broken("a text is not UTF-8"))
}

fn broken(why: &str) -> Error {
    Error::invalid(format!("SPDY header block: {why}"))
}

/// Writes the header blocks of one direction.
#[derive(Default)]
pub struct Writer {
    begun: bool,
}

impl Writer {
    /// A block without any header: all that our answers need.
    pub fn empty(&mut self) -> Vec<u8> {
        let mut block = Vec::with_capacity(20);
        if !std::mem::replace(&mut self.begun, true) {
            block.extend(ZLIB_HEADER);
            block.extend(ADLER32.to_be_bytes());
        }
        // A stored block that is not the last one: its length, the complement of that, no names.
        block.extend([0, 4, 0, 0xfb, 0xff]);
        block.extend([0; 4]);
        // An empty one, as a flush leaves it: Go's reader hands out nothing before.
        block.extend([0, 0, 0, 0xff, 0xff]);
        block
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streaming::frames::{headers_of as plain, stored, PREFACE};

    /// What zlib makes of `{"streamtype": "stdin"}`, flushed, and then of `{"streamtype": "stdout"}`, with the
    /// dictionary.
    const COMPRESSED: [&[u8]; 2] = [
        include_bytes!("../../../tests/data/spdy-headers-1.bin"),
        include_bytes!("../../../tests/data/spdy-headers-2.bin"),
    ];

    #[test]
    fn what_a_compressor_wrote_is_read_block_by_block() {
        let mut reader = Reader::new();
        for (block, value) in COMPRESSED.iter().zip(["stdin", "stdout"]) {
            assert_eq!(reader.read(block).unwrap(), [("streamtype".into(), value.into())]);
        }
        assert!(Reader::new().read(COMPRESSED[1]).is_err(), "the second depends on the first");
    }

    #[test]
    fn what_we_write_can_be_read() {
        let (mut reader, mut writer) = (Reader::new(), Writer::default());
        for _ in 0..3 {
            assert_eq!(reader.read(&writer.empty()).unwrap(), []);
        }
    }

    #[test]
    fn the_window_goes_round() {
        let mut reader = Reader::new();
        let long = "v".repeat(10_000);
        for n in 0..20 {
            let block = stored(&plain(&[("Name", &long), ("n", &n.to_string())]));
            let block = if n == 0 { [&PREFACE, &*block].concat() } else { block };
            assert_eq!(reader.read(&block).unwrap()[1], ("n".into(), n.to_string()));
        }
    }

    #[test]
    fn a_bomb_is_stopped() {
        // A stored kilobyte, then as many copies of it as the format can say in 60 bytes, would be the real thing; a
        // stored block above the limit takes the same way.
        let mut reader = Reader::new();
        let e = reader.read(&[&PREFACE, &*stored(&vec![0; MAX_BLOCK + 1])].concat()).unwrap_err();
        assert!(e.message().contains("too long"), "{e}");
        assert!(Reader::new().read(include_bytes!("../../../tests/data/spdy-bomb.bin")).is_err());
    }

    #[test]
    fn what_is_no_header_block_is_refused() {
        let first = |block: Vec<u8>| Reader::new().read(&[&PREFACE, &*block].concat()).map_err(|e| e.to_string());
        let mut lying = plain(&[("a", "b")]);
        lying[3] = 2;
        for (block, why) in [
            (stored(&[]), "within a number"),
            (stored(&[0, 0, 0, 1, 0, 0, 0, 9, b'x']), "within a text"),
            (stored(&[0xff; 4]), "too many"),
            (stored(&[0, 0, 0, 0, 7]), "more follows"),
            (stored(&lying), "within a number"),
            (stored(&plain(&[("a", "b")]).iter().map(|b| b | 0x80).collect::<Vec<_>>()), "too many"),
            (vec![6; 9], "not compressed"),
            (vec![0, 4, 0, 0, 0, 1], "not compressed"),
        ] {
            let e = first(block).unwrap_err();
            assert!(e.contains(why), "{why}: {e}");
        }
        for block in [&[0x78, 0x9c][..], &[0x79, 0xbb], &[0x78, 0xbb, 1, 2, 3, 4], &[0x78], &[]] {
            assert!(Reader::new().read(block).is_err(), "{block:x?}");
        }
    }
}
