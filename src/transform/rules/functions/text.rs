//! Functions of text: cases, parts, searching, padding.
//!
//! Comes in: values, which serve as text by the standard conversions. Goes out: slices of them, or
//! text built in the arena. Positions count characters (Unicode scalar values) from 0, as in AWS
//! IoT SQL and eKuiper; `substr` alone counts from 1, as SQL does.

use super::super::value::{EvalError, Scratch, Value};
use super::given::Given;
use super::json::List;
use super::json_text;
use super::{Function, Outcome, family, seen, strict};

family! {
    "lower" | "lcase" (1, 1) "text" -> "text" = strict(lower), "in small letters";
    "upper" | "ucase" (1, 1) "text" -> "text" = strict(upper), "in capital letters";
    "trim" (1, 1) "text" -> "text" = strict(trim), "without white space at both ends";
    "ltrim" (1, 1) "text" -> "text" = strict(ltrim), "without white space in front";
    "rtrim" (1, 1) "text" -> "text" = strict(rtrim), "without white space at the end";
    "substring" (2, 3) "text, from[, to]" -> "text" = strict(substring),
        "the characters from `from`, counted from 0, to before `to`";
    "substr" (2, 3) "text, from[, count]" -> "text" = strict(substr),
        "`count` characters from `from`, counted from 1 as in SQL, or from the end when negative";
    "left" (2, 2) "text, count" -> "text" = strict(left), "the first `count` characters";
    "right" (2, 2) "text, count" -> "text" = strict(right), "the last `count` characters";
    "replace" (3, 3) "text, what, by" -> "text" = strict(replace), "`by` in place of each `what`";
    "concat" (1, u8::MAX) "value, ..." -> "text or array" = strict(concat),
        "the values' texts in a row; with an array among them, an array of all";
    "concat_ws" (2, u8::MAX) "separator, value, ..." -> "text" = seen(concat_ws),
        "the texts of the values that are not NULL, with the separator between them";
    "length" | "char_length" | "character_length" (1, 1) "text" -> "integer" = strict(length),
        "how many characters; of bytes, how many bytes";
    "numbytes" | "octet_length" (1, 1) "text" -> "integer" = strict(numbytes), "how many bytes";
    "indexof" (2, 2) "text, what" -> "integer" = strict(indexof),
        "where `what` begins first, counted from 0; -1 when it is not there";
    "startswith" | "starts_with" (2, 2) "text, what" -> "boolean" = strict(startswith),
        "whether it begins so";
    "endswith" | "ends_with" (2, 2) "text, what" -> "boolean" = strict(endswith),
        "whether it ends so";
    "contains" (2, 2) "text, what" -> "boolean" = strict(contains), "whether `what` is in it";
    "lpad" (2, 2) "text, count" -> "text" = strict(lpad),
        "with `count` spaces more in front, 0 to 1000";
    "rpad" (2, 2) "text, count" -> "text" = strict(rpad),
        "with `count` spaces more at the end, 0 to 1000";
    "repeat" (2, 2) "text, count" -> "text" = strict(repeat), "`count` times in a row";
    "reverse" (1, 1) "text" -> "text" = strict(reverse), "the characters backwards";
    "split_value" (3, 3) "text, separator, index" -> "text" = strict(split_value),
        "one part, counted from 0, or from the end when negative; NULL when there is none";
    "split" (2, 2) "text, separator" -> "array" = strict(split), "the parts between separators";
    "chr" | "char" (1, 1) "code" -> "text" = strict(chr), "the character of a Unicode number";
    "ascii" | "unicode" (1, 1) "text" -> "integer" = strict(ascii),
        "the Unicode number of the first character; NULL when there is none";
}

/// The most spaces that `lpad` and `rpad` add; more is taken for this, as AWS IoT SQL has it.
const PADDING_MAX: i64 = 1000;

fn lower<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("lower", values, scratch);
    let text = given.text(0)?;
    if !text.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        return Ok(Value::Text(text));
    }
    let mut built = given.built();
    let mut inside_word = false;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        // A capital sigma that ends a word is the only letter whose small form depends on its place.
        let ends_word = || !rest.clone().next().is_some_and(char::is_alphabetic);
        if c == 'Σ' && inside_word && ends_word() {
            built.push_char('ς');
        } else {
            c.to_lowercase().for_each(|c| built.push_char(c));
        }
        inside_word = c.is_alphabetic();
    }
    built.text()
}

fn upper<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("upper", values, scratch);
    let text = given.text(0)?;
    if !text.bytes().any(|byte| byte.is_ascii_lowercase() || !byte.is_ascii()) {
        return Ok(Value::Text(text));
    }
    let mut built = given.built();
    for c in text.chars() {
        c.to_uppercase().for_each(|c| built.push_char(c));
    }
    built.text()
}

fn trim<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    Ok(Value::Text(Given::new("trim", values, scratch).text(0)?.trim()))
}

fn ltrim<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    Ok(Value::Text(Given::new("ltrim", values, scratch).text(0)?.trim_start()))
}

fn rtrim<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    Ok(Value::Text(Given::new("rtrim", values, scratch).text(0)?.trim_end()))
}

fn count(text: &str) -> i64 {
    text.chars().count() as i64
}

/// The byte at which the character of that number begins; the end when there are fewer.
fn byte_of(text: &str, character: i64) -> usize {
    let Ok(character) = usize::try_from(character) else { return 0 };
    text.char_indices().nth(character).map_or(text.len(), |(at, _)| at)
}

/// The characters from `from` to before `to`; positions outside are the nearest end.
fn slice(text: &str, from: i64, to: i64) -> &str {
    let (from, to) = (byte_of(text, from), byte_of(text, to));
    text.get(from..to).unwrap_or_default()
}

fn substring<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("substring", values, scratch);
    let to = given.optional_position(2)?.unwrap_or(i64::MAX);
    Ok(Value::Text(slice(given.text(0)?, given.position(1)?, to)))
}

/// As SQLite's: a negative `from` counts from the end; what would lie in front of the text uses up
/// the count.
fn substr<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("substr", values, scratch);
    let text = given.text(0)?;
    let from = match given.position(1)? {
        from if from < 0 => count(text).saturating_add(from),
        0 => -1,
        from => from - 1,
    };
    let wanted = given.optional_position(2)?.unwrap_or(i64::MAX);
    if wanted < 0 {
        return Err(given.argument("the count is negative"));
    }
    Ok(Value::Text(slice(text, from, from.saturating_add(wanted))))
}

fn left<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("left", values, scratch);
    Ok(Value::Text(slice(given.text(0)?, 0, given.position(1)?)))
}

fn right<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("right", values, scratch);
    let text = given.text(0)?;
    let from = count(text).saturating_sub(given.position(1)?.max(0));
    Ok(Value::Text(slice(text, from, i64::MAX)))
}

fn replace<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("replace", values, scratch);
    let (text, what, by) = (given.text(0)?, given.text(1)?, given.text(2)?);
    if what.is_empty() || !text.contains(what) {
        return Ok(Value::Text(text));
    }
    let mut built = given.built();
    for (number, part) in text.split(what).enumerate() {
        if number > 0 {
            built.push(by);
        }
        built.push(part);
        if built.is_over() {
            break;
        }
    }
    built.text()
}

fn concat<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("concat", values, scratch);
    let is_array = |value: &Value<'_>| matches!(value, Value::Json(text) if text.starts_with('['));
    if values.iter().any(is_array) {
        return concat_arrays(given);
    }
    if let [Value::Text(text)] = values {
        return Ok(Value::Text(text));
    }
    let mut built = given.built();
    for at in 0..given.len() {
        built.push(given.text(at)?);
    }
    built.text()
}

/// One array of all: the elements of arrays, and other values as elements.
fn concat_arrays<'a>(given: Given<'_, 'a>) -> Outcome<'a> {
    let mut list = List::open(given, '[', ']');
    for at in 0..given.len() {
        let Value::Json(text) = given.value(at) else {
            list.add_value(given.value(at));
            continue;
        };
        match json_text::elements(text) {
            None => list.add(text),
            Some(elements) => {
                for element in elements {
                    list.add(element.map_err(|_| given.argument("an array is not JSON"))?.value);
                }
            }
        }
    }
    list.close()
}

fn concat_ws<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("concat_ws", values, scratch);
    if given.value(0).is_null() {
        return Ok(Value::Null);
    }
    let separator = given.text(0)?;
    let mut built = given.built();
    let mut begun = false;
    for at in (1..given.len()).filter(|at| !given.value(*at).is_null()) {
        if std::mem::replace(&mut begun, true) {
            built.push(separator);
        }
        built.push(given.text(at)?);
    }
    built.text()
}

fn length<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("length", values, scratch);
    match given.value(0) {
        Value::Bytes(bytes) => Ok(Value::Int(bytes.len() as i64)),
        _ => Ok(Value::Int(count(given.text(0)?))),
    }
}

fn numbytes<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let bytes = Given::new("numbytes", values, scratch).bytes(0)?;
    Ok(Value::Int(bytes.len() as i64))
}

fn indexof<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("indexof", values, scratch);
    let text = given.text(0)?;
    Ok(Value::Int(text.find(given.text(1)?).map_or(-1, |at| count(&text[..at]))))
}

fn startswith<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("startswith", values, scratch);
    Ok(Value::Bool(given.text(0)?.starts_with(given.text(1)?)))
}

fn endswith<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("endswith", values, scratch);
    Ok(Value::Bool(given.text(0)?.ends_with(given.text(1)?)))
}

fn contains<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("contains", values, scratch);
    Ok(Value::Bool(given.text(0)?.contains(given.text(1)?)))
}

fn padding(given: Given<'_, '_>) -> Result<i64, EvalError> {
    Ok(given.position(1)?.clamp(0, PADDING_MAX))
}

fn lpad<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("lpad", values, scratch);
    let mut built = given.built();
    (0..padding(given)?).for_each(|_| built.push(" "));
    built.push(given.text(0)?);
    built.text()
}

fn rpad<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("rpad", values, scratch);
    let mut built = given.built();
    built.push(given.text(0)?);
    (0..padding(given)?).for_each(|_| built.push(" "));
    built.text()
}

fn repeat<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("repeat", values, scratch);
    let text = given.text(0)?;
    let mut built = given.built();
    // Without the second condition empty text would be repeated 2^63 times.
    let times = if text.is_empty() { 0 } else { given.position(1)? };
    for _ in 0..times {
        built.push(text);
        if built.is_over() {
            break;
        }
    }
    built.text()
}

fn reverse<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("reverse", values, scratch);
    let mut built = given.built();
    given.text(0)?.chars().rev().for_each(|c| built.push_char(c));
    built.text()
}

fn split_value<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("split_value", values, scratch);
    let (text, separator) = (given.text(0)?, given.text(1)?);
    if separator.is_empty() {
        return Err(given.argument("the separator is empty"));
    }
    let at = given.position(2)?;
    let nth = |at: i64| usize::try_from(at).unwrap_or(usize::MAX);
    let part = if at < 0 {
        text.rsplit(separator).nth(nth(-1 - at))
    } else {
        text.split(separator).nth(nth(at))
    };
    Ok(part.map_or(Value::Null, Value::Text))
}

fn split<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("split", values, scratch);
    let (text, separator) = (given.text(0)?, given.text(1)?);
    if separator.is_empty() {
        return Err(given.argument("the separator is empty"));
    }
    let mut list = List::open(given, '[', ']');
    text.split(separator).for_each(|part| list.add_value(Value::Text(part)));
    list.close()
}

fn chr<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("chr", values, scratch);
    let code = u32::try_from(given.int(0)?).ok().and_then(char::from_u32);
    let mut built = given.built();
    built.push_char(code.ok_or(given.argument("no character has that number"))?);
    built.text()
}

fn ascii<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let first = Given::new("ascii", values, scratch).text(0)?.chars().next();
    Ok(first.map_or(Value::Null, |c| Value::Int(u32::from(c).into())))
}
