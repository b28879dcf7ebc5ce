//! Version, namespace, plugins.

use cricket_proto::introspection::PluginsRequest;
use cricket_proto::methods::{introspection, namespaces, version as version_service};
use cricket_proto::namespaces::{CreateNamespaceRequest, Namespace};
use protobuf::well_known_types::empty::Empty;
use protobuf::MessageField;

use super::Client;
use crate::call::Call;
use crate::containerd::{Plugin, Version, NAMESPACE};
use crate::error::{Kind, Result};

pub(super) fn version(client: &Client, call: &Call) -> Result<Version> {
    let answer = client.quick(call, &version_service::VERSION, &Empty::new())?;
    Ok(Version { version: answer.version, revision: answer.revision })
}

pub(super) fn ensure_namespace(client: &Client, call: &Call) -> Result<()> {
    let namespace = Namespace { name: NAMESPACE.to_owned(), ..Namespace::default() };
    let request =
        CreateNamespaceRequest { namespace: MessageField::some(namespace), ..CreateNamespaceRequest::default() };
    match client.quick(call, &namespaces::CREATE, &request) {
        Err(e) if e.kind() != Kind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

pub(super) fn plugins(client: &Client, call: &Call, kind: &str) -> Result<Vec<Plugin>> {
    let filters = if kind.is_empty() { Vec::new() } else { vec![format!("type==\"{kind}\"")] };
    let request = PluginsRequest { filters, ..PluginsRequest::default() };
    let answer = client.quick(call, &introspection::PLUGINS, &request)?;
    let ours = answer.plugins.into_iter().map(|plugin| Plugin {
        kind: plugin.type_,
        id: plugin.id,
        exports: plugin.exports.into_iter().collect(),
        capabilities: plugin.capabilities,
        error: plugin.init_err.into_option().map(|e| e.message),
    });
    Ok(ours.collect())
}
