//! How one value is read and printed: sizes, durations, addresses, numbers, names.
//!
//! In: text of a flag or a variable, or a TOML value. Out: the typed value, or a sentence that says
//! what was expected. The type decides the notation: `u64` and `usize` are amounts of bytes, `u16`
//! and `u32` are counts, `Duration` is a time. Invariant: what `show` prints, `read` reads back to
//! the same value.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::section::Given;
use crate::record::{CleanupPolicy, Compression, Durability, PartitionBy, StreamName};

/// A type that a key may have.
pub trait Setting: Sized {
    /// What a value looks like, to complete "… is not".
    const WANT: &'static str;
    /// What stands for the value in the help of a flag.
    const VALUE: &'static str = "VALUE";

    /// Reads the text of a flag, a variable or a TOML string.
    fn parse(text: &str) -> Result<Self, String>;

    /// Reads a TOML value; unless the type says otherwise, only a string will do.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::parse(text),
            other => Err(refused::<Self>(&describe(other))),
        }
    }

    /// The value as TOML; `None` where it is not set.
    fn show(&self) -> Option<String>;
}

/// Reads a value, however it was given.
pub fn read<T: Setting>(given: Given<'_>) -> Result<T, String> {
    match given {
        Given::Text(text) => T::parse(text),
        Given::Toml(value) => T::from_toml(value),
    }
}

/// A TOML string.
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// The sentence for a value of the wrong shape; `found` as it was written.
pub fn refused<T: Setting>(found: &str) -> String {
    format!("{found} is not {}", T::WANT)
}

/// A TOML value as a person would recognise it.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => quoted(text),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Datetime(value) => value.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The value of a TOML integer in any radix, where it is not negative.
fn whole(value: &DeValue<'_>) -> Option<u64> {
    match value {
        DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `65536`, `64KiB` or `10 GB`; capitals do not matter.
fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text[digits.len()..].trim();
    let number: u64 = digits.trim().replace('_', "").parse().ok()?;
    if unit.is_empty() {
        return Some(number);
    }
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    number.checked_mul(*factor)
}

/// A size in the unit that leaves the smallest whole number, `"64MiB"`; or the number of bytes.
pub fn show_size(bytes: u64) -> String {
    let whole = SIZE_UNITS.iter().filter(|(_, factor)| bytes.is_multiple_of(*factor));
    match whole.max_by_key(|(_, factor)| *factor) {
        Some((unit, factor)) if bytes != 0 && *factor > 1 => {
            format!("\"{}{unit}\"", bytes / factor)
        }
        _ => bytes.to_string(),
    }
}

const DURATION_UNITS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads `7d`, `10s` or `50us`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let (_, nanos) = DURATION_UNITS.iter().find(|(name, _)| *name == &text[digits.len()..])?;
    let number: u64 = digits.trim().replace('_', "").parse().ok()?;
    number.checked_mul(*nanos).map(Duration::from_nanos)
}

/// A duration in the largest unit that divides it, without quotes: `7d`.
pub fn show_duration(duration: Duration) -> String {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if nanos == 0 {
        return "0s".to_owned();
    }
    DURATION_UNITS
        .iter()
        .find(|(_, unit)| nanos.is_multiple_of(*unit))
        .map_or_else(|| format!("{nanos}ns"), |(name, unit)| format!("{}{name}", nanos / unit))
}

impl Setting for u64 {
    const WANT: &'static str = "a size, such as 65536, \"64MiB\" or \"10GB\"";
    const VALUE: &'static str = "SIZE";

    fn parse(text: &str) -> Result<Self, String> {
        parse_size(text).ok_or_else(|| refused::<Self>(&quoted(text)))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::parse(text),
            other => whole(other).ok_or_else(|| refused::<Self>(&describe(other))),
        }
    }

    fn show(&self) -> Option<String> {
        Some(show_size(*self))
    }
}

impl Setting for usize {
    const WANT: &'static str = <u64 as Setting>::WANT;
    const VALUE: &'static str = "SIZE";

    fn parse(text: &str) -> Result<Self, String> {
        <u64 as Setting>::parse(text)?.try_into().map_err(|_| refused::<Self>(&quoted(text)))
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        <u64 as Setting>::from_toml(value)?
            .try_into()
            .map_err(|_| refused::<Self>(&describe(value)))
    }

    fn show(&self) -> Option<String> {
        Some(show_size(*self as u64))
    }
}

/// Counts: a whole number, in TOML without quotes.
macro_rules! count {
    ($type:ty, $want:literal) => {
        impl Setting for $type {
            const WANT: &'static str = $want;
            const VALUE: &'static str = "N";

            fn parse(text: &str) -> Result<Self, String> {
                text.trim().replace('_', "").parse().map_err(|_| refused::<Self>(&quoted(text)))
            }

            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                whole(value)
                    .and_then(|number| number.try_into().ok())
                    .ok_or_else(|| refused::<Self>(&describe(value)))
            }

            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    };
}

count!(u16, "a whole number from 0 to 65535");
count!(u32, "a whole number from 0 to 4294967295");

impl Setting for f64 {
    const WANT: &'static str = "a number, such as 0.5";
    const VALUE: &'static str = "SHARE";

    fn parse(text: &str) -> Result<Self, String> {
        match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(refused::<Self>(&quoted(text))),
        }
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        let number = match value {
            DeValue::Float(number) => number.as_str().replace('_', "").parse().ok(),
            other => whole(other).map(|number| number as f64),
        };
        number
            .filter(|number: &f64| number.is_finite())
            .ok_or_else(|| refused::<Self>(&describe(value)))
    }

    fn show(&self) -> Option<String> {
        Some(format!("{self:?}"))
    }
}

impl Setting for Duration {
    const WANT: &'static str =
        "a whole number with a unit (d, h, m, s, ms, us), such as \"7d\" or \"10s\"";
    const VALUE: &'static str = "TIME";

    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text).ok_or_else(|| refused::<Self>(&quoted(text)))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&show_duration(*self)))
    }
}

impl Setting for SocketAddr {
    const WANT: &'static str =
        "an IP address with a port, such as \"127.0.0.1:1883\" or \"[::]:1883\"";
    const VALUE: &'static str = "ADDR:PORT";

    fn parse(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| refused::<Self>(&quoted(text)))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }
}

impl Setting for String {
    const WANT: &'static str = "a text";
    const VALUE: &'static str = "NAME";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self))
    }
}

impl Setting for PathBuf {
    const WANT: &'static str = "a path";
    const VALUE: &'static str = "PATH";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string_lossy()))
    }
}

impl Setting for StreamName {
    const WANT: &'static str = "a stream name";

    fn parse(text: &str) -> Result<Self, String> {
        Self::try_from(text.to_owned()).map_err(|error| error.to_string())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.as_str()))
    }
}

impl Setting for Durability {
    const WANT: &'static str = "\"fsync\", \"write\" or \"memory\"";

    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, [Self::Fsync, Self::Write, Self::Memory], Self::name)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.name()))
    }
}

impl Setting for Compression {
    const WANT: &'static str = "\"none\" or \"lz4\"";

    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, [Self::None, Self::Lz4], Self::name)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.name()))
    }
}

impl Setting for CleanupPolicy {
    const WANT: &'static str = "\"delete\" or \"compact\"";

    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, [Self::Delete, Self::Compact], Self::name)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.name()))
    }
}

impl Setting for PartitionBy {
    const WANT: &'static str = "\"client\", \"topic\" or \"none\"";

    fn parse(text: &str) -> Result<Self, String> {
        one_of(text, [Self::Client, Self::Topic, Self::None], Self::name)
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.name()))
    }
}

/// The one of `all` that has this name.
pub(super) fn one_of<T: Setting + Copy, const N: usize>(
    text: &str,
    all: [T; N],
    name: fn(T) -> &'static str,
) -> Result<T, String> {
    all.into_iter().find(|one| name(*one) == text).ok_or_else(|| refused::<T>(&quoted(text)))
}

impl<T: Setting> Setting for Option<T> {
    const WANT: &'static str = T::WANT;
    const VALUE: &'static str = T::VALUE;

    fn parse(text: &str) -> Result<Self, String> {
        T::parse(text).map(Some)
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        T::from_toml(value).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(Setting::show)
    }
}

/// Lists are arrays in TOML and separated by commas in text.
impl<T: Setting> Setting for Vec<T> {
    const WANT: &'static str = "an array";

    fn parse(text: &str) -> Result<Self, String> {
        if matches!(text.trim(), "" | "[]") {
            return Ok(Self::new());
        }
        text.split(',').map(|item| T::parse(item.trim())).collect()
    }

    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Array(items) => {
                items.iter().map(|item| T::from_toml(item.get_ref())).collect()
            }
            other => Err(format!("{} is not an array; write [ … ]", describe(other))),
        }
    }

    fn show(&self) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(Setting::show).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` as TOML; what it shows must read back to the same value.
    fn value<T: Setting + PartialEq + std::fmt::Debug>(text: &str) -> Result<T, String> {
        let toml = DeValue::parse(text).unwrap();
        let value: T = read(Given::Toml(toml.get_ref()))?;
        let shown = value.show().unwrap();
        assert_eq!(T::from_toml(DeValue::parse(&shown).unwrap().get_ref()).as_ref(), Ok(&value));
        Ok(value)
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(value::<u64>(text).ok(), expected, "{text}");
            assert_eq!(value::<usize>(text).ok(), expected.map(|size| size as usize), "{text}");
        };
        check("65536", Some(65_536));
        check("0x10", Some(16));
        check("0", Some(0));
        check("\"64MiB\"", Some(64 << 20));
        check("\"64 mib\"", Some(64 << 20));
        check("\"10GB\"", Some(10_000_000_000));
        check("\"1_000\"", Some(1000));
        check("\"7B\"", Some(7));
        check("-1", None);
        check("1.5", None);
        check("\"1.5GiB\"", None);
        check("\"64 Mib/s\"", None);
        check("\"MiB\"", None);
        check("\"\"", None);
        check("\"99999999999TiB\"", None);
        check("true", None);
        assert_eq!(show_size(64 << 20), "\"64MiB\"");
        assert_eq!(show_size(10_000_000_000), "\"10GB\"");
        assert_eq!(show_size(1025), "1025");
    }

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<Duration>| {
            assert_eq!(value::<Duration>(text).ok(), expected, "{text}");
        };
        check("\"7d\"", Some(Duration::from_secs(7 * 86_400)));
        check("\"90 m\"", Some(Duration::from_secs(5_400)));
        check("\"50us\"", Some(Duration::from_micros(50)));
        check("\"1500ms\"", Some(Duration::from_millis(1500)));
        check("\"0s\"", Some(Duration::ZERO));
        check("10", None);
        check("\"10\"", None);
        check("\"s\"", None);
        check("\"-1s\"", None);
        check("\"10w\"", None);
        check("\"999999999999d\"", None);
    }

    #[test]
    fn messages() {
        fn check<T: Setting + PartialEq + std::fmt::Debug>(text: &str, expected: &str) {
            assert_eq!(value::<T>(text).unwrap_err(), expected, "{text}");
        }
        check::<u16>("70000", "70000 is not a whole number from 0 to 65535");
        check::<u32>("\"5\"", "\"5\" is not a whole number from 0 to 4294967295");
        check::<u64>("[1]", "an array is not a size, such as 65536, \"64MiB\" or \"10GB\"");
        check::<f64>("inf", "inf is not a number, such as 0.5");
        check::<SocketAddr>(
            "\"localhost\"",
            "\"localhost\" is not an IP address with a port, such as \"127.0.0.1:1883\" or \
             \"[::]:1883\"",
        );
        check::<Durability>("\"sync\"", "\"sync\" is not \"fsync\", \"write\" or \"memory\"");
        check::<Compression>("\"gzip\"", "\"gzip\" is not \"none\" or \"lz4\"");
        check::<PartitionBy>("\"key\"", "\"key\" is not \"client\", \"topic\" or \"none\"");
        check::<CleanupPolicy>("\"keep\"", "\"keep\" is not \"delete\" or \"compact\"");
        check::<Vec<String>>("\"a\"", "\"a\" is not an array; write [ … ]");
        check::<PathBuf>("1979-05-27", "1979-05-27 is not a path");
    }

    #[test]
    fn texts_of_flags() {
        fn check<T: Setting + PartialEq + std::fmt::Debug>(text: &str, expected: T) {
            assert_eq!(read::<T>(Given::Text(text)), Ok(expected), "{text}");
        }
        check("1_000", 1000_u32);
        check("0.25", 0.25_f64);
        check("lz4", Compression::Lz4);
        for by in [PartitionBy::Client, PartitionBy::Topic, PartitionBy::None] {
            check(by.name(), by);
        }
        check("[::1]:0", SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, 0)));
        check("a, b", vec!["a".to_owned(), "b".to_owned()]);
    }
}
