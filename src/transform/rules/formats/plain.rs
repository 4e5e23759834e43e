//! Payloads that are one value: text, a number, or bytes. There is nothing below it, so every path
//! but the whole payload is NULL.

use super::super::functions::{Number, number_in};
use super::super::paths::Paths;
use super::super::value::{EvalError, Scratch, Value};

fn whole<'a>(value: Value<'a>, paths: &Paths, out: &mut [Value<'a>]) {
    if let Some(slot) = paths.root().slot() {
        out[slot] = value;
    }
}

fn utf8<'a>(payload: &'a [u8], format: &'static str) -> Result<&'a str, EvalError> {
    std::str::from_utf8(payload).map_err(|error| EvalError::Payload {
        format,
        why: "it is not UTF-8",
        at: u32::try_from(error.valid_up_to()).unwrap_or(u32::MAX),
    })
}

pub fn text<'a>(
    payload: &'a [u8],
    paths: &Paths,
    _: &'a Scratch,
    out: &mut [Value<'a>],
) -> Result<(), EvalError> {
    whole(Value::Text(utf8(payload, "text")?), paths, out);
    Ok(())
}

/// White space around the number is no part of it: `mosquitto_pub -l` and shells leave some.
pub fn number<'a>(
    payload: &'a [u8],
    paths: &Paths,
    _: &'a Scratch,
    out: &mut [Value<'a>],
) -> Result<(), EvalError> {
    let number = number_in(utf8(payload, "a number")?.trim());
    let why = "it does not spell one";
    let value = match number.ok_or(EvalError::Payload { format: "a number", why, at: 0 })? {
        Number::Int(int) => Value::Int(int),
        Number::Float(float) => Value::Float(float),
    };
    whole(value, paths, out);
    Ok(())
}

pub fn bytes<'a>(
    payload: &'a [u8],
    paths: &Paths,
    _: &'a Scratch,
    out: &mut [Value<'a>],
) -> Result<(), EvalError> {
    whole(Value::Bytes(payload), paths, out);
    Ok(())
}
