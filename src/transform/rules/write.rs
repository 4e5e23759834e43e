//! Values as JSON text, written once into the bytes of a record.

use super::json::Field;
use super::value::Value;

/// Writes a field: as it stands in the payload, where it was found there.
#[inline]
pub fn field(out: &mut Vec<u8>, field: Field<'_>) {
    match field {
        Field::Missing => out.extend_from_slice(b"null"),
        Field::Json(raw) => out.extend_from_slice(raw.text.as_bytes()),
        Field::Value(found) => value(out, found),
    }
}

/// Writes a value. Bytes become base64, as JSON has none.
pub fn value(out: &mut Vec<u8>, value: Value<'_>) {
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(int) => number(out, &int),
        // NaN and the infinities, which no operator gives, become null.
        Value::Float(float) => number(out, &float),
        Value::Text(string) => text(out, string),
        Value::Bytes(bytes) => base64(out, bytes),
        Value::Json(json) => out.extend_from_slice(json.as_bytes()),
    }
}

/// Writing to memory does not fail.
fn number(out: &mut Vec<u8>, number: &impl serde::Serialize) {
    let _ = serde_json::to_writer(out, number);
}

/// Writes a string with quotes and escapes; runs without anything to escape as a whole.
pub fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut from = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if *byte >= b' ' && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[from..at]);
        from = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            control => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
                let digits = [digit(control >> 4), digit(*control)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&digits);
            }
        }
    }
    out.extend_from_slice(&bytes[from..]);
    out.push(b'"');
}

/// A name with quotes and escapes.
pub fn quoted(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 2);
    text(&mut out, name);
    out
}

/// RFC 4648, section 4, in quotes.
fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push(b'"');
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= chunk.len() { letter } else { b'=' });
        }
    }
    out.push(b'"');
}

/// Writes a value as the bytes of a key or a header: text as it is, without quotes.
pub fn plain(out: &mut Vec<u8>, found: Value<'_>) {
    match found {
        Value::Null => {}
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::Bytes(bytes) => out.extend_from_slice(bytes),
        other => value(out, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_json() {
        let check = |of: Value<'_>, expected: &str| {
            let mut out = Vec::new();
            value(&mut out, of);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{of:?}");
        };
        check(Value::Null, "null");
        check(Value::Int(-7), "-7");
        check(Value::Float(71.6), "71.6");
        check(Value::Float(1e300), "1e+300");
        check(Value::Float(f64::NAN), "null");
        check(Value::Text("a\"b\\c\n\u{1}ä"), "\"a\\\"b\\\\c\\n\\u0001ä\"");
        // RFC 4648, section 10.
        for (bytes, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            check(Value::Bytes(bytes.as_bytes()), &format!("\"{expected}\""));
        }
    }
}
