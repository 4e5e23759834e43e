//! Vectors of regular expressions: AWS IoT SQL's examples, groups, empty matches.

use super::Vector;
use crate::transform::rules::value::Value::{Bool, Bytes, Int, Json, Null, Text};

pub const VECTORS: &[Vector] = &[
    ("regexp_matches", &[Text("aaaa"), Text("a{2,}")], Ok(Bool(true))),
    ("regexp_matches", &[Text("aaaa"), Text("b")], Ok(Bool(false))),
    ("regexp_like", &[Int(2020), Text("^20\\d\\d$")], Ok(Bool(true))),
    ("regexp_matches", &[Json("[1]"), Text("^\\[")], Ok(Bool(true))),
    ("regexp_matches", &[Text("ä"), Text("^\\w$")], Ok(Bool(true))),
    ("regexp_matches", &[Text("Ä"), Text("(?i)ä")], Ok(Bool(true))),
    ("regexp_matches", &[Null, Text("a")], Ok(Null)),
    ("regexp_matches", &[Text("a"), Null], Ok(Null)),
    ("regexp_matches", &[Bytes(b"\xff"), Text("a")], Err("takes text, not bytes")),
    ("regexp_matches", &[Text("a"), Text("(")], Err("no regular expression: unclosed group")),
    ("regexp_matches", &[Text("a"), Text("(a)\\1")], Err("backreferences are not supported")),
    (
        "regexp_matches",
        &[Text("a"), Text("(((a{100}){100}){100})")],
        Err("is no regular expression"),
    ),
    ("regexp_replace", &[Text("abcd"), Text("bc"), Text("x")], Ok(Text("axd"))),
    ("regexp_replace", &[Text("abcd"), Text("b(.*)d"), Text("$1")], Ok(Text("ac"))),
    (
        "regexp_replace",
        &[Text("a-1 b-2"), Text("(?<l>[a-z])-(\\d)"), Text("$2${l}${1}x$$")],
        Ok(Text("1aax$ 2bbx$")),
    ),
    ("regexp_replace", &[Text("ab"), Text("b"), Text("$9${none}$")], Ok(Text("a$"))),
    ("regexp_replace", &[Text("abc"), Text("x|(y)?"), Text("-")], Ok(Text("-a-b-c-"))),
    ("regexp_replace", &[Text("baaac"), Text("a*"), Text("x")], Ok(Text("xbxcx"))),
    ("regexp_replace", &[Text("äö"), Text(""), Text("-")], Ok(Text("-ä-ö-"))),
    ("regexp_replace", &[Text("abc"), Text("z"), Text("-")], Ok(Text("abc"))),
    ("regexp_replace", &[Text("abab"), Text("^a"), Text("-")], Ok(Text("-bab"))),
    ("regexp_replace", &[Text(""), Text("^$"), Text("-")], Ok(Text("-"))),
    ("regexp_substr", &[Text("hihihello"), Text("hi")], Ok(Text("hi"))),
    ("regexp_substr", &[Text("hihihello"), Text("(hi)*")], Ok(Text("hihi"))),
    ("regexp_substring", &[Text("hello"), Text("x")], Ok(Null)),
];
