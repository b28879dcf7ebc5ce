//! What a plugin prints after a successful ADD, in the shapes of every version, and the addresses in it.

use std::net::IpAddr;

use serde_json::Value;

use super::conf::VERSIONS;
use crate::error::{Error, Kind, Result};

/// What an ADD gave the container.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The container's addresses: those of the requested interface first, otherwise in the plugins' order. May be
    /// empty: a plugin need not give any.
    pub ips: Vec<IpAddr>,
    /// The last plugin's result as it printed it.
    pub raw: Value,
}

/// Reads a plugin's standard output. A result without a version has that of the configuration.
///
/// # Errors
/// `Unknown` if it is not a result.
pub(super) fn parse(stdout: &[u8], version: &str) -> Result<Value> {
    let mut value: Value = serde_json::from_slice(stdout).map_err(|e| bad(format!("not JSON: {e}")))?;
    let result = value.as_object_mut().ok_or_else(|| bad("not a JSON object"))?;
    match result.get("cniVersion") {
        Some(Value::String(known)) if VERSIONS.contains(&known.as_str()) => {}
        Some(Value::String(none)) if !none.is_empty() => return Err(bad(format!("unknown cniVersion {none:?}"))),
        Some(Value::String(_) | Value::Null) | None => {
            result.insert("cniVersion".into(), version.into());
        }
        Some(_) => return Err(bad("cniVersion is not a string")),
    }
    Ok(value)
}

/// The container's addresses: of its own interfaces, not of those that a plugin made on the host.
///
/// # Errors
/// `Unknown` if the result does not have the shape of its version.
pub(super) fn ips(result: &Value, interface: &str) -> Result<Vec<IpAddr>> {
    if matches!(result["cniVersion"].as_str(), Some("0.1.0" | "0.2.0")) {
        let families = ["ip4", "ip6"].iter().filter_map(|family| result.get(family)).filter(|v| !v.is_null());
        return families.map(|family| address(&family["ip"])).collect();
    }
    let none = Vec::new();
    let interfaces = list(result, "interfaces")?.unwrap_or(&none);
    let mut found = Vec::new();
    for ip in list(result, "ips")?.unwrap_or(&none) {
        let elsewhere = match &ip["interface"] {
            Value::Null => false,
            index => {
                let owner = index.as_u64().and_then(|i| interfaces.get(usize::try_from(i).ok()?));
                let owner = owner.ok_or_else(|| bad(format!("there is no interface {index}")))?;
                if owner["sandbox"].as_str().unwrap_or_default().is_empty() {
                    continue;
                }
                owner["name"] != interface
            }
        };
        found.push((elsewhere, address(&ip["address"])?));
    }
    found.sort_by_key(|(elsewhere, _)| *elsewhere);
    Ok(found.into_iter().map(|(_, ip)| ip).collect())
}

fn list<'a>(result: &'a Value, key: &str) -> Result<Option<&'a Vec<Value>>> {
    match &result[key] {
        Value::Null => Ok(None),
        Value::Array(list) => Ok(Some(list)),
        _ => Err(bad(format!("{key} is not a list"))),
    }
}

/// `10.1.2.3/24` without its prefix.
fn address(value: &Value) -> Result<IpAddr> {
    let parsed = value.as_str().and_then(|text| {
        let (ip, prefix) = text.split_once('/')?;
        let ip: IpAddr = ip.parse().ok()?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        (prefix.parse::<u8>().ok()? <= longest).then_some(ip)
    });
    parsed.ok_or_else(|| bad(format!("{value} is not an address with a prefix")))
}

fn bad(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Unknown, format!("the plugin printed an invalid result: {what}"))
}
