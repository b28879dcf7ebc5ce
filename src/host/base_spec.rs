//! The base specs that runtime handlers name, read once at start.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::Config;
use crate::error::{Context, Error, Result};
use crate::oci::base;

/// Every file named by a handler, by its path.
///
/// # Errors
/// `InvalidArgument` for a file that is not there or holds no JSON object.
pub fn read_all(config: &Config) -> Result<BTreeMap<PathBuf, Value>> {
    let named = config.runtimes.iter().filter_map(|(name, handler)| Some((name, handler.base_spec.as_ref()?)));
    named
        .map(|(name, path)| {
            let value = read(path).with_context(|| format!("runtime.{name}.base_spec {}", path.display()))?;
            Ok((path.clone(), value))
        })
        .collect()
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).map_err(|e| Error::invalid(e.to_string()))?;
    let value: Value = serde_json::from_slice(&text).map_err(|e| Error::invalid(format!("not JSON: {e}")))?;
    match base::is_base(&value) {
        true => Ok(value),
        false => Err(Error::invalid("not a runtime spec: it must be a JSON object")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Overrides;
    use crate::error::Kind;

    #[test]
    fn files_are_read_or_named() {
        let path = std::env::temp_dir().join(format!("cricket-base-{}.json", std::process::id()));
        let text = format!("[runtime.hard]\nbase_spec = {path:?}");
        let config = Config::parse(&text, Overrides::default()).expect("valid");
        let absent = read_all(&config).expect_err("absent");
        assert_eq!(absent.kind(), Kind::InvalidArgument);
        assert!(absent.to_string().starts_with("runtime.hard.base_spec "), "{absent}");
        fs::write(&path, "[]").expect("write");
        assert!(read_all(&config).is_err());
        fs::write(&path, "{\"hooks\": {}}").expect("write");
        let read = read_all(&config).expect("there");
        assert_eq!(read[&path]["hooks"], Value::Object(Default::default()));
        fs::remove_file(&path).expect("our own file");
    }
}
