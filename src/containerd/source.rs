//! Where the bytes of a blob come from.

use std::io::{self, ErrorKind, Read};

/// What one message to containerd carries; far below what it takes. Three of them are all the memory that a write needs.
pub const MESSAGE_BYTES: usize = 512 << 10;

/// Bytes that can be had from any place on: containerd may have the beginning from an earlier attempt.
pub trait Source {
    /// A reader of what follows the first `offset` bytes. Called once for each attempt.
    ///
    /// # Errors
    /// `UnexpectedEof` if there is less than that.
    fn after(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>>;

    /// Whether containerd may have the beginning of it, or all. If not, it is not asked before a blob is read that
    /// one message carries.
    fn may_be_there(&self) -> bool {
        true
    }
}

/// Bytes of which containerd has nothing yet, as far as is known.
pub struct Fresh<'a>(pub &'a [u8]);

impl Source for Fresh<'_> {
    fn after(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.0.get(offset..));
        rest.map(|rest| Box::new(rest) as Box<dyn Read>).ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    fn may_be_there(&self) -> bool {
        false
    }
}

/// What can only be read from its beginning is read over what is there already.
impl<R: Read> Source for R {
    fn after(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        match io::copy(&mut self.by_ref().take(offset), &mut io::sink())? {
            skipped if skipped < offset => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(Box::new(self)),
        }
    }
}
