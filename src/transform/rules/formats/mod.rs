//! Payload formats other than JSON: the fields that a plan wants, found in the payload.
//!
//! Each format has a function of the type [`Extract`], which goes through the payload once, never
//! panics whatever the bytes, and allocates nothing but in the arena. What a payload says twice, or
//! has too deep, or promises and does not have, is told as [`EvalError::Payload`] with its place.

mod cbor;
mod message_pack;
mod plain;
pub mod sparkplug;
#[cfg(test)]
mod tests;
mod walk;

use super::paths::Paths;
use super::value::{EvalError, Scratch, Value};

/// Finds the values of all `paths` in `payload`; `out` has one place a path, filled with NULL
/// before. A path that is not there stays NULL; of a key that is there twice the last one counts.
/// The path that is empty is the whole payload.
pub type Extract =
    for<'a> fn(&'a [u8], &Paths, &'a Scratch, &mut [Value<'a>]) -> Result<(), EvalError>;

/// How the bytes of a payload are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 8259; `transform::rules::json` reads it.
    Json,
    /// RFC 8949.
    Cbor,
    MessagePack,
    /// The whole payload is UTF-8 text.
    Text,
    /// The whole payload is a number, spelled out.
    Number,
    /// The whole payload is bytes.
    Bytes,
    /// Eclipse Sparkplug 3.0.
    SparkplugB,
}

/// Names in `WITH (format='…')`, in the order of help.
pub const NAMES: [(&str, Format); 7] = [
    ("json", Format::Json),
    ("cbor", Format::Cbor),
    ("msgpack", Format::MessagePack),
    ("text", Format::Text),
    ("number", Format::Number),
    ("bytes", Format::Bytes),
    ("sparkplug_b", Format::SparkplugB),
];

/// Content types of MQTT 5, without parameters.
const CONTENT_TYPES: [(&str, Format); 9] = [
    ("application/json", Format::Json),
    ("text/json", Format::Json),
    ("application/cbor", Format::Cbor),
    ("application/msgpack", Format::MessagePack),
    ("application/x-msgpack", Format::MessagePack),
    ("application/vnd.msgpack", Format::MessagePack),
    ("text/plain", Format::Text),
    ("application/octet-stream", Format::Bytes),
    ("application/x-binary", Format::Bytes),
];

impl Format {
    /// The format of that name, whatever its case.
    pub fn named(name: &str) -> Option<Self> {
        let known = NAMES.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        known.map(|(_, format)| *format)
    }

    /// The format that a content type means (RFC 6838: `+json` and `+cbor` say how the type is
    /// spelled); `None` when it says nothing of it.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let bare = content_type.split(';').next().unwrap_or_default().trim();
        let known = CONTENT_TYPES.iter().find(|(own, _)| own.eq_ignore_ascii_case(bare));
        let suffix = || match bare.rsplit_once('+')?.1 {
            suffix if suffix.eq_ignore_ascii_case("json") => Some(Self::Json),
            suffix if suffix.eq_ignore_ascii_case("cbor") => Some(Self::Cbor),
            _ => None,
        };
        known.map(|(_, format)| *format).or_else(suffix)
    }

    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(_, format)| *format == self).map_or("", |(name, _)| name)
    }

    /// What finds fields in it; `None` for JSON, whose fields are found by `json::extract`.
    pub fn extract(self) -> Option<Extract> {
        match self {
            Self::Json => None,
            Self::Cbor => Some(cbor::extract),
            Self::MessagePack => Some(message_pack::extract),
            Self::Text => Some(plain::text),
            Self::Number => Some(plain::number),
            Self::Bytes => Some(plain::bytes),
            Self::SparkplugB => Some(sparkplug::extract),
        }
    }
}
