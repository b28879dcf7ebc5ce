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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn addresses(result: &Value) -> Result<Vec<String>> {
        let result = parse(result.to_string().as_bytes(), "1.0.0")?;
        Ok(ips(&result, "eth0")?.iter().map(IpAddr::to_string).collect())
    }

    #[test]
    fn every_version_gives_its_addresses() {
        let interfaces = json!([
            {"name": "br0"}, {"name": "veth1", "sandbox": ""},
            {"name": "net1", "sandbox": "/ns"}, {"name": "eth0", "sandbox": "/ns"},
        ]);
        let cases = [
            (json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.1.2.3/24", "gateway": "10.1.2.1"}}), vec!["10.1.2.3"]),
            (json!({"cniVersion": "0.2.0", "ip4": null, "ip6": {"ip": "fd00::2/64"}}), vec!["fd00::2"]),
            (
                json!({"cniVersion": "0.2.0", "ip6": {"ip": "fd00::2/64"}, "ip4": {"ip": "10.0.0.2/8"}}),
                vec!["10.0.0.2", "fd00::2"],
            ),
            (json!({"cniVersion": "0.3.0", "ips": [{"version": "4", "address": "10.1.2.3/24"}]}), vec!["10.1.2.3"]),
            (
                json!({"cniVersion": "0.4.0", "interfaces": interfaces, "ips": [
                    {"version": "4", "address": "10.0.0.1/24", "interface": 0},
                    {"version": "4", "address": "10.0.0.2/24", "interface": 1},
                    {"version": "4", "address": "10.0.0.3/24", "interface": 3},
                    {"version": "6", "address": "fd00::3/64", "interface": 3},
                ]}),
                vec!["10.0.0.3", "fd00::3"],
            ),
            (
                json!({"cniVersion": "1.1.0", "interfaces": interfaces, "ips": [
                    {"address": "10.0.0.4/24", "interface": 2},
                    {"address": "10.0.0.3/24", "interface": 3},
                    {"address": "10.0.0.5/24"},
                ]}),
                vec!["10.0.0.3", "10.0.0.5", "10.0.0.4"],
            ),
            (json!({"ips": [{"address": "10.0.0.6/32"}]}), vec!["10.0.0.6"]),
            (json!({"cniVersion": "1.0.0", "ips": null, "interfaces": null}), vec![]),
            (json!({"cniVersion": "1.0.0"}), vec![]),
        ];
        for (result, expected) in cases {
            assert_eq!(addresses(&result).expect("valid"), expected, "{result}");
        }
    }

    #[test]
    fn a_result_without_version_has_that_of_the_configuration() {
        for text in [r#"{"a":1}"#, r#"{"a":1,"cniVersion":""}"#, r#"{"a":1,"cniVersion":null}"#] {
            assert_eq!(parse(text.as_bytes(), "0.2.0").expect("valid"), json!({"a": 1, "cniVersion": "0.2.0"}));
        }
    }

    #[test]
    fn what_is_no_result_is_refused() {
        for text in ["", "x", "[]", "null", r#"{"cniVersion":"2.0.0"}"#, r#"{"cniVersion":1}"#, "{}{}"] {
            assert_eq!(parse(text.as_bytes(), "1.0.0").map_err(|e| e.kind()), Err(Kind::Unknown), "{text:?}");
        }
        let cases = [
            json!({"ips": {}}),
            json!({"ips": [{"address": "10.0.0.1"}]}),
            json!({"ips": [{"address": "10.0.0.1/33"}]}),
            json!({"ips": [{"address": "fd00::1/129"}]}),
            json!({"ips": [{"address": "host/24"}]}),
            json!({"ips": [{}]}),
            json!({"ips": [7]}),
            json!({"interfaces": 7, "ips": []}),
            json!({"ips": [{"address": "10.0.0.1/24", "interface": 0}]}),
            json!({"interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": [{"address": "10.0.0.1/24", "interface": -1}]}),
            json!({"interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": [{"address": "10.0.0.1/24", "interface": "0"}]}),
            json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1"}}),
            json!({"cniVersion": "0.2.0", "ip4": "10.0.0.1/24"}),
        ];
        for result in cases {
            assert_eq!(addresses(&result).map_err(|e| e.kind()), Err(Kind::Unknown), "{result}");
        }
    }
}
