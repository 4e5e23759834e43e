//! The fields of a JSON payload, found in place: one pass for all paths, nothing copied.
//!
//! A scanner of our own, because a device chooses the bytes: sonic-rs' lazy access allocates for
//! each call, recurses as deep as the payload is nested, stops looking where the last field is found,
//! and does not look at the digits of `\u`; and its parser's own steps, which are made for large
//! documents, take three times as long on the short strings and numbers that devices send
//! (`benches/rules.rs`). Here the whole payload is checked (RFC 8259), so what is found is of valid
//! JSON. Strings are looked through eight bytes at a time. Of a key that is there twice the last one
//! counts, as most parsers have it.

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
    let found = pass.value(Some(paths.root()), out, 0).and_then(|()| pass.end());
    found.map_err(|why| invalid(why, pass.at))
}

/// Calls `each` with the key and the value of every member of an object, in their order; the key as
/// it stands, with its quotes.
pub fn members<'a>(
    text: &'a str,
    scratch: &'a Scratch,
    each: &mut dyn FnMut(Raw<'a>, Raw<'a>) -> Result<(), EvalError>,
) -> Result<(), EvalError> {
    let mut pass = Pass::new(text, scratch);
    let (mut first, begins) = (true, pass.peek() == Some(b'{'));
    pass.at += usize::from(begins);
    loop {
        let member = if begins { pass.member(&mut first) } else { Err("an object is wanted") };
        match member.map_err(|why| invalid(why, pass.at))? {
            Some((key, value)) => each(key, value)?,
            None => return pass.end().map_err(|why| invalid(why, pass.at)),
        }
    }
}

/// Calls `each` with every element of an array.
pub fn elements<'a, E: From<EvalError>>(
    text: &'a str,
    scratch: &'a Scratch,
    each: &mut dyn FnMut(Raw<'a>) -> Result<(), E>,
) -> Result<(), E> {
    let mut pass = Pass::new(text, scratch);
    let (mut first, begins) = (true, pass.peek() == Some(b'['));
    pass.at += usize::from(begins);
    loop {
        let element = if begins { pass.element(&mut first) } else { Err("an array is wanted") };
        match element.map_err(|why| invalid(why, pass.at))? {
            Some(value) => each(value)?,
            None => return Ok(pass.end().map_err(|why| invalid(why, pass.at))?),
        }
    }
}

/// What is checked and wrong is told where the pass stands.
type Checked<T> = Result<T, &'static str>;

/// One pass over a text.
struct Pass<'a> {
    text: &'a str,
    bytes: &'a [u8],
    scratch: &'a Scratch,
    /// Where it is: what is before has been looked at. `at <= bytes.len()`.
    at: usize,
}

impl<'a> Pass<'a> {
    fn new(text: &'a str, scratch: &'a Scratch) -> Self {
        Self { text, bytes: text.as_bytes(), scratch, at: 0 }
    }

    #[inline]
    fn byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The next byte that is not white space, which stays.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                byte => return byte,
            }
        }
    }

    /// Whether the container goes on; its end is taken.
    #[inline]
    fn another(&mut self, first: &mut bool, end: u8) -> Checked<bool> {
        match self.peek() {
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(_) if std::mem::take(first) => Ok(true),
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            _ if end == b'}' => Err("a comma or } is missing"),
            _ => Err("a comma or ] is missing"),
        }
    }

    /// A key and the colon after it.
    #[inline]
    fn key(&mut self) -> Checked<Raw<'a>> {
        if self.peek() != Some(b'"') {
            return Err("a key is missing");
        }
        let start = self.at;
        let escaped = self.string()?;
        let key = Raw { text: self.since(start), escaped };
        if self.peek() != Some(b':') {
            return Err("a colon is missing");
        }
        self.at += 1;
        Ok(key)
    }

    fn word(&mut self, word: &[u8]) -> Checked<bool> {
        if !self.bytes[self.at..].starts_with(word) {
            return Err("there is no value");
        }
        self.at += word.len();
        Ok(false)
    }

    /// What was looked at since `start`; the bytes on both sides are ASCII.
    #[inline]
    fn since(&self, start: usize) -> &'a str {
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// A string; the quote before it is next. Whether it has escapes.
    #[inline]
    fn string(&mut self) -> Checked<bool> {
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at += plain_bytes(&self.bytes[self.at..]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err("a control character in a string"),
                None => return Err("a string has no end"),
            }
        }
    }

    fn escape(&mut self) -> Checked<()> {
        let rest = &self.bytes[self.at + 1..];
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', digits @ ..]
                if digits.len() >= 4 && digits[..4].iter().all(u8::is_ascii_hexdigit) =>
            {
                6
            }
            _ => return Err("an escape is not one"),
        };
        Ok(())
    }

    #[inline]
    fn number(&mut self) -> Checked<bool> {
        self.at += usize::from(self.byte() == Some(b'-'));
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            self.at += usize::from(matches!(self.byte(), Some(b'+' | b'-')));
            self.digits()?;
        }
        Ok(false)
    }

    #[inline]
    fn digits(&mut self) -> Checked<()> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.byte() {
            self.at += 1;
        }
        if self.at == start { Err("a digit is missing") } else { Ok(()) }
    }

    /// The next member of an object.
    fn member(&mut self, first: &mut bool) -> Checked<Option<(Raw<'a>, Raw<'a>)>> {
        if !self.another(first, b'}')? {
            return Ok(None);
        }
        Ok(Some((self.key()?, self.raw(0)?)))
    }

    /// The next element of an array.
    fn element(&mut self, first: &mut bool) -> Checked<Option<Raw<'a>>> {
        if self.another(first, b']')? { self.raw(0).map(Some) } else { Ok(None) }
    }

    /// Any value.
    #[inline]
    fn raw(&mut self, depth: u32) -> Checked<Raw<'a>> {
        self.peek();
        let start = self.at;
        let escaped = self.skip(depth)?;
        Ok(Raw { text: self.since(start), escaped })
    }

    /// Goes through a value that nobody wants a part of. Whether it is a string with escapes.
    fn skip(&mut self, depth: u32) -> Checked<bool> {
        let end = match self.peek() {
            Some(b'"') => return self.string(),
            Some(b'-' | b'0'..=b'9') => return self.number(),
            Some(b't') => return self.word(b"true"),
            Some(b'f') => return self.word(b"false"),
            Some(b'n') => return self.word(b"null"),
            Some(b'{') => b'}',
            Some(b'[') => b']',
            _ => return Err("there is no value"),
        };
        if depth == DEPTH_MAX {
            return Err("it is nested too deep");
        }
        self.at += 1;
        let mut first = true;
        while self.another(&mut first, end)? {
            if end == b'}' {
                self.key()?;
            }
            self.skip(depth + 1)?;
        }
        Ok(false)
    }

    /// Goes through a value, and puts what `node` and the paths below it want into `out`.
    fn value(&mut self, node: Option<&PathNode>, out: &mut [Field<'a>], depth: u32) -> Checked<()> {
        let Some(node) = node else { return self.skip(depth).map(drop) };
        let first = self.peek();
        let start = self.at;
        if !node.is_leaf() {
            // The key was there before: what stood below it is void.
            node.each_slot(&mut |slot| out[slot] = Field::Missing);
        }
        let escaped = match first {
            Some(b'{') if depth < DEPTH_MAX && node.has_keys() => {
                self.object(node, out, depth + 1)?;
                false
            }
            Some(b'[') if depth < DEPTH_MAX && node.has_indices() => {
                self.array(node, out, depth + 1)?;
                false
            }
            _ => self.skip(depth)?,
        };
        if let Some(slot) = node.slot() {
            out[slot] = Field::Json(Raw { text: self.since(start), escaped });
        }
        Ok(())
    }

    fn object(&mut self, node: &PathNode, out: &mut [Field<'a>], depth: u32) -> Checked<()> {
        self.at += 1;
        let mut first = true;
        while self.another(&mut first, b'}')? {
            let key = self.key()?;
            let below = if key.escaped {
                // A key that is no text is none of a path.
                key.string(self.scratch).ok().and_then(|key| node.key(key))
            } else {
                node.key(&key.text[1..key.text.len() - 1])
            };
            self.value(below, out, depth)?;
        }
        Ok(())
    }

    fn array(&mut self, node: &PathNode, out: &mut [Field<'a>], depth: u32) -> Checked<()> {
        self.at += 1;
        let (mut first, mut index) = (true, 0);
        while self.another(&mut first, b']')? {
            self.value(node.index(index), out, depth)?;
            index += 1;
        }
        Ok(())
    }

    /// Nothing but white space is left.
    fn end(&mut self) -> Checked<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err("something stands behind the value"),
        }
    }
}

/// How many bytes from the front are neither a quote, a backslash nor a control character.
#[inline]
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of the first byte that is so is right; those above it may not be.
        let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let found = zero(word ^ (ONES * 0x22)) | zero(word ^ (ONES * 0x5c)) | control;
        if found != 0 {
            return index * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    bytes.len() - rest.len() + rest.iter().take_while(|byte| is_plain(byte)).count()
}

/// Whether a text is a number of JSON and nothing else.
pub fn is_number(text: &str, scratch: &Scratch) -> bool {
    let mut pass = Pass::new(text, scratch);
    pass.number().is_ok() && pass.at == text.len()
}

impl<'a> Raw<'a> {
    /// A text of JSON that has no escapes.
    pub fn plain(text: &'a str) -> Self {
        Self { text, escaped: false }
    }

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
