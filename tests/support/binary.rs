//! The program under test.

use std::env;
use std::path::{Path, PathBuf};

/// cricket: what CRICKET_BIN names, else the product of `make build`.
pub fn binary() -> PathBuf {
    if let Some(path) = env::var_os("CRICKET_BIN") {
        let path = PathBuf::from(path);
        assert!(path.is_file(), "CRICKET_BIN={}: there is no such file", path.display());
        return path;
    }
    let target = format!("target/{}-unknown-linux-musl/release/cricket", env::consts::ARCH);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(target);
    assert!(path.is_file(), "{} is missing: run `make build` first, or set CRICKET_BIN", path.display());
    path
}
