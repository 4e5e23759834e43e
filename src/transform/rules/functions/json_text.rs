//! JSON text, read in place and written.
//!
//! Comes in: text that may be JSON. Goes out: its members and elements as slices of it, values that
//! borrow from it, and text in JSON's spelling. RFC 8259 to the letter (no NaN, no comments, paired
//! surrogates), at most `DEPTH_MAX` levels deep; what is not JSON gives `None`.

use std::fmt::{self, Write};

use super::super::value::{Scratch, Value};
use super::cast;
use super::given::Number;

/// Nesting that is followed.
pub const DEPTH_MAX: usize = 128;

/// A place in text.
#[derive(Clone, Copy, Debug)]
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// The elements of an array or the members of an object, one after the other. Ends with an item of
/// `Err` where the text stops being JSON.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    reader: Reader<'a>,
    /// `]` or `}`.
    end: u8,
    begun: bool,
    done: bool,
}

/// An element, or a member with its key as it is spelled, quotes included.
#[derive(Clone, Copy, Debug)]
pub struct Item<'a> {
    pub key: &'a str,
    pub value: &'a str,
}

/// The text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotJson;

/// Without the white space around, as JSON counts it.
pub fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r'])
}

/// Whether all of it is one JSON value.
pub fn is_valid(text: &str) -> bool {
    let mut reader = Reader { text: trimmed(text), at: 0 };
    reader.skip_value(0).is_some() && reader.at == reader.text.len()
}

/// The elements of an array; `None` when the text is something else.
pub fn elements(text: &str) -> Option<Items<'_>> {
    Items::open(text, b'[', b']')
}

/// The members of an object; `None` when the text is something else.
pub fn members(text: &str) -> Option<Items<'_>> {
    Items::open(text, b'{', b'}')
}

/// The value that a JSON text is: objects and arrays stay text.
pub fn value<'a>(text: &'a str, scratch: &'a Scratch) -> Option<Value<'a>> {
    let text = trimmed(text);
    Some(match text.as_bytes().first()? {
        b'n' if text == "null" => Value::Null,
        b't' if text == "true" => Value::Bool(true),
        b'f' if text == "false" => Value::Bool(false),
        b'"' => Value::Text(string(text, scratch)?),
        b'{' | b'[' => Value::Json(text),
        _ => match cast::number_in(text)? {
            Number::Int(int) => Value::Int(int),
            Number::Float(float) => Value::Float(float),
        },
    })
}

/// What a JSON string says. Without escapes it is a slice of the text.
pub fn string<'a>(quoted: &'a str, scratch: &'a Scratch) -> Option<&'a str> {
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let Some(first) = memchr::memchr(b'\\', inner.as_bytes()) else { return Some(inner) };
    let mut plain = bumpalo::collections::String::with_capacity_in(inner.len(), scratch);
    plain.push_str(&inner[..first]);
    let mut rest = &inner[first..];
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        plain.push_str(&rest[..at]);
        let (c, used) = escaped(&rest[at..])?;
        plain.push(c);
        rest = &rest[at + used..];
    }
    plain.push_str(rest);
    Some(plain.into_bump_str())
}

/// The character of an escape at the front of the text, and how many bytes spell it.
fn escaped(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 4)?;
        digits.bytes().all(|b| b.is_ascii_hexdigit()).then_some(())?;
        u32::from_str_radix(digits, 16).ok()
    };
    let c = match text.as_bytes().get(1)? {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let first = unit(2)?;
            if !(0xd800..0xdc00).contains(&first) {
                return Some((char::from_u32(first)?, 6));
            }
            let second = unit(8).filter(|_| text.get(6..8) == Some("\\u"))?;
            let low = second.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
            return Some((char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + low)?, 12));
        }
        _ => return None,
    };
    Some((c, 2))
}

/// Writes text as a JSON string.
pub fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.write_str(&text[from..at])?;
        from = at + 1;
        match byte {
            b'"' => out.write_str("\\\"")?,
            b'\\' => out.write_str("\\\\")?,
            b'\n' => out.write_str("\\n")?,
            b'\r' => out.write_str("\\r")?,
            b'\t' => out.write_str("\\t")?,
            0x8 => out.write_str("\\b")?,
            0xc => out.write_str("\\f")?,
            _ => write!(out, "\\u{byte:04x}")?,
        }
    }
    out.write_str(&text[from..])?;
    out.write_char('"')
}

/// Writes a value as JSON; bytes become base64 text.
pub fn write_value(out: &mut impl Write, value: Value<'_>) -> fmt::Result {
    match value {
        Value::Null => out.write_str("null"),
        Value::Bool(flag) => out.write_str(if flag { "true" } else { "false" }),
        Value::Int(int) => write!(out, "{int}"),
        Value::Float(float) => cast::write_float(out, float),
        Value::Text(text) => write_string(out, text),
        Value::Json(text) => out.write_str(text),
        Value::Bytes(bytes) => {
            out.write_char('"')?;
            super::encoding::write_base64(out, bytes)?;
            out.write_char('"')
        }
    }
}

impl<'a> Items<'a> {
    fn open(text: &'a str, begin: u8, end: u8) -> Option<Self> {
        let mut reader = Reader { text: trimmed(text), at: 0 };
        reader.take(begin)?;
        Some(Self { reader, end, begun: false, done: false })
    }

    fn step(&mut self) -> Option<Option<Item<'a>>> {
        let reader = &mut self.reader;
        reader.skip_space();
        if reader.peek() == Some(self.end) {
            reader.at += 1;
            self.done = true;
            return (reader.at == reader.text.len()).then_some(None);
        }
        if std::mem::replace(&mut self.begun, true) {
            reader.take(b',')?;
            reader.skip_space();
        }
        let mut key = "";
        if self.end == b'}' {
            let from = reader.at;
            reader.skip_string()?;
            key = &reader.text[from..reader.at];
            reader.skip_space();
            reader.take(b':')?;
            reader.skip_space();
        }
        let from = reader.at;
        reader.skip_value(1)?;
        Some(Some(Item { key, value: &reader.text[from..reader.at] }))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, NotJson>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done |= step.is_none();
        step.ok_or(NotJson).transpose()
    }
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn take_any(&mut self, bytes: &[u8]) -> Option<()> {
        bytes.contains(&self.peek()?).then(|| self.at += 1)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn skip_value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'{' if depth < DEPTH_MAX => self.skip_items(b'}', depth),
            b'[' if depth < DEPTH_MAX => self.skip_items(b']', depth),
            b't' => self.skip_word("true"),
            b'f' => self.skip_word("false"),
            b'n' => self.skip_word("null"),
            _ => self.skip_number(),
        }
    }

    fn skip_items(&mut self, end: u8, depth: usize) -> Option<()> {
        self.at += 1;
        self.skip_space();
        if self.take(end).is_some() {
            return Some(());
        }
        loop {
            if end == b'}' {
                self.skip_string()?;
                self.skip_space();
                self.take(b':')?;
                self.skip_space();
            }
            self.skip_value(depth + 1)?;
            self.skip_space();
            if self.take(end).is_some() {
                return Some(());
            }
            self.take(b',')?;
            self.skip_space();
        }
    }

    fn skip_word(&mut self, word: &str) -> Option<()> {
        self.text[self.at..].starts_with(word).then(|| self.at += word.len())
    }

    fn skip_string(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.at += escaped(&self.text[self.at..])?.1,
                0..0x20 => return None,
                _ => self.at += 1,
            }
        }
    }

    fn skip_digits(&mut self) -> Option<()> {
        let from = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > from).then_some(())
    }

    fn skip_number(&mut self) -> Option<()> {
        let _ = self.take(b'-');
        if self.take(b'0').is_none() {
            self.skip_digits()?;
        }
        if self.take(b'.').is_some() {
            self.skip_digits()?;
        }
        if self.take_any(b"eE").is_some() {
            let _ = self.take_any(b"+-");
            self.skip_digits()?;
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What serde_json takes and we do not, or the other way round, apart from numbers beyond f64.
    fn agrees(text: &str) {
        let theirs = serde_json::from_str::<serde_json::Value>(text);
        if let Err(error) = &theirs
            && (error.to_string().contains("out of range")
                || error.to_string().contains("recursion"))
        {
            return;
        }
        assert_eq!(is_valid(text), theirs.is_ok(), "{text:?} {theirs:?}");
        let scratch = Scratch::new();
        if let Ok(serde_json::Value::String(theirs)) = &theirs {
            assert_eq!(string(trimmed(text), &scratch), Some(theirs.as_str()));
        }
        if let Ok(serde_json::Value::Array(theirs)) = &theirs {
            assert_eq!(elements(text).unwrap().filter(Result::is_ok).count(), theirs.len());
        }
    }

    #[test]
    fn texts_that_are_and_are_not_json() {
        for text in [
            "",
            " ",
            "1",
            " 1 ",
            "01",
            "-",
            "-0",
            "1.",
            ".5",
            "1e",
            "1e+5",
            "1E-5x",
            "true",
            "tru",
            "nul",
            "null",
            "\"a\"",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u00e9\"",
            "\"\\ud83d\\ude00\"",
            "\"\\ud83d\"",
            "\"\\ude00\"",
            "\"\\ud83dx\"",
            "\"\u{1}\"",
            "[]",
            "[",
            "[1",
            "[1,",
            "[1,]",
            "[,1]",
            "[1 2]",
            "[1]]",
            "{}",
            "{\"a\"}",
            "{\"a\":1}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":{\"b\":[1,2,{}]}}",
            "[1] x",
            "NaN",
            "\"é\"",
            "\"\\u+123\"",
        ] {
            agrees(text);
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_valid(&nested(DEPTH_MAX)));
        assert!(!is_valid(&nested(DEPTH_MAX + 1)));
        assert!(!is_valid(&"[".repeat(1_000_000)));
        let objects = |depth: usize| "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        assert!(is_valid(&objects(DEPTH_MAX)));
        assert!(!is_valid(&objects(DEPTH_MAX + 1)));
    }

    proptest! {
        #[test]
        fn strings_come_back(text in ".*") {
            let scratch = Scratch::new();
            let mut quoted = String::new();
            write_string(&mut quoted, &text).unwrap();
            prop_assert_eq!(string(&quoted, &scratch), Some(text.as_str()));
            let theirs: String = serde_json::from_str(&quoted).unwrap();
            prop_assert_eq!(theirs, text);
        }

        #[test]
        fn any_text(text in r#"[\[\]{}",:\\u0-9dDeE.+\-truefalsn ]{0,24}"#) {
            agrees(&text);
            let items = elements(&text).into_iter().chain(members(&text)).flatten();
            prop_assert!(items.count() <= text.len() + 1);
        }
    }
}
