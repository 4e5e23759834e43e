//! The functions of rules and the payload formats, called as the executor calls them: constants are
//! prepared once, the arena is reset between messages. Whatever the arguments, a call allocates
//! nothing, neither when it gives a value nor when it gives an error.

use tidegate::transform::rules::formats::{Format, sparkplug};
use tidegate::transform::rules::functions::{Body, Function, Prepared, all};
use tidegate::transform::rules::paths::{Paths, Step};
use tidegate::transform::rules::value::{Scratch, Value};

use super::{Mode, count};

/// One of each type, and texts that mean something to some function.
const SAMPLES: [Value<'static>; 16] = [
    Value::Null,
    Value::Bool(true),
    Value::Int(-3),
    Value::Int(1_136_214_245_123),
    Value::Float(2.5),
    Value::Text("Ein Text, länger als was in einen kurzen Puffer geht: 0123456789 ΑΒΓ"),
    Value::Text("2006-01-02T15:04:05Z"),
    Value::Text("yyyy-MM-dd'T'HH:mm:ssX"),
    Value::Text("Europe/Berlin"),
    Value::Text("month"),
    Value::Text("([a-z]+)(\\d*)"),
    Value::Text("$.a[*]"),
    Value::Text("base64"),
    Value::Json("{\"a\": [1, 2.5, \"\\u00e9\", null], \"b\\n\": {\"c\": true}}"),
    Value::Json("[3, 1, {\"a\": 1}, \"x\", null]"),
    Value::Bytes(b"\xff\x00abc"),
];

/// Every tuple of `count` samples.
fn tuples(count: u32) -> impl Iterator<Item = Vec<Value<'static>>> {
    let of = SAMPLES.len();
    (0..of.pow(count))
        .map(move |number| (0..count).map(|place| SAMPLES[number / of.pow(place) % of]).collect())
}

fn prepared(function: &Function, values: &[Value<'static>]) -> Option<Prepared> {
    let Body::Prepared { prepare, .. } = function.body else { return Some(Prepared::None) };
    let constants: Vec<_> = values.iter().copied().map(Some).collect();
    prepare(&constants).ok()
}

#[test]
fn a_call_of_a_function_allocates_nothing() {
    let mut scratch = Scratch::with_capacity(1 << 16);
    let mut values_given = 0;
    for function in all() {
        let most = u32::from(function.most.min(function.least.max(2)));
        for values in (u32::from(function.least)..=most).flat_map(tuples) {
            let Some(prepared) = prepared(function, &values) else { continue };
            // The first call warms what is kept: the arena, the caches of a regular expression.
            values_given += usize::from(function.call(&prepared, &values, &scratch).is_ok());
            scratch.reset();
            let allocations = count(Mode::Counted, || {
                let _ = function.call(&prepared, &values, &scratch);
            });
            assert_eq!(allocations, 0, "{}{values:?}", function.name);
            scratch.reset();
        }
    }
    assert!(values_given > 10_000, "{values_given} calls gave a value");
}

#[test]
fn finding_fields_allocates_nothing() {
    let mut paths = Paths::default();
    paths.intern(&[Step::Key("a".into()), Step::Index(1)]);
    paths.intern(&[Step::Key("b".into())]);
    paths.intern(&[]);
    let cbor = b"\xa2\x61a\x83\x01\x7f\x61x\x61y\xff\xf6\x61b\xbf\x61c\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a\xff";
    let message_pack =
        b"\x82\xa1a\x93\x01\xa2xy\xc0\xa1b\x81\xa1c\xcb\x3f\xf1\x99\x99\x99\x99\x99\x9a";
    let mut scratch = Scratch::with_capacity(1 << 16);
    for (format, payload) in [
        (Format::Cbor, cbor.as_slice()),
        (Format::MessagePack, message_pack),
        (Format::Text, b"21.5"),
        (Format::Number, b"21.5"),
        (Format::Bytes, b"21.5"),
        // Errors too.
        (Format::Cbor, &cbor[..9]),
        (Format::MessagePack, &message_pack[..9]),
        (Format::Number, b"warm"),
    ] {
        let extract = format.extract().expect("it is not JSON");
        let allocations = count(Mode::Counted, || {
            let _ = extract(payload, &paths, &scratch, &mut [Value::Null; 3]);
        });
        assert_eq!(allocations, 0, "{}", format.name());
        scratch.reset();
    }
    let births = sparkplug::Births::default();
    let payload = b"\x08\x01\x12\x10\x0a\x01t\x10\x02\x20\x0ai\0\0\0\0\0\0\xf8\x3f\x18\x03";
    let allocations = count(Mode::Counted, || {
        let _ = sparkplug::to_json(payload, &births, &scratch);
    });
    assert_eq!(allocations, 0);
    scratch.reset();
}
