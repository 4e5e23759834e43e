//! CAST, and the conversions that functions make by themselves.
//!
//! Comes in: a value. Goes out: the same as another type, or why not. The rules are those of AWS
//! IoT SQL's `cast()`: numbers to integers are cut towards zero, booleans are 1 and 0, any number
//! but 0 is true, text is a number when all of it is one, and `true` or `false` in any case. What
//! has no such rule is an error, never NULL. Text of a float is the shortest that reads back as the
//! same float, and shows that it is one (`21.0`), as in the JSON of a record.

use std::fmt::Write;

use super::super::value::{EvalError, Kind, Scratch, Value};
use super::given::Number;
use super::json_text;

/// CAST: `value` as `to`. NULL stays NULL.
pub fn cast<'a>(value: Value<'a>, to: Kind, scratch: &'a Scratch) -> Result<Value<'a>, EvalError> {
    let from = value.kind();
    if from == to || value.is_null() {
        return Ok(value);
    }
    let failed = |why| EvalError::Cast { from, to, why };
    let none = failed("there is no way between them");
    match to {
        Kind::Null => Err(none),
        Kind::Bool => to_bool(value).ok_or(match value {
            Value::Text(_) => failed("it is neither true nor false"),
            _ => none,
        }),
        Kind::Int => match to_number(value).ok_or(number_error(value, to))? {
            Number::Int(int) => Ok(Value::Int(int)),
            Number::Float(float) => {
                truncated(float).map(Value::Int).ok_or(failed("it is out of range"))
            }
        },
        Kind::Float => {
            to_number(value).map(|n| Value::Float(n.float())).ok_or(number_error(value, to))
        }
        Kind::Text => {
            text_of(value, scratch).map(Value::Text).ok_or(failed("the bytes are not UTF-8"))
        }
        Kind::Bytes => text_of(value, scratch).map(|t| Value::Bytes(t.as_bytes())).ok_or(none),
        Kind::Json => to_json(value).ok_or(failed("it is not a JSON object or array")),
    }
}

fn number_error(value: Value<'_>, to: Kind) -> EvalError {
    let why = match value {
        Value::Text(_) => "it is not a number",
        _ => "there is no way between them",
    };
    EvalError::Cast { from: value.kind(), to, why }
}

fn to_bool(value: Value<'_>) -> Option<Value<'static>> {
    match value {
        Value::Bool(flag) => Some(Value::Bool(flag)),
        Value::Int(int) => Some(Value::Bool(int != 0)),
        Value::Float(float) => Some(Value::Bool(float != 0.0)),
        Value::Text(text) if text.eq_ignore_ascii_case("true") => Some(Value::Bool(true)),
        Value::Text(text) if text.eq_ignore_ascii_case("false") => Some(Value::Bool(false)),
        _ => None,
    }
}

fn to_number(value: Value<'_>) -> Option<Number> {
    match value {
        Value::Bool(flag) => Some(Number::Int(flag.into())),
        Value::Int(int) => Some(Number::Int(int)),
        Value::Float(float) => Some(Number::Float(float)),
        Value::Text(text) => number_in(text),
        Value::Bytes(bytes) => number_in(std::str::from_utf8(bytes).ok()?),
        _ => None,
    }
}

/// An object or array that text holds; other JSON texts are scalars, and CAST to those has its own
/// types.
fn to_json(value: Value<'_>) -> Option<Value<'_>> {
    let text = match value {
        Value::Text(text) => text,
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok()?,
        _ => return None,
    };
    let text = json_text::trimmed(text);
    let composite = text.starts_with(['{', '[']);
    (composite && json_text::is_valid(text)).then_some(Value::Json(text))
}

/// What stands before the point of a float, when it fits.
pub fn truncated(float: f64) -> Option<i64> {
    // 2^63 is the first float above every i64; -2^63 is one itself.
    const END: f64 = 9_223_372_036_854_775_808.0;
    (-END..END).contains(&float).then_some(float as i64)
}

/// The number that text is, all of it: `-?\d+(\.\d+)?([eE][+-]?\d+)?`. Integers that fit stay
/// exact; what is too large for a float is none.
pub fn number_in(text: &str) -> Option<Number> {
    let rest = text.strip_prefix('-').unwrap_or(text).as_bytes();
    let digits = |from: usize| rest[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut end = digits(0);
    if end == 0 {
        return None;
    }
    let mut whole = true;
    if rest.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        if fraction == 0 {
            return None;
        }
        (end, whole) = (end + 1 + fraction, false);
    }
    if matches!(rest.get(end), Some(b'e' | b'E')) {
        let signed = matches!(rest.get(end + 1), Some(b'+' | b'-'));
        let exponent = digits(end + 1 + usize::from(signed));
        if exponent == 0 {
            return None;
        }
        (end, whole) = (end + 1 + usize::from(signed) + exponent, false);
    }
    if end != rest.len() {
        return None;
    }
    match text.parse() {
        // Minus zero is a float.
        Ok(0) if text.starts_with('-') => return Some(Number::Float(-0.0)),
        Ok(int) if whole => return Some(Number::Int(int)),
        _ => {}
    }
    text.parse().ok().filter(|float: &f64| float.is_finite()).map(Number::Float)
}

/// Any value but NULL as text; bytes only when they are UTF-8.
pub fn text_of<'a>(value: Value<'a>, scratch: &'a Scratch) -> Option<&'a str> {
    let mut text = bumpalo::collections::String::new_in(scratch);
    let written = match value {
        Value::Null => return None,
        Value::Text(text) | Value::Json(text) => return Some(text),
        Value::Bytes(bytes) => return std::str::from_utf8(bytes).ok(),
        Value::Bool(flag) => return Some(if flag { "true" } else { "false" }),
        Value::Int(int) => write!(text, "{int}"),
        Value::Float(float) => write_float(&mut text, float),
    };
    written.ok().map(|()| text.into_bump_str())
}

/// A float as JSON has it; what JSON cannot say is `null`.
pub fn write_float(out: &mut impl Write, float: f64) -> std::fmt::Result {
    if float.is_finite() { write!(out, "{float:?}") } else { out.write_str("null") }
}
