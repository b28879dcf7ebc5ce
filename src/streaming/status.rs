//! How a session ended, in the words of each version of the protocol.

use serde_json::json;

use super::upgrade::Version;

/// How a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended with this code; attach ends with 0.
    Exit(u32),
    /// It could not be run, or its end is not known.
    Failure(String),
}

/// What goes to the error stream; nothing for a success before v4.
pub fn status(version: Version, outcome: &Outcome) -> Vec<u8> {
    let words = match outcome {
        Outcome::Exit(0) => None,
        Outcome::Exit(code) => Some(format!("command terminated with non-zero exit code: exit code {code}")),
        Outcome::Failure(why) => Some(why.clone()),
    };
    if version < Version::V4 {
        return words.unwrap_or_default().into_bytes();
    }
    let status = match (outcome, words) {
        (Outcome::Exit(code), Some(message)) => json!({
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        (Outcome::Failure(why), _) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("Internal error occurred: {why}"),
            "reason": "InternalError",
            "details": {"causes": [{"message": why}]},
            "code": 500,
        }),
        _ => json!({"metadata": {}, "status": "Success"}),
    };
    status.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(version: Version, outcome: Outcome) -> String {
        String::from_utf8(status(version, &outcome)).unwrap()
    }

    #[test]
    fn v4_is_a_status_in_json() {
        assert_eq!(text(Version::V4, Outcome::Exit(0)), r#"{"metadata":{},"status":"Success"}"#);
        let failed: serde_json::Value = serde_json::from_str(&text(Version::V5, Outcome::Exit(42))).unwrap();
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"], json!([{"reason": "ExitCode", "message": "42"}]));
        let failed: serde_json::Value =
            serde_json::from_str(&text(Version::V4, Outcome::Failure("no shell".into()))).unwrap();
        assert_eq!((&failed["code"], &failed["reason"]), (&json!(500), &json!("InternalError")));
        assert_eq!(failed["message"], "Internal error occurred: no shell");
    }

    #[test]
    fn before_that_only_failures_are_told() {
        assert_eq!(text(Version::V3, Outcome::Exit(0)), "");
        assert!(text(Version::V1, Outcome::Exit(3)).contains("exit code 3"));
        assert_eq!(text(Version::V2, Outcome::Failure("no".into())), "no");
    }
}
