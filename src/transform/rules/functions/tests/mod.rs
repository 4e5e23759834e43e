//! Every function by vectors: what is published (RFCs, FIPS 180, the examples of AWS IoT SQL's
//! reference and of eKuiper's documentation), NULL, and what it refuses; and by random arguments.

mod arrays;
mod conditional;
mod encoding;
mod in_rules;
mod json;
mod math;
mod regexp;
mod text;
mod time;

use proptest::prelude::*;

use super::super::value::{Kind, Scratch, Value};
use super::{Body, Function, Nulls, Prepared, all, cast, compare, find};

/// Function, arguments, and the value or a part of the error.
type Vector = (&'static str, &'static [Value<'static>], Result<Value<'static>, &'static str>);

const VECTORS: &[&[Vector]] = &[
    arrays::VECTORS,
    conditional::VECTORS,
    encoding::VECTORS,
    json::VECTORS,
    math::VECTORS,
    regexp::VECTORS,
    text::VECTORS,
    time::VECTORS,
];

fn vectors() -> impl Iterator<Item = &'static Vector> {
    VECTORS.iter().flat_map(|family| family.iter())
}

/// Calls as the executor does: constants are prepared, then NULL is looked for.
fn run<'a>(
    function: &Function,
    values: &[Value<'a>],
    prepared: &'a mut Prepared,
    scratch: &'a Scratch,
) -> Result<Value<'a>, String> {
    if let Body::Prepared { prepare, .. } = function.body {
        let constants: Vec<_> = values.iter().copied().map(Some).collect();
        *prepared = prepare(&constants)?;
    }
    function.call(prepared, values, scratch).map_err(|error| error.to_string())
}

fn is_same(one: Value<'_>, other: Value<'_>) -> bool {
    match (one, other) {
        // The last digit of a sine is the platform's.
        (Value::Float(one), Value::Float(other)) => {
            one == other || (one - other).abs() <= other.abs() * 1e-15
        }
        _ => one == other,
    }
}

#[test]
fn vectors_hold() {
    let mut wrong = Vec::new();
    for (name, values, expected) in vectors() {
        let function = find(name).unwrap_or_else(|| panic!("there is no function {name}"));
        let count = values.len() as u8;
        assert!((function.least..=function.most).contains(&count), "{name}{values:?}");
        let (scratch, mut prepared) = (Scratch::new(), Prepared::None);
        let found = run(function, values, &mut prepared, &scratch);
        let holds = match (&found, expected) {
            (Ok(found), Ok(expected)) => is_same(*found, *expected),
            (Err(found), Err(expected)) => found.contains(expected),
            _ => false,
        };
        if !holds {
            wrong.push(format!("{name}{values:?} is {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_function_has_a_vector_under_its_name_and_gives_a_value_there() {
    for function in all() {
        let own = vectors().filter(|(name, ..)| *name == function.name);
        let (good, bad): (Vec<&Vector>, Vec<&Vector>) = own.partition(|(.., e)| e.is_ok());
        assert!(!good.is_empty(), "{} has no vector", function.name);
        let takes_text = ["text", "json", "value", "condition", ""];
        let cannot_fail = takes_text.iter().any(|kind| function.parameters.starts_with(kind));
        assert!(cannot_fail || !bad.is_empty(), "{} refuses nothing", function.name);
    }
}

#[test]
fn null_gives_null_wherever_a_function_does_not_see_it() {
    let scratch = Scratch::new();
    for function in all().filter(|function| function.nulls == Nulls::Propagate) {
        for at in 0..function.least as usize {
            let mut values = vec![Value::Int(1); function.least as usize];
            values[at] = Value::Null;
            let found = function.call(&Prepared::None, &values, &scratch);
            assert_eq!(found, Ok(Value::Null), "{}", function.name);
        }
    }
}

#[test]
fn names_are_small_letters_and_each_is_one_function() {
    let mut seen = std::collections::BTreeSet::new();
    for name in all().flat_map(Function::names) {
        assert!(seen.insert(name), "{name} is there twice");
        let small = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(name.chars().all(small), "{name}");
    }
    assert_eq!(find("SubString").map(|function| function.name), Some("substring"));
    assert_eq!(find("KEYS").map(|function| function.name), Some("json_keys"));
    assert!(find("rand").is_none() && find("").is_none());
}

#[test]
fn what_must_be_constant_is_asked_for() {
    for function in all() {
        let Body::Prepared { prepare, .. } = function.body else { continue };
        let nothing = vec![None; function.most as usize];
        let error = prepare(&nothing).expect_err(function.name);
        assert!(error.contains("constant"), "{}: {error}", function.name);
    }
}

fn any_value() -> impl Strategy<Value = Value<'static>> {
    const TEXTS: [&str; 24] = [
        "",
        " ",
        "a",
        "abc",
        "é",
        "Σ",
        "1",
        "-1",
        "1.5",
        "1e300",
        "true",
        "2020-04-03",
        "yyyy",
        "2020-04-03T09:45:18Z",
        "day",
        "UTC",
        "base64",
        "$.a[0]",
        "$",
        "(a)",
        "$1",
        "1h",
        "AQID",
        "\u{1f600}",
    ];
    const JSON: [&str; 10] = [
        "{}",
        "[]",
        "[1,2.5,null,\"a\"]",
        "{\"a\":[1]}",
        "[[1],[2,[3]]]",
        "[1e999]",
        "[\"\\u00e9\"]",
        "{\"a\":1,\"a\":2}",
        "[",
        "{\"a\"",
    ];
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        any::<i64>().prop_map(Value::Int),
        (-70_i64..70).prop_map(Value::Int),
        any::<f64>().prop_filter("numbers are finite", |f| f.is_finite()).prop_map(Value::Float),
        (0..TEXTS.len()).prop_map(|at| Value::Text(TEXTS[at])),
        (0..JSON.len()).prop_map(|at| Value::Json(JSON[at])),
        Just(Value::Bytes(b"abc")),
        Just(Value::Bytes(b"\xff\x00")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// No panic, no number that is none, whatever the types are.
    #[test]
    fn any_arguments_give_a_value_or_an_error(values in prop::collection::vec(any_value(), 6)) {
        for function in all() {
            for count in function.least..=function.most.min(6) {
                let (scratch, mut prepared) = (Scratch::new(), Prepared::None);
                let values = &values[..count as usize];
                if let Ok(Value::Float(float)) = run(function, values, &mut prepared, &scratch) {
                    prop_assert!(float.is_finite(), "{}{values:?}", function.name);
                }
            }
        }
    }

    #[test]
    fn any_cast_gives_a_value_of_the_type_or_an_error(value in any_value()) {
        for to in [Kind::Bool, Kind::Int, Kind::Float, Kind::Text, Kind::Bytes, Kind::Json] {
            let scratch = Scratch::new();
            match cast(value, to, &scratch) {
                Ok(Value::Null) => prop_assert!(value.is_null()),
                Ok(cast) => prop_assert_eq!(cast.kind(), to),
                Err(_) => {}
            }
        }
    }

    /// Text of a number reads back as the number.
    #[test]
    fn numbers_survive_text(value in any_value()) {
        if let Value::Int(_) | Value::Float(_) = value {
            let scratch = Scratch::new();
            let text = cast(value, Kind::Text, &scratch).unwrap();
            prop_assert_eq!(cast(text, value.kind(), &scratch), Ok(value));
        }
    }

    /// Integers and floats are compared exactly: as 128-bit integers where the float is whole.
    #[test]
    fn integers_and_floats_have_an_order(int in any::<i64>(), near in -3_i64..4) {
        let float = int.wrapping_add(near) as f64;
        let expected = i128::from(int).cmp(&(float as i128));
        prop_assert_eq!(compare(Value::Int(int), Value::Float(float)), Some(expected));
        prop_assert_eq!(compare(Value::Float(float), Value::Int(int)), Some(expected.reverse()));
    }
}

#[test]
fn casts() {
    use Value::{Bool, Bytes, Float, Int, Json, Text};
    let check = |value: Value<'static>, to: Kind, expected: Result<Value<'static>, &str>| {
        let scratch = Scratch::new();
        let found = cast(value, to, &scratch).map_err(|error| error.to_string());
        let holds = match (&found, expected) {
            (Ok(found), Ok(expected)) => *found == expected,
            (Err(found), Err(expected)) => found.contains(expected),
            _ => false,
        };
        assert!(holds, "{value:?} as {to:?} is {found:?}, not {expected:?}");
    };
    check(Bool(true), Kind::Int, Ok(Int(1)));
    check(Bool(false), Kind::Float, Ok(Float(0.0)));
    check(Float(2.9), Kind::Int, Ok(Int(2)));
    check(Float(-2.9), Kind::Int, Ok(Int(-2)));
    check(Float(1e19), Kind::Int, Err("out of range"));
    check(Float(9_223_372_036_854_775_808.0), Kind::Int, Err("out of range"));
    check(Float(-9_223_372_036_854_775_808.0), Kind::Int, Ok(Int(i64::MIN)));
    check(Text("-1.2"), Kind::Int, Ok(Int(-1)));
    check(Text("5E-12"), Kind::Float, Ok(Float(5e-12)));
    check(Text("9007199254740993"), Kind::Int, Ok(Int(9_007_199_254_740_993)));
    check(Text("9223372036854775808"), Kind::Int, Err("out of range"));
    check(Text("1e999"), Kind::Float, Err("not a number"));
    for text in ["", "-", "1.", ".5", "+1", " 1", "1 ", "0x10", "1e", "NaN", "inf", "1_000"] {
        check(Text(text), Kind::Float, Err("not a number"));
    }
    check(Int(0), Kind::Bool, Ok(Bool(false)));
    check(Float(0.1), Kind::Bool, Ok(Bool(true)));
    check(Text("TRUE"), Kind::Bool, Ok(Bool(true)));
    check(Text("1"), Kind::Bool, Err("neither true nor false"));
    check(Float(10.0), Kind::Text, Ok(Text("10.0")));
    check(Float(1e300), Kind::Text, Ok(Text("1e300")));
    check(Float(0.1), Kind::Text, Ok(Text("0.1")));
    check(Int(-7), Kind::Text, Ok(Text("-7")));
    check(Bool(true), Kind::Text, Ok(Text("true")));
    check(Json("[1, 2]"), Kind::Text, Ok(Text("[1, 2]")));
    check(Bytes(b"abc"), Kind::Text, Ok(Text("abc")));
    check(Bytes(b"\xff"), Kind::Text, Err("not UTF-8"));
    check(Bytes(b"12"), Kind::Int, Ok(Int(12)));
    check(Text("abc"), Kind::Bytes, Ok(Bytes(b"abc")));
    check(Text(" {\"a\":1} "), Kind::Json, Ok(Json("{\"a\":1}")));
    check(Text("{a}"), Kind::Json, Err("not a JSON object or array"));
    check(Int(1), Kind::Json, Err("not a JSON object or array"));
    check(Json("[]"), Kind::Int, Err("no way"));
    check(Value::Null, Kind::Int, Ok(Value::Null));
}

/// The tables of docs/functions.md.
fn tables() -> String {
    use std::fmt::Write;
    let mut page = String::new();
    for family in &super::FAMILIES {
        let title = family.title;
        write!(page, "\n### {title}\n\n| function | gives | what |\n|---|---|---|\n").unwrap();
        for function in family.functions {
            write!(page, "| `{}({})`", function.name, function.parameters).unwrap();
            for (at, alias) in function.aliases.iter().enumerate() {
                write!(page, "{} `{alias}`", if at == 0 { ", also" } else { "," }).unwrap();
            }
            let (result, meaning) = (function.result, function.meaning);
            writeln!(page, " | {result} | {meaning} |").unwrap();
        }
    }
    page
}

#[test]
fn the_documentation_has_every_function() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/functions.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (written, own) = page.split_once("functions`. -->\n").unwrap();
    if std::env::var("TIDEGATE_GOLDEN").is_ok_and(|word| word == "write") {
        std::fs::write(path, format!("{written}functions`. -->\n{}", tables())).unwrap();
        return;
    }
    assert!(
        own == tables(),
        "docs/functions.md differs from src/transform/rules/functions: run\n  \
         TIDEGATE_GOLDEN=write cargo test --lib rules::functions"
    );
}

/// Every letter that a pattern may have stands in the page.
#[test]
fn the_documentation_has_every_letter() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/functions.md"));
    for letter in super::time_format::LETTERS.chars() {
        assert!(
            page.contains(&format!("`{letter}`")) || page.contains(&format!("`{letter}{letter}`"))
        );
    }
}
