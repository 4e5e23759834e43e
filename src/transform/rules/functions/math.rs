//! Functions of numbers.
//!
//! Comes in: integers, floats, or text that is a number. Goes out: integers stay integers where
//! the result is one (`abs`, `ceil`, `floor`, `round`, `sign`, `mod`), else floats. What is no
//! number, such as the root of -1, and what does not fit is an error, so there is never a NaN.

use super::super::value::{Scratch, Value};
use super::cast;
use super::given::{Given, Number};
use super::{Function, Outcome, family, strict};

family! {
    "abs" (1, 1) "number" -> "as given" = strict(abs), "without its sign";
    "ceil" | "ceiling" (1, 1) "number" -> "integer" = strict(ceil), "the next integer above";
    "floor" (1, 1) "number" -> "integer" = strict(floor), "the next integer below";
    "round" (1, 2) "number[, decimals]" -> "integer, or float with decimals" = strict(round),
        "the nearest integer or decimal number; halves go away from zero";
    "trunc" | "truncate" (1, 2) "number[, decimals]" -> "integer, or float with decimals"
        = strict(trunc), "cut after so many decimals (0 to 34), towards zero";
    "sign" (1, 1) "number" -> "integer" = strict(sign), "-1, 0 or 1";
    "mod" | "remainder" (2, 2) "number, by" -> "integer or float" = strict(modulo),
        "what a division leaves, with the sign of the first";
    "power" | "pow" (2, 2) "number, exponent" -> "float" = strict(power), "raised to that power";
    "sqrt" (1, 1) "number" -> "float" = strict(sqrt), "the square root";
    "exp" (1, 1) "number" -> "float" = strict(exp), "e raised to that power";
    "ln" (1, 1) "number" -> "float" = strict(ln), "the natural logarithm";
    "log" | "log10" (1, 2) "[base,] number" -> "float" = strict(log),
        "the logarithm to that base, or to 10";
    "log2" (1, 1) "number" -> "float" = strict(log2), "the logarithm to 2";
    "sin" (1, 1) "radians" -> "float" = strict(sin), "the sine";
    "cos" (1, 1) "radians" -> "float" = strict(cos), "the cosine";
    "tan" (1, 1) "radians" -> "float" = strict(tan), "the tangent";
    "asin" (1, 1) "number" -> "float" = strict(asin), "the inverse sine, in radians";
    "acos" (1, 1) "number" -> "float" = strict(acos), "the inverse cosine, in radians";
    "atan" (1, 1) "number" -> "float" = strict(atan), "the inverse tangent, in radians";
    "atan2" (2, 2) "y, x" -> "float" = strict(atan2), "the angle of the point (x, y), in radians";
    "sinh" (1, 1) "number" -> "float" = strict(sinh), "the hyperbolic sine";
    "cosh" (1, 1) "number" -> "float" = strict(cosh), "the hyperbolic cosine";
    "tanh" (1, 1) "number" -> "float" = strict(tanh), "the hyperbolic tangent";
    "radians" (1, 1) "degrees" -> "float" = strict(radians), "degrees in radians";
    "degrees" (1, 1) "radians" -> "float" = strict(degrees), "radians in degrees";
    "pi" (0, 0) "" -> "float" = strict(pi), "3.141592653589793";
    "format" (2, 3) "number, decimals[, locale]" -> "text" = strict(format),
        "rounded, with exactly so many decimals (0 to 30); locale 'en_US' groups by thousands";
}

/// More decimals than a float has.
const DECIMALS_MAX: i64 = 34;

fn float<'a>(
    of: &'static str,
    values: &[Value<'a>],
    scratch: &'a Scratch,
    function: fn(f64) -> f64,
) -> Outcome<'a> {
    let given = Given::new(of, values, scratch);
    given.finite(function(given.float(0)?))
}

fn whole<'a>(
    of: &'static str,
    values: &[Value<'a>],
    scratch: &'a Scratch,
    function: fn(f64) -> f64,
) -> Outcome<'a> {
    let given = Given::new(of, values, scratch);
    match given.number(0)? {
        Number::Int(int) => Ok(Value::Int(int)),
        Number::Float(float) => {
            cast::truncated(function(float)).map(Value::Int).ok_or(given.out_of_range())
        }
    }
}

fn abs<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("abs", values, scratch);
    match given.number(0)? {
        Number::Int(int) => int.checked_abs().map(Value::Int).ok_or(given.out_of_range()),
        Number::Float(float) => Ok(Value::Float(float.abs())),
    }
}

fn ceil<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    whole("ceil", values, scratch, f64::ceil)
}

fn floor<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    whole("floor", values, scratch, f64::floor)
}

fn round<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    if values.len() == 1 {
        return whole("round", values, scratch, f64::round);
    }
    decimals(Given::new("round", values, scratch), true)
}

fn trunc<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    if values.len() == 1 {
        return whole("trunc", values, scratch, f64::trunc);
    }
    decimals(Given::new("trunc", values, scratch), false)
}

/// To decimals; with none of them the result is an integer.
fn decimals<'a>(given: Given<'_, 'a>, nearest: bool) -> Outcome<'a> {
    let float = match given.number(0)? {
        Number::Int(int) => return Ok(Value::Int(int)),
        Number::Float(float) => float,
    };
    let places = given.position(1)?.clamp(0, DECIMALS_MAX) as usize;
    let text = decimal_text(float, places, nearest, given.scratch());
    let value = match places {
        0 => text.parse().ok().map(Value::Int),
        _ => text.parse().ok().map(Value::Float),
    };
    value.ok_or(given.out_of_range())
}

/// The decimal number that a float is shown as, cut or rounded to at most so many places: 0.29 has
/// the decimals 29, though the float is a little less.
fn decimal_text(
    float: f64,
    places: usize,
    nearest: bool,
    scratch: &Scratch,
) -> bumpalo::collections::String<'_> {
    let shown = bumpalo::format!(in scratch, "{}", float);
    let (before, after) = shown.split_once('.').unwrap_or((&shown, ""));
    let kept = &after[..places.min(after.len())];
    let mut digits = bumpalo::format!(in scratch, "{}{}", before, kept);
    if nearest && after.as_bytes().get(places).is_some_and(|digit| *digit >= b'5') {
        digits = one_more(&digits, scratch);
    }
    if !kept.is_empty() {
        digits.insert(digits.len() - kept.len(), '.');
    }
    digits
}

/// The decimal integer that is one further from zero.
fn one_more<'a>(digits: &str, scratch: &'a Scratch) -> bumpalo::collections::String<'a> {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let kept = digits.trim_end_matches('9');
    let mut more = bumpalo::collections::String::from_str_in(sign, scratch);
    match kept.as_bytes().split_last() {
        Some((last, before)) => {
            more.push_str(&kept[..before.len()]);
            more.push(char::from(last + 1));
        }
        None => more.push('1'),
    }
    (kept.len()..digits.len()).for_each(|_| more.push('0'));
    more
}

fn sign<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    match Given::new("sign", values, scratch).number(0)? {
        Number::Int(int) => Ok(Value::Int(int.signum())),
        Number::Float(float) => Ok(Value::Int(i64::from(float > 0.0) - i64::from(float < 0.0))),
    }
}

/// `%` of operators is the same.
fn modulo<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("mod", values, scratch);
    let (number, by) = (given.number(0)?, given.number(1)?);
    if by.float() == 0.0 {
        return Err(given.division_by_zero());
    }
    match (number, by) {
        // The one pair that overflows leaves nothing.
        (Number::Int(number), Number::Int(by)) => Ok(Value::Int(number.wrapping_rem(by))),
        _ => given.finite(number.float() % by.float()),
    }
}

fn power<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("power", values, scratch);
    given.finite(given.float(0)?.powf(given.float(1)?))
}

fn log<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    if values.len() == 1 {
        return float("log", values, scratch, f64::log10);
    }
    let given = Given::new("log", values, scratch);
    let (base, number) = (given.float(0)?, given.float(1)?);
    if base <= 0.0 || base == 1.0 {
        return Err(given.argument("there are no logarithms to that base"));
    }
    given.finite(number.ln() / base.ln())
}

fn atan2<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("atan2", values, scratch);
    given.finite(given.float(0)?.atan2(given.float(1)?))
}

fn pi<'a>(_: &[Value<'a>], _: &'a Scratch) -> Outcome<'a> {
    Ok(Value::Float(std::f64::consts::PI))
}

/// Functions of one float.
macro_rules! floats {
    ($($name:ident = $function:path;)*) => {
        $(fn $name<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
            float(stringify!($name), values, scratch, $function)
        })*
    };
}

floats! {
    sqrt = f64::sqrt;
    exp = f64::exp;
    ln = f64::ln;
    log2 = f64::log2;
    sin = f64::sin;
    cos = f64::cos;
    tan = f64::tan;
    asin = f64::asin;
    acos = f64::acos;
    atan = f64::atan;
    sinh = f64::sinh;
    cosh = f64::cosh;
    tanh = f64::tanh;
    radians = f64::to_radians;
    degrees = f64::to_degrees;
}

fn format<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    const PLACES_MAX: i64 = 30;
    let given = Given::new("format", values, scratch);
    let grouped = match given.len() {
        3 => match given.text(2)? {
            "en_US" => true,
            _ => return Err(given.argument("the locale is not en_US")),
        },
        _ => false,
    };
    let places = given.position(1)?.clamp(0, PLACES_MAX) as usize;
    let rounded = match given.number(0)? {
        Number::Int(int) => bumpalo::format!(in scratch, "{}", int),
        Number::Float(float) => decimal_text(float, places, true, scratch),
    };
    let (before, after) = rounded.split_once('.').unwrap_or((&rounded, ""));
    let mut built = given.built();
    let digits = before.trim_start_matches('-').len();
    for (at, c) in before.chars().enumerate() {
        let left = before.len() - at;
        if grouped && left % 3 == 0 && left < digits {
            built.push(",");
        }
        built.push_char(c);
    }
    if places > 0 {
        built.push(".");
        built.push(after);
        (after.len()..places).for_each(|_| built.push("0"));
    }
    built.text()
}
