//! One pass over a payload of binary items, CBOR or MessagePack: both are trees of the same kinds.
//!
//! Comes in: a reader of tokens, and the tree of paths. Goes out: the values of the paths; objects
//! and arrays that a rule wants whole become JSON text in the arena. Numbers that no integer of 64
//! bits holds are floats; NaN and infinities, which JSON cannot say, are NULL. Names of members are
//! text; integers serve as their digits. The whole payload is read, so that what is cut short or
//! followed by more is an error, even if the fields were there.

use std::fmt::Write;

use super::super::functions::json_text;
use super::super::paths::{PathNode, Paths};
use super::super::value::{EvalError, Scratch, Value};

type Text<'a> = bumpalo::collections::String<'a>;

/// Nesting that is followed.
pub const DEPTH_MAX: u32 = 128;

/// One item, or the beginning of one that has others inside.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    Value(Value<'a>),
    /// So many elements follow; without a number, all up to a `Break`.
    Array(Option<u64>),
    /// So many pairs follow, or all up to a `Break`.
    Map(Option<u64>),
    Break,
}

/// The items of a format, one after the other.
pub trait Tokens<'a>: Clone {
    const FORMAT: &'static str;

    fn next(&mut self, scratch: &'a Scratch) -> Result<Token<'a>, EvalError>;

    fn bytes(&self) -> &Bytes<'a>;
}

/// Bytes that are read from the front.
#[derive(Debug, Clone, Copy)]
pub struct Bytes<'a> {
    format: &'static str,
    all: &'a [u8],
    at: usize,
}

impl<'a> Bytes<'a> {
    pub fn new(format: &'static str, all: &'a [u8]) -> Self {
        Self { format, all, at: 0 }
    }

    pub fn error(&self, why: &'static str) -> EvalError {
        EvalError::Payload {
            format: self.format,
            why,
            at: u32::try_from(self.at).unwrap_or(u32::MAX),
        }
    }

    pub fn take(&mut self, count: u64) -> Result<&'a [u8], EvalError> {
        let rest = &self.all[self.at..];
        let count = usize::try_from(count).ok().filter(|count| *count <= rest.len());
        let count = count.ok_or(self.error("it ends too early"))?;
        self.at += count;
        Ok(&rest[..count])
    }

    pub fn byte(&mut self) -> Result<u8, EvalError> {
        Ok(self.take(1)?[0])
    }

    /// A big-endian unsigned integer of 1, 2, 4 or 8 bytes.
    pub fn uint(&mut self, bytes: u64) -> Result<u64, EvalError> {
        let digits = self.take(bytes)?;
        Ok(digits.iter().fold(0, |sum, digit| sum << 8 | u64::from(*digit)))
    }

    pub fn text(&mut self, count: u64) -> Result<&'a str, EvalError> {
        let at = self.at;
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map_err(|_| Self { at, ..*self }.error("a text is not UTF-8"))
    }

    pub fn is_end(&self) -> bool {
        self.at == self.all.len()
    }
}

/// An integer where it fits, else the nearest float.
pub fn unsigned(number: u64) -> Value<'static> {
    i64::try_from(number).map_or(Value::Float(number as f64), Value::Int)
}

/// A float, or NULL for what is no number.
pub fn float(number: f64) -> Value<'static> {
    if number.is_finite() { Value::Float(number) } else { Value::Null }
}

/// Finds `paths` in the tokens of one payload.
pub fn extract<'a, T: Tokens<'a>>(
    tokens: T,
    paths: &Paths,
    scratch: &'a Scratch,
    out: &mut [Value<'a>],
) -> Result<(), EvalError> {
    let mut walk = Walk { tokens, scratch };
    walk.value(Some(paths.root()), out, 0)?;
    match walk.tokens.bytes().is_end() {
        true => Ok(()),
        false => Err(walk.tokens.bytes().error("something stands behind the value")),
    }
}

struct Walk<'a, T> {
    tokens: T,
    scratch: &'a Scratch,
}

impl<'a, T: Tokens<'a>> Walk<'a, T> {
    fn next(&mut self) -> Result<Token<'a>, EvalError> {
        self.tokens.next(self.scratch)
    }

    fn error(&self, why: &'static str) -> EvalError {
        self.tokens.bytes().error(why)
    }

    /// Goes through a value, and puts what `node` and the paths below it want into `out`.
    fn value(
        &mut self,
        node: Option<&PathNode>,
        out: &mut [Value<'a>],
        depth: u32,
    ) -> Result<(), EvalError> {
        let start = self.tokens.clone();
        let token = self.next()?;
        self.rest(token, node, out, depth)?;
        let Some(slot) = node.and_then(PathNode::slot) else { return Ok(()) };
        out[slot] = match token {
            Token::Value(value) => value,
            _ => {
                let mut text = Text::new_in(self.scratch);
                Self { tokens: start, scratch: self.scratch }.json(&mut text)?;
                Value::Json(text.into_bump_str())
            }
        };
        Ok(())
    }

    /// What is inside a token that has been read.
    fn rest(
        &mut self,
        token: Token<'a>,
        node: Option<&PathNode>,
        out: &mut [Value<'a>],
        depth: u32,
    ) -> Result<(), EvalError> {
        if let Some(node) = node.filter(|node| !node.is_leaf()) {
            // The key was there before: what stood below it is void.
            node.each_slot(&mut |slot| out[slot] = Value::Null);
        }
        if depth == DEPTH_MAX && matches!(token, Token::Array(_) | Token::Map(_)) {
            return Err(self.error("it is nested too deep"));
        }
        match token {
            Token::Value(_) => {}
            Token::Break => return Err(self.error("an end has no beginning")),
            Token::Array(count) => {
                let node = node.filter(|node| node.has_indices());
                let mut index = 0_u32;
                while self.another(count, u64::from(index))? {
                    self.value(node.and_then(|node| node.index(index)), out, depth + 1)?;
                    index = index.saturating_add(1);
                }
            }
            Token::Map(count) => {
                let node = node.filter(|node| node.has_keys());
                let mut pairs = 0;
                while self.another(count, pairs)? {
                    let below = self.key(node, out, depth + 1)?;
                    self.value(below, out, depth + 1)?;
                    pairs += 1;
                }
            }
        }
        Ok(())
    }

    /// Whether a container goes on after `done` of `count`; the `Break` of one without a number is
    /// taken.
    fn another(&mut self, count: Option<u64>, done: u64) -> Result<bool, EvalError> {
        if let Some(count) = count {
            return Ok(done < count);
        }
        let ahead = self.tokens.clone();
        if self.next()? == Token::Break {
            return Ok(false);
        }
        self.tokens = ahead;
        Ok(true)
    }

    /// Takes a key and gives the node of its paths. What is neither text nor an integer is the key
    /// of none.
    fn key<'n>(
        &mut self,
        node: Option<&'n PathNode>,
        out: &mut [Value<'a>],
        depth: u32,
    ) -> Result<Option<&'n PathNode>, EvalError> {
        let token = self.next()?;
        Ok(match (token, node) {
            (_, None) => {
                self.rest(token, None, out, depth)?;
                None
            }
            (Token::Value(Value::Text(key)), Some(node)) => node.key(key),
            (Token::Value(Value::Int(key)), Some(node)) => {
                node.key(&bumpalo::format!(in self.scratch, "{}", key))
            }
            (token, Some(_)) => {
                self.rest(token, None, out, depth)?;
                None
            }
        })
    }

    /// Writes the next value as JSON. It has been gone through: it is whole and not too deep.
    fn json(&mut self, out: &mut Text<'a>) -> Result<(), EvalError> {
        match self.next()? {
            Token::Value(value) => {
                // Writing to the arena does not fail.
                let _ = json_text::write_value(out, value);
            }
            Token::Break => return Err(self.error("an end has no beginning")),
            Token::Array(count) => {
                out.push('[');
                let mut done = 0;
                while self.another(count, done)? {
                    out.push_str(if done > 0 { "," } else { "" });
                    self.json(out)?;
                    done += 1;
                }
                out.push(']');
            }
            Token::Map(count) => {
                out.push('{');
                let mut done = 0;
                while self.another(count, done)? {
                    out.push_str(if done > 0 { "," } else { "" });
                    self.json_key(out)?;
                    self.json(out)?;
                    done += 1;
                }
                out.push('}');
            }
        }
        Ok(())
    }

    fn json_key(&mut self, out: &mut Text<'a>) -> Result<(), EvalError> {
        let _ = match self.next()? {
            Token::Value(Value::Text(key)) => json_text::write_string(out, key),
            Token::Value(Value::Int(key)) => write!(out, "\"{key}\""),
            _ => return Err(self.error("a key is neither text nor an integer")),
        };
        out.push(':');
        Ok(())
    }
}
