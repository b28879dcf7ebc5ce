//! An image with a shell, made on the spot: Debian's static busybox.

use std::fs::File;
use std::path::Path;

use cricket::image::build::{self, Bytes, NewFile, NewImage};

use crate::elf;

/// The image of every container: a static busybox.
pub const IMAGE: &str = "localhost/cricket-test-shell:1";
/// Its only program.
pub const BUSYBOX: &str = "/bin/busybox";

/// Writes it as an archive, with more files than the shell needs.
pub fn write(archive: &Path, more: &[NewFile<'_>]) {
    let busybox = Path::new(BUSYBOX);
    let fix = "apt-get install busybox-static";
    assert!(busybox.is_file(), "{BUSYBOX} is missing: {fix}");
    assert!(elf::is_static(busybox), "{BUSYBOX} is not the static one: {fix}");
    let inline = |path, text: &'static str| NewFile { path, mode: 0o644, bytes: Bytes::Inline(text.as_bytes()) };
    let mut files = vec![
        NewFile { path: "bin/busybox", mode: 0o755, bytes: Bytes::File(busybox) },
        inline("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001:web:/:/bin/sh\n"),
        inline("etc/group", "root:x:0:\nweb:x:1001:\nstaff:x:50000:web\n"),
        inline("tmp/.keep", ""),
    ];
    files.extend_from_slice(more);
    let image = NewImage {
        name: IMAGE,
        files,
        entrypoint: vec![BUSYBOX, "sh", "-c"],
        env: vec!["PATH=/bin", "FROM_IMAGE=yes"],
        ..NewImage::default()
    };
    build::write(&image, &mut File::create(archive).expect("make the archive")).expect("build the image");
}
