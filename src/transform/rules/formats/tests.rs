//! Formats by the examples of their specifications, against other people's encoders and decoders,
//! and by bytes that are none of them.

use proptest::prelude::*;
use serde_json::Value as Json;

use super::super::functions::json_text;
use super::super::paths::{Paths, Step};
use super::super::value::{EvalError, Scratch, Value};
use super::sparkplug::{self, Birth, Births, Nodes};
use super::{Extract, Format, cbor, message_pack};

/// The whole payload as JSON text.
fn whole(extract: Extract, payload: &[u8]) -> Result<String, EvalError> {
    let mut paths = Paths::default();
    paths.intern(&[]);
    let (scratch, mut out) = (Scratch::new(), [Value::Null]);
    extract(payload, &paths, &scratch, &mut out)?;
    let mut text = String::new();
    json_text::write_value(&mut text, out[0]).unwrap();
    Ok(text)
}

fn bytes_of(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn check(extract: Extract, hex: &str, expected: &str) {
    assert_eq!(whole(extract, &bytes_of(hex)).as_deref(), Ok(expected), "{hex}");
}

fn refuses(extract: Extract, hex: &str, why: &str) {
    let error = whole(extract, &bytes_of(hex)).unwrap_err().to_string();
    assert!(error.contains(why), "{hex}: {error}");
}

/// RFC 8949, appendix A, but for what JSON cannot say.
#[test]
fn cbor_as_its_specification_has_it() {
    for (hex, expected) in [
        ("00", "0"),
        ("17", "23"),
        ("1818", "24"),
        ("1903e8", "1000"),
        ("1a000f4240", "1000000"),
        ("1b000000e8d4a51000", "1000000000000"),
        ("1bffffffffffffffff", "1.8446744073709552e19"),
        ("20", "-1"),
        ("3863", "-100"),
        ("3903e7", "-1000"),
        ("3bffffffffffffffff", "-1.8446744073709552e19"),
        ("f90000", "0.0"),
        ("f98000", "-0.0"),
        ("f93c00", "1.0"),
        ("fb3ff199999999999a", "1.1"),
        ("f93e00", "1.5"),
        ("f97bff", "65504.0"),
        ("fa47c35000", "100000.0"),
        ("fa7f7fffff", "3.4028234663852886e38"),
        ("fb7e37e43c8800759c", "1e300"),
        ("f90001", "5.960464477539063e-8"),
        ("f90400", "6.103515625e-5"),
        ("f9c400", "-4.0"),
        ("fbc010666666666666", "-4.1"),
        ("f97c00", "null"),
        ("f97e00", "null"),
        ("fb7ff0000000000000", "null"),
        ("f4", "false"),
        ("f5", "true"),
        ("f6", "null"),
        ("f7", "null"),
        ("c074323031332d30332d32315432303a30343a30305a", "\"2013-03-21T20:04:00Z\""),
        ("c11a514b67b0", "1363896240"),
        ("d74401020304", "\"AQIDBA==\""),
        ("c249010000000000000000", "\"AQAAAAAAAAAA\""),
        ("40", "\"\""),
        ("4401020304", "\"AQIDBA==\""),
        ("60", "\"\""),
        ("6161", "\"a\""),
        ("62225c", "\"\\\"\\\\\""),
        ("62c3bc", "\"ü\""),
        ("63e6b0b4", "\"水\""),
        ("80", "[]"),
        ("83010203", "[1,2,3]"),
        ("8301820203820405", "[1,[2,3],[4,5]]"),
        ("a0", "{}"),
        ("a201020304", "{\"1\":2,\"3\":4}"),
        ("a26161016162820203", "{\"a\":1,\"b\":[2,3]}"),
        ("826161a161626163", "[\"a\",{\"b\":\"c\"}]"),
        ("5f42010243030405ff", "\"AQIDBAU=\""),
        ("7f657374726561646d696e67ff", "\"streaming\""),
        ("9fff", "[]"),
        ("9f018202039f0405ffff", "[1,[2,3],[4,5]]"),
        ("83018202039f0405ff", "[1,[2,3],[4,5]]"),
        ("bf61610161629f0203ffff", "{\"a\":1,\"b\":[2,3]}"),
        ("bf6346756ef563416d7421ff", "{\"Fun\":true,\"Amt\":-2}"),
    ] {
        check(cbor::extract, hex, expected);
    }
}

/// RFC 8949, appendix F: what is not well-formed, and what we set limits to.
#[test]
fn cbor_that_is_none_is_refused() {
    for hex in [
        "",
        "18",
        "19",
        "1a0102",
        "1b01020304050607",
        "38",
        "58",
        "78",
        "98",
        "9a01ff00",
        "b8",
        "d8",
        "f8",
        "f900",
        "fa0000",
        "fb000000",
        "41",
        "61",
        "5affffffff00",
        "5bffffffffffffffff",
        "7bffffffffffffffff",
        "81",
        "818181818181818181",
        "8200",
        "a1",
        "a20102",
        "a100",
        "c0",
        "9f",
        "9f0102",
        "bf",
        "bf01020102",
        "819f",
        "5f4100",
        "7f6100",
    ] {
        refuses(cbor::extract, hex, "it ends too early");
    }
    for hex in ["1c", "1d", "1e", "3c", "5c", "7e", "9d", "bc", "dd", "fc", "fe"] {
        refuses(cbor::extract, hex, "an initial byte is reserved");
    }
    for hex in ["e0", "f3", "f800", "f818", "f8ff"] {
        refuses(cbor::extract, hex, "a simple value has no meaning");
    }
    for hex in ["5f00ff", "5f6100ff", "5fc000ff", "7f4100ff", "7f7f6100ffff"] {
        refuses(cbor::extract, hex, "a chunk is of another type");
    }
    for hex in ["ff", "81ff", "8200ff", "a1ff", "a1ff00", "a100ff", "bf00ff", "9f81ffff"] {
        refuses(cbor::extract, hex, "an end has no beginning");
    }
    for hex in ["1f", "3f", "9f1fff"] {
        refuses(cbor::extract, hex, "an integer has no length");
    }
    refuses(cbor::extract, "df", "a tag has no number");
    refuses(cbor::extract, "0000", "something stands behind the value at byte 1");
    refuses(cbor::extract, "61ff", "a text is not UTF-8");
    refuses(cbor::extract, "7f61c361bcff", "a text is not UTF-8");
    refuses(cbor::extract, "a1f500", "a key is neither text nor an integer");
    check(cbor::extract, &("81".repeat(127) + "80"), &("[".repeat(128) + &"]".repeat(128)));
    refuses(cbor::extract, &("81".repeat(128) + "80"), "nested too deep");
    refuses(cbor::extract, &"9f".repeat(100_000), "nested too deep");
    refuses(cbor::extract, &"c0".repeat(100_000), "it ends too early");
}

/// The formats of spec.md, one after the other.
#[test]
fn message_pack_as_its_specification_has_it() {
    for (hex, expected) in [
        ("00", "0"),
        ("7f", "127"),
        ("ff", "-1"),
        ("e0", "-32"),
        ("cc80", "128"),
        ("cdffff", "65535"),
        ("ceffffffff", "4294967295"),
        ("cf7fffffffffffffff", "9223372036854775807"),
        ("cfffffffffffffffff", "1.8446744073709552e19"),
        ("d080", "-128"),
        ("d18000", "-32768"),
        ("d280000000", "-2147483648"),
        ("d38000000000000000", "-9223372036854775808"),
        ("c0", "null"),
        ("c2", "false"),
        ("c3", "true"),
        ("ca3fc00000", "1.5"),
        ("cb3ff199999999999a", "1.1"),
        ("cb7ff8000000000000", "null"),
        ("a0", "\"\""),
        ("a16a", "\"j\""),
        ("d9026869", "\"hi\""),
        ("da00026869", "\"hi\""),
        ("db000000026869", "\"hi\""),
        ("c402ff00", "\"/wA=\""),
        ("c50002ff00", "\"/wA=\""),
        ("c600000002ff00", "\"/wA=\""),
        ("90", "[]"),
        ("9301c002", "[1,null,2]"),
        ("dc000101", "[1]"),
        ("dd0000000101", "[1]"),
        // The example on msgpack.org.
        ("82a7636f6d70616374c3a6736368656d6100", "{\"compact\":true,\"schema\":0}"),
        ("de0001a16101", "{\"a\":1}"),
        ("df00000001a16101", "{\"a\":1}"),
        ("810102", "{\"1\":2}"),
        ("d40501", "\"AQ==\""),
        ("d505ff00", "\"/wA=\""),
        ("c70205ff00", "\"/wA=\""),
        ("c8000205ff00", "\"/wA=\""),
        ("c90000000205ff00", "\"/wA=\""),
        ("d6ff514b67b0", "1363896240000"),
        ("d7ff77359400514b67b0", "1363896240500"),
        ("c70cff1dcd6500ffffffffffffffff", "-500"),
    ] {
        check(message_pack::extract, hex, expected);
    }
}

#[test]
fn message_pack_that_is_none_is_refused() {
    for hex in [
        "",
        "cc",
        "cd00",
        "ce0000",
        "cf",
        "d0",
        "d3ff",
        "ca00",
        "cb00",
        "a1",
        "bf00",
        "d9",
        "d901",
        "dbffffffff",
        "c4",
        "c401",
        "c6ffffffff00",
        "91",
        "dc0001",
        "ddffffffff",
        "81",
        "81a161",
        "dfffffffff",
        "d4",
        "d405",
        "c7",
        "c701",
        "c90000000105",
    ] {
        refuses(message_pack::extract, hex, "it ends too early");
    }
    refuses(message_pack::extract, "c1", "the byte c1 is never used");
    refuses(message_pack::extract, "a1ff", "a text is not UTF-8");
    refuses(message_pack::extract, "0000", "something stands behind the value at byte 1");
    refuses(message_pack::extract, "d4ff00", "a timestamp is of no known size");
    refuses(message_pack::extract, "c70cff000000007fffffffffffffff", "a timestamp is out of range");
    refuses(message_pack::extract, "81c300", "a key is neither text nor an integer");
    check(message_pack::extract, &("91".repeat(127) + "90"), &("[".repeat(128) + &"]".repeat(128)));
    refuses(message_pack::extract, &"91".repeat(100_000), "nested too deep");
}

#[test]
fn plain_payloads_are_one_value() {
    let found = |format: Format, payload: &'static [u8]| {
        whole(format.extract().unwrap(), payload).map_err(|error| error.to_string())
    };
    assert_eq!(found(Format::Text, "21.5 °C".as_bytes()), Ok("\"21.5 °C\"".into()));
    assert_eq!(found(Format::Number, b"21.5\n"), Ok("21.5".into()));
    assert_eq!(found(Format::Number, b" -7"), Ok("-7".into()));
    assert_eq!(found(Format::Bytes, b"\xff\x00"), Ok("\"/wA=\"".into()));
    let error = "the payload is not a number: it does not spell one at byte 0";
    assert_eq!(found(Format::Number, b"warm"), Err(error.into()));
    let error = "the payload is not text: it is not UTF-8 at byte 2";
    assert_eq!(found(Format::Text, b"ab\xff"), Err(error.into()));
}

#[test]
fn formats_have_names_and_content_types() {
    assert_eq!(Format::named("MsgPack"), Some(Format::MessagePack));
    assert_eq!(Format::named("xml"), None);
    assert_eq!(Format::Cbor.name(), "cbor");
    for (content_type, format) in [
        ("application/json; charset=utf-8", Some(Format::Json)),
        ("application/senml+cbor", Some(Format::Cbor)),
        ("application/senml+json", Some(Format::Json)),
        ("Application/X-MsgPack", Some(Format::MessagePack)),
        ("text/plain", Some(Format::Text)),
        ("application/octet-stream", Some(Format::Bytes)),
        ("application/xml", None),
        ("", None),
    ] {
        assert_eq!(Format::of_content_type(content_type), format, "{content_type}");
    }
    assert!(Format::Json.extract().is_none());
}

/// The paths of these tests, and what serde_json has there.
fn steps() -> Vec<Vec<Step>> {
    let key = |name: &str| Step::Key(name.into());
    vec![
        vec![key("a")],
        vec![key("a"), key("b")],
        vec![key("a"), Step::Index(1)],
        vec![Step::Index(0)],
        vec![Step::Index(0), key("b")],
        vec![key("b"), key("a"), Step::Index(0)],
        vec![],
    ]
}

fn expected<'j>(value: &'j Json, steps: &[Step]) -> &'j Json {
    steps.iter().fold(value, |value, step| match step {
        Step::Key(key) if value.is_object() => &value[&**key],
        Step::Index(index) if value.is_array() => &value[*index as usize],
        _ => &Json::Null,
    })
}

/// Finds every path in one pass and compares each with the value that was encoded.
fn finds(extract: Extract, payload: &[u8], value: &Json) {
    let mut paths = Paths::default();
    let steps = steps();
    steps.iter().for_each(|steps| {
        paths.intern(steps);
    });
    let scratch = Scratch::new();
    let mut out = vec![Value::Null; paths.len()];
    extract(payload, &paths, &scratch, &mut out).unwrap();
    for (steps, found) in steps.iter().zip(out) {
        let expected = expected(value, steps);
        if let Value::Float(float) = found {
            assert_eq!(Some(float), expected.as_f64(), "{steps:?} of {value}");
            continue;
        }
        let mut text = String::new();
        json_text::write_value(&mut text, found).unwrap();
        let found: Json = serde_json::from_str(&text).unwrap();
        assert!(is_same(&found, expected), "{steps:?} of {value} is {text}");
    }
}

/// serde_json reads some floats a few units off in the last place, unless a feature says otherwise;
/// floats are compared exactly where they are values.
fn is_same(found: &Json, expected: &Json) -> bool {
    match (found, expected) {
        (Json::Array(found), Json::Array(expected)) => {
            let mut pairs = found.iter().zip(expected);
            found.len() == expected.len() && pairs.all(|(found, expected)| is_same(found, expected))
        }
        (Json::Object(found), Json::Object(expected)) => {
            let mut members = found.iter();
            found.len() == expected.len()
                && members.all(|(key, found)| is_same(found, &expected[key]))
        }
        _ if found.is_f64() => {
            let (found, expected) = (found.as_f64().unwrap(), expected.as_f64().unwrap());
            (found - expected).abs() <= expected.abs() * 1e-12 + f64::MIN_POSITIVE
        }
        _ => found == expected,
    }
}

fn any_json() -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-300_i64..300).prop_map(Json::from),
        any::<f64>().prop_filter("JSON has finite numbers", |f| f.is_finite()).prop_map(Json::from),
        ".{0,40}".prop_map(Json::from),
    ];
    scalar.prop_recursive(5, 64, 20, |inner| {
        let key = prop_oneof![Just("a".to_owned()), Just("b".to_owned()), ".{0,5}"];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..20).prop_map(Json::from),
            prop::collection::btree_map(key, inner, 0..20)
                .prop_map(|members| Json::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_ciborium_encodes_is_found(value in any_json()) {
        let mut payload = Vec::new();
        ciborium::into_writer(&value, &mut payload).unwrap();
        finds(cbor::extract, &payload, &value);
    }

    #[test]
    fn what_rmp_encodes_is_found(value in any_json()) {
        finds(message_pack::extract, &rmp_serde::to_vec(&value).unwrap(), &value);
    }

    /// Cut short anywhere it is refused, and never a panic.
    #[test]
    fn what_is_cut_is_refused(value in any_json(), cut in any::<prop::sample::Index>()) {
        let mut payload = Vec::new();
        ciborium::into_writer(&value, &mut payload).unwrap();
        let cut_short = &payload[..cut.index(payload.len())];
        prop_assert!(whole(cbor::extract, cut_short).is_err());
        let payload = rmp_serde::to_vec(&value).unwrap();
        let cut_short = &payload[..cut.index(payload.len())];
        prop_assert!(whole(message_pack::extract, cut_short).is_err());
    }

    /// Whatever we take of any bytes, ciborium takes, and the other way round but for what has
    /// limits here or no spelling in JSON.
    #[test]
    fn any_bytes_as_cbor(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let ours = whole(cbor::extract, &bytes);
        let mut rest = bytes.as_slice();
        let theirs = ciborium::from_reader::<ciborium::Value, _>(&mut rest);
        if ours.is_ok() {
            prop_assert!(theirs.is_ok() && rest.is_empty(), "{theirs:?}");
        }
        if let (Err(error), true, true) = (ours, theirs.is_ok(), rest.is_empty()) {
            let error = error.to_string();
            prop_assert!(
                error.contains("key is neither") || error.contains("simple value"),
                "{error}"
            );
        }
    }

    #[test]
    fn any_bytes_as_message_pack(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Ok(text) = whole(message_pack::extract, &bytes) {
            prop_assert!(serde_json::from_str::<Json>(&text).is_ok(), "{text}");
        }
    }

    /// Bytes near valid ones: one changed anywhere.
    #[test]
    fn one_byte_changed(
        value in any_json(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut payload = Vec::new();
        ciborium::into_writer(&value, &mut payload).unwrap();
        let at_cbor = at.index(payload.len());
        payload[at_cbor] = byte;
        let _ = whole(cbor::extract, &payload);
        let mut payload = rmp_serde::to_vec(&value).unwrap();
        let at_message_pack = at.index(payload.len());
        payload[at_message_pack] = byte;
        let _ = whole(message_pack::extract, &payload);
    }
}

/// Of a name that is there twice the last one counts, and what stood below the first is void.
#[test]
fn the_last_of_two_members_counts() {
    let key = |name: &str| Step::Key(name.into());
    let mut paths = Paths::default();
    paths.intern(&[key("a"), key("b")]);
    paths.intern(&[key("a")]);
    let check = |hex: &str, extract: Extract, expected: [Value<'static>; 2]| {
        let (scratch, payload, mut out) = (Scratch::new(), bytes_of(hex), [Value::Null; 2]);
        extract(&payload, &paths, &scratch, &mut out).unwrap();
        assert_eq!(
            out.map(|value| format!("{value:?}")),
            expected.map(|value| format!("{value:?}"))
        );
    };
    // {"a": {"b": 1}, "a": {}} and {"a": 1, "a": {"b": 2}}.
    check("a26161a16162016161a0", cbor::extract, [Value::Null, Value::Json("{}")]);
    check("82a16181a16201a16180", message_pack::extract, [Value::Null, Value::Json("{}")]);
    check("a26161016161a1616202", cbor::extract, [Value::Int(2), Value::Json("{\"b\":2}")]);
    check("82a16101a16181a16202", message_pack::extract, [Value::Int(2), Value::Json("{\"b\":2}")]);
}

/// A message of Protocol Buffers for tests: fields by number.
#[derive(Clone, Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(mut self, mut number: u64) -> Self {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
        self
    }

    fn uint(self, field: u64, number: u64) -> Self {
        self.varint(field << 3).varint(number)
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut message = self.varint(field << 3 | 2).varint(bytes.len() as u64);
        message.0.extend_from_slice(bytes);
        message
    }

    fn double(self, field: u64, number: f64) -> Self {
        let mut message = self.varint(field << 3 | 1);
        message.0.extend_from_slice(&number.to_le_bytes());
        message
    }

    fn float(self, field: u64, number: f32) -> Self {
        let mut message = self.varint(field << 3 | 5);
        message.0.extend_from_slice(&number.to_le_bytes());
        message
    }
}

fn message() -> Message {
    Message::default()
}

fn sparkplug_json(payload: &[u8], births: &Births) -> Result<String, String> {
    let scratch = Scratch::new();
    let json = sparkplug::to_json(payload, births, &scratch).map_err(|error| error.to_string())?;
    assert!(serde_json::from_str::<Json>(json).is_ok(), "{json}");
    Ok(json.to_owned())
}

/// The bytes by hand, so that no encoder of ours agrees with itself: timestamp 1, one metric
/// {name "t", alias 2, datatype Double (10), double_value 1.5}, seq 3.
#[test]
fn a_birth_of_sparkplug_byte_by_byte() {
    let payload = bytes_of("080112100a01741002200a69000000000000f83f1803");
    let expected = "{\"timestamp\":1,\"seq\":3,\"metrics\":[\
        {\"name\":\"t\",\"alias\":2,\"datatype\":\"Double\",\"value\":1.5}]}";
    assert_eq!(sparkplug_json(&payload, &Births::default()).as_deref(), Ok(expected));
}

#[test]
fn metrics_of_sparkplug_have_their_types() {
    let metric = |datatype: u64| message().bytes(1, b"m").uint(4, datatype);
    let minus = |bits: u32| u64::from(u32::MAX) - u64::from(bits);
    let data_set = message()
        .uint(1, 2)
        .bytes(2, b"a")
        .bytes(2, b"b")
        .uint(3, 3)
        .uint(3, 12)
        .bytes(
            4,
            &message()
                .bytes(1, &message().uint(1, minus(0)).0)
                .bytes(1, &message().bytes(6, b"x").0)
                .0,
        )
        .bytes(4, &message().bytes(1, &[]).0);
    let template = message().bytes(1, b"v1").bytes(4, b"Motor").bytes(2, &metric(11).uint(14, 1).0);
    for (metric, expected) in [
        (metric(1).uint(10, 0xff), "\"Int8\",\"value\":-1"),
        (metric(1).uint(10, minus(0)), "\"Int8\",\"value\":-1"),
        (metric(2).uint(10, 0xfffe), "\"Int16\",\"value\":-2"),
        (metric(3).uint(10, minus(2)), "\"Int32\",\"value\":-3"),
        (metric(4).uint(11, u64::MAX - 3), "\"Int64\",\"value\":-4"),
        (metric(5).uint(10, 255), "\"UInt8\",\"value\":255"),
        (metric(8).uint(11, u64::MAX), "\"UInt64\",\"value\":1.8446744073709552e19"),
        (metric(9).float(12, 1.5), "\"Float\",\"value\":1.5"),
        (metric(10).double(13, f64::NAN), "\"Double\",\"value\":null"),
        (metric(11).uint(14, 1), "\"Boolean\",\"value\":true"),
        (metric(12).bytes(15, "ü".as_bytes()), "\"String\",\"value\":\"ü\""),
        (metric(13).uint(11, 1_486_144_502_122), "\"DateTime\",\"value\":1486144502122"),
        (metric(17).bytes(16, &[1, 2, 3, 4]), "\"Bytes\",\"value\":\"AQIDBA==\""),
        (metric(12).uint(7, 1), "\"String\",\"value\":null"),
        (metric(99).uint(10, 1), "\"Unknown\",\"value\":1"),
        (metric(3).uint(5, 1).uint(10, 1), "\"Int32\",\"historical\":true,\"value\":1"),
        (
            metric(16).bytes(17, &data_set.0),
            "\"DataSet\",\"value\":{\"columns\":[\"a\",\"b\"],\"rows\":[[-1,\"x\"],[null]]}",
        ),
        (
            metric(19).bytes(18, &template.0),
            "\"Template\",\"value\":{\"version\":\"v1\",\"template\":\"Motor\",\"metrics\":[\
             {\"name\":\"m\",\"datatype\":\"Boolean\",\"value\":true}]}",
        ),
    ] {
        let payload = message().bytes(2, &metric.0);
        let expected = format!("{{\"metrics\":[{{\"name\":\"m\",\"datatype\":{expected}}}]}}");
        assert_eq!(sparkplug_json(&payload.0, &Births::default()), Ok(expected));
    }
}

#[test]
fn births_give_later_messages_their_names() {
    assert_eq!(Birth::of_topic("spBv1.0/plant/NBIRTH/node"), Some(Birth::Node));
    assert_eq!(Birth::of_topic("spBv1.0/plant/DBIRTH/node/device"), Some(Birth::Device));
    for topic in ["spBv1.0/plant/NDATA/node", "x/plant/NBIRTH/node", "spBv1.0", "NBIRTH", ""] {
        assert_eq!(Birth::of_topic(topic), None, "{topic}");
    }
    let metric =
        |name: &[u8], alias, datatype| message().bytes(1, name).uint(2, alias).uint(4, datatype).0;
    let node = message().bytes(2, &metric(b"pressure", 7, 3));
    let device = message().bytes(2, &metric(b"level", 8, 2)).bytes(2, &message().bytes(1, b"x").0);
    let data = message()
        .bytes(2, &message().uint(2, 7).uint(10, u64::from(u32::MAX)).0)
        .bytes(2, &message().uint(2, 8).uint(10, 0xffff).0)
        .bytes(2, &message().bytes(1, b"level").uint(10, 0xffff).0)
        .bytes(2, &message().uint(2, 9).uint(10, 5).0);
    let mut births = Births::default();
    births.note(Birth::Node, &node.0).unwrap();
    births.note(Birth::Device, &device.0).unwrap();
    let expected = "{\"metrics\":[\
        {\"name\":\"pressure\",\"alias\":7,\"datatype\":\"Int32\",\"value\":-1},\
        {\"name\":\"level\",\"alias\":8,\"datatype\":\"Int16\",\"value\":-1},\
        {\"name\":\"level\",\"datatype\":\"Int16\",\"value\":-1},\
        {\"alias\":9,\"datatype\":\"Unknown\",\"value\":5}]}";
    assert_eq!(sparkplug_json(&data.0, &births).as_deref(), Ok(expected));
    // A birth of the node begins anew.
    births.note(Birth::Node, &node.0).unwrap();
    assert_eq!(births.len(), 1);
}

#[test]
fn every_edge_node_has_births_of_its_own() {
    let birth = message().bytes(2, &message().bytes(1, b"t").uint(2, 1).uint(4, 3).0);
    let mut nodes = Nodes::default();
    let mut check = |topic: &str, payload: &[u8], names: usize| {
        assert_eq!(nodes.note(topic, payload).unwrap().len(), names, "{topic}");
    };
    check("spBv1.0/g/NDATA/n", b"", 0);
    check("spBv1.0/g/NBIRTH/n", &birth.0, 1);
    check("spBv1.0/g/NDATA/n", b"", 1);
    check("spBv1.0/g/DDATA/n/device", b"", 1);
    check("spBv1.0/other/NDATA/n", b"", 0);
    check("spBv1.0/g/NDATA/other", b"", 0);
    check(&format!("spBv1.0/{}/NBIRTH/n", "g".repeat(300)), &birth.0, 0);
    check("spBv1.0/g", b"", 0);
    check("plant/g/NBIRTH/n", &birth.0, 0);
    assert!(nodes.note("spBv1.0/g/NBIRTH/n", b"\x08").is_err());
}

#[test]
fn fields_of_sparkplug_are_found_in_place() {
    let metric = message().bytes(1, b"t").uint(4, 3).uint(10, 7);
    let payload = message().uint(1, 5).bytes(2, &metric.0).0;
    let key = |name: &str| Step::Key(name.into());
    let mut paths = Paths::default();
    paths.intern(&[key("timestamp")]);
    paths.intern(&[key("metrics"), Step::Index(0), key("value")]);
    paths.intern(&[key("nothing")]);
    let (scratch, mut out) = (Scratch::new(), [Value::Null; 3]);
    Format::SparkplugB.extract().unwrap()(&payload, &paths, &scratch, &mut out).unwrap();
    assert_eq!(out, [Value::Int(5), Value::Int(7), Value::Null]);
}

#[test]
fn births_are_bounded() {
    let mut births = Births::default();
    let mut birth = message();
    for alias in 0..sparkplug::METRICS_MAX as u64 + 10 {
        let name = format!("metric {alias}");
        let metric = message().bytes(1, name.as_bytes()).uint(2, alias).uint(4, 3);
        birth = birth.bytes(2, &metric.0);
    }
    births.note(Birth::Node, &birth.0).unwrap();
    births.note(Birth::Device, &birth.0).unwrap();
    assert_eq!(births.len(), sparkplug::METRICS_MAX);
}

#[test]
fn sparkplug_that_is_none_is_refused() {
    let mut template = message();
    for _ in 0..40 {
        template = message().bytes(2, &message().bytes(18, &template.0).0);
    }
    let check = |payload: &[u8], why: &str| {
        let error = sparkplug_json(payload, &Births::default()).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    check(b"\x08", "it ends too early");
    check(b"\x12\x05ab", "it ends too early");
    check(b"\x0b", "a field is of no known wire type");
    check(&[0xff; 11], "an integer is longer than 10 bytes");
    check(&message().bytes(2, &message().bytes(1, b"\xff").0).0, "a text is not UTF-8");
    check(&message().bytes(2, &message().uint(12, 1).0).0, "a value is of another wire type");
    check(&template.0, "templates are nested too deep");
    assert_eq!(sparkplug_json(b"", &Births::default()).as_deref(), Ok("{\"metrics\":[]}"));
}

proptest! {
    #[test]
    fn any_bytes_as_sparkplug(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let mut births = Births::default();
        let _ = births.note(Birth::Node, &bytes);
        let _ = sparkplug_json(&bytes, &births);
        let inside = message().bytes(2, &message().bytes(17, &bytes).0);
        let _ = sparkplug_json(&inside.0, &births);
        let inside = message().bytes(2, &bytes).bytes(2, &message().bytes(18, &bytes).0);
        let _ = sparkplug_json(&inside.0, &births);
    }
}
