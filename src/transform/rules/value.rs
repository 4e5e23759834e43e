//! Values while a rule runs, and why an expression may have none.
//!
//! A value borrows: from the receive buffer, from the plan, or from the scratch arena that is reset
//! between messages. So evaluating allocates nothing once the arena has its size. NULL is a value;
//! an error is not, and decides by `on_error` what becomes of the record.

use std::fmt;

/// A value while a rule runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// An object or array as JSON text, unparsed.
    Json(&'a str),
}

/// What one message needs besides its bytes; reset between messages, keeps its memory.
pub type Scratch = bumpalo::Bump;

/// What a value is, or shall become by CAST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Null,
    Bool,
    Int,
    Float,
    Text,
    Bytes,
    Json,
}

/// Why an expression has no value. Static words and a few fields, so that a record that cannot be
/// evaluated costs no allocation either.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum EvalError {
    /// An operator or function was given what it cannot work on.
    #[error("{of} takes {wanted}, not {found}")]
    Type { of: &'static str, wanted: &'static str, found: Kind },
    /// An argument has the right type and no meaning.
    #[error("{of}: {why}")]
    Argument { of: &'static str, why: &'static str },
    /// A value that cannot be turned into another type.
    #[error("{from} cannot be cast to {to}: {why}")]
    Cast { from: Kind, to: Kind, why: &'static str },
    /// A result outside the numbers that there are.
    #[error("{of}: the result is out of range")]
    OutOfRange { of: &'static str },
    #[error("{of}: division by zero")]
    DivisionByZero { of: &'static str },
    /// The payload is not what its format says; `at` is a byte of it.
    #[error("the payload is not {format}: {why} at byte {at}")]
    Payload { format: &'static str, why: &'static str, at: u32 },
}

impl Value<'_> {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Bool(_) => Kind::Bool,
            Self::Int(_) => Kind::Int,
            Self::Float(_) => Kind::Float,
            Self::Text(_) => Kind::Text,
            Self::Bytes(_) => Kind::Bytes,
            Self::Json(_) => Kind::Json,
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Null => "NULL",
            Self::Bool => "a boolean",
            Self::Int => "an integer",
            Self::Float => "a float",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Json => "a JSON object or array",
        })
    }
}
