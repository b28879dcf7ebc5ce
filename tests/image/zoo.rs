//! Three layers with everything in them that both, cricket and containerd, unpack in the same way.

use tar::EntryType;

use crate::tape::Piece;

/// A capability, as the kernel keeps it. There is a line feed in it.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// What is remarkable in the lowest layer.
pub fn lowest() -> Vec<Piece> {
    let long = format!("deep/{}", "0123456789/".repeat(15));
    let device = |name, kind| Piece::special(name, kind, (5, 1));
    vec![
        Piece::dir("./").mode(0o700),
        Piece::dir("etc").mode(0o2750).owner(10, 20),
        Piece::file("./etc/passwd", b"root").mode(0o600).owner(3, 4),
        Piece::file("/absolute", b"a"),
        Piece::file("set-uid", b"s").mode(0o6755).owner(5, 6),
        Piece::dir("tmp").mode(0o1777),
        Piece::file("tmp//./odd", b""),
        Piece::file("capable", b"c").mode(0o755).pax("SCHILY.xattr.security.capability", CAPABILITY),
        Piece::file("attributes", b"")
            .pax("SCHILY.xattr.user.a", b"b")
            .pax("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        Piece::dir("kept").mode(0o710).owner(7, 8).pax("SCHILY.xattr.user.kept", b"yes"),
        Piece::dir("kept/below").mode(0o701),
        Piece::file("kept/below/file", b"low"),
        Piece::file("gone", b"g"),
        Piece::dir("gone-dir"),
        Piece::file("gone-dir/file", b"g"),
        Piece::dir("opaque").mode(0o711),
        Piece::file("opaque/low", b"l"),
        Piece::dir("usr/lib"),
        Piece::symlink("lib", "usr/lib").owner(9, 9),
        Piece::symlink("absolute-link", "/etc"),
        Piece::symlink("dangling", "/nowhere").pax("SCHILY.xattr.user.a", b"b"),
        Piece::hard_link("etc/other-name", "etc/passwd").mode(0o640).owner(1, 1),
        Piece::hard_link("other-link", "dangling"),
        Piece::special("pipe", EntryType::Fifo, (0, 0)).mode(0o622),
        device("console", EntryType::Char).mode(0o620).owner(0, 5),
        device("disk", EntryType::Block),
        Piece::file("was-a-file", b"f"),
        Piece::dir("was-a-file"),
        Piece::dir("was-a-dir"),
        Piece::file("was-a-dir/in-it", b"i"),
        Piece::file("was-a-dir", b"f"),
        Piece::file("implied/twice/file", b"i"),
        Piece::dir("implied/twice").mode(0o705).owner(2, 2),
        Piece::file("now", b"").pax("mtime", b"1234567890.123456789").pax("atime", b"1234567899.5"),
        Piece::file("old", b"").pax("mtime", b"-5"),
        Piece::file("future", b"").changed(8_000_000_000),
        Piece::file("far-future", b"").changed(0o77_777_777_777),
        Piece::file("large-ids", b"").owner(3_000_000, 4_000_000_000).pax("uid", b"4000000001"),
        Piece::file("x", b"").named(b"not-\xff-utf8"),
        Piece::file(&format!("{long}file"), b"deep"),
        Piece::file("short", b"p").pax("path", format!("{long}pax").as_bytes()),
        Piece::file("global", b"").pax("comment", b"hello"),
        Piece::file(".wh.of-nothing", b""),
        Piece::special("zero", EntryType::Char, (0, 0)),
        Piece::file("empty-attribute", b"").pax("SCHILY.xattr.user.e", b""),
        Piece::file("file", b"ustar").prefixed("etc/prefixed"),
        Piece::record(EntryType::XHeader, "uid", "5"),
        Piece::record(EntryType::XHeader, "gid", "7"),
        Piece::file("said-twice", b""),
        Piece::long_name(b"long-name\0"),
        Piece::record(EntryType::XHeader, "path", "other-name"),
        Piece::file("name", b"n"),
        Piece::long_name(b"\0"),
        Piece::file("no-long-name", b""),
        Piece::file("no-digits", b"").patched(100, &[0; 48]),
    ]
}

/// And in the one on it.
pub fn middle() -> Vec<Piece> {
    vec![
        Piece::file(".wh.gone", b"").owner(1, 2),
        Piece::file(".wh.gone-dir", b""),
        Piece::dir("opaque").mode(0o777),
        Piece::file("opaque/.wh..wh..opq", b""),
        Piece::file("opaque/high", b"h"),
        // Directories that the layer does not speak of.
        Piece::file("kept/below/upper", b"u"),
        Piece::file("kept/new/file", b"n"),
        Piece::dir("etc").mode(0o2751).owner(10, 21),
        Piece::file("etc/passwd", b"changed").owner(3, 4),
        Piece::hard_link("etc/linked", "etc/passwd"),
        Piece::file("etc/inherits/nothing", b""),
        Piece::symlink("usr/lib", "../etc"),
        Piece::file("implied/once/file", b"i"),
    ]
}

/// And in the one on both.
pub fn highest() -> Vec<Piece> {
    vec![
        // One is gone in the layer below, one is in the lowest only, one is made opaque below.
        Piece::file("gone-dir/again", b"a"),
        Piece::file("tmp/.wh.odd", b""),
        Piece::file("opaque/third", b"t"),
        Piece::file("kept/below/.wh.file", b""),
    ]
}
