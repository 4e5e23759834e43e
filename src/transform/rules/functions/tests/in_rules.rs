//! The vectors once more as a person writes them: through parser, plan and executor. Scalars are
//! literals, objects and arrays are fields of the payload.

use serde_json::{Map, Value as Json};

use super::super::super::value::Value;
use super::super::super::{Group, Input, Plan, Runner, Target, plan};
use super::super::json_text;
use super::vectors;

/// A call in SQL, and the payload that it reads; `None` for what SQL cannot spell.
fn spelled(name: &str, values: &[Value<'static>]) -> Option<(String, String)> {
    let (mut arguments, mut payload) = (Vec::new(), Map::new());
    for (at, value) in values.iter().enumerate() {
        arguments.push(match value {
            Value::Null => "NULL".to_owned(),
            Value::Bool(flag) => flag.to_string(),
            // Its digits alone are an integer too large.
            Value::Int(i64::MIN) => return None,
            Value::Int(int) => int.to_string(),
            Value::Float(float) => format!("{float:?}"),
            Value::Text(text) => format!("'{}'", text.replace('\'', "''")),
            Value::Json(text) => {
                payload.insert(format!("a{at}"), serde_json::from_str(text).ok()?);
                format!("payload.a{at}")
            }
            // Decoded bytes are text where they can be.
            Value::Bytes(bytes) if std::str::from_utf8(bytes).is_ok() => return None,
            Value::Bytes(bytes) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("unhex('{digits}')")
            }
        });
    }
    let call = format!("{name}({})", arguments.join(", "));
    Some((call, Json::Object(payload).to_string()))
}

/// The value of the column `v`, or why there is none.
fn run(plan: &Plan, payload: &str) -> Result<Json, String> {
    let roots: Vec<usize> = plan.filters().map(|(_, rule)| rule).collect();
    let group = Group::new(&plan.rules, &roots);
    let mut runner = Runner::default();
    let input = Input::new("t", "c", payload.as_bytes());
    let records = runner.run(plan, &group, &input);
    let record = records.iter().next().unwrap();
    if record.target == Target::DeadLetters {
        let mut headers = records.extras(record).headers();
        let (_, reason) = headers.find(|(name, _)| *name == b"reason").unwrap();
        return Err(String::from_utf8_lossy(reason).into_owned());
    }
    let body: Json = serde_json::from_slice(records.body(record).unwrap()).unwrap();
    Ok(body["v"].clone())
}

fn is_same(found: &Json, expected: Value<'_>) -> bool {
    let mut text = String::new();
    json_text::write_value(&mut text, expected).unwrap();
    let expected: Json = serde_json::from_str(&text).unwrap();
    match (found.as_f64(), expected.as_f64()) {
        (Some(found), Some(expected)) => (found - expected).abs() <= expected.abs() * 1e-12,
        _ => *found == expected,
    }
}

#[test]
fn vectors_hold_in_rules() {
    let (mut held, mut wrong) = (0, Vec::new());
    for (name, values, expected) in vectors() {
        let Some((call, payload)) = spelled(name, values) else { continue };
        let sql = format!("CREATE STREAM s AS SELECT {call} AS v FROM 't'");
        let found = match plan(&[("r.sql".into(), sql)], &[]) {
            Ok(plan) => run(&plan, &payload),
            // What must be constant is read, and what is constant folded, when the rule is planned.
            Err(problems) => Err(problems[0].what.clone()),
        };
        let holds = match (&found, expected) {
            (Ok(found), Ok(expected)) => is_same(found, *expected),
            (Err(found), Err(expected)) => found.contains(expected),
            _ => false,
        };
        held += usize::from(holds);
        if !holds {
            wrong.push(format!("{call} is {found:?}, not {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(held > 400, "{held} vectors can be spelled");
}
