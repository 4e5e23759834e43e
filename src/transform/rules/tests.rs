//! Rules from their text to their records.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::value::RawValue;

use super::plan::{Plan, plan, plan_with};
use super::run::{Runner, Target};
use super::tables::Text;
use super::value::Value;
use super::{Group, Input, Key};

fn planned(sql: &str) -> Plan {
    let streams = [("telemetry".to_owned(), vec!["#".to_owned()])];
    // Lookup tables are those of the examples.
    let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rules"));
    let read = |path: &Path, _| {
        let bytes = std::fs::read(examples.join(path)).map_err(|error| error.to_string())?;
        Ok(Text { bytes, ..Text::default() })
    };
    match plan_with(&[("r.sql".into(), sql.into())], &streams, &read) {
        Ok(plan) => plan,
        Err(problems) => panic!("{problems:?}"),
    }
}

fn input<'a>(payload: &'a [u8]) -> Input<'a> {
    Input { received_ms: 1_700_000_000_000, ..Input::new("plant/7/sensor/a", "dev-1", payload) }
}

/// Every record of a message: its stream, key, timestamp, headers and value.
fn run(sql: &str, payload: &[u8]) -> Vec<String> {
    let plan = planned(sql);
    let roots: Vec<usize> = plan.filters().map(|(_, rule)| rule).collect();
    records(&plan, &mut Runner::default(), &roots, &input(payload))
}

fn records(plan: &Plan, runner: &mut Runner, rules: &[usize], input: &Input<'_>) -> Vec<String> {
    let group = Group::new(&plan.rules, rules);
    let records = runner.run(plan, &group, input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = records.iter().map(|record| {
        let stream = match record.target {
            Target::Rule(rule) => &*plan.rules[rule].name,
            Target::DeadLetters => "dead",
        };
        let mut shown = format!("{stream} {}", text(records.body(record).unwrap_or(input.payload)));
        let extras = records.extras(record);
        if let Key::Is(key) = extras.key() {
            shown += &format!(" key={}", text(key));
        }
        if let Some(ms) = extras.timestamp_ms() {
            shown += &format!(" ts={ms}");
        }
        for (name, value) in extras.headers() {
            shown += &format!(" {}={}", text(name), text(value));
        }
        shown
    });
    shown.collect()
}

/// The value of an expression over a payload, as JSON; or the reason why there is none.
fn value(expr: &str, payload: &str) -> String {
    let shown = run(&format!("CREATE STREAM s AS SELECT {expr} AS v FROM 't'"), payload.as_bytes());
    let [one] = &*shown else { panic!("{expr}: {shown:?}") };
    match one.strip_prefix("s {\"v\":").and_then(|rest| rest.strip_suffix('}')) {
        Some(value) => value.to_owned(),
        None => one.split_once("reason=").map(|(_, reason)| reason.to_owned()).unwrap_or_default(),
    }
}

const HOT: &str = "CREATE STREAM hot WITH (durability='fsync', compression='lz4') AS
SELECT clientid() AS device, topic(2) AS site, ts, temp * 1.8 + 32 AS temp_f, payload.gps.lat
FROM 'plant/+/sensor/#'
WHERE temp > 30 AND site <> 'lab'
PARTITION BY device;";

#[test]
fn the_rule_of_the_issue() {
    assert_eq!(
        run(HOT, br#"{"ts": 17, "temp": 31.5, "gps": {"lat": 48.10, "lon": 11}, "x": [1,2]}"#),
        [r#"hot {"device":"dev-1","site":"7","ts":17,"temp_f":88.7,"lat":48.10} key=dev-1"#]
    );
    assert!(run(HOT, br#"{"ts": 17, "temp": 30}"#).is_empty());
    assert!(run(HOT, br#"{"ts": 17}"#).is_empty(), "NULL is not above 30");
    assert_eq!(
        run(HOT, br#"{"temp": "hot"}"#),
        [concat!(
            r#"dead {"temp": "hot"} ts=1700000000000 rule=hot position=r.sql:4:7 "#,
            "reason=> takes two numbers, two texts, two booleans or two byte strings, not an integer"
        )]
    );
    assert_eq!(
        run(HOT, b"{\"temp\": 31"),
        [
            "dead {\"temp\": 31 ts=1700000000000 rule=hot position=r.sql:1:1 reason=the payload is not JSON: \
          a comma or } is missing at byte 11"
        ]
    );
}

#[test]
fn expressions_have_the_values_that_sql_gives_them() {
    let payload = r#"{"a": 7, "b": 2.5, "t": "x%y", "n": null, "o": {"k": [10, 20, {"z": "\u00e4"}]},
        "yes": true, "no": false, "big": 12345678901234567890, "long": 9223372036854775807, "": 5}"#;
    for (expr, expected) in [
        ("a", "7"),
        ("b", "2.5"),
        ("payload.a", "7"),
        ("o.k[1]", "20"),
        ("o.k[2].z", r#""\u00e4""#),
        ("o.k[2].z || '!'", "\"ä!\""),
        ("o['k'][0]", "10"),
        ("o", r#"{"k": [10, 20, {"z": "\u00e4"}]}"#),
        ("missing", "null"),
        ("n", "null"),
        ("big", "12345678901234567890"),
        ("o.k[9]", "null"),
        ("a + 1", "8"),
        ("a / 2", "3.5"),
        ("a % 4", "3"),
        ("-a", "-7"),
        ("a * b", "17.5"),
        ("a & 3", "3"),
        ("a | 8", "15"),
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("long + 1", "+: the result is out of range"),
        ("a / 0.0", "/: division by zero"),
        ("t + 1", "+ takes numbers, not text"),
        ("a > 6", "true"),
        ("a = 7.0", "true"),
        ("a <> 7", "false"),
        ("t = 7", "false"),
        ("n = 7", "null"),
        ("yes AND n", "null"),
        ("no AND n", "false"),
        ("yes OR n", "true"),
        ("no OR n", "null"),
        ("n AND no", "false"),
        ("NOT n", "null"),
        ("NOT yes", "false"),
        ("n IS NULL", "true"),
        ("a IS NOT NULL", "true"),
        ("missing IS NULL", "true"),
        ("yes IS TRUE", "true"),
        ("n IS NOT TRUE", "true"),
        ("a IS DISTINCT FROM n", "true"),
        ("n IS NOT DISTINCT FROM missing", "true"),
        ("a BETWEEN 1 AND 7", "true"),
        ("a NOT BETWEEN 1 AND 7", "false"),
        ("a BETWEEN 8 AND n", "false"),
        ("a BETWEEN 1 AND n", "null"),
        ("a IN (1, 7)", "true"),
        ("a NOT IN (1, 2)", "true"),
        ("a IN (1, n)", "null"),
        ("a NOT IN (7, n)", "false"),
        ("t IN ('x%y')", "true"),
        ("t LIKE 'x%'", "true"),
        ("t LIKE 'x!%_' ESCAPE '!'", "true"),
        ("t NOT LIKE '_'", "true"),
        ("t ILIKE 'X%'", "true"),
        ("n LIKE 'a'", "null"),
        ("a LIKE 'a'", "LIKE takes text, not an integer"),
        ("CASE WHEN a > 100 THEN 'high' WHEN a > 5 THEN 'mid' ELSE 'low' END", "\"mid\""),
        ("CASE a WHEN 7 THEN 'seven' END", "\"seven\""),
        ("CASE n WHEN NULL THEN 1 END", "null"),
        ("CASE WHEN n THEN 1 END", "null"),
        ("topic()", "\"plant/7/sensor/a\""),
        ("topic(1)", "\"plant\""),
        ("topic(9)", "null"),
        ("topic(0)", "null"),
        ("qos()", "1"),
        ("clientid()", "\"dev-1\""),
        ("username()", "null"),
        ("received_at()", "1700000000000"),
        ("user_property('k')", "null"),
        ("'it''s'", "\"it's\""),
        ("1.5e3", "1500.0"),
        ("payload.\"\"", "5"),
        ("yes AND a", "AND takes a boolean, not an integer"),
        ("CAST('12' AS INT) + 1", "13"),
        ("CAST(n AS INT)", "null"),
        (
            "o = o",
            "= takes two numbers, two texts, two booleans or two byte strings, not a JSON object or array",
        ),
    ] {
        assert_eq!(value(expr, payload), expected, "{expr}");
    }
}

/// A statement may have 300 operators, and such a tree is walked on the stack of a thread.
#[test]
fn the_longest_expressions_have_stack_enough() {
    assert_eq!(value(&format!("x{}", " + 1".repeat(300)), r#"{"x":1}"#), "301");
    let or = format!("x = 1{}", " OR x = 2".repeat(149));
    assert_eq!(value(&or, r#"{"x":3}"#), "false");
}

#[test]
fn stars_unnest_chains_and_options() {
    assert_eq!(run("CREATE STREAM s AS SELECT * FROM 'a'", b"not {json"), ["s not {json"]);
    assert_eq!(
        run(
            "CREATE STREAM s AS SELECT *, 2 AS b, clientid() AS c FROM 'a'",
            br#"{"a": 1, "b":0, "\u0063": 3}"#
        ),
        [r#"s {"a":1,"b":2,"c":"dev-1"}"#]
    );
    assert_eq!(run("CREATE STREAM s AS SELECT *, 2 AS b FROM 'a'", b"{}"), [r#"s {"b":2}"#]);
    let rows = "CREATE STREAM rows WITH (key = id, timestamp = r.ts, headers = (site, r.v)) AS
        SELECT id, topic(2) AS site, r.v AS v, r FROM 'a', UNNEST(readings) AS r WHERE r.v > 1 AND id = 'x'";
    assert_eq!(
        run(rows, br#"{"id":"x","readings":[{"v":1},{"v":2,"ts":99},{"v":3.50}]}"#),
        [
            r#"rows {"id":"x","site":"7","v":2,"r":{"v":2,"ts":99}} key=x ts=99 site=7 v=2"#,
            r#"rows {"id":"x","site":"7","v":3.50,"r":{"v":3.50}} key=x site=7 v=3.5"#,
        ]
    );
    assert!(run(rows, br#"{"id":"x"}"#).is_empty());
    assert_eq!(
        run(rows, br#"{"id":"x","readings":[{"v":2},{"v":"a"}]}"#).len(),
        1,
        "all or a dead letter"
    );
    let stars = "CREATE STREAM s AS SELECT id, r.* FROM 'a' CROSS JOIN UNNEST(readings) AS r";
    assert_eq!(
        run(stars, br#"{"id":1,"readings":[{"v":1, "id":2},{}]}"#),
        [r#"s {"id":1,"v":1}"#, r#"s {"id":1}"#]
    );
    let chain = "CREATE STREAM b AS SELECT s.x + 1 AS y FROM a AS s WHERE s.x > 1;
        CREATE STREAM c AS SELECT * FROM b; CREATE STREAM a AS SELECT v AS x FROM 't'";
    assert_eq!(run(chain, br#"{"v":2}"#), [r#"a {"x":2}"#, r#"b {"y":3}"#, r#"c {"y":3}"#]);
    assert_eq!(run(chain, br#"{"v":1}"#), [r#"a {"x":1}"#]);
    let drop = "CREATE STREAM s WITH (on_error='drop') AS SELECT a + 1 AS b FROM 't'";
    assert!(run(drop, br#"{"a":"x"}"#).is_empty());
    let null = "CREATE STREAM s WITH (on_error='null') AS SELECT a + 1 AS b, c FROM 't'";
    assert_eq!(run(null, br#"{"a":"x","c":"\ud800"}"#), [r#"s {"b":null,"c":"\ud800"}"#]);
    let same =
        "CREATE STREAM s AS SELECT temp * 2 AS temp FROM 't' WHERE temp > 3 PARTITION BY temp";
    assert_eq!(run(same, br#"{"temp":4}"#), [r#"s {"temp":8} key=8"#]);
    assert_eq!(
        run("CREATE STREAM s AS SELECT a FROM telemetry AS x", br#"{"a":4}"#),
        [r#"s {"a":4}"#]
    );
}

#[test]
fn formats_are_those_that_the_rule_or_the_publisher_says() {
    let text =
        "CREATE STREAM s WITH (format='text') AS SELECT payload AS p, topic(2) AS t FROM 't'";
    assert_eq!(run(text, b"21.5 degrees"), [r#"s {"p":"21.5 degrees","t":"7"}"#]);
    let number = "CREATE STREAM s WITH (format='number') AS SELECT payload * 2 AS p FROM 't'";
    assert_eq!(run(number, b"21.5"), [r#"s {"p":43.0}"#]);
    // {"a": [{"b": 1}, {"b": 2}], "c": "x"} in CBOR.
    let cbor = b"\xa2\x61a\x82\xa1\x61b\x01\xa1\x61b\x02\x61c\x61x";
    let rows =
        "CREATE STREAM s WITH (format='cbor') AS SELECT c, r.b AS b FROM 't', UNNEST(a) AS r;
        CREATE STREAM m AS SELECT *, 1 AS one FROM s";
    assert_eq!(
        run(rows, cbor),
        [
            r#"s {"c":"x","b":1}"#,
            r#"m {"c":"x","b":1,"one":1}"#,
            r#"s {"c":"x","b":2}"#,
            r#"m {"c":"x","b":2,"one":1}"#
        ]
    );
    let star = "CREATE STREAM s WITH (format='cbor') AS SELECT *, 1 AS one FROM 't'";
    assert_eq!(run(star, cbor), [r#"s {"a":[{"b":1},{"b":2}],"c":"x","one":1}"#]);
}

#[test]
fn problems_name_their_place_and_what_would_be_right() {
    let check = |sql: &str, expected: &[&str]| {
        let streams = [("telemetry".to_owned(), vec!["#".to_owned()])];
        let problems = plan(&[("r.sql".into(), sql.into())], &streams).unwrap_err();
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(shown, expected, "{sql}");
    };
    check(
        "CREATE STREAM s AS SELECT clientidd() AS a FROM 't'",
        &["r.sql:1:27: there is no function clientidd; did you mean clientid?"],
    );
    check(
        "CREATE STREAM s AS SELECT a FROM telemtry",
        &["r.sql:1:34: there is no stream telemtry; did you mean telemetry?"],
    );
    check(
        "CREATE STREAM a AS SELECT x FROM b; CREATE STREAM b AS SELECT x FROM a",
        &[
            "r.sql:1:34: a reads, by way of b, its own records",
            "r.sql:1:70: b reads, by way of a, its own records",
        ],
    );
    check(
        "CREATE STREAM s AS SELECT a FROM 'x/#/y'",
        &["r.sql:1:34: # is a whole level of a topic filter, and its last one"],
    );
    check("CREATE STREAM s AS SELECT a + 1 FROM 'x'", &["r.sql:1:27: a + 1 needs a name: AS name"]);
    check(
        "CREATE STREAM s AS SELECT a, b.a FROM 'x'",
        &["r.sql:1:30: there is a column a already; name this one with AS"],
    );
    check(
        "CREATE STREAM s AS SELECT a FROM 'x' WHERE a = NULL",
        &["r.sql:1:44: nothing is = NULL; write IS NULL or IS NOT NULL"],
    );
    check("CREATE STREAM s AS SELECT 1 / 0 AS a FROM 'x'", &["r.sql:1:27: /: division by zero"]);
    check(
        "CREATE STREAM s AS SELECT count(*) AS a FROM 'x'",
        &["r.sql:1:27: * cannot be an argument"],
    );
    check(
        "CREATE STREAM s AS SELECT topic(1, 2) AS a FROM 'x'",
        &["r.sql:1:27: topic() takes 0 to 1, not 2"],
    );
    check(
        "CREATE STREAM telemetry AS SELECT a FROM 'x'",
        &["r.sql:1:15: the configuration has a stream telemetry already"],
    );
    check(
        "CREATE STREAM s WITH (on_error='x') AS SELECT a FROM 'x'",
        &["r.sql:1:32: on_error is 'deadletter', 'drop' or 'null'"],
    );
    check(
        "CREATE STREAM s AS SELECT a[b] AS c FROM 'x'",
        &[
            "r.sql:1:29: an index is a whole number from 0, or 'a name'; json_extract takes what is calculated",
        ],
    );
    check("CREATE STREAM s AS SELECT r.* FROM 'x'", &["r.sql:1:27: there is no source r"]);
}

/// What docs/rules.md shows is right, and it names every function of the message.
#[test]
fn the_manual_is_true() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rules.md"));
    let blocks = page.split("```sql\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let plan = planned(&blocks.collect::<String>());
    assert_eq!((plan.rules.len(), plan.tables.all.len()), (3, 1));
    for name in super::fact_names() {
        assert!(page.contains(&format!("`{name}(")), "{name} is not in docs/rules.md");
    }
    for (name, _) in super::formats::NAMES {
        assert!(page.contains(&format!("`'{name}'`")), "format {name} is not in docs/rules.md");
    }
}

/// The examples of scripts/rules give what stands beside them.
#[test]
fn the_examples_give_what_they_say() {
    macro_rules! check {
        ($name:literal) => {{
            let text = |end| match end {
                "sql" => include_str!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/scripts/rules/",
                    $name,
                    ".sql"
                )),
                "jsonl" => include_str!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/scripts/rules/",
                    $name,
                    ".jsonl"
                )),
                _ => include_str!(concat!(
                    env!("CARGO_MANIFEST_DIR"),
                    "/scripts/rules/",
                    $name,
                    ".expected"
                )),
            };
            let found = sampled(text("sql"), text("jsonl"));
            assert_eq!(found, text("expected"), "{}:\n{found}", $name);
        }};
    }
    check!("cold-chain");
    check!("weather");
    check!("factory");
}

fn base64_of(text: &str) -> Vec<u8> {
    let mut bytes = vec![0; text.len()];
    let count = STANDARD.decode_slice(text, &mut bytes).unwrap();
    bytes.truncate(count);
    bytes
}

/// What a file of rules makes of a file of samples.
fn sampled(sql: &str, samples: &str) -> String {
    let plan = planned(sql);
    let mut runner = Runner::default();
    let mut shown = String::new();
    for line in samples.lines() {
        let sample: HashMap<&str, &RawValue> = serde_json::from_str(line).unwrap();
        let word = |name: &str| sample[name].get().trim_matches('"');
        let payload = match sample.contains_key("payload_base64") {
            true => base64_of(word("payload_base64")),
            false => sample["payload"].get().as_bytes().to_vec(),
        };
        let input = Input { topic: word("topic"), client_id: word("clientid"), ..input(&payload) };
        let mut rules: Vec<usize> = plan
            .filters()
            .filter(|(filter, _)| crate::transform::matches(filter, input.topic))
            .map(|(_, rule)| rule)
            .collect();
        rules.dedup();
        for record in records(&plan, &mut runner, &rules, &input) {
            shown += &record;
            shown.push('\n');
        }
    }
    shown
}

#[test]
fn a_plan_is_explained() {
    let plan = planned(&format!(
        "{HOT} CREATE STREAM rows AS SELECT *, r.v AS v FROM hot, UNNEST(list) AS r WHERE r.v IN (1, 2) OR NOT a"
    ));
    assert_eq!(
        plan.to_string(),
        "stream hot (r.sql:1:1)
  from       'plant/+/sensor/#'
  reads      payload.temp, payload.ts, payload.gps.lat in one pass
  where      (payload.temp > 30) AND (topic(2) <> 'lab')
  writes     device = clientid()
  writes     site = topic(2)
  writes     ts = payload.ts
  writes     temp_f = (payload.temp * 1.8) + 32
  writes     lat = payload.gps.lat
  key        clientid()
  on error   to _deadletter
  with       durability = fsync
  with       compression = lz4
  read by    stream rows

stream rows (r.sql:5:22)
  from       stream hot
  reads      payload.a, payload.list, payload in one pass
  for each   r in payload.list
  reads      r.v in one pass
  where      (r.v IN (1, 2)) OR (NOT payload.a)
  writes     the payload's other members
  writes     v = r.v
  key        the client id
  on error   to _deadletter
"
    );
}

/// Any JSON text, with white space, duplicate keys and escapes.
fn json_text() -> impl Strategy<Value = String> {
    let key = prop_oneof![Just("a"), Just("b"), Just("c"), Just("\\u0061"), Just("x\\n"), Just("")];
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("false".to_owned()),
        any::<i64>().prop_map(|int| int.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:e}")),
        any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| f.to_string()),
        "-?[0-9]{1,30}(\\.[0-9]{1,20})?([eE][-+]?[0-9]{1,3})?",
        "\"\\PC{0,40}\"",
        "\"(\\\\u[0-9a-f]{4}|\\\\[nt\"/]|[a-z{}\\[\\]:,]){0,12}\"",
    ];
    let space = prop_oneof![4 => Just(""), 1 => Just(" "), 1 => Just("\n\t  ")];
    leaf.prop_recursive(5, 60, 6, move |inner| {
        let member = (key.clone(), space.clone(), inner.clone())
            .prop_map(|(k, s, v)| format!("{s}\"{k}\"{s}:{s}{v}{s}"));
        prop_oneof![
            proptest::collection::vec(member, 0..6).prop_map(|m| format!("{{{}}}", m.join(","))),
            (proptest::collection::vec(inner, 0..6), space.clone())
                .prop_map(|(m, s)| format!("[{s}{}{s}]", m.join(","))),
        ]
    })
}

fn pointer<'v>(value: &'v serde_json::Value, path: &[&str]) -> Option<&'v serde_json::Value> {
    path.iter().try_fold(value, |value, step| match step.parse::<usize>() {
        Ok(index) => value.as_array()?.get(index),
        Err(_) => value.as_object()?.get(*step),
    })
}

/// What the pass finds is what serde_json finds; what one refuses the other refuses.
fn check_against_serde(text: &[u8]) -> Result<(), TestCaseError> {
    use super::json::{Field, extract};
    use super::paths::{Paths, Step};
    let wanted: [&[&str]; 7] =
        [&[], &["a"], &["a", "b"], &["b", "0"], &["b", "1", "c"], &["c", "", "a"], &["a", "x\n"]];
    let mut paths = Paths::default();
    for path in wanted {
        let steps: Vec<_> = path
            .iter()
            .map(|step| step.parse().map_or_else(|_| Step::Key((*step).into()), Step::Index))
            .collect();
        paths.intern(&steps);
    }
    let scratch = super::value::Scratch::new();
    let mut found = vec![Field::Missing; wanted.len()];
    let ours = extract(text, &paths, &scratch, &mut found);
    // Half surrogates and numbers beyond a float are refused by serde_json wherever they stand; here
    // only where somebody wants their value.
    let theirs = match serde_json::from_slice::<serde_json::Value>(text) {
        Ok(value) => value,
        Err(error) => {
            let lenient = serde_json::from_slice::<&RawValue>(text).is_ok();
            prop_assert_eq!(ours.is_ok(), lenient, "{}", error);
            return Ok(());
        }
    };
    prop_assert!(ours.is_ok(), "{:?}", ours);
    for (path, found) in wanted.iter().zip(&found) {
        let expected = pointer(&theirs, path);
        let value = match found {
            Field::Json(raw) => {
                let value: serde_json::Value = serde_json::from_str(raw.text).unwrap();
                let mut out = Vec::new();
                super::write::value(&mut out, raw.value(&scratch).unwrap());
                let again: serde_json::Value = serde_json::from_slice(&out).unwrap();
                // serde_json's floats are off by a bit at times; the standard library's are not.
                let same = match raw.value(&scratch).unwrap() {
                    Value::Float(float) => raw.text.parse() == Ok(float),
                    _ => again == value,
                };
                prop_assert!(same, "{} read as {}", raw.text, again);
                Some(value)
            }
            _ => None,
        };
        prop_assert_eq!(value.as_ref(), expected, "{:?}", path);
    }
    Ok(())
}

proptest! {
    /// Whatever stands in a file of rules, and whatever comes then: a plan or problems, no panic.
    #[test]
    fn damaged_rules_are_planned_or_refused(
        harm in proptest::collection::vec((any::<prop::sample::Index>(), "[ -~]{0,3}"), 0..6),
        text in json_text(),
    ) {
        let mut sql = format!(
            "{HOT} CREATE STREAM rows WITH (key = r.id, headers=(a, b.c)) AS SELECT *, r.v % 3 AS v,
            CASE a WHEN 1 THEN 'x' ELSE upper(b.c) END AS w, CAST(c AS INT) AS i, a[0].b NOT IN (1, NULL) AS j
            FROM 'a/+', UNNEST(a) AS r WHERE r.v BETWEEN -1 AND 2e3 OR NOT c LIKE '%x!_' ESCAPE '!';"
        );
        for (at, with) in harm {
            let at = at.index(sql.len());
            let at = (at..).find(|at| sql.is_char_boundary(*at)).unwrap_or(0);
            let end = (at + with.len().min(2)).min(sql.len());
            sql.replace_range(at..end, &with);
        }
        if let Ok(plan) = plan(&[("r.sql".into(), sql)], &[]) {
            let all: Vec<usize> = (0..plan.rules.len()).collect();
            let group = Group::new(&plan.rules, &all);
            let mut runner = Runner::default();
            let input = input(text.as_bytes());
            let records = runner.run(&plan, &group, &input);
            for record in records.iter() {
                let body = records.body(record).unwrap_or(text.as_bytes());
                let dead = record.target == Target::DeadLetters;
                let valid = serde_json::from_slice::<&RawValue>(body).is_ok();
                prop_assert!(dead || valid, "{}", String::from_utf8_lossy(body));
            }
        }
    }

    #[test]
    fn fields_are_those_that_serde_json_finds(text in json_text()) {
        check_against_serde(text.as_bytes())?;
    }

    #[test]
    fn damaged_json_is_refused_as_serde_json_refuses_it(
        text in json_text(),
        harm in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..3),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = text.into_bytes();
        for (at, byte) in harm {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        check_against_serde(&bytes)?;
        check_against_serde(&bytes[..cut.index(bytes.len())])?;
    }
}

#[test]
fn hostile_payloads_are_refused() {
    for payload in [
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("{}1{}", "[".repeat(129), "]".repeat(129)),
        r#"{"a":"\u12"}"#.to_owned(),
        r#"{"a":"\u12"   }"#.to_owned(),
        r#"{"a":"\x"}"#.to_owned(),
        "{\"a\":\"\n\"}".to_owned(),
        r#"{"a":01}"#.to_owned(),
        r#"{"a":1.}"#.to_owned(),
        r#"{"a":+1}"#.to_owned(),
        r#"{"a":1}}"#.to_owned(),
        r#"{"a":1,}"#.to_owned(),
        String::new(),
        " ".to_owned(),
        "nul".to_owned(),
        "{a:1}".to_owned(),
        "{\"a\"}".to_owned(),
        "[1 2]".to_owned(),
        "[,]".to_owned(),
    ] {
        let shown = run("CREATE STREAM s AS SELECT a FROM 't'", payload.as_bytes());
        assert!(
            shown.len() == 1 && shown[0].starts_with("dead "),
            "{:.40}: {shown:.100?}",
            payload
        );
    }
    assert_eq!(run("CREATE STREAM s AS SELECT a FROM 't'", b"{\"a\":\"\xff\"}").len(), 1);
    let deep = format!("{}1{}", "[".repeat(128), "]".repeat(128));
    assert_eq!(run("CREATE STREAM s AS SELECT a FROM 't'", deep.as_bytes()), ["s {\"a\":null}"]);
}

#[test]
fn metrics_of_sparkplug_by_the_names_of_their_birth() {
    let plan = planned(
        "CREATE STREAM s WITH (format='sparkplug_b') AS
         SELECT m.name, m.value FROM 'spBv1.0/#', UNNEST(metrics) AS m",
    );
    let roots: Vec<usize> = plan.filters().map(|(_, rule)| rule).collect();
    let group = Group::new(&plan.rules, &roots);
    let mut runner = Runner::default();
    let mut check = |topic: &str, payload: &[u8], expected: &str| {
        let input = Input { topic, ..input(payload) };
        let records = runner.run(&plan, &group, &input);
        let record = records.iter().next().unwrap();
        let body = records.body(record).map(String::from_utf8_lossy);
        assert_eq!(body.as_deref(), Some(expected), "{topic}");
    };
    // {name "t", alias 2, datatype Int8 (1), int_value 255}, then {alias 2, int_value 254}.
    let birth = b"\x12\x0a\x0a\x01t\x10\x02\x20\x01\x50\xff\x01";
    let data = b"\x12\x05\x10\x02\x50\xfe\x01";
    check("spBv1.0/g/NDATA/n", data, r#"{"name":null,"value":254}"#);
    check("spBv1.0/g/NBIRTH/n", birth, r#"{"name":"t","value":-1}"#);
    check("spBv1.0/g/NDATA/n", data, r#"{"name":"t","value":-2}"#);
    check("spBv1.0/g/DDATA/n/d", data, r#"{"name":"t","value":-2}"#);
    check("spBv1.0/g/NDATA/other", data, r#"{"name":null,"value":254}"#);
}
