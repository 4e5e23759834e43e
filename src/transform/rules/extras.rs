//! What a record of a rule has beside its value: key, timestamp, headers, as one run of bytes, so
//! that they cross to another shard as one piece with the value.
//!
//! The layout, little-endian, known to this process only: a byte of flags; with `KEY` a length of
//! two bytes and the key; with `TIME` eight bytes; then headers to the end, each a length and a
//! name, a length and a value, of two bytes each. No bytes at all: an ordinary message.

use super::value::EvalError;

/// Bytes of extras at the most: a slot of a ring counts them in 16 bits.
pub const BYTES_MAX: usize = u16::MAX as usize;

/// The record has a key of its own.
const KEY: u8 = 1;
/// The record has no key.
const NO_KEY: u8 = 2;
const TIME: u8 = 4;

/// Key, timestamp and headers of a record; what is empty says nothing of them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extras<'a> {
    bytes: &'a [u8],
}

/// What a rule says of a record's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// Nothing: the stream's own way.
    Unsaid,
    None,
    Is(&'a [u8]),
}

impl<'a> Extras<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn flags(&self) -> u8 {
        self.bytes.first().copied().unwrap_or(0)
    }

    pub fn key(&self) -> Key<'a> {
        match self.flags() {
            flags if flags & KEY != 0 => Key::Is(run(self.bytes, 1).map_or(&[], |(key, _)| key)),
            flags if flags & NO_KEY != 0 => Key::None,
            _ => Key::Unsaid,
        }
    }

    fn after_key(&self) -> usize {
        match self.key() {
            Key::Is(key) => 3 + key.len(),
            Key::None | Key::Unsaid => 1,
        }
    }

    pub fn timestamp_ms(&self) -> Option<i64> {
        if self.flags() & TIME == 0 {
            return None;
        }
        let at = self.after_key();
        self.bytes.get(at..at + 8)?.try_into().map(i64::from_le_bytes).ok()
    }

    /// Names and values.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let time = if self.flags() & TIME != 0 { 8 } else { 0 };
        let (bytes, mut at) = (self.bytes, self.after_key() + time);
        std::iter::from_fn(move || {
            let (name, after_name) = run(bytes, at)?;
            let (value, after) = run(bytes, after_name)?;
            at = after;
            Some((name, value))
        })
    }
}

/// The run whose length stands at `at`, and where it ends.
fn run(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let length = bytes.get(at..at + 2)?.try_into().map(u16::from_le_bytes).ok()?;
    let end = at + 2 + usize::from(length);
    Some((bytes.get(at + 2..end)?, end))
}

/// Writes extras at the end of a buffer.
pub struct Writer<'b> {
    bytes: &'b mut Vec<u8>,
    from: usize,
}

const TOO_LARGE: EvalError =
    EvalError::Argument { of: "key and headers", why: "they are larger than 65,535 bytes" };

impl<'b> Writer<'b> {
    /// Begins; `key` writes the key's bytes, where there is one.
    pub fn new(
        bytes: &'b mut Vec<u8>,
        key: Key<'_>,
        timestamp_ms: Option<i64>,
    ) -> Result<Self, EvalError> {
        let from = bytes.len();
        let of_key = match key {
            Key::Unsaid => 0,
            Key::None => NO_KEY,
            Key::Is(_) => KEY,
        };
        bytes.push(of_key | if timestamp_ms.is_some() { TIME } else { 0 });
        let mut writer = Self { bytes, from };
        if let Key::Is(key) = key {
            writer.run(|bytes| bytes.extend_from_slice(key))?;
        }
        if let Some(ms) = timestamp_ms {
            writer.bytes.extend_from_slice(&ms.to_le_bytes());
        }
        Ok(writer)
    }

    /// Adds a header; `value` writes its bytes.
    pub fn header(
        &mut self,
        name: &str,
        value: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), EvalError> {
        self.run(|bytes| bytes.extend_from_slice(name.as_bytes()))?;
        self.run(value)
    }

    /// Where they stand.
    pub fn end(self) -> Result<std::ops::Range<usize>, EvalError> {
        let range = self.from..self.bytes.len();
        if range.len() > BYTES_MAX { Err(TOO_LARGE) } else { Ok(range) }
    }

    fn run(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), EvalError> {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        write(self.bytes);
        let length = u16::try_from(self.bytes.len() - at - 2).map_err(|_| TOO_LARGE)?;
        self.bytes[at..at + 2].copy_from_slice(&length.to_le_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let check = |key: Key<'_>, ms: Option<i64>, headers: &[(&str, &str)]| {
            let mut bytes = b"before".to_vec();
            let mut writer = Writer::new(&mut bytes, key, ms).unwrap();
            for (name, value) in headers {
                writer.header(name, |bytes| bytes.extend_from_slice(value.as_bytes())).unwrap();
            }
            let range = writer.end().unwrap();
            let extras = Extras::new(&bytes[range]);
            assert_eq!((extras.key(), extras.timestamp_ms()), (key, ms));
            let found: Vec<_> = extras.headers().collect();
            let wanted: Vec<_> =
                headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            assert_eq!(found, wanted);
        };
        check(Key::Unsaid, None, &[]);
        check(Key::None, None, &[("a", "1")]);
        check(Key::Is(b""), Some(-1), &[]);
        check(Key::Is(b"k"), Some(i64::MAX), &[("a", ""), ("", "b"), ("rule", "x")]);
        let empty = Extras::default();
        assert_eq!(
            (empty.key(), empty.timestamp_ms(), empty.headers().count()),
            (Key::Unsaid, None, 0)
        );
        let long = vec![b'x'; 70_000];
        assert!(Writer::new(&mut Vec::new(), Key::Is(&long), None).is_err());
    }
}
