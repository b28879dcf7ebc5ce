//! Version: the first call of every client.

use cricket_proto::runtime::{VersionRequest, VersionResponse};

use crate::call::Call;
use crate::error::Result;
use crate::runtime::Runtime;

/// The version of the kubelet's runtime API, as every runtime answers it.
const KUBELET_API: &str = "0.1.0";
/// The CRI that is served.
const CRI_API: &str = "v1";

/// Who we are. The name is the scheme of container ids in the Kubernetes API (`cricket://…`): it never changes.
pub fn version(_: &Runtime, _: &Call, _: VersionRequest) -> Result<VersionResponse> {
    Ok(VersionResponse {
        version: KUBELET_API.into(),
        runtime_name: "cricket".into(),
        runtime_version: env!("CARGO_PKG_VERSION").into(),
        runtime_api_version: CRI_API.into(),
        ..Default::default()
    })
}
