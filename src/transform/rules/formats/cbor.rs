//! CBOR (RFC 8949): definite and indefinite lengths, floats of 16 to 64 bits.
//!
//! Tags are passed over and what they tag is taken as it is: a date stays text, an epoch a number, a
//! bignum bytes. `undefined` is NULL. Chunks of an indefinite text are put together in the arena.

use super::super::paths::Paths;
use super::super::value::{EvalError, Scratch, Value};
use super::walk::{self, Bytes, Token, Tokens};

pub fn extract<'a>(
    payload: &'a [u8],
    paths: &Paths,
    scratch: &'a Scratch,
    out: &mut [Value<'a>],
) -> Result<(), EvalError> {
    walk::extract(Cbor { bytes: Bytes::new(Cbor::FORMAT, payload) }, paths, scratch, out)
}

#[derive(Debug, Clone)]
struct Cbor<'a> {
    bytes: Bytes<'a>,
}

/// An initial byte: the major type, and its argument (section 3).
struct Head {
    major: u8,
    /// `None`: indefinite, or a break.
    argument: Option<u64>,
    /// How many bytes the argument takes behind the initial byte.
    size: u64,
}

impl<'a> Tokens<'a> for Cbor<'a> {
    const FORMAT: &'static str = "CBOR";

    fn bytes(&self) -> &Bytes<'a> {
        &self.bytes
    }

    fn next(&mut self, scratch: &'a Scratch) -> Result<Token<'a>, EvalError> {
        let mut head = self.head()?;
        let mut tagged = false;
        while head.major == 6 {
            if head.argument.is_none() {
                return Err(self.bytes.error("a tag has no number"));
            }
            tagged = true;
            head = self.head()?;
        }
        let value = match (head.major, head.argument) {
            (0, Some(number)) => walk::unsigned(number),
            (1, Some(number)) => match i64::try_from(number) {
                Ok(number) => Value::Int(-1 - number),
                Err(_) => Value::Float(-1.0 - number as f64),
            },
            (2, Some(count)) => Value::Bytes(self.bytes.take(count)?),
            (3, Some(count)) => Value::Text(self.bytes.text(count)?),
            (2, None) => Value::Bytes(self.chunks(2, scratch)?),
            (3, None) => {
                let text = std::str::from_utf8(self.chunks(3, scratch)?);
                Value::Text(text.map_err(|_| self.bytes.error("a text is not UTF-8"))?)
            }
            (4, count) => return Ok(Token::Array(count)),
            (5, count) => return Ok(Token::Map(count)),
            (7, Some(argument)) => self.simple(argument, head.size)?,
            (7, None) if !tagged => return Ok(Token::Break),
            _ => return Err(self.bytes.error("an integer has no length")),
        };
        Ok(Token::Value(value))
    }
}

impl<'a> Cbor<'a> {
    fn head(&mut self) -> Result<Head, EvalError> {
        let initial = self.bytes.byte()?;
        let (major, info) = (initial >> 5, initial & 0x1f);
        let size = match info {
            0..24 => return Ok(Head { major, argument: Some(info.into()), size: 0 }),
            24..28 => 1 << (info - 24),
            31 => return Ok(Head { major, argument: None, size: 0 }),
            _ => return Err(self.bytes.error("an initial byte is reserved")),
        };
        Ok(Head { major, argument: Some(self.bytes.uint(size)?), size })
    }

    /// The chunks of an indefinite string, each definite and of the same type (section 3.2.3).
    fn chunks(&mut self, major: u8, scratch: &'a Scratch) -> Result<&'a [u8], EvalError> {
        let mut whole = bumpalo::collections::Vec::new_in(scratch);
        loop {
            let head = self.head()?;
            match (head.major, head.argument) {
                (7, None) => return Ok(whole.into_bump_slice()),
                (3, Some(count)) if major == 3 => {
                    whole.extend_from_slice(self.bytes.text(count)?.as_bytes());
                }
                (2, Some(count)) if major == 2 => {
                    whole.extend_from_slice(self.bytes.take(count)?);
                }
                _ => return Err(self.bytes.error("a chunk is of another type")),
            }
        }
    }

    fn simple(&self, argument: u64, size: u64) -> Result<Value<'a>, EvalError> {
        Ok(match (size, argument) {
            (0, 20) => Value::Bool(false),
            (0, 21) => Value::Bool(true),
            (0, 22 | 23) => Value::Null,
            (2, bits) => walk::float(half(bits as u16)),
            (4, bits) => walk::float(f32::from_bits(bits as u32).into()),
            (8, bits) => walk::float(f64::from_bits(bits)),
            _ => return Err(self.bytes.error("a simple value has no meaning")),
        })
    }
}

/// A float of 16 bits (IEEE 754 binary16; RFC 8949, appendix D).
fn half(bits: u16) -> f64 {
    let exponent = i32::from(bits >> 10 & 0x1f);
    let mantissa = f64::from(bits & 0x3ff);
    let size = match exponent {
        0 => mantissa * 2_f64.powi(-24),
        31 if mantissa == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (mantissa + 1024.0) * 2_f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { size } else { -size }
}
