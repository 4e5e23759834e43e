//! What a function was given, as the types that it wants, and what it builds.
//!
//! Comes in: evaluated arguments. Goes out: text, numbers, bytes by the standard conversions (AWS
//! IoT SQL, "Conversions"): any value serves as text, text that is a number serves as a number; a
//! boolean is no number. What does not convert is an error that names the function. Results that a
//! function builds lie in the arena and are bounded, so that one message cannot take all memory.

use std::fmt::{self, Write};

use super::super::value::{EvalError, Scratch, Value};
use super::cast;

/// The longest text that a function builds.
pub const RESULT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The arguments of one call.
#[derive(Clone, Copy)]
pub struct Given<'g, 'a> {
    /// The function's name, for errors.
    of: &'static str,
    values: &'g [Value<'a>],
    scratch: &'a Scratch,
}

/// A number as it came: integers stay exact.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i64),
    Float(f64),
}

/// Text of a result, in the arena.
pub struct Built<'a> {
    of: &'static str,
    text: bumpalo::collections::String<'a>,
    over: bool,
}

impl<'g, 'a> Given<'g, 'a> {
    pub fn new(of: &'static str, values: &'g [Value<'a>], scratch: &'a Scratch) -> Self {
        Self { of, values, scratch }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn value(&self, at: usize) -> Value<'a> {
        self.values.get(at).copied().unwrap_or(Value::Null)
    }

    pub fn text(&self, at: usize) -> Result<&'a str, EvalError> {
        cast::text_of(self.value(at), self.scratch).ok_or(self.type_error(at, "text"))
    }

    /// The bytes of bytes, or of the text that a value is.
    pub fn bytes(&self, at: usize) -> Result<&'a [u8], EvalError> {
        match self.value(at) {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Ok(self.text(at)?.as_bytes()),
        }
    }

    pub fn number(&self, at: usize) -> Result<Number, EvalError> {
        let number = match self.value(at) {
            Value::Int(int) => Some(Number::Int(int)),
            Value::Float(float) => Some(Number::Float(float)),
            Value::Text(text) => cast::number_in(text),
            _ => None,
        };
        number.ok_or(self.type_error(at, "a number"))
    }

    pub fn float(&self, at: usize) -> Result<f64, EvalError> {
        Ok(self.number(at)?.float())
    }

    /// An integer; of other numbers what stands before the point.
    pub fn int(&self, at: usize) -> Result<i64, EvalError> {
        match self.number(at)? {
            Number::Int(int) => Ok(int),
            Number::Float(float) => cast::truncated(float).ok_or(self.out_of_range()),
        }
    }

    /// A position or count: like an integer, but what is out of range is its nearest end.
    pub fn position(&self, at: usize) -> Result<i64, EvalError> {
        match self.number(at)? {
            Number::Int(int) => Ok(int),
            Number::Float(float) => Ok(float as i64),
        }
    }

    /// As `position`, where the argument may be left out.
    pub fn optional_position(&self, at: usize) -> Result<Option<i64>, EvalError> {
        if at < self.len() { self.position(at).map(Some) } else { Ok(None) }
    }

    /// Text of JSON: an object or array as such, or text that somebody put one into.
    pub fn json(&self, at: usize) -> Result<&'a str, EvalError> {
        match self.value(at) {
            Value::Json(text) | Value::Text(text) => Ok(text),
            Value::Bytes(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| self.argument("the bytes are not UTF-8"))
            }
            _ => Err(self.type_error(at, "JSON")),
        }
    }

    pub fn built(&self) -> Built<'a> {
        Built::new(self.of, self.scratch)
    }

    pub fn scratch(&self) -> &'a Scratch {
        self.scratch
    }

    pub fn type_error(&self, at: usize, wanted: &'static str) -> EvalError {
        EvalError::Type { of: self.of, wanted, found: self.value(at).kind() }
    }

    pub fn argument(&self, why: &'static str) -> EvalError {
        EvalError::Argument { of: self.of, why }
    }

    pub fn out_of_range(&self) -> EvalError {
        EvalError::OutOfRange { of: self.of }
    }

    pub fn division_by_zero(&self) -> EvalError {
        EvalError::DivisionByZero { of: self.of }
    }

    /// A result that must be a number: what is none (the root of -1, 1e308 × 10) is an error.
    pub fn finite<'b>(&self, float: f64) -> Result<Value<'b>, EvalError> {
        if float.is_finite() { Ok(Value::Float(float)) } else { Err(self.out_of_range()) }
    }
}

impl Number {
    pub fn float(self) -> f64 {
        match self {
            Self::Int(int) => int as f64,
            Self::Float(float) => float,
        }
    }
}

impl<'a> Built<'a> {
    pub fn new(of: &'static str, scratch: &'a Scratch) -> Self {
        Self { of, text: bumpalo::collections::String::new_in(scratch), over: false }
    }

    pub fn push(&mut self, text: &str) {
        if text.len() > RESULT_BYTES_MAX - self.text.len() {
            self.over = true;
        }
        if !self.over {
            self.text.push_str(text);
        }
    }

    pub fn push_char(&mut self, c: char) {
        self.push(c.encode_utf8(&mut [0; 4]));
    }

    /// Whether the result is too long already, so that going on is in vain.
    pub fn is_over(&self) -> bool {
        self.over
    }

    pub fn str(self) -> Result<&'a str, EvalError> {
        if self.over {
            return Err(EvalError::Argument {
                of: self.of,
                why: "the result is longer than 4 MiB",
            });
        }
        Ok(self.text.into_bump_str())
    }

    pub fn text(self) -> Result<Value<'a>, EvalError> {
        self.str().map(Value::Text)
    }

    pub fn json(self) -> Result<Value<'a>, EvalError> {
        self.str().map(Value::Json)
    }
}

impl Write for Built<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.push(text);
        Ok(())
    }
}

/// The word for a value's type in `typeof`.
pub fn kind_word(value: Value<'_>) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Int(_) => "integer",
        Value::Float(_) => "float",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytes",
        Value::Json(text) if text.starts_with('[') => "array",
        Value::Json(_) => "object",
    }
}
