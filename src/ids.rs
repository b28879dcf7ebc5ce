//! Identifiers: 64 lower-case hex digits, one type per noun. cAdvisor and the kubelet rely on that form.

use std::fmt;
use std::fs::File;
use std::io::Read;

use crate::error::{Context, Result};

/// 32 random bytes as 64 lower-case hex digits: for names that nothing else may have.
pub fn random_hex() -> Result<String> {
    let mut bytes = [0u8; 32];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).context("read /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// A new random identifier.
            pub fn random() -> Result<Self> {
                random_hex().map($name)
            }

            /// An identifier read from a record of ours.
            pub fn from_record(id: impl Into<String>) -> Self {
                $name(id.into())
            }

            /// The 64 digits.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The first 13 digits, as crictl shows them.
            pub fn short(&self) -> &str {
                self.0.get(..13).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<std::path::Path> for $name {
            fn as_ref(&self) -> &std::path::Path {
                self.0.as_ref()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

id_type!(
    /// A pod sandbox.
    SandboxId
);
id_type!(
    /// A container.
    ContainerId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_four_lower_hex_digits() {
        let id = SandboxId::random().expect("urandom");
        assert_eq!(id.as_str().len(), 64);
        assert!(id.as_str().bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        assert_ne!(id, SandboxId::random().expect("urandom"));
    }
}
