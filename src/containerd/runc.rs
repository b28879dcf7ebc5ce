//! The options of shims: the runc family's, and the one that all others have.

use std::path::Path;

use cricket_proto::runc::Options;
use protobuf::{CodedOutputStream, Message};

use super::Any;
use crate::error::{Error, Kind, Result};

/// What a runc shim can be told.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuncOptions<'a> {
    /// The OCI runtime binary; "" for runc from the path.
    pub binary: &'a str,
    /// The OCI runtime's state folder; "" for its own default.
    pub root: &'a str,
    /// Cgroups are made by systemd.
    pub systemd_cgroup: bool,
    /// Who owns the standard streams: root of the container.
    pub owner: (u32, u32),
}

impl RuncOptions<'_> {
    /// As the shim reads them.
    pub fn encode(&self) -> Result<Any> {
        let options = Options {
            binary_name: self.binary.to_owned(),
            root: self.root.to_owned(),
            systemd_cgroup: self.systemd_cgroup,
            io_uid: self.owner.0,
            io_gid: self.owner.1,
            ..Default::default()
        };
        let value = options.write_to_bytes().map_err(|e| Error::caused(Kind::Internal, "encode runc options", e))?;
        Ok(Any { type_url: "containerd.runc.v1.Options".into(), value })
    }
}

/// `runtimeoptions.v1.Options` for the shim of `runtime_type`: a type name (1) and the path of a file (2).
pub fn config_file(runtime_type: &str, path: &Path) -> Result<Any> {
    let mut value = Vec::new();
    let mut out = CodedOutputStream::vec(&mut value);
    let written = out
        .write_string(1, &format!("{runtime_type}.options"))
        .and_then(|()| out.write_string(2, &path.to_string_lossy()))
        .and_then(|()| out.flush());
    drop(out);
    written.map_err(|e| Error::caused(Kind::Internal, "encode shim options", e))?;
    Ok(Any { type_url: "runtimeoptions.v1.Options".into(), value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_for_a_shim() {
        let any = config_file("io.containerd.runsc.v1", Path::new("/etc/runsc.toml")).expect("encoded");
        assert_eq!(any.type_url, "runtimeoptions.v1.Options");
        assert_eq!(any.value, b"\x0a\x1eio.containerd.runsc.v1.options\x12\x0f/etc/runsc.toml");
    }
}
