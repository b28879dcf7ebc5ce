//! Which of the platforms that an image offers suits this node best.

use std::fmt;

use serde::Deserialize;

/// An operating system on an architecture, in the words of image manifests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`.
    #[serde(default)]
    pub os: String,
    /// `amd64`, `arm64`.
    #[serde(default)]
    pub architecture: String,
    /// `v8`; "" for the architecture's usual one.
    #[serde(default)]
    pub variant: String,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match self.variant.as_str() {
            "" => Ok(()),
            variant => write!(f, "/{variant}"),
        }
    }
}

/// Linux on this architecture, in the words of image manifests.
pub fn host() -> Platform {
    let (architecture, variant) = match std::env::consts::ARCH {
        "x86_64" => ("amd64", ""),
        "aarch64" => ("arm64", "v8"),
        "arm" => ("arm", "v7"),
        "x86" => ("386", ""),
        other => (other, ""),
    };
    Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
}

/// How well `offered` runs on `host`: 0 is best, `None` not at all. The order is containerd's, which checks and exports
/// images by it: the own architecture, then the older ones its processors still run.
pub fn rank(host: &Platform, offered: &Platform) -> Option<usize> {
    const AMD64: &[(&str, &str)] = &[("amd64", "v1"), ("386", "")];
    const ARM64: &[(&str, &str)] = &[("arm64", "v8"), ("arm", "v8"), ("arm", "v7"), ("arm", "v6"), ("arm", "v5")];
    const ARM: &[(&str, &str)] = &[("arm", "v7"), ("arm", "v6"), ("arm", "v5")];
    if offered.os != host.os {
        return None;
    }
    let (architecture, variant) = usual(offered);
    match host.architecture.as_str() {
        "amd64" => AMD64.iter().position(|&p| p == (architecture, variant)),
        "arm64" => ARM64.iter().position(|&p| p == (architecture, variant)),
        "arm" => ARM.iter().position(|&p| p == (architecture, variant)),
        _ => ((architecture, variant) == usual(host)).then_some(0),
    }
}

/// Architecture and variant with the customary spellings made one.
fn usual(platform: &Platform) -> (&str, &str) {
    match (platform.architecture.as_str(), platform.variant.as_str()) {
        ("x86_64" | "x86-64" | "amd64", "") => ("amd64", "v1"),
        ("aarch64" | "arm64", "" | "8") => ("arm64", "v8"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        Platform { os: next(), architecture: next(), variant: next() }
    }

    #[test]
    fn what_runs_where() {
        for (host, offered, expected) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/amd64/v3", None),
            ("linux/amd64", "linux/386", Some(1)),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "unknown/unknown", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64/v8", "linux/arm/v7", Some(2)),
            ("linux/arm64/v8", "linux/arm64/v9", None),
            ("linux/arm/v7", "linux/arm/v8", None),
            ("linux/arm/v7", "linux/arm", Some(0)),
            ("linux/riscv64", "linux/riscv64", Some(0)),
        ] {
            assert_eq!(rank(&platform(host), &platform(offered)), expected, "{offered} on {host}");
        }
    }

    #[test]
    fn we_run_on_ourselves() {
        assert_eq!(rank(&host(), &host()), Some(0));
        assert_eq!(platform("linux/arm/v7").to_string(), "linux/arm/v7");
        assert_eq!(platform("linux/amd64").to_string(), "linux/amd64");
    }
}
