//! Bytes and moments as a person reads them, and bytes as JSON. No I/O, no clock.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// Bytes in quotes: UTF-8 as it is, but for quotes, backslashes and control characters, which are
/// escaped as in Rust; other bytes as `\xNN`. Nothing stands for two different things.
pub fn quoted(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || matches!(c, '"' | '\\') {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    out.push('"');
    out
}

/// Bytes as JSON: a string where they are UTF-8, else `{"hex": "…"}`.
pub fn json_of(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => Value::from(text),
        Err(_) => {
            let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            json!({ "hex": hex })
        }
    }
}

/// Milliseconds since 1970 as RFC 3339 in UTC.
pub fn moment(ms: i64) -> String {
    let (days, in_day) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000));
    let (year, month, day) = date(days);
    let (hours, minutes) = (in_day / 3_600_000, in_day / 60_000 % 60);
    let (seconds, ms) = (in_day / 1000 % 60, in_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z")
}

/// Year, month and day of the day that is `days` after 1970-01-01 (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", civil_from_days): years begin in March, so that leap days are last.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_told_apart() {
        let check = |bytes: &[u8], text: &str, json: &str| {
            assert_eq!(quoted(bytes), text);
            assert_eq!(json_of(bytes).to_string(), json);
        };
        check(b"21.5", "\"21.5\"", "\"21.5\"");
        check("grün".as_bytes(), "\"grün\"", "\"grün\"");
        check(b"a\n\"\\", r#""a\n\"\\""#, r#""a\n\"\\""#);
        check(b"a\xff\x00", r#""a\xff\u{0}""#, r#"{"hex":"61ff00"}"#);
        check(br"\xff", r#""\\xff""#, r#""\\xff""#);
    }

    #[test]
    fn moments() {
        let check = |ms: i64, text: &str| assert_eq!(moment(ms), text);
        check(0, "1970-01-01T00:00:00.000Z");
        check(-1, "1969-12-31T23:59:59.999Z");
        check(1_700_000_000_123, "2023-11-14T22:13:20.123Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
    }
}
