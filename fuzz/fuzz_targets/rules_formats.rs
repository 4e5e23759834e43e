//! Payload formats of rules over any bytes: no panic, and what is found whole is JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::transform::rules::formats::Format;
use tidegate::transform::rules::formats::sparkplug::{self, Birth, Births};
use tidegate::transform::rules::functions::json_text;
use tidegate::transform::rules::paths::{Paths, Step};
use tidegate::transform::rules::value::{Scratch, Value};

fuzz_target!(|payload: &[u8]| {
    let mut paths = Paths::default();
    paths.intern(&[Step::Key("a".into()), Step::Index(0)]);
    let whole = paths.intern(&[]);
    for format in
        [Format::Cbor, Format::MessagePack, Format::SparkplugB, Format::Text, Format::Number]
    {
        let Some(extract) = format.extract() else { continue };
        let (scratch, mut out) = (Scratch::new(), [Value::Null; 2]);
        if extract(payload, &paths, &scratch, &mut out).is_ok()
            && let Value::Json(text) = out[whole]
        {
            assert!(json_text::is_valid(text), "{text}");
        }
    }
    let (scratch, mut births) = (Scratch::new(), Births::default());
    let _ = births.note(Birth::Device, payload);
    if let Ok(text) = sparkplug::to_json(payload, &births, &scratch) {
        assert!(json_text::is_valid(text), "{text}");
    }
});
