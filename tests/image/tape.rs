//! Layers out of entries that no ordinary tool would write.

use std::io::Write;

use tar::EntryType;

use crate::archives::gzip;
use crate::registry::{digest, noise, Layer};

const BLOCK: usize = 512;

/// One entry. Of what is not said it is a regular file of root's, with mode 644, changed in 2001.
#[derive(Clone)]
pub struct Piece {
    name: Vec<u8>,
    kind: EntryType,
    mode: u32,
    owner: (u64, u64),
    changed: u64,
    link: Vec<u8>,
    content: Vec<u8>,
    device: (u32, u32),
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the header that are set last.
    patches: Vec<(usize, Vec<u8>)>,
    is_ustar: bool,
}

impl Piece {
    fn new(name: &str, kind: EntryType) -> Piece {
        Piece {
            name: name.into(),
            kind,
            mode: 0o644,
            owner: (0, 0),
            changed: 1_000_000_000,
            link: Vec::new(),
            content: Vec::new(),
            device: (0, 0),
            pax: Vec::new(),
            patches: Vec::new(),
            is_ustar: false,
        }
    }

    pub fn file(name: &str, content: &[u8]) -> Piece {
        Piece { content: content.to_vec(), ..Piece::new(name, EntryType::Regular) }
    }

    pub fn dir(name: &str) -> Piece {
        Piece::new(name, EntryType::Directory).mode(0o755)
    }

    pub fn symlink(name: &str, to: &str) -> Piece {
        Piece { link: to.into(), ..Piece::new(name, EntryType::Symlink) }.mode(0o777)
    }

    pub fn hard_link(name: &str, to: &str) -> Piece {
        Piece { link: to.into(), ..Piece::new(name, EntryType::Link) }
    }

    pub fn special(name: &str, kind: EntryType, device: (u32, u32)) -> Piece {
        Piece { device, ..Piece::new(name, kind) }
    }

    /// Of a type that no tar has.
    pub fn odd(name: &str, kind: u8) -> Piece {
        Piece::new(name, EntryType::new(kind))
    }

    /// An extended header of one record, for the entry behind it or for all.
    pub fn record(kind: EntryType, key: &str, value: &str) -> Piece {
        let mut content = Vec::new();
        records(&mut content, &[(key.into(), value.into())]);
        Piece { content, ..Piece::new("record", kind) }
    }

    /// A header of GNU's that holds a long name.
    pub fn long_name(name: &[u8]) -> Piece {
        Piece { content: name.to_vec(), ..Piece::new("././@LongLink", EntryType::GNULongName) }
    }

    /// In the format of POSIX, with a prefix.
    pub fn prefixed(self, prefix: &str) -> Piece {
        Piece { is_ustar: true, ..self }.patched(345, prefix.as_bytes())
    }

    pub fn patched(mut self, at: usize, bytes: &[u8]) -> Piece {
        self.patches.push((at, bytes.to_vec()));
        self
    }

    pub fn named(self, name: &[u8]) -> Piece {
        Piece { name: name.to_vec(), ..self }
    }

    pub fn mode(self, mode: u32) -> Piece {
        Piece { mode, ..self }
    }

    pub fn owner(self, uid: u64, gid: u64) -> Piece {
        Piece { owner: (uid, gid), ..self }
    }

    pub fn changed(self, changed: u64) -> Piece {
        Piece { changed, ..self }
    }

    /// A record of an extended header before it.
    pub fn pax(mut self, key: &str, value: &[u8]) -> Piece {
        self.pax.push((key.into(), value.to_vec()));
        self
    }

    fn write(&self, to: &mut Vec<u8>) {
        if !self.pax.is_empty() {
            let mut content = Vec::new();
            records(&mut content, &self.pax);
            Piece { content, ..Piece::new("pax", EntryType::XHeader) }.write(to);
        }
        if self.name.len() > 100 && self.kind != EntryType::GNULongName {
            let name = [self.name.as_slice(), b"\0"].concat();
            Piece { content: name, ..Piece::new("././@LongLink", EntryType::GNULongName) }.write(to);
        }
        let mut header = if self.is_ustar { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(self.changed);
        header.set_size(self.content.len() as u64);
        header.set_device_major(self.device.0).expect("a GNU header");
        header.set_device_minor(self.device.1).expect("a GNU header");
        let old = header.as_old_mut();
        let most = self.name.len().min(100);
        old.name[..most].copy_from_slice(&self.name[..most]);
        old.linkname[..self.link.len()].copy_from_slice(&self.link);
        for (at, bytes) in &self.patches {
            header.as_mut_bytes()[*at..][..bytes.len()].copy_from_slice(bytes);
        }
        header.set_cksum();
        to.extend_from_slice(header.as_bytes());
        to.extend_from_slice(&self.content);
        to.resize(to.len().next_multiple_of(BLOCK), 0);
    }
}

fn records(to: &mut Vec<u8>, records: &[(Vec<u8>, Vec<u8>)]) {
    for (key, value) in records {
        let bytes = key.len() + value.len() + 3;
        let length = (bytes..).find(|n| n - bytes == n.to_string().len()).expect("there is one");
        write!(to, "{length} ").expect("in memory");
        to.extend([key.as_slice(), b"=", value, b"\n"].concat());
    }
}

/// The tar of these entries, behind noise that no pipe holds all of; which noise it is `number` says.
pub fn tape(pieces: &[Piece], number: u64) -> Vec<u8> {
    let mut tar = Vec::new();
    Piece::file(&format!("noise-{number}"), &noise(400_000, number + 7)).write(&mut tar);
    tar.extend(short(pieces));
    tar
}

/// The tar of these entries.
pub fn short(pieces: &[Piece]) -> Vec<u8> {
    let mut tar = Vec::new();
    pieces.iter().for_each(|piece| piece.write(&mut tar));
    tar.resize(tar.len() + 2 * BLOCK, 0);
    tar
}

pub fn plain(tar: Vec<u8>) -> Layer {
    Layer { diff_id: digest(&tar), kind: "", stored: tar }
}

pub fn packed(tar: &[u8]) -> Layer {
    Layer { diff_id: digest(tar), kind: "+gzip", stored: gzip(tar) }
}
