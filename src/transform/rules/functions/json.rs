//! Functions of JSON objects and of JSON text.
//!
//! Comes in: objects and arrays as their text, and text that somebody put JSON into. Goes out:
//! values that borrow from it, or new JSON in the arena. Members keep their order.

use super::super::value::{EvalError, Scratch, Value};
use super::given::{Built, Given};
use super::json_text::{self, Item, NotJson};
use super::{Function, Outcome, Prepared, family, json_path, prepared, seen, strict};

family! {
    "json_extract" | "json_path_query_first" (2, 2) "json, path" -> "what is there"
        = prepared(prepare, json_extract), "the first value that the path leads to, else NULL";
    "json_path_query" (2, 2) "json, path" -> "array" = prepared(prepare, json_path_query),
        "all values that the path leads to";
    "json_path_exists" (2, 2) "json, path" -> "boolean" = prepared(prepare, json_path_exists),
        "whether the path leads to anything";
    "get" | "element_at" (2, 2) "json, key or index" -> "what is there" = strict(get),
        "a member, an element (from the end when negative), or of text a character; else NULL";
    "json_keys" | "keys" | "object_keys" (1, 1) "object" -> "array" = strict(json_keys),
        "the names of its members";
    "json_values" | "values" (1, 1) "object" -> "array" = strict(json_values),
        "the values of its members";
    "items" | "json_entries" (1, 1) "object" -> "array" = strict(items),
        "its members as arrays of name and value";
    "json_object" (0, u8::MAX) "key, value, ..." -> "object" = seen(json_object),
        "an object of these members";
    "object_construct" (0, u8::MAX) "key, value, ..." -> "object" = seen(object_construct),
        "an object of these members without those that are NULL";
    "object_concat" | "json_merge" (1, u8::MAX) "object, ..." -> "object"
        = strict(object_concat), "one object of the members of all; of one name the last counts";
    "erase" (2, 2) "object, key or array of keys" -> "object" = strict(erase),
        "without those members";
    "transform" (3, 3) "'enrichArray', object, array" -> "array" = strict(transform),
        "each object of the array with the members of `object` added";
    "to_json" (1, 1) "value" -> "text" = strict(to_json), "the value as JSON text";
    "parse_json" (1, 1) "text" -> "what it says" = strict(parse_json), "the value that it spells";
    "json_valid" (1, 1) "text" -> "boolean" = strict(json_valid), "whether it is valid JSON";
}

const NOT_JSON: &str = "the text is not valid JSON";

fn prepare(constants: &[Option<Value<'_>>]) -> Result<Prepared, String> {
    let path = json_path::constant(constants.get(1).copied().flatten())?;
    Ok(path.map_or(Prepared::Null, Prepared::Path))
}

fn path(prepared: &Prepared) -> Option<&[json_path::Step]> {
    match prepared {
        Prepared::Path(path) => Some(path),
        _ => None,
    }
}

fn json_extract<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let given = Given::new("json_extract", values, scratch);
    let Some(path) = path(prepared) else { return Ok(Value::Null) };
    let mut found = None;
    let first = &mut |text| {
        found = Some(text);
        false
    };
    json_path::visit(given.json(0)?, path, scratch, first).map_err(|_| given.argument(NOT_JSON))?;
    found.map_or(Ok(Value::Null), |text| value_of(given, text))
}

fn json_path_query<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let given = Given::new("json_path_query", values, scratch);
    let Some(path) = path(prepared) else { return Ok(Value::Null) };
    let mut list = List::open(given, '[', ']');
    let each = &mut |text| {
        list.add(text);
        true
    };
    json_path::visit(given.json(0)?, path, scratch, each).map_err(|_| given.argument(NOT_JSON))?;
    list.close()
}

fn json_path_exists<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let given = Given::new("json_path_exists", values, scratch);
    let Some(path) = path(prepared) else { return Ok(Value::Null) };
    let on = json_path::visit(given.json(0)?, path, scratch, &mut |_| false);
    Ok(Value::Bool(!on.map_err(|_| given.argument(NOT_JSON))?))
}

fn get<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("get", values, scratch);
    let Value::Json(text) = given.value(0) else {
        let (text, at) = (given.text(0)?, given.position(1)?);
        let length = text.chars().count() as i64;
        let at = if at < 0 { length + at } else { at };
        let rest = text.char_indices().nth(usize::try_from(at).unwrap_or(usize::MAX));
        return Ok(rest.map_or(Value::Null, |(at, c)| Value::Text(&text[at..at + c.len_utf8()])));
    };
    let found = match given.value(1) {
        Value::Text(key) if text.starts_with('{') => json_path::member(text, key, scratch),
        _ if text.starts_with('{') => return Err(given.type_error(1, "a key")),
        _ => json_path::element(text, given.position(1)?),
    };
    match found.map_err(|_| given.argument(NOT_JSON))? {
        Some(text) => value_of(given, text),
        None => Ok(Value::Null),
    }
}

/// The value of JSON text that is valid but for numbers beyond every float.
pub fn value_of<'a>(given: Given<'_, 'a>, text: &'a str) -> Outcome<'a> {
    json_text::value(text, given.scratch()).ok_or(given.argument("a number is out of range"))
}

/// An array or object that is being written.
pub struct List<'a> {
    built: Built<'a>,
    begun: bool,
    end: char,
}

impl<'a> List<'a> {
    pub fn open(given: Given<'_, 'a>, begin: char, end: char) -> Self {
        let mut built = given.built();
        built.push_char(begin);
        Self { built, begun: false, end }
    }

    /// Where the next element or member is written.
    pub fn next(&mut self) -> &mut Built<'a> {
        if std::mem::replace(&mut self.begun, true) {
            self.built.push(",");
        }
        &mut self.built
    }

    pub fn add(&mut self, text: &str) {
        self.next().push(text);
    }

    pub fn add_value(&mut self, value: Value<'_>) {
        // Built takes whatever is written.
        let _ = json_text::write_value(self.next(), value);
    }

    pub fn add_member(&mut self, item: Item<'_>) {
        let built = self.next();
        built.push(item.key);
        built.push(":");
        built.push(item.value);
    }

    /// Whether it is too long already.
    pub fn is_over(&self) -> bool {
        self.built.is_over()
    }

    pub fn close(mut self) -> Outcome<'a> {
        self.built.push_char(self.end);
        self.built.json()
    }
}

/// The members of the object at an argument.
fn members<'a>(
    given: Given<'_, 'a>,
    at: usize,
) -> Result<impl Iterator<Item = Result<Item<'a>, EvalError>> + Clone, EvalError> {
    let members = json_text::members(given.json(at)?);
    let members = members.ok_or(given.argument("it is no JSON object"))?;
    let error = given.argument(NOT_JSON);
    Ok(members.map(move |item| item.map_err(|NotJson| error)))
}

fn json_keys<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("json_keys", values, scratch);
    let mut list = List::open(given, '[', ']');
    for item in members(given, 0)? {
        list.add(item?.key);
    }
    list.close()
}

fn json_values<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("json_values", values, scratch);
    let mut list = List::open(given, '[', ']');
    for item in members(given, 0)? {
        list.add(item?.value);
    }
    list.close()
}

fn items<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("items", values, scratch);
    let mut list = List::open(given, '[', ']');
    for item in members(given, 0)? {
        let item = item?;
        let built = list.next();
        for part in ["[", item.key, ",", item.value, "]"] {
            built.push(part);
        }
    }
    list.close()
}

fn json_object<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    object(Given::new("json_object", values, scratch), true)
}

fn object_construct<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    object(Given::new("object_construct", values, scratch), false)
}

fn object<'a>(given: Given<'_, 'a>, with_nulls: bool) -> Outcome<'a> {
    if given.len() % 2 == 1 {
        return Err(given.argument("a key has no value"));
    }
    let mut list = List::open(given, '{', '}');
    for at in (0..given.len()).step_by(2) {
        let (key, value) = (given.text(at)?, given.value(at + 1));
        if value.is_null() && !with_nulls {
            continue;
        }
        let built = list.next();
        let _ = json_text::write_string(built, key);
        built.push(":");
        let _ = json_text::write_value(built, value);
    }
    list.close()
}

fn object_concat<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("object_concat", values, scratch);
    let mut list = List::open(given, '{', '}');
    for at in 0..given.len() {
        for item in members(given, at)? {
            let item = item?;
            let mut again = false;
            for later in at + 1..given.len() {
                again |= has_member(given, later, item.key)?;
            }
            if !again {
                list.add_member(item);
            }
        }
    }
    list.close()
}

fn has_member(given: Given<'_, '_>, at: usize, key: &str) -> Result<bool, EvalError> {
    let key = json_text::string(key, given.scratch()).unwrap_or_default();
    let found = json_path::member(given.json(at)?, key, given.scratch());
    Ok(found.map_err(|_| given.argument(NOT_JSON))?.is_some())
}

fn erase<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("erase", values, scratch);
    let erased = |key: &str| -> Result<bool, EvalError> {
        let Value::Json(keys) = given.value(1) else { return Ok(given.text(1)? == key) };
        let keys = json_text::elements(keys).ok_or(given.type_error(1, "a key, or an array"))?;
        for item in keys {
            let item = item.map_err(|_| given.argument(NOT_JSON))?;
            if json_text::string(item.value, scratch) == Some(key) {
                return Ok(true);
            }
        }
        Ok(false)
    };
    let mut list = List::open(given, '{', '}');
    for item in members(given, 0)? {
        let item = item?;
        if !erased(json_text::string(item.key, scratch).unwrap_or_default())? {
            list.add_member(item);
        }
    }
    list.close()
}

fn transform<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("transform", values, scratch);
    if given.text(0)? != "enrichArray" {
        return Err(given.argument("the mode is not enrichArray"));
    }
    let array = json_text::elements(given.json(2)?);
    let mut list = List::open(given, '[', ']');
    for element in array.ok_or(given.argument("it is no JSON array"))? {
        let element = element.map_err(|_| given.argument(NOT_JSON))?;
        let both = [Value::Json(element.value), given.value(1)];
        list.add_value(object_concat(&both, scratch)?);
    }
    list.close()
}

fn to_json<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("to_json", values, scratch);
    let mut built = given.built();
    let _ = json_text::write_value(&mut built, given.value(0));
    built.text()
}

fn parse_json<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("parse_json", values, scratch);
    let text = given.json(0)?;
    if !json_text::is_valid(text) {
        return Err(given.argument(NOT_JSON));
    }
    value_of(given, text)
}

fn json_valid<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let text = Given::new("json_valid", values, scratch).text(0)?;
    Ok(Value::Bool(json_text::is_valid(text)))
}
