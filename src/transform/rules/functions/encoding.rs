//! Base64 and hexadecimal digits (RFC 4648).
//!
//! Comes in: bytes or text to encode, text to decode. Goes out: text; decoded bytes are text when
//! they are UTF-8, else bytes. `base64` is section 4 with padding, which decoding does not ask for;
//! `base64url` section 5 without.

use std::fmt::Write;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::super::value::{EvalError, Scratch, Value};
use super::given::{Built, Given};
use super::{Function, Outcome, family, strict};

family! {
    "encode" (2, 2) "value, 'base64' or 'base64url' or 'hex'" -> "text" = strict(encode),
        "the bytes in that encoding";
    "decode" (2, 2) "text, 'base64' or 'base64url' or 'hex'" -> "text or bytes" = strict(decode),
        "what was encoded: text when it is UTF-8, else bytes";
    "base64_encode" | "to_base64" (1, 1) "value" -> "text" = strict(base64_encode),
        "the bytes in base64";
    "base64_decode" | "from_base64" (1, 1) "text" -> "text or bytes" = strict(base64_decode),
        "what was encoded in base64";
    "hex" | "to_hex" | "hex_encode" (1, 1) "value" -> "text" = strict(hex),
        "the bytes in small hexadecimal digits; of an integer, its digits";
    "unhex" | "from_hex" | "hex_decode" (1, 1) "text" -> "text or bytes" = strict(unhex),
        "what was encoded in hexadecimal digits";
}

const ANY_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
static STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, ANY_PADDING);
static URL: GeneralPurpose =
    GeneralPurpose::new(&alphabet::URL_SAFE, ANY_PADDING.with_encode_padding(false));

/// The digits of bytes.
pub fn write_hex(out: &mut Built<'_>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]];
        out.push(std::str::from_utf8(&digits).unwrap_or_default());
    }
}

/// Base64 with padding.
pub fn write_base64(out: &mut impl Write, bytes: &[u8]) -> std::fmt::Result {
    write_with(&STANDARD, out, bytes)
}

fn write_with(engine: &GeneralPurpose, out: &mut impl Write, bytes: &[u8]) -> std::fmt::Result {
    // A multiple of 3, so that only the last part has padding.
    for part in bytes.chunks(48) {
        let mut digits = [0; 64];
        let length = engine.encode_slice(part, &mut digits).unwrap_or(0);
        out.write_str(std::str::from_utf8(&digits[..length]).unwrap_or_default())?;
    }
    Ok(())
}

/// How `encode` and `decode` spell bytes.
enum Scheme {
    Base64(&'static GeneralPurpose),
    Hex,
}

fn scheme(given: Given<'_, '_>) -> Result<Scheme, EvalError> {
    match given.text(1)? {
        word if word.eq_ignore_ascii_case("base64") => Ok(Scheme::Base64(&STANDARD)),
        word if word.eq_ignore_ascii_case("base64url") => Ok(Scheme::Base64(&URL)),
        word if word.eq_ignore_ascii_case("hex") => Ok(Scheme::Hex),
        _ => Err(given.argument("the encoding is none of base64, base64url and hex")),
    }
}

fn encoded<'a>(given: Given<'_, 'a>, scheme: &Scheme) -> Outcome<'a> {
    let mut built = given.built();
    let bytes = given.bytes(0)?;
    match scheme {
        Scheme::Hex => write_hex(&mut built, bytes),
        Scheme::Base64(engine) => {
            // Built takes whatever is written.
            let _ = write_with(engine, &mut built, bytes);
        }
    }
    built.text()
}

fn decoded<'a>(given: Given<'_, 'a>, scheme: &Scheme) -> Outcome<'a> {
    let text = given.bytes(0)?;
    let bytes: &'a [u8] = match scheme {
        Scheme::Hex => hex_bytes(text, given)?,
        Scheme::Base64(engine) => {
            let room = given.scratch().alloc_slice_fill_copy(text.len() / 4 * 3 + 3, 0);
            let length = engine.decode_slice(text, room);
            let length = length.map_err(|_| given.argument("the text is not base64"))?;
            &room[..length]
        }
    };
    Ok(std::str::from_utf8(bytes).map_or(Value::Bytes(bytes), Value::Text))
}

fn hex_bytes<'a>(digits: &[u8], given: Given<'_, 'a>) -> Result<&'a [u8], EvalError> {
    let wrong = given.argument("the text is not pairs of hexadecimal digits");
    if digits.len() % 2 == 1 {
        return Err(wrong);
    }
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    let bytes = given.scratch().alloc_slice_fill_copy(digits.len() / 2, 0);
    for (at, byte) in bytes.iter_mut().enumerate() {
        let (high, low) = (digit(2 * at).ok_or(wrong)?, digit(2 * at + 1).ok_or(wrong)?);
        *byte = (high << 4 | low) as u8;
    }
    Ok(bytes)
}

fn encode<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("encode", values, scratch);
    encoded(given, &scheme(given)?)
}

fn decode<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("decode", values, scratch);
    decoded(given, &scheme(given)?)
}

fn base64_encode<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    encoded(Given::new("base64_encode", values, scratch), &Scheme::Base64(&STANDARD))
}

fn base64_decode<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    decoded(Given::new("base64_decode", values, scratch), &Scheme::Base64(&STANDARD))
}

fn hex<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("hex", values, scratch);
    let Value::Int(int) = given.value(0) else { return encoded(given, &Scheme::Hex) };
    let mut built = given.built();
    let _ = write!(built, "{int:x}");
    built.text()
}

fn unhex<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    decoded(Given::new("unhex", values, scratch), &Scheme::Hex)
}
