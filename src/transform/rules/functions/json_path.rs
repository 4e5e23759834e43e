//! Paths into JSON: a subset of JSONPath (RFC 9535), compiled when the rule is planned.
//!
//! `$` is the whole; `.key`, `['key']` and `["key"]` a member; `[n]` an element, from the end when
//! negative; `.*` and `[*]` all of them. Filters, slices, unions and `..` are deliberately absent.

use super::super::value::{Scratch, Value};
use super::json_text::{self, NotJson};

/// The steps of a path, from the outside.
pub type Path = Box<[Step]>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(Box<str>),
    /// From the end when negative.
    Index(i64),
    All,
}

/// The path that text spells, or what is wrong with it.
pub fn parse(text: &str) -> Result<Path, String> {
    let mut rest = text.strip_prefix('$').ok_or("a path begins with $")?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        let (step, after) = match rest.as_bytes()[0] {
            b'.' => dotted(&rest[1..])?,
            b'[' => bracketed(&rest[1..])?,
            _ => return Err(format!("`{rest}` begins with neither . nor [")),
        };
        steps.push(step);
        rest = after;
    }
    Ok(steps.into())
}

fn dotted(rest: &str) -> Result<(Step, &str), String> {
    if let Some(after) = rest.strip_prefix('*') {
        return Ok((Step::All, after));
    }
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    match &rest[..end] {
        "" => Err("there is no name after a dot; `..` is not known".into()),
        key => Ok((Step::Key(key.into()), &rest[end..])),
    }
}

fn bracketed(rest: &str) -> Result<(Step, &str), String> {
    let quote = rest.chars().next().filter(|c| ['\'', '"'].contains(c));
    if let Some(quote) = quote {
        let end = rest[1..].find(quote).ok_or("a quoted name does not end")?;
        let after = rest[end + 2..].strip_prefix(']').ok_or("there is no ] after a name")?;
        return Ok((Step::Key(rest[1..=end].into()), after));
    }
    let (inner, after) = rest.split_once(']').ok_or("there is a [ without ]")?;
    if inner == "*" {
        return Ok((Step::All, after));
    }
    let index = inner.parse().map(Step::Index);
    let index = index.map_err(|_| format!("[{inner}] is neither a number, a quoted name nor *"))?;
    Ok((index, after))
}

/// Gives every text that the path leads to, in the order of the document, until `each` says false.
/// Of a key that is there twice the last one counts. Says whether to go on.
pub fn visit<'a>(
    text: &'a str,
    path: &[Step],
    scratch: &'a Scratch,
    each: &mut impl FnMut(&'a str) -> bool,
) -> Result<bool, NotJson> {
    let Some((step, rest)) = path.split_first() else { return Ok(each(text)) };
    match step {
        Step::Key(key) => match member(text, key, scratch)? {
            Some(value) => visit(value, rest, scratch, each),
            None => Ok(true),
        },
        Step::Index(index) => match element(text, *index)? {
            Some(value) => visit(value, rest, scratch, each),
            None => Ok(true),
        },
        Step::All => {
            let items = json_text::members(text).or_else(|| json_text::elements(text));
            for item in items.into_iter().flatten() {
                if !visit(item?.value, rest, scratch, each)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
    }
}

/// The last member of that name; none when the text is no object.
pub fn member<'a>(
    text: &'a str,
    key: &str,
    scratch: &'a Scratch,
) -> Result<Option<&'a str>, NotJson> {
    let mut found = None;
    for item in json_text::members(text).into_iter().flatten() {
        let item = item?;
        if json_text::string(item.key, scratch) == Some(key) {
            found = Some(item.value);
        }
    }
    Ok(found)
}

/// The element at an index, from the end when negative; none when the text is no array.
pub fn element(text: &str, index: i64) -> Result<Option<&str>, NotJson> {
    let Some(elements) = json_text::elements(text) else { return Ok(None) };
    let from_front = match index {
        0.. => index,
        _ => elements.clone().count() as i64 + index,
    };
    let Ok(wanted) = usize::try_from(from_front) else { return Ok(None) };
    elements.into_iter().nth(wanted).map(|item| item.map(|item| item.value)).transpose()
}

/// A path that is a constant argument; `None` in the place of NULL.
pub fn constant(constant: Option<Value<'_>>) -> Result<Option<Path>, String> {
    match constant {
        None => Err("the path must be a constant, so that it is read once".into()),
        Some(Value::Null) => Ok(None),
        Some(Value::Text(text)) => parse(text).map(Some).map_err(|why| format!("`{text}`: {why}")),
        Some(_) => Err("the path must be text, such as '$.a[0]'".into()),
    }
}
