//! The options of the runc family of shims.

use cricket_proto::runc::Options;
use protobuf::Message;

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
