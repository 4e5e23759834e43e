//! Lookup tables from their text to what they find, and joins from their text to their records.

use std::collections::HashMap;
use std::path::Path;

use proptest::prelude::*;

use super::super::json::Field;
use super::super::plan::{Plan, plan_with};
use super::super::run::{Runner, Target};
use super::super::value::{Scratch, Value};
use super::super::{Group, Input};
use super::compiled::{Builder, Refused};
use super::*;

const CSV: Format = Format::Csv { delimiter: b',' };
const MIB: usize = 1 << 20;

fn names(columns: &[&str]) -> Vec<Box<str>> {
    columns.iter().map(|column| (*column).into()).collect()
}

/// The table of a text, whose key is `key`.
fn table(format: Format, text: &str, key: &str) -> Result<Table, String> {
    let shown = |fault: Fault| format!("{}: {}", fault.at, fault.what);
    let columns = columns(format, text).map_err(shown)?;
    let key = columns.iter().position(|column| **column == *key).unwrap();
    compile(format, text, &columns, key, MIB).map_err(shown)
}

/// A row as JSON, or what a lookup finds.
fn found(table: &Table, key: &Value<'_>, columns: usize) -> Option<String> {
    let row = table.find(key)?;
    let shown = |column| {
        let mut out = Vec::new();
        super::super::write::field(&mut out, row.field(column));
        String::from_utf8(out).unwrap()
    };
    Some((0..columns).map(shown).collect::<Vec<_>>().join(" "))
}

#[test]
fn csv_has_the_values_that_its_fields_look_like() {
    let text = "\u{feff}id,v\r\n1,\r\n\r\n2,true\r\n3,\"a \"\"b\"\",\r\nc\"\r\n4,1.50\n5,007\n6,+1\n7, 1\n\
        8,1e999\n9,12345678901234567890123\n10,\"\"\n11,null\n12,[1]";
    let table = table(CSV, text, "id").unwrap();
    assert_eq!(table.rows(), 12);
    let check = |id: i64, expected: &str| {
        let shown = found(&table, &Value::Int(id), 2);
        assert_eq!(shown.as_deref(), Some(&*format!("{id} {expected}")), "{id}");
    };
    check(1, "null");
    check(2, "true");
    check(3, r#""a \"b\",\r\nc""#);
    check(4, "1.50");
    check(5, "\"007\"");
    check(6, "\"+1\"");
    check(7, "\" 1\"");
    check(8, "\"1e999\"");
    check(9, "12345678901234567890123");
    check(10, "null");
    check(11, "\"null\"");
    check(12, "\"[1]\"");
}

#[test]
fn keys_of_csv_are_found_as_text_and_as_what_they_look_like() {
    let table = table(CSV, "id\n17\n2.50\n007\ntrue\nx\n-0\n9007199254740993\n", "id").unwrap();
    let check = |key: Value<'_>, expected: Option<&str>| {
        assert_eq!(found(&table, &key, 1).as_deref(), expected, "{key:?}");
    };
    check(Value::Int(17), Some("17"));
    check(Value::Float(17.0), Some("17"));
    check(Value::Text("17"), Some("17"));
    check(Value::Text("17.0"), None);
    check(Value::Float(2.5), Some("2.50"));
    check(Value::Text("2.50"), Some("2.50"));
    check(Value::Text("2.5"), None);
    check(Value::Text("007"), Some("\"007\""));
    check(Value::Int(7), None);
    check(Value::Bool(true), Some("true"));
    check(Value::Text("true"), Some("true"));
    check(Value::Bool(false), None);
    check(Value::Text("x"), Some("\"x\""));
    check(Value::Int(0), Some("-0"));
    check(Value::Int(9_007_199_254_740_993), Some("9007199254740993"));
    check(Value::Float(9_007_199_254_740_992.0), None);
    check(Value::Bytes(b"x"), None);
    check(Value::Json("{}"), None);
    check(Value::Null, None);
}

#[test]
fn json_lines_keep_their_types() {
    let text = "{\"id\": \"17\", \"tags\": [1, {}], \"o\": \"a\\u00e4\\n\"}\n\n \
        {\"n\": 1.50, \"id\": 17, \"n\": null}\r\n{\"id\": true, \"big\": 12345678901234567890}";
    let table = table(Format::JsonLines, text, "id").unwrap();
    let check = |key: Value<'_>, expected: Option<&str>| {
        assert_eq!(found(&table, &key, 5).as_deref(), expected, "{key:?}");
    };
    check(Value::Text("17"), Some(r#""17" [1, {}] "aä\n" null null"#));
    check(Value::Float(17.0), Some("17 null null null null"));
    check(Value::Bool(true), Some("true null null null 12345678901234567890"));
    check(Value::Text("true"), None);
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_place() {
    let check = |format: Format, text: &str, expected: &str| {
        assert_eq!(table(format, text, "id").unwrap_err(), expected, "{text}");
    };
    check(CSV, "", "1:1: the file is empty; a header line is expected");
    check(CSV, "id,a,id\n", "1:6: there is a column id already");
    check(CSV, "id,\"\",a\n", "1:4: a column has no name");
    check(CSV, "id,a\n1,2\r\n\n3\n", "4:1: this row has 1 field(s), and the header 2");
    check(CSV, "id,a\n1,2,3\n", "2:1: this row has 3 field(s), and the header 2");
    check(CSV, "a,id\n\"x\ny\",\n", "3:4: the id is empty, and it is the key; each row has one");
    check(
        CSV,
        "id,a\n1,x\n2,ä\"b\"\n",
        "3:4: a field with quotes stands in quotes, each of its own twice",
    );
    check(
        CSV,
        "id,a\n1,\"b\"c\n",
        "2:6: a field ends with its quote; inside of it a quote is \"\"",
    );
    check(CSV, "id,a\n1,x\n2,\"b\n3,y\n4,z\n", "3:3: the quote that begins here has no end");
    check(CSV, "id\n1\nx\n\n1.0\n", "5:1: the id 1.0 is in line 2 already; keys are unique");
    check(CSV, "id\nx\nx\n", "3:1: the id x is in line 2 already; keys are unique");
    let lines = Format::JsonLines;
    check(
        lines,
        "{\"id\":1}\n{\"id\":\"ä\" 2}",
        "2:11: this is no JSON object: a comma or } is missing",
    );
    check(lines, "{\"id\":1}\n[1]", "2:1: this is no JSON object: an object is wanted");
    check(
        lines,
        "{\"id\":1}\n\n  {\"a\":1}",
        "3:3: id is the key: a text, a number, true or false",
    );
    check(lines, "{\"id\":{}}", "1:7: id is the key: a text, a number, true or false");
    check(
        lines,
        "{\"id\":1}\n{\"id\":1.0}",
        "2:1: the id 1.0 is in line 1 already; keys are unique",
    );
    check(lines, "{\"id\":1, \"a\":1e999}", "1:14: 1e999 is out of range; quote what is no number");
    let fault = utf8(b"id\n1\n\xc3\xa4\xff\n").unwrap_err();
    assert_eq!((fault.at, fault.what.contains("UTF-8")), (Position { line: 3, column: 2 }, true));
}

#[test]
fn a_new_version_has_the_columns_that_there_were() {
    let columns = names(&["id", "owner"]);
    let check = |format, text, expected: Result<&str, &str>| {
        let table = compile(format, text, &columns, 0, MIB);
        let shown = table.map_err(|fault| format!("{}: {}", fault.at, fault.what));
        let shown = shown.map(|table| found(&table, &Value::Int(1), 2).unwrap());
        assert_eq!(shown.as_deref().map_err(|error| &**error), expected, "{text}");
    };
    check(CSV, "more,owner,id\nx,Ann,1\n", Ok("1 \"Ann\""));
    check(CSV, "id,ownr\n1,Ann\n", Err("1:1: the column owner is gone; did you mean ownr?"));
    check(Format::JsonLines, "{\"more\":2,\"id\":1}", Ok("1 null"));
}

#[test]
fn a_table_has_a_limit() {
    let columns = names(&["id"]);
    let text: String = (0..1000).fold("id\n".to_owned(), |text, id| text + &format!("{id}\n"));
    let refused = compile(CSV, &text, &columns, 0, 10_000).unwrap_err();
    assert!(refused.what.contains("more than 10000 bytes") && refused.what.contains("max_bytes"));
    assert_eq!(compile(CSV, &text, &columns, 0, MIB).unwrap().rows(), 1000);
}

/// Keys that all hash to the same, or to few values, are told apart all the same.
#[test]
fn keys_that_meet_are_told_apart() {
    let hashes: [fn(&Value<'_>) -> u64; 3] = [
        |_| 0,
        |_| u64::MAX,
        |key| match key {
            Value::Int(int) => (*int as u64 % 3) << 31,
            Value::Float(float) => (*float as u64 % 3) << 31,
            _ => 7,
        },
    ];
    for hash in hashes {
        let mut builder = Builder::with_hash(2, 0, true, MIB, hash);
        let texts: Vec<String> = (0..500).map(|id| id.to_string()).collect();
        for text in &texts {
            builder.push(&[Cell::Number(text), Cell::Text(text)]).unwrap();
        }
        let table = builder.finish().unwrap();
        for (id, text) in texts.iter().enumerate() {
            let expected = format!("{id} \"{id}\"");
            assert_eq!(found(&table, &Value::Int(id as i64), 2), Some(expected.clone()));
            assert_eq!(found(&table, &Value::Text(text), 2), Some(expected));
        }
        assert!(table.find(&Value::Int(500)).is_none() && table.find(&Value::Text("x")).is_none());
        let mut builder = Builder::with_hash(1, 0, false, MIB, hash);
        for text in ["1", "2", "1e0"] {
            builder.push(&[Cell::Number(text)]).unwrap();
        }
        let shown = "1e0".to_owned();
        assert_eq!(builder.finish().unwrap_err(), Refused::Duplicate { first: 0, again: 2, shown });
    }
}

#[test]
fn a_large_table_finds_every_key() {
    let text: String = (0..100_000).fold("id,v\n".to_owned(), |mut text, id| {
        text += &format!("k{id},{}\n", id * 2);
        text
    });
    let columns = columns(CSV, &text).unwrap();
    let table = compile(CSV, &text, &columns, 0, 64 * MIB).unwrap();
    for id in 0..100_000 {
        let row = table.find(&Value::Text(&format!("k{id}"))).unwrap();
        let Field::Json(raw) = row.field(1) else { panic!("no number") };
        assert_eq!(raw.value(&Scratch::new()), Ok(Value::Int(id * 2)));
    }
    assert!(table.find(&Value::Text("k100000")).is_none());
    // Bytes that are cut, as no file is, end no process.
    for cut in [0, 8, 1 << 20, table.bytes().len() - 1] {
        let cut = table.moved_to(Box::new(table.bytes()[..cut].to_vec()));
        let _ = cut.find(&Value::Text("k17")).map(|row| row.field(1));
    }
}

proptest! {
    /// A table of JSON lines is the map of its keys.
    #[test]
    fn a_table_is_a_map(
        rows in proptest::collection::hash_map(
            prop_oneof![any::<i64>().prop_map(|i| i.to_string()), "[a-z\"\\\\ä]{0,6}".prop_map(|t| format!("{t:?}"))],
            "\\PC{0,20}",
            0..200,
        ),
        others in proptest::collection::vec(any::<i64>(), 0..50),
    ) {
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let text: String = rows
            .iter()
            .map(|(key, value)| format!("{{\"id\":{key},\"v\":{}}}\n", quoted(value)))
            .collect();
        let table = compile(Format::JsonLines, &text, &names(&["id", "v"]), 0, MIB).unwrap();
        prop_assert_eq!(table.rows() as usize, rows.len());
        let of = |key: &str| match serde_json::from_str::<String>(key) {
            Ok(text) => table.find(&Value::Text(&text)).map(|row| row.field(1)),
            Err(_) => table.find(&Value::Int(key.parse().unwrap())).map(|row| row.field(1)),
        };
        for (key, value) in &rows {
            let found = of(key);
            prop_assert!(
                matches!(found, Some(Field::Value(Value::Text(text))) if text == value),
                "{} {:?}", key, found
            );
        }
        for other in others.iter().map(i64::to_string) {
            prop_assert_eq!(of(&other).is_some(), rows.contains_key(&other));
        }
    }

    /// Whatever stands in a file: a table or what is wrong, no panic; a row that the csv crate reads
    /// is there, or the file is refused.
    #[test]
    fn any_text_is_a_table_or_refused(text in "(id|a|[\",;\r\n{}:1-3]|\\PC){0,60}") {
        for format in [CSV, Format::JsonLines] {
            let Ok(columns) = columns(format, &text) else { continue };
            if columns.is_empty() {
                continue;
            }
            let Ok(table) = compile(format, &text, &columns, 0, MIB) else { continue };
            if format == CSV {
                let mut reader = ::csv::Reader::from_reader(text.as_bytes());
                prop_assert_eq!(reader.records().count(), table.rows() as usize);
            }
        }
    }
}

#[test]
fn shards_take_a_new_version_when_they_look() {
    let plan = planned("CREATE TABLE d FROM 'd.csv' KEY id", &[("d.csv", "id,v\n1,a\n")]);
    let (mut held, mut other) = (Held::default(), Held::default());
    held.refresh(&plan.tables);
    let value = |held: &Held| found(&held.tables()[0], &Value::Int(1), 2);
    assert_eq!(value(&held).as_deref(), Some("1 \"a\""));
    let about = &plan.tables.all[0];
    let old = plan.tables.replace(0, about.compile(b"id,v\n1,b\n").unwrap());
    assert_eq!(value(&held).as_deref(), Some("1 \"a\""));
    assert_eq!(Arc::strong_count(&old), 2, "the shard still holds it");
    held.refresh(&plan.tables);
    other.refresh(&plan.tables);
    assert_eq!(Arc::strong_count(&old), 1);
    assert_eq!((value(&held), value(&other)), (Some("1 \"b\"".into()), Some("1 \"b\"".into())));
    assert!(Arc::ptr_eq(&held.tables()[0], &other.tables()[0]), "one table for all");
    // Another plan has other tables.
    held.refresh(&planned("CREATE TABLE d FROM 'e.csv' KEY x", &[("e.csv", "x\n1\n2\n")]).tables);
    assert_eq!(held.tables()[0].rows(), 2);
    held.refresh(&Plan::default().tables);
    assert!(held.tables().is_empty());
    let problem = about.compile(b"id,v\n1,a\n1,b\n").unwrap_err().to_string();
    assert_eq!(problem, "rules/d.csv:3:1: the id 1 is in line 2 already; keys are unique");
}

/// Each version is seen whole, and none after a later one.
#[test]
fn versions_go_forward_while_shards_look() {
    const LAST: i64 = 300;
    let text = |version: i64| format!("id,v\n1,{version}\n2,{version}\n");
    let plan = planned("CREATE TABLE d FROM 'd.csv' KEY id", &[("d.csv", &text(0))]);
    let look = || {
        let (mut held, mut last) = (Held::default(), 0);
        while last < LAST {
            held.refresh(&plan.tables);
            let value = |id| {
                let row = held.tables()[0].find(&Value::Int(id)).unwrap();
                let Field::Json(raw) = row.field(1) else { panic!("no number") };
                raw.text.parse::<i64>().unwrap()
            };
            let (one, two) = (value(1), value(2));
            assert!(one == two && one >= last, "{one} and {two} after {last}");
            last = one;
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(look);
        scope.spawn(look);
        for version in 1..=LAST {
            let table = plan.tables.all[0].compile(text(version).as_bytes()).unwrap();
            drop(plan.tables.replace(0, table));
        }
    });
}

type Files<'f> = &'f [(&'f str, &'f str)];

fn read(files: Files<'_>, sql: &str) -> Result<Plan, Vec<String>> {
    let streams = [("telemetry".to_owned(), vec!["#".to_owned()])];
    let open = |path: &Path, _| {
        let text = files.iter().find(|(name, _)| Path::new("rules").join(name) == path);
        let bytes = text.map(|(_, text)| text.as_bytes().to_vec());
        let bytes = bytes.ok_or_else(|| "no such file".to_owned())?;
        Ok(Text { bytes, stamp: Stamp::default() })
    };
    plan_with(&[("rules/r.sql".into(), sql.into())], &streams, &open)
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

fn planned(sql: &str, files: Files<'_>) -> Plan {
    read(files, sql).unwrap_or_else(|problems| panic!("{sql}: {problems:?}"))
}

/// What a message becomes: stream, value and key of each record.
fn run(plan: &Plan, payload: &str) -> Vec<String> {
    let rules: Vec<usize> = plan.filters().map(|(_, rule)| rule).collect();
    let group = Group::new(&plan.rules, &rules);
    let input = Input::new("plant/7/a", "dev-1", payload.as_bytes());
    let mut runner = Runner::default();
    let records = runner.run(plan, &group, &input);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let shown = records.iter().map(|record| {
        let name = match record.target {
            Target::Rule(rule) => plan.rules[rule].name.to_string(),
            Target::DeadLetters => {
                let headers: HashMap<_, _> = records.extras(record).headers().collect();
                return format!("dead {}", text(headers[b"reason".as_slice()]));
            }
        };
        let body = text(records.body(record).unwrap_or(payload.as_bytes()));
        let key = match records.extras(record).key() {
            super::super::Key::Is(key) => format!(" key={}", text(key)),
            _ => String::new(),
        };
        format!("{name} {body}{key}")
    });
    shown.collect()
}

const DEVICES: &str = "id,owner,site,limit\ndev-1,\"Ann \"\"A\"\"\",7,30.50\n2,Bob,,\n";
const SITES: &str = "{\"name\":7,\"city\":\"Köln\",\"gps\":[50.9, 7]}\n{\"name\":\"8\"}\n";
const FILES: Files<'_> = &[("devices.csv", DEVICES), ("sites.jsonl", SITES)];
const TABLES: &str = "CREATE TABLE devices FROM 'devices.csv' KEY id;
    CREATE TABLE sites FROM 'sites.jsonl' KEY name;";

fn check(sql: &str, payload: &str, expected: &[&str]) {
    let plan = planned(&format!("{TABLES} {sql}"), FILES);
    assert_eq!(run(&plan, payload), expected, "{sql}: {payload}");
}

#[test]
fn joins_find_rows_drop_records_or_give_null() {
    let inner =
        "CREATE STREAM s AS SELECT t.x, d.owner FROM 'a' AS t JOIN devices AS d ON d.id = t.id";
    check(inner, r#"{"id":"dev-1","x":1.0}"#, &[r#"s {"x":1.0,"owner":"Ann \"A\""}"#]);
    check(inner, r#"{"id":2,"x":1}"#, &[r#"s {"x":1,"owner":"Bob"}"#]);
    check(inner, r#"{"id":"2"}"#, &[r#"s {"x":null,"owner":"Bob"}"#]);
    check(inner, r#"{"id":"dev-2"}"#, &[]);
    check(inner, "{}", &[]);
    check(inner, r#"{"id":{}}"#, &[]);
    let left = "CREATE STREAM s AS SELECT *, d.limit + 1 AS l, d.owner IS NULL AS none FROM telemetry \
        LEFT OUTER JOIN devices d ON (clientid() = d.id)";
    check(left, r#"{"a":1}"#, &[r#"s {"a":1,"l":31.5,"none":false}"#]);
    let missing =
        "CREATE STREAM s AS SELECT a, d.* FROM telemetry LEFT JOIN devices AS d ON d.id = a";
    check(missing, r#"{"a":1}"#, &[r#"s {"a":1,"id":null,"owner":null,"site":null,"limit":null}"#]);
    // The columns replace members of the payload, and what is named replaces columns.
    let star = "CREATE STREAM s AS SELECT t.*, d.*, 'me' AS owner FROM 'a' AS t \
        JOIN devices AS d ON d.id = clientid() PARTITION BY d.site";
    check(
        star,
        r#"{"limit":1,"x":2}"#,
        &[r#"s {"x":2,"id":"dev-1","site":7,"limit":30.50,"owner":"me"} key=7"#],
    );
    // A column of the table by its own name: in WHERE one that is selected, in PARTITION BY one of `*`.
    let named = "CREATE STREAM s AS SELECT d.limit, d.* FROM 'a' JOIN devices AS d ON d.id = clientid() \
        WHERE limit > 30 PARTITION BY owner";
    check(
        named,
        r#"{"limit":1,"owner":2}"#,
        &[r#"s {"limit":30.50,"id":"dev-1","owner":"Ann \"A\"","site":7} key=Ann "A""#],
    );
    let passed = "CREATE STREAM s AS SELECT t.* FROM 'a' AS t JOIN devices ON devices.id = t.id";
    check(passed, r#" {"id": 2 } "#, &[r#"s  {"id": 2 } "#]);
}

#[test]
fn several_joins_and_chains() {
    let two = "CREATE STREAM s AS SELECT d.owner, c.city, c.gps FROM 'a' JOIN devices AS d ON d.id = clientid()
        LEFT JOIN sites AS c ON c.name = d.site WHERE x > 1 AND d.limit > x AND (c.city LIKE 'K%' OR c.city IS NULL)";
    check(two, r#"{"x":2}"#, &[r#"s {"owner":"Ann \"A\"","city":"Köln","gps":[50.9, 7]}"#]);
    check(two, r#"{"x":31}"#, &[]);
    check(two, r#"{"x":1}"#, &[]);
    check(
        two,
        r#"{"x":"1"}"#,
        &["dead > takes two numbers, two texts, two booleans or two byte strings, not an integer"],
    );
    let chain = "CREATE STREAM b AS SELECT a.who, c.city FROM a JOIN sites AS c ON c.name = a.site;
        CREATE STREAM a AS SELECT d.owner AS who, d.site FROM 'x' JOIN devices AS d ON d.id = clientid()";
    check(
        chain,
        "{}",
        &[r#"a {"who":"Ann \"A\"","site":7}"#, r#"b {"who":"Ann \"A\"","city":"Köln"}"#],
    );
    // Of each element, which may be the key.
    let each = "CREATE STREAM s AS SELECT r.v, d.owner, c.city FROM 'a', UNNEST(list) AS r
        JOIN devices AS d ON r.id = d.id LEFT JOIN sites AS c ON c.name = d.site WHERE r.v > 0 AND c.city IS NULL";
    check(
        each,
        r#"{"list":[{"v":1,"id":2},{"v":0,"id":2},{"v":1,"id":3},{"v":2,"id":"dev-1"},{"v":3,"id":"2"}]}"#,
        &[r#"s {"v":1,"owner":"Bob","city":null}"#, r#"s {"v":3,"owner":"Bob","city":null}"#],
    );
    let once = "CREATE STREAM s AS SELECT r AS v, d.owner FROM 'a' JOIN devices AS d ON d.id = id \
        CROSS JOIN UNNEST(list) AS r WHERE r < d.limit";
    check(
        once,
        r#"{"id":"dev-1","list":[1,31,2]}"#,
        &[r#"s {"v":1,"owner":"Ann \"A\""}"#, r#"s {"v":2,"owner":"Ann \"A\""}"#],
    );
    let null = "CREATE STREAM s WITH (on_error='null') AS SELECT 1 AS one, d.owner FROM 'a' \
        LEFT JOIN devices AS d ON d.id = x + 1";
    check(null, r#"{"x":"1"}"#, &[r#"s {"one":1,"owner":null}"#]);
    check(null, r#"{"x":1}"#, &[r#"s {"one":1,"owner":"Bob"}"#]);
}

#[test]
fn what_is_wrong_with_tables_and_joins_is_said() {
    let check = |sql: &str, expected: &[&str]| {
        let problems = read(FILES, sql).unwrap_err();
        assert_eq!(problems, expected, "{sql}");
    };
    let table = |rest: &str, expected: &str| {
        check(&format!("CREATE TABLE t FROM {rest}"), &[expected]);
    };
    table("'gone.csv' KEY id", "rules/r.sql:1:21: rules/gone.csv cannot be read: no such file");
    table(
        "'devices.csv' KEY idd",
        "rules/r.sql:1:39: rules/devices.csv has no column idd; did you mean id?",
    );
    table(
        "'devices.txt' KEY id",
        "rules/r.sql:1:21: a table's file is .csv, .jsonl or .ndjson, or WITH (format = …) says so",
    );
    table(
        "'devices.csv' KEY id WITH (format='xml')",
        "rules/r.sql:1:55: a table's file is .csv, .jsonl or .ndjson, or WITH (format = …) says so",
    );
    table(
        "'devices.csv' KEY id WITH (fromat='csv')",
        "rules/r.sql:1:48: a table has no option fromat; did you mean format?",
    );
    table(
        "'devices.csv' KEY id WITH (delimiter='::')",
        "rules/r.sql:1:58: delimiter is one character, such as ';'",
    );
    table(
        "'sites.jsonl' KEY name WITH (delimiter=';')",
        "rules/r.sql:1:60: JSON lines have no delimiter; only CSV has",
    );
    table(
        "'devices.csv' KEY id WITH (max_bytes=0)",
        "rules/r.sql:1:58: max_bytes is a number of bytes from 1 to 2147483648",
    );
    table(
        "'devices.csv' KEY id WITH (max_bytes=50)",
        "rules/devices.csv:2:1: the table takes more than 50 bytes; CREATE TABLE … WITH (max_bytes = …) allows more",
    );
    table(
        "'devices.csv' KEY site",
        "rules/devices.csv:3:7: the site is empty, and it is the key; each row has one",
    );
    check(
        &format!("{TABLES}\nCREATE TABLE sites FROM 'sites.jsonl' KEY name"),
        &["rules/r.sql:3:14: there is a table sites already, in rules/r.sql:2:5"],
    );
    check(
        "CREATE TABLE telemetry FROM 'sites.jsonl' KEY name",
        &["rules/r.sql:1:1: there is a stream telemetry already; a table needs another name"],
    );
    let rule = |from: &str, expected: &str| {
        let sql = format!("{TABLES}\nCREATE STREAM s AS SELECT 1 AS one FROM 'a' AS t {from}");
        check(&sql, &[&format!("rules/r.sql:3:{expected}")]);
    };
    rule("JOIN device AS d ON d.id = x", "55: there is no table device; did you mean devices?");
    rule("JOIN devices AS t ON t.id = x", "66: there is a t already; name the table with AS");
    rule(
        "JOIN devices AS d ON d.id = x JOIN devices AS d ON d.id = x",
        "96: there is a d already; name the table with AS",
    );
    let shape =
        "a table is looked up by its key: ON d.id = …, and further conditions go into WHERE";
    rule("JOIN devices AS d ON d.id > x", &format!("71: {shape}"));
    rule("JOIN devices AS d ON d.owner = x", &format!("71: {shape}"));
    rule("JOIN devices AS d ON d.id = d.id", &format!("71: {shape}"));
    rule("JOIN devices AS d ON d.id = x AND d.owner = y", &format!("71: {shape}"));
    rule("JOIN devices AS d ON x", &format!("71: {shape}"));
    rule("JOIN devices AS d ON d.id = d.owner", "78: d.owner is not known before d is joined");
    rule(
        "JOIN devices AS d ON d.id = c.city JOIN sites AS c ON c.name = 1",
        "78: c.city is not known before d is joined",
    );
    rule("JOIN devices AS d USING (id)", "68: ON is expected: alias.key = value, not USING");
    rule(
        "RIGHT JOIN devices AS d ON d.id = x",
        "50: lookup tables are joined by JOIN and LEFT JOIN, not RIGHT",
    );
    rule(
        "JOIN devices AS d ON d.id = x WHERE d.ownr = 1",
        "86: devices has no column ownr; did you mean owner?",
    );
    rule(
        "JOIN devices AS d ON d.id = x WHERE d IS NULL",
        "86: d is a row; name a column of it, or select d.*",
    );
    rule(
        "JOIN devices AS d ON d.id = x WHERE d.owner.x = 1",
        "86: d.owner is a column; json_extract takes a part of it",
    );
    rule(
        "JOIN devices AS d ON d.id = x, UNNEST(y) AS r",
        "79: the end of the statement, or a semicolon, is expected, not ,",
    );
    rule(
        "JOIN devices AS d ON d.id = x CROSS JOIN UNNEST(d.site) AS r",
        "98: UNNEST comes before lookups: it reads no table",
    );
    check(
        &format!("{TABLES} CREATE STREAM s AS SELECT a FROM devices"),
        &["rules/r.sql:2:86: devices is a table: FROM takes topics or a stream, JOIN takes it"],
    );
    check(
        &format!(
            "{TABLES} CREATE STREAM s AS SELECT d.*, e.* FROM 'a' JOIN devices AS d ON d.id = x JOIN devices AS e ON e.id = y"
        ),
        &["rules/r.sql:2:84: there is a column id already; name the columns of e"],
    );
}

#[test]
fn a_plan_with_tables_is_explained() {
    let plan = planned(
        "CREATE TABLE devices FROM 'devices.csv' KEY id;
CREATE STREAM s AS SELECT t.x, d.owner FROM 'a' AS t, UNNEST(list) AS r JOIN devices AS d ON d.id = t.id
LEFT JOIN devices AS e ON e.id = r.id WHERE d.limit > x AND x > 1 AND e.owner IS NULL PARTITION BY d.site",
        FILES,
    );
    assert_eq!(
        plan.to_string(),
        "table devices (rules/r.sql:1:1)
  from       rules/devices.csv, CSV
  key        id
  columns    id, owner, site, limit
  rows       2, 182 bytes compiled

stream s (rules/r.sql:2:1)
  from       'a'
  reads      payload.x, payload.id, payload.list in one pass
  where      payload.x > 1
  join       devices, d.id = payload.id
  reads      d.owner, d.site, d.limit of the row
  for each   r in payload.list
  reads      r.id in one pass
  left join  devices, e.id = r.id
  reads      e.owner of the row
  where      (d.limit > payload.x) AND (e.owner IS NULL)
  writes     x = payload.x
  writes     owner = d.owner
  key        d.site
  on error   to _deadletter
"
    );
}
