//! The fields of a JSON payload, found in place: one pass for all paths, nothing copied.
//!
//! Strings, numbers and white space are skipped by sonic-rs with SIMD; containers are gone through
//! here, because a device that sends 100,000 brackets must find a limit and not the end of the
//! stack, and because sonic-rs allocates for each call of its own lazy access. The whole payload is
//! checked (RFC 8259), so what is found is of valid JSON. Of a key that is there twice the last one
//! counts, as most parsers have it.

use sonic_rs::parser::{ParseStatus, Parser};
use sonic_rs::reader::{Read, Reader};

use super::paths::{PathNode, Paths};
use super::value::{EvalError, Scratch, Value};

/// Objects and arrays in one another, at the most.
pub const DEPTH_MAX: u32 = 128;

/// A field of a payload as it was found.
#[derive(Debug, Clone, Copy)]
pub enum Field<'a> {
    Missing,
    Json(Raw<'a>),
    /// From a payload of another format.
    Value(Value<'a>),
}

/// A value as JSON text that has been checked. An escape in a string is not looked at before
/// somebody wants the string.
#[derive(Debug, Clone, Copy)]
pub struct Raw<'a> {
    pub text: &'a str,
    escaped: bool,
}

fn invalid(why: &'static str, at: usize) -> EvalError {
    EvalError::Payload { format: "JSON", why, at: u32::try_from(at).unwrap_or(u32::MAX) }
}

/// Finds `paths` in a payload; `out` has one place a path and is overwritten.
pub fn extract<'a>(
    payload: &'a [u8],
    paths: &Paths,
    scratch: &'a Scratch,
    out: &mut [Field<'a>],
) -> Result<(), EvalError> {
    let text = simdutf8::basic::from_utf8(payload).map_err(|_| invalid("it is not UTF-8", 0))?;
    extract_text(text, paths, scratch, out)
}

/// As [`extract`], of what is known to be UTF-8.
pub fn extract_text<'a>(
    text: &'a str,
    paths: &Paths,
    scratch: &'a Scratch,
    out: &mut [Field<'a>],
) -> Result<(), EvalError> {
    out.fill(Field::Missing);
    let mut pass = Pass::new(text, scratch);
    pass.value(Some(paths.root()), out, 0)?;
    pass.end()
}

/// Calls `each` with the key and the value of every member of an object, in their order; the key as
/// it stands, with its quotes.
pub fn members<'a>(
    text: &'a str,
    scratch: &'a Scratch,
    each: &mut dyn FnMut(Raw<'a>, Raw<'a>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut pass = Pass::new(text, scratch);
    if pass.peek() != Some(b'{') {
        return Err(invalid("an object is wanted", 0));
    }
    let mut first = true;
    pass.eat();
    while pass.another(&mut first, b'}', "a comma or } is missing")? {
        let key = pass.key()?;
        let value = pass.raw(0)?;
        each(key, value)?;
    }
    pass.end()
}

/// Calls `each` with every element of an array.
pub fn elements<'a, E: From<EvalError>>(
    text: &'a str,
    scratch: &'a Scratch,
    each: &mut dyn FnMut(Raw<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut pass = Pass::new(text, scratch);
    if pass.peek() != Some(b'[') {
        return Err(invalid("an array is wanted", 0).into());
    }
    let mut first = true;
    pass.eat();
    while pass.another(&mut first, b']', "a comma or ] is missing")? {
        each(pass.raw(0)?)?;
    }
    Ok(pass.end()?)
}

/// One pass over a text.
struct Pass<'a> {
    text: &'a str,
    scratch: &'a Scratch,
    parser: Parser<Read<'a>>,
}

impl<'a> Pass<'a> {
    fn new(text: &'a str, scratch: &'a Scratch) -> Self {
        Self { text, scratch, parser: Parser::new(Read::from(text)) }
    }

    fn at(&self) -> usize {
        self.parser.offset().min(self.text.len())
    }

    /// The next byte that is not white space, which stays.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        // Most often there is no white space.
        match self.parser.read.peek() {
            Some(byte) if byte > b' ' => Some(byte),
            _ => self.parser.skip_space_peek(),
        }
    }

    fn eat(&mut self) {
        self.parser.read.eat(1);
    }

    /// Whether the container goes on; its end is taken.
    #[inline]
    fn another(
        &mut self,
        first: &mut bool,
        end: u8,
        missing: &'static str,
    ) -> Result<bool, EvalError> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.eat();
                Ok(false)
            }
            Some(_) if std::mem::take(first) => Ok(true),
            Some(b',') => {
                self.eat();
                Ok(true)
            }
            _ => Err(invalid(missing, self.at())),
        }
    }

    /// A key and the colon after it.
    #[inline]
    fn key(&mut self) -> Result<Raw<'a>, EvalError> {
        if self.peek() != Some(b'"') {
            return Err(invalid("a key is missing", self.at()));
        }
        let key = self.scalar()?;
        if self.peek() != Some(b':') {
            return Err(invalid("a colon is missing", self.at()));
        }
        self.eat();
        Ok(key)
    }

    /// A value that is neither object nor array.
    #[inline]
    fn scalar(&mut self) -> Result<Raw<'a>, EvalError> {
        let start = self.at();
        let Ok((_, status)) = self.parser.skip_one(true) else {
            return Err(invalid("there is no value", self.at()));
        };
        let escaped = status == ParseStatus::HasEscaped;
        let text = self.text.get(start..self.parser.offset());
        let text = text.ok_or_else(|| invalid("a value has no end", start))?;
        if escaped && !escapes_are_whole(text) {
            return Err(invalid("an escape is not one", start));
        }
        Ok(Raw { text, escaped })
    }

    /// Any value.
    fn raw(&mut self, depth: u32) -> Result<Raw<'a>, EvalError> {
        match self.peek() {
            Some(b'{' | b'[') => {
                let start = self.at();
                self.value(None, &mut [], depth)?;
                let text = self.text.get(start..self.at()).unwrap_or_default();
                Ok(Raw { text, escaped: false })
            }
            _ => self.scalar(),
        }
    }

    /// Goes through a value, and puts what `node` and the paths below it want into `out`.
    fn value(
        &mut self,
        node: Option<&PathNode>,
        out: &mut [Field<'a>],
        depth: u32,
    ) -> Result<(), EvalError> {
        let first = self.peek();
        let start = self.at();
        if let Some(node) = node.filter(|node| !node.is_leaf()) {
            // The key was there before: what stood below it is void.
            node.each_slot(&mut |slot| out[slot] = Field::Missing);
        }
        let raw = match first {
            Some(b'{' | b'[') if depth == DEPTH_MAX => {
                return Err(invalid("it is nested too deep", start));
            }
            Some(b'{') => {
                self.object(node, out, depth + 1)?;
                Raw { text: self.text.get(start..self.at()).unwrap_or_default(), escaped: false }
            }
            Some(b'[') => {
                self.array(node, out, depth + 1)?;
                Raw { text: self.text.get(start..self.at()).unwrap_or_default(), escaped: false }
            }
            _ => self.scalar()?,
        };
        if let Some(slot) = node.and_then(PathNode::slot) {
            out[slot] = Field::Json(raw);
        }
        Ok(())
    }

    fn object(
        &mut self,
        node: Option<&PathNode>,
        out: &mut [Field<'a>],
        depth: u32,
    ) -> Result<(), EvalError> {
        self.eat();
        let node = node.filter(|node| node.has_keys());
        let mut first = true;
        while self.another(&mut first, b'}', "a comma or } is missing")? {
            let key = self.key()?;
            let below = match node {
                None => None,
                Some(node) if !key.escaped => node.key(&key.text[1..key.text.len() - 1]),
                // A key that is no text is none of a path.
                Some(node) => key.string(self.scratch).ok().and_then(|key| node.key(key)),
            };
            self.value(below, out, depth)?;
        }
        Ok(())
    }

    fn array(
        &mut self,
        node: Option<&PathNode>,
        out: &mut [Field<'a>],
        depth: u32,
    ) -> Result<(), EvalError> {
        self.eat();
        let node = node.filter(|node| node.has_indices());
        let (mut first, mut index) = (true, 0);
        while self.another(&mut first, b']', "a comma or ] is missing")? {
            self.value(node.and_then(|node| node.index(index)), out, depth)?;
            index += 1;
        }
        Ok(())
    }

    /// Nothing but white space is left.
    fn end(&mut self) -> Result<(), EvalError> {
        match self.parser.skip_space() {
            None => Ok(()),
            Some(_) => Err(invalid("something stands behind the value", self.at())),
        }
    }
}

/// Whether every `\u` has its four digits: sonic-rs skips them unseen.
fn escapes_are_whole(string: &str) -> bool {
    let mut rest = string.as_bytes();
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let unicode = rest.get(at + 1) == Some(&b'u');
        let digits = rest.get(at + 2..at + 6);
        if unicode && !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return false;
        }
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    true
}

impl<'a> Raw<'a> {
    /// The value that the text stands for.
    #[inline]
    pub fn value(&self, scratch: &'a Scratch) -> Result<Value<'a>, EvalError> {
        Ok(match self.text.as_bytes().first() {
            Some(b'"') => Value::Text(self.string(scratch)?),
            Some(b'{' | b'[') => Value::Json(self.text),
            Some(b't') => Value::Bool(true),
            Some(b'f') => Value::Bool(false),
            Some(b'n') | None => Value::Null,
            Some(_) => number(self.text)?,
        })
    }

    /// What a string says, without its quotes and escapes.
    pub fn string(&self, scratch: &'a Scratch) -> Result<&'a str, EvalError> {
        let inner = self.text.get(1..self.text.len().saturating_sub(1)).unwrap_or_default();
        if self.escaped { unescape(inner, scratch) } else { Ok(inner) }
    }
}

/// An integer where the text is one that fits, else a float.
#[inline]
pub fn number(text: &str) -> Result<Value<'_>, EvalError> {
    let bytes = text.as_bytes();
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, bytes),
    };
    // 18 digits always fit.
    if digits.len() <= 18 {
        let mut sum = 0_i64;
        if digits.iter().all(|digit| {
            sum = sum * 10 + i64::from(digit.wrapping_sub(b'0'));
            digit.is_ascii_digit()
        }) {
            // Minus zero is a float.
            match (negative, sum) {
                (true, 0) => return Ok(Value::Float(-0.0)),
                (true, sum) => return Ok(Value::Int(-sum)),
                (false, sum) => return Ok(Value::Int(sum)),
            }
        }
    } else if let Ok(int) = text.parse() {
        return Ok(Value::Int(int));
    }
    match text.parse::<f64>() {
        Ok(float) if float.is_finite() => Ok(Value::Float(float)),
        _ => Err(EvalError::OutOfRange { of: "a number of the payload" }),
    }
}

/// Replaces escapes; they are known to be whole.
fn unescape<'a>(text: &str, scratch: &'a Scratch) -> Result<&'a str, EvalError> {
    let lone = EvalError::Payload { format: "JSON", why: "half of a surrogate pair", at: 0 };
    let mut out = bumpalo::collections::String::with_capacity_in(text.len(), scratch);
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or_default();
        match escape {
            b'n' => out.push('\n'),
            b't' => out.push('\t'),
            b'r' => out.push('\r'),
            b'b' => out.push('\u{8}'),
            b'f' => out.push('\u{c}'),
            b'u' => {
                let (mut code, mut used) = (hex(rest), 4);
                if (0xd800..0xdc00).contains(&code) {
                    let low = rest.get(4..6).filter(|next| *next == "\\u").map(|_| hex(&rest[6..]));
                    let low = low.filter(|low| (0xdc00..0xe000).contains(low)).ok_or(lone)?;
                    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                    used = 10;
                }
                out.push(char::from_u32(code).ok_or(lone)?);
                rest = rest.get(used..).unwrap_or_default();
            }
            // A quote, a slash or the backslash itself.
            other => out.push(char::from(other)),
        }
    }
    out.push_str(rest);
    Ok(out.into_bump_str())
}

fn hex(text: &str) -> u32 {
    text.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0)
}
