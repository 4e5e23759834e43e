//! Stream names: Kafka's rules for topic names.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of a stream, a valid Kafka topic name: 1 to 249 of `[A-Za-z0-9._-]`, not `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StreamName(String);

/// Why a string is no stream name.
#[derive(Debug, thiserror::Error)]
#[error(
    "\"{0}\" is no stream name: use 1 to 249 letters, digits, '.', '_' or '-', but not \".\" or \"..\""
)]
pub struct InvalidStreamName(String);

impl StreamName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for StreamName {
    type Error = InvalidStreamName;

    fn try_from(name: String) -> Result<Self, InvalidStreamName> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let valid = (1..=249).contains(&name.len())
            && name.bytes().all(allowed)
            && name != "."
            && name != "..";
        if valid { Ok(Self(name)) } else { Err(InvalidStreamName(name)) }
    }
}

impl From<StreamName> for String {
    fn from(name: StreamName) -> Self {
        name.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafka() {
        let check = |name: &str, valid: bool| {
            assert_eq!(StreamName::try_from(name.to_owned()).is_ok(), valid, "{name:?}");
        };
        check("telemetry", true);
        check("a.b_c-D9", true);
        check(&"x".repeat(249), true);
        check(&"x".repeat(250), false);
        check("", false);
        check(".", false);
        check("..", false);
        check("a/b", false);
        check("ä", false);
    }
}
