//! Functions of JSON arrays.
//!
//! Comes in: arrays as their text. Goes out: values that borrow from it, or new arrays in the
//! arena. Elements are equal when they are equal values: numbers by their size, texts by what they
//! say, objects and arrays by their spelling. Arrays that are built are at most as long as text.

use std::cmp::Ordering;

use super::super::value::{EvalError, Scratch, Value};
use super::conditional::compare;
use super::given::Given;
use super::json::{List, value_of};
use super::{Function, Outcome, cast, family, json_text, seen, strict};

family! {
    "array_length" | "cardinality" | "array_cardinality" | "json_array_length" (1, 1)
        "array" -> "integer" = strict(array_length), "how many elements";
    "array_create" | "json_array" (0, u8::MAX) "value, ..." -> "array" = seen(array_create),
        "an array of these values";
    "array_contains" (2, 2) "array, value" -> "boolean" = strict(array_contains),
        "whether an element equals the value";
    "array_position" (2, 2) "array, value" -> "integer" = strict(array_position),
        "where the first equal element is, counted from 0; -1 when there is none";
    "array_last_position" (2, 2) "array, value" -> "integer" = strict(array_last_position),
        "where the last equal element is, counted from 0; -1 when there is none";
    "array_slice" (2, 3) "array, from[, to]" -> "array" = strict(array_slice),
        "the elements from `from` to before `to`, counted from 0, or from the end when negative";
    "array_concat" (1, u8::MAX) "array, ..." -> "array" = strict(array_concat),
        "the elements of all";
    "array_distinct" (1, 1) "array" -> "array" = strict(array_distinct),
        "each element where it comes first";
    "array_remove" (2, 2) "array, value" -> "array" = strict(array_remove),
        "without the elements that equal the value";
    "array_flatten" (1, 1) "array" -> "array" = strict(array_flatten),
        "the elements of its arrays in their place, one level";
    "array_sort" (1, 1) "array" -> "array" = strict(array_sort),
        "in ascending order: numbers, texts, then others as they came";
    "array_join" (2, 3) "array, separator[, null]" -> "text" = strict(array_join),
        "the elements' texts with the separator between them, and `null` for NULL, else left out";
    "array_min" (1, 1) "array" -> "as in it" = strict(array_min),
        "the least element; NULL is left out";
    "array_max" (1, 1) "array" -> "as in it" = strict(array_max),
        "the greatest element; NULL is left out";
    "array_sum" (1, 1) "array" -> "number" = strict(array_sum),
        "the sum of its numbers; NULL is left out, and of nothing it is NULL";
    "array_avg" (1, 1) "array" -> "float" = strict(array_avg),
        "the mean of its numbers; NULL is left out, and of nothing it is NULL";
    "sequence" (2, 3) "from, to[, step]" -> "array" = strict(sequence),
        "the integers from one to the other, both included";
}

const NOT_JSON: &str = "the text is not valid JSON";

/// The most elements that are compared with each other.
const COMPARED_MAX: usize = 1024;

/// The elements of the array at an argument, as their texts.
fn texts<'a>(
    given: Given<'_, 'a>,
    at: usize,
) -> Result<impl Iterator<Item = Result<&'a str, EvalError>> + Clone, EvalError> {
    let elements = json_text::elements(given.json(at)?);
    let elements = elements.ok_or(given.argument("it is no JSON array"))?;
    let error = given.argument(NOT_JSON);
    Ok(elements.map(move |item| item.map(|item| item.value).map_err(|_| error)))
}

/// The same as values.
fn elements<'g, 'a: 'g>(
    given: Given<'g, 'a>,
    at: usize,
) -> Result<impl Iterator<Item = Outcome<'a>> + Clone + 'g, EvalError> {
    Ok(texts(given, at)?.map(move |text| value_of(given, text?)))
}

fn is_equal(one: Value<'_>, other: Value<'_>) -> bool {
    one == other || compare(one, other) == Some(Ordering::Equal)
}

fn array_length<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let mut count = 0;
    for text in texts(Given::new("array_length", values, scratch), 0)? {
        text?;
        count += 1;
    }
    Ok(Value::Int(count))
}

fn array_create<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let mut list = List::open(Given::new("array_create", values, scratch), '[', ']');
    values.iter().for_each(|value| list.add_value(*value));
    list.close()
}

fn array_contains<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let [first, _] = positions(Given::new("array_contains", values, scratch))?;
    Ok(Value::Bool(first >= 0))
}

fn array_position<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let [first, _] = positions(Given::new("array_position", values, scratch))?;
    Ok(Value::Int(first))
}

fn array_last_position<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let [_, last] = positions(Given::new("array_last_position", values, scratch))?;
    Ok(Value::Int(last))
}

/// Where the first and the last element stands that equals the second argument; -1 without one.
fn positions(given: Given<'_, '_>) -> Result<[i64; 2], EvalError> {
    let [mut first, mut last] = [-1; 2];
    for (at, element) in (0..).zip(elements(given, 0)?) {
        if is_equal(element?, given.value(1)) {
            first = if first < 0 { at } else { first };
            last = at;
        }
    }
    Ok([first, last])
}

fn array_slice<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_slice", values, scratch);
    let count = texts(given, 0)?.count() as i64;
    let absolute = |at: i64| if at < 0 { count.saturating_add(at) } else { at };
    let from = absolute(given.position(1)?);
    let to = given.optional_position(2)?.map_or(count, absolute);
    let mut list = List::open(given, '[', ']');
    for (at, text) in (0..).zip(texts(given, 0)?) {
        let text = text?;
        if (from..to).contains(&at) {
            list.add(text);
        }
    }
    list.close()
}

fn array_concat<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_concat", values, scratch);
    let mut list = List::open(given, '[', ']');
    for at in 0..given.len() {
        for text in texts(given, at)? {
            list.add(text?);
        }
    }
    list.close()
}

/// The elements in a vector, for what compares them with each other.
fn gathered<'a>(
    given: Given<'_, 'a>,
) -> Result<bumpalo::collections::Vec<'a, (&'a str, Value<'a>)>, EvalError> {
    let mut all = bumpalo::collections::Vec::new_in(given.scratch());
    for text in texts(given, 0)? {
        if all.len() == COMPARED_MAX {
            return Err(given.argument("the array has more than 1,024 elements"));
        }
        let text = text?;
        all.push((text, value_of(given, text)?));
    }
    Ok(all)
}

fn array_distinct<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_distinct", values, scratch);
    let all = gathered(given)?;
    let mut list = List::open(given, '[', ']');
    for (at, (text, value)) in all.iter().enumerate() {
        if !all[..at].iter().any(|(_, earlier)| is_equal(*earlier, *value)) {
            list.add(text);
        }
    }
    list.close()
}

fn array_remove<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_remove", values, scratch);
    let mut list = List::open(given, '[', ']');
    for text in texts(given, 0)? {
        let text = text?;
        if !is_equal(value_of(given, text)?, given.value(1)) {
            list.add(text);
        }
    }
    list.close()
}

fn array_flatten<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_flatten", values, scratch);
    let mut list = List::open(given, '[', ']');
    for text in texts(given, 0)? {
        let text = text?;
        let Some(inner) = json_text::elements(text) else {
            list.add(text);
            continue;
        };
        for item in inner {
            list.add(item.map_err(|_| given.argument(NOT_JSON))?.value);
        }
    }
    list.close()
}

fn array_sort<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_sort", values, scratch);
    let mut all = gathered(given)?;
    let rank = |value: &Value<'_>| match value {
        Value::Int(_) | Value::Float(_) => 0,
        Value::Text(_) => 1,
        _ => 2,
    };
    // Unstable sorting needs no memory; the place makes it stable.
    let mut order = bumpalo::collections::Vec::new_in(scratch);
    order.extend(all.drain(..).enumerate());
    order.sort_unstable_by(|(at, (_, one)), (place, (_, other))| {
        let by_value = match rank(one) {
            2 => Ordering::Equal,
            _ => compare(*one, *other).unwrap_or(Ordering::Equal),
        };
        rank(one).cmp(&rank(other)).then(by_value).then(at.cmp(place))
    });
    let mut list = List::open(given, '[', ']');
    order.iter().for_each(|(_, (text, _))| list.add(text));
    list.close()
}

fn array_join<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_join", values, scratch);
    let separator = given.text(1)?;
    let null = if given.len() > 2 { Some(given.text(2)?) } else { None };
    let mut built = given.built();
    let mut begun = false;
    for element in elements(given, 0)? {
        let element = element?;
        let Some(text) = cast::text_of(element, scratch).or(null) else { continue };
        if std::mem::replace(&mut begun, true) {
            built.push(separator);
        }
        built.push(text);
    }
    built.text()
}

fn array_min<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    extreme(Given::new("array_min", values, scratch), Ordering::Less)
}

fn array_max<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    extreme(Given::new("array_max", values, scratch), Ordering::Greater)
}

fn extreme<'a>(given: Given<'_, 'a>, wanted: Ordering) -> Outcome<'a> {
    let mut best = Value::Null;
    for element in elements(given, 0)? {
        let element = element?;
        if best.is_null() || element.is_null() {
            best = if best.is_null() { element } else { best };
            continue;
        }
        let order = compare(element, best);
        if order.ok_or(given.argument("the elements are of different types"))? == wanted {
            best = element;
        }
    }
    Ok(best)
}

fn array_sum<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_sum", values, scratch);
    let (mut whole, mut float, mut count) = (Some(0_i64), 0.0, 0);
    for element in elements(given, 0)? {
        match element? {
            Value::Null => continue,
            Value::Int(int) => {
                whole = whole
                    .map(|sum| sum.checked_add(int).ok_or(given.out_of_range()))
                    .transpose()?;
                float += int as f64;
            }
            Value::Float(more) => {
                whole = None;
                float += more;
            }
            _ => return Err(given.argument("an element is no number")),
        }
        count += 1;
    }
    match whole {
        _ if count == 0 => Ok(Value::Null),
        Some(sum) => Ok(Value::Int(sum)),
        None => given.finite(float),
    }
}

fn array_avg<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("array_avg", values, scratch);
    let (mut sum, mut count) = (0.0, 0.0);
    for element in elements(given, 0)? {
        match element? {
            Value::Null => continue,
            Value::Int(int) => sum += int as f64,
            Value::Float(float) => sum += float,
            _ => return Err(given.argument("an element is no number")),
        }
        count += 1.0;
    }
    if count == 0.0 { Ok(Value::Null) } else { given.finite(sum / count) }
}

fn sequence<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("sequence", values, scratch);
    let (from, to) = (given.int(0)?, given.int(1)?);
    let step = if given.len() > 2 {
        given.int(2)?
    } else if from <= to {
        1
    } else {
        -1
    };
    if step == 0 {
        return Err(given.argument("the step is 0"));
    }
    let mut list = List::open(given, '[', ']');
    let mut next = Some(from);
    while let Some(int) = next.filter(|int| if step > 0 { *int <= to } else { *int >= to }) {
        list.add_value(Value::Int(int));
        if list.is_over() {
            break;
        }
        next = int.checked_add(step);
    }
    list.close()
}
