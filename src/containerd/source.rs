//! Where the bytes of a blob come from.

use std::io::{self, ErrorKind, Read};

/// Bytes that can be had from any place on: containerd may have the beginning from an earlier attempt.
pub trait Source {
    /// A reader of what follows the first `offset` bytes. Called once.
    ///
    /// # Errors
    /// `UnexpectedEof` if there is less than that.
    fn after(&mut self, offset: u64) -> io::Result<Box<dyn Read + '_>>;
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
