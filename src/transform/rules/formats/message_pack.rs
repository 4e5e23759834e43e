//! MessagePack (github.com/msgpack/msgpack, spec.md).
//!
//! The timestamp extension (type -1) is a time, so milliseconds since 1970; of other extensions the
//! data are bytes.

use super::super::paths::Paths;
use super::super::value::{EvalError, Scratch, Value};
use super::walk::{self, Bytes, Token, Tokens};

pub fn extract<'a>(
    payload: &'a [u8],
    paths: &Paths,
    scratch: &'a Scratch,
    out: &mut [Value<'a>],
) -> Result<(), EvalError> {
    let tokens = MessagePack { bytes: Bytes::new(MessagePack::FORMAT, payload) };
    walk::extract(tokens, paths, scratch, out)
}

#[derive(Debug, Clone)]
struct MessagePack<'a> {
    bytes: Bytes<'a>,
}

impl<'a> Tokens<'a> for MessagePack<'a> {
    const FORMAT: &'static str = "MessagePack";

    fn bytes(&self) -> &Bytes<'a> {
        &self.bytes
    }

    fn next(&mut self, _: &'a Scratch) -> Result<Token<'a>, EvalError> {
        let first = self.bytes.byte()?;
        let low = |mask: u8| u64::from(first & mask);
        // The sizes 1, 2, 4, 8 or 16 by the place in a group of formats.
        let size = |group: u8| 1_u64 << (first - group);
        let value = match first {
            0x00..=0x7f => Value::Int(first.into()),
            0x80..=0x8f => return Ok(Token::Map(Some(low(0xf)))),
            0x90..=0x9f => return Ok(Token::Array(Some(low(0xf)))),
            0xa0..=0xbf => Value::Text(self.bytes.text(low(0x1f))?),
            0xc0 => Value::Null,
            0xc1 => return Err(self.bytes.error("the byte c1 is never used")),
            0xc2 => Value::Bool(false),
            0xc3 => Value::Bool(true),
            0xc4..=0xc6 => {
                let count = self.bytes.uint(size(0xc4))?;
                Value::Bytes(self.bytes.take(count)?)
            }
            0xc7..=0xc9 => {
                let count = self.bytes.uint(size(0xc7))?;
                self.extension(count)?
            }
            0xca => walk::float(f32::from_bits(self.bytes.uint(4)? as u32).into()),
            0xcb => walk::float(f64::from_bits(self.bytes.uint(8)?)),
            0xcc..=0xcf => walk::unsigned(self.bytes.uint(size(0xcc))?),
            0xd0 => Value::Int((self.bytes.uint(1)? as i8).into()),
            0xd1 => Value::Int((self.bytes.uint(2)? as i16).into()),
            0xd2 => Value::Int((self.bytes.uint(4)? as i32).into()),
            0xd3 => Value::Int(self.bytes.uint(8)? as i64),
            0xd4..=0xd8 => self.extension(size(0xd4))?,
            0xd9..=0xdb => {
                let count = self.bytes.uint(size(0xd9))?;
                Value::Text(self.bytes.text(count)?)
            }
            0xdc | 0xdd => return Ok(Token::Array(Some(self.bytes.uint(2 * size(0xdc))?))),
            0xde | 0xdf => return Ok(Token::Map(Some(self.bytes.uint(2 * size(0xde))?))),
            0xe0..=0xff => Value::Int((first as i8).into()),
        };
        Ok(Token::Value(value))
    }
}

impl<'a> MessagePack<'a> {
    fn extension(&mut self, count: u64) -> Result<Value<'a>, EvalError> {
        const TIMESTAMP: u8 = 0xff;
        let kind = self.bytes.byte()?;
        let data = self.bytes.take(count)?;
        if kind != TIMESTAMP {
            return Ok(Value::Bytes(data));
        }
        let mut data = Bytes::new(Self::FORMAT, data);
        let (seconds, nanos) = match count {
            4 => (data.uint(4)? as i64, 0),
            8 => {
                let word = data.uint(8)?;
                ((word & 0x3_ffff_ffff) as i64, (word >> 34) as i64)
            }
            12 => {
                let nanos = data.uint(4)? as i64;
                (data.uint(8)? as i64, nanos)
            }
            _ => return Err(self.bytes.error("a timestamp is of no known size")),
        };
        let ms = seconds.checked_mul(1000).and_then(|ms| ms.checked_add(nanos / 1_000_000));
        ms.map(Value::Int).ok_or(self.bytes.error("a timestamp is out of range"))
    }
}
