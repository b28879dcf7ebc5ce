//! Status: can pods run, and what can they ask for. Without a call to containerd.

use std::collections::HashMap;

use cricket_proto::runtime::{
    RuntimeCondition, RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest,
    StatusResponse,
};
use protobuf::MessageField;
use serde_json::json;

use crate::call::Call;
use crate::config::Handler;
use crate::error::Result;
use crate::runtime::Runtime;

/// The two conditions that the kubelet wants, and the runtime handlers by name. Reads the CNI configuration, so that a
/// network add-on takes effect when its file appears.
pub fn status(rt: &Runtime, _: &Call, request: StatusRequest) -> Result<StatusResponse> {
    let containerd = match rt.connected() {
        true => Ok(()),
        false => Err(format!("containerd at {} does not answer", rt.config.containerd.address.display())),
    };
    let network = rt.cni.ready().map_err(|e| format!("Network plugin returns error: {e}"));
    let conditions = vec![
        condition("RuntimeReady", "ContainerdNotReady", containerd),
        condition("NetworkReady", "NetworkPluginNotReady", network),
    ];
    Ok(StatusResponse {
        status: MessageField::some(RuntimeStatus { conditions, ..Default::default() }),
        runtime_handlers: handlers(rt),
        features: MessageField::some(RuntimeFeatures { supplemental_groups_policy: true, ..Default::default() }),
        info: if request.verbose { info(rt) } else { HashMap::new() },
        ..Default::default()
    })
}

fn condition(name: &str, reason: &str, state: Result<(), String>) -> RuntimeCondition {
    let (status, reason, message) = match state {
        Ok(()) => (true, String::new(), String::new()),
        Err(message) => (false, reason.to_owned(), message),
    };
    RuntimeCondition { type_: name.to_owned(), status, reason, message, ..Default::default() }
}

/// Sorted by name; "" is the default one.
fn handlers(rt: &Runtime) -> Vec<RuntimeHandler> {
    let names = std::iter::once("").chain(rt.config.runtimes.keys().map(String::as_str));
    let features = |name: &str| {
        let handler = rt.handler(name);
        let able = |can: &dyn Fn(&Handler) -> bool| handler.as_ref().is_ok_and(|handler| can(handler));
        RuntimeHandlerFeatures {
            recursive_read_only_mounts: able(&|h| rt.features(h).recursive_read_only),
            user_namespaces: able(&|h| rt.lacks_for_users(h).is_none()),
            ..Default::default()
        }
    };
    let handler = |name: &str| RuntimeHandler {
        name: name.to_owned(),
        features: MessageField::some(features(name)),
        ..Default::default()
    };
    names.map(handler).collect()
}

fn info(rt: &Runtime) -> HashMap<String, String> {
    let info = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "containerd": rt.config.containerd.address,
        "snapshotter": rt.config.containerd.snapshotter,
        "cniConfDir": rt.config.cni.conf_dir,
        "cniBinDirs": rt.config.cni.bin_dirs,
        "root": rt.config.root,
        "state": rt.config.state,
        "podSandboxes": rt.sandboxes.list().len(),
        "containers": rt.containers.list().len(),
        "images": rt.images.list().len(),
    });
    HashMap::from([("config".to_owned(), info.to_string())])
}
