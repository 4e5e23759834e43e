//! Conditions, NULL, comparison of several values, and types.
//!
//! Comes in: values of any type. Goes out: one of them, or what is to be known of them. Arguments
//! are evaluated before the call, so an error in a branch that is not taken is an error still;
//! `CASE` evaluates only what it takes.

use std::cmp::Ordering;

use super::super::value::{Scratch, Value};
use super::given::{Given, Number, kind_word};
use super::{Function, Outcome, family, seen, strict};

family! {
    "coalesce" | "ifnull" | "nvl" (1, u8::MAX) "value, ..." -> "as given" = seen(coalesce),
        "the first that is not NULL";
    "nullif" (2, 2) "value, other" -> "as given" = seen(nullif),
        "NULL when they are equal, else the first";
    "if" | "iif" (2, 3) "condition, then[, else]" -> "as given" = seen(if_),
        "`then` when the condition is true, else `else` or NULL";
    "isnull" | "isundefined" (1, 1) "value" -> "boolean" = seen(isnull),
        "whether it is NULL, or is not there";
    "nanvl" (2, 2) "value, other" -> "as given" = seen(nanvl),
        "the first, or the second when the first is NULL (numbers are never NaN here)";
    "greatest" (1, u8::MAX) "value, ..." -> "as given" = seen(greatest),
        "the greatest of numbers, or of texts; NULL is left out";
    "least" (1, u8::MAX) "value, ..." -> "as given" = seen(least),
        "the least of numbers, or of texts; NULL is left out";
    "typeof" (1, 1) "value" -> "text" = seen(type_of),
        "null, boolean, integer, float, text, bytes, array or object";
    "parse_int" (1, 2) "text[, radix]" -> "integer" = strict(parse_int),
        "the integer that the text spells to that radix, 2 to 36, else 10; white space around is left out";
}

fn coalesce<'a>(values: &[Value<'a>], _: &'a Scratch) -> Outcome<'a> {
    Ok(values.iter().copied().find(|value| !value.is_null()).unwrap_or(Value::Null))
}

fn nullif<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("nullif", values, scratch);
    let (value, other) = (given.value(0), given.value(1));
    Ok(if compare(value, other) == Some(Ordering::Equal) { Value::Null } else { value })
}

fn if_<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("if", values, scratch);
    match given.value(0) {
        Value::Bool(true) => Ok(given.value(1)),
        Value::Bool(false) | Value::Null => Ok(given.value(2)),
        _ => Err(given.type_error(0, "a boolean")),
    }
}

fn isnull<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    Ok(Value::Bool(Given::new("isnull", values, scratch).value(0).is_null()))
}

fn nanvl<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("nanvl", values, scratch);
    let nothing = match given.value(0) {
        Value::Float(float) => float.is_nan(),
        value => value.is_null(),
    };
    Ok(given.value(nothing.into()))
}

fn greatest<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    extreme(Given::new("greatest", values, scratch), Ordering::Greater)
}

fn least<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    extreme(Given::new("least", values, scratch), Ordering::Less)
}

fn extreme<'a>(given: Given<'_, 'a>, wanted: Ordering) -> Outcome<'a> {
    let mut best = Value::Null;
    for at in (0..given.len()).filter(|at| !given.value(*at).is_null()) {
        let value = given.value(at);
        if let Value::Json(_) | Value::Bytes(_) = value {
            return Err(given.type_error(at, "numbers, texts or booleans"));
        }
        if best.is_null() {
            best = value;
            continue;
        }
        let order = compare(value, best);
        if order.ok_or(given.argument("the values are of different types"))? == wanted {
            best = value;
        }
    }
    Ok(best)
}

/// The order of two values of one type; integers and floats are numbers alike, compared exactly.
pub fn compare(one: Value<'_>, other: Value<'_>) -> Option<Ordering> {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => Some(one.cmp(&other)),
        (Value::Text(one), Value::Text(other)) => Some(one.cmp(other)),
        (Value::Bytes(one), Value::Bytes(other)) => Some(one.cmp(other)),
        (Value::Json(one), Value::Json(other)) => (one == other).then_some(Ordering::Equal),
        _ => numbers(number(one)?, number(other)?),
    }
}

fn number(value: Value<'_>) -> Option<Number> {
    match value {
        Value::Int(int) => Some(Number::Int(int)),
        Value::Float(float) => Some(Number::Float(float)),
        _ => None,
    }
}

/// 2^53 + 1 and 2^53 as a float differ, though one as a float is the other.
fn numbers(one: Number, other: Number) -> Option<Ordering> {
    match (one, other) {
        (Number::Int(one), Number::Int(other)) => Some(one.cmp(&other)),
        (Number::Float(one), Number::Float(other)) => one.partial_cmp(&other),
        (Number::Int(int), Number::Float(float)) => int_to_float(int, float),
        (Number::Float(float), Number::Int(int)) => int_to_float(int, float).map(Ordering::reverse),
    }
}

fn int_to_float(int: i64, float: f64) -> Option<Ordering> {
    match super::cast::truncated(float) {
        Some(whole) => {
            let fraction = 0.0.partial_cmp(&(float - float.trunc()));
            Some(int.cmp(&whole).then(fraction?))
        }
        None => 0.0.partial_cmp(&float),
    }
}

fn type_of<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    Ok(Value::Text(kind_word(Given::new("typeof", values, scratch).value(0))))
}

fn parse_int<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("parse_int", values, scratch);
    let radix = given.optional_position(1)?.unwrap_or(10);
    let radix = u32::try_from(radix).ok().filter(|radix| (2..=36).contains(radix));
    let radix = radix.ok_or(given.argument("the radix is not 2 to 36"))?;
    let text = given.text(0)?.trim();
    let int = i64::from_str_radix(text, radix).map(Value::Int);
    int.map_err(|_| given.argument("the text is no integer to that radix"))
}
