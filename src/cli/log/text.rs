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

/// Milliseconds since 1970, as such or as RFC 3339.
///
/// # Errors
/// What is expected instead.
pub fn read_moment(text: &str) -> Result<i64, String> {
    let ms = text.parse().ok().or_else(|| rfc3339(text));
    ms.ok_or_else(|| {
        "expected milliseconds since 1970 or RFC 3339, as 2026-01-31T18:00:00Z".to_owned()
    })
}

/// RFC 3339, section 5.6; what is finer than a millisecond is cut off.
fn rfc3339(text: &str) -> Option<i64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = time.split_at(zone_at);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let numbers = |text: &str, separator, widths: [usize; 3]| -> Option<[i64; 3]> {
        let mut parts = text.split(separator);
        let mut next = |width| {
            let part: &str = parts.next()?;
            (part.len() == width).then(|| digits(part)).flatten()
        };
        let found = [next(widths[0])?, next(widths[1])?, next(widths[2])?];
        parts.next().is_none().then_some(found)
    };
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let [hours, minutes, seconds] = numbers(time, ':', [2, 2, 2])?;
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes, _] = numbers(&format!("{}:00", &zone[1..]), ':', [2, 2, 2])?;
            let ahead = hours * 60 + minutes;
            if zone.starts_with('+') { ahead } else { -ahead }
        }
    };
    let days = day_number(year, month, day)?;
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    digits(fraction).filter(|_| !fraction.is_empty())?;
    let ms = digits(&format!("{fraction:0<3}")[..3])?;
    let in_day = (hours * 60 + minutes - offset_minutes) * 60 + seconds;
    Some((days * 86_400 + in_day) * 1000 + ms)
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The day's number since 1970-01-01, if there is such a day.
fn day_number(year: i64, month: i64, day: i64) -> Option<i64> {
    // Near it, and then the one whose date it is: `date` knows about months and leap years.
    let near = (year - 1970) * 1461 / 4 + (month - 1) * 30;
    (near - 100..near + 100).find(|days| date(*days) == (year, month, day))
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

    #[test]
    fn moments_are_read() {
        for day in (-719_000..2_900_000).step_by(997) {
            let ms = day * 86_400_000 + 12_345_678;
            assert_eq!(read_moment(&moment(ms)), Ok(ms));
        }
        let check = |text: &str, ms: i64| assert_eq!(read_moment(text), Ok(ms), "{text}");
        check("1700000000123", 1_700_000_000_123);
        check("-5", -5);
        check("2023-11-14T22:13:20Z", 1_700_000_000_000);
        check("2023-11-14 23:43:20.1234+01:30", 1_700_000_000_123);
        check("2023-11-14T21:13:20-01:00", 1_700_000_000_000);
        for wrong in [
            "",
            "now",
            "2023-11-14",
            "2023-11-14T22:13Z",
            "2023-02-29T00:00:00Z",
            "2023-11-14T24:13:20Z",
            "2023-11-14T22:13:20",
            "2023-11-14T22:13:20.Z",
            "2023-11-14T22:13:20+1:00",
            "2023-13-01T00:00:00Z",
        ] {
            assert!(read_moment(wrong).is_err(), "{wrong}");
        }
    }
}
