//! Patterns of dates and times, compiled when the rule is planned: written and read.
//!
//! The letters are those that Joda-Time, the JDK's DateTimeFormatter and eKuiper have in common:
//! `G` era, `y` `Y` `u` year, `M` `L` month, `d` day, `D` day of the year, `E` day of the week, `e`
//! its number (Monday 1), `a` AM or PM, `H` 0–23, `k` 1–24, `h` 1–12, `K` 0–11, `m` minute, `s`
//! second, `S` fraction, `z` zone name, `VV` zone id, `Z` `ZZ` `ZZZ` offset or zone id, `X` `x`
//! offset. What stands in quotes is taken as it is, and so is what is no letter. Names are English.

use std::fmt::Write;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};

use super::given::Built;

/// A compiled pattern.
pub type Pattern = Box<[Item]>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    Literal(Box<str>),
    /// A letter, and how often it stands there.
    Field(char, usize),
}

/// Those that have a meaning.
pub const LETTERS: &str = "GyYuMLdDEeaHkhKmsSzVZXx";
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// The pattern that text spells, or what is wrong with it.
pub fn compile(text: &str) -> Result<Pattern, String> {
    let mut items = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = if first == '\'' {
            let (literal, end) = quoted(rest)?;
            items.push(Item::Literal(literal.into()));
            end
        } else if first.is_ascii_alphabetic() {
            if !LETTERS.contains(first) {
                return Err(format!("`{first}` has no meaning; the letters are {LETTERS}"));
            }
            let end = rest.find(|c| c != first).unwrap_or(rest.len());
            items.push(Item::Field(first, end));
            end
        } else {
            let letter = |c: char| c == '\'' || c.is_ascii_alphabetic();
            let end = rest.find(letter).unwrap_or(rest.len());
            items.push(Item::Literal(rest[..end].into()));
            end
        };
        rest = &rest[end..];
    }
    Ok(items.into())
}

/// What stands in the quotes at the front, two of which are one, and where they end.
fn quoted(text: &str) -> Result<(String, usize), String> {
    if text.starts_with("''") {
        return Ok(("'".into(), 2));
    }
    let (mut literal, mut at) = (String::new(), 1);
    loop {
        let length = text[at..].find('\'').ok_or("a quote does not end")?;
        literal.push_str(&text[at..at + length]);
        at += length + 1;
        if !text[at..].starts_with('\'') {
            return Ok((literal, at));
        }
        literal.push('\'');
        at += 1;
    }
}

pub fn day_name(date: Date) -> &'static str {
    DAYS[date.weekday().to_monday_zero_offset() as usize % 7]
}

pub fn month_name(date: Date) -> &'static str {
    MONTHS[(date.month() as usize + 11) % 12]
}

/// Writes a time as it is in a zone.
pub fn write(out: &mut Built<'_>, pattern: &[Item], time: Timestamp, zone: &TimeZone) {
    let there = zone.to_offset_info(time);
    let local = there.offset().to_datetime(time);
    for item in pattern {
        match item {
            Item::Literal(literal) => out.push(literal),
            Item::Field(letter, width) => match letter {
                'z' => out.push(there.abbreviation()),
                'V' => out.push(zone_id(zone)),
                'Z' if *width >= 3 => out.push(zone_id(zone)),
                'Z' | 'X' | 'x' => write_offset(out, *letter, *width, there.offset()),
                _ => write_field(out, *letter, *width, local),
            },
        }
    }
}

/// Writes a time by ISO 8601, to the millisecond.
pub fn write_iso(out: &mut Built<'_>, time: Timestamp, zone: &TimeZone) {
    let offset = zone.to_offset(time);
    let local = offset.to_datetime(time);
    for (letter, width, before) in
        [('y', 4, ""), ('M', 2, "-"), ('d', 2, "-"), ('H', 2, "T"), ('m', 2, ":"), ('s', 2, ":")]
    {
        out.push(before);
        write_field(out, letter, width, local);
    }
    out.push(".");
    write_fraction(out, 3, local);
    write_offset(out, 'X', 3, offset);
}

fn zone_id(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

fn write_field(out: &mut Built<'_>, letter: char, width: usize, local: DateTime) {
    let hour = i64::from(local.hour());
    let number = match letter {
        'y' | 'Y' | 'u' if width == 2 => i64::from(local.year()).rem_euclid(100),
        'y' | 'Y' | 'u' => local.year().into(),
        'M' | 'L' if width < 3 => local.month().into(),
        'd' => local.day().into(),
        'D' => local.day_of_year().into(),
        'e' => local.weekday().to_monday_one_offset().into(),
        'H' => hour,
        'k' => (hour + 23) % 24 + 1,
        'h' => (hour + 11) % 12 + 1,
        'K' => hour % 12,
        'm' => local.minute().into(),
        's' => local.second().into(),
        'S' => return write_fraction(out, width, local),
        'G' => return out.push(if local.year() > 0 { "AD" } else { "BC" }),
        'a' => return out.push(if hour < 12 { "AM" } else { "PM" }),
        'M' | 'L' => return out.push(name(month_name(local.date()), width)),
        _ => return out.push(name(day_name(local.date()), width)),
    };
    // Built takes whatever is written.
    let _ = write!(out, "{number:0width$}");
}

/// Three letters, or with four or more in the pattern the whole name.
fn name(name: &'static str, width: usize) -> &'static str {
    if width < 4 { &name[..3] } else { name }
}

fn write_fraction(out: &mut Built<'_>, width: usize, local: DateTime) {
    let nanos = local.subsec_nanosecond();
    let mut digits = [b'0'; 9];
    let mut rest = nanos;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let shown = std::str::from_utf8(&digits).unwrap_or_default();
    out.push(&shown[..width.min(9)]);
    (9..width).for_each(|_| out.push("0"));
}

fn write_offset(out: &mut Built<'_>, letter: char, width: usize, offset: Offset) {
    let seconds = offset.seconds();
    if letter == 'X' && seconds == 0 {
        return out.push("Z");
    }
    let sign = if seconds < 0 { '-' } else { '+' };
    let (hours, minutes) = (seconds.abs() / 3600, seconds.abs() / 60 % 60);
    let _ = match (letter, width) {
        ('X' | 'x', 1) if minutes == 0 => write!(out, "{sign}{hours:02}"),
        ('Z', 1) | ('X' | 'x', 1 | 2) => write!(out, "{sign}{hours:02}{minutes:02}"),
        _ => write!(out, "{sign}{hours:02}:{minutes:02}"),
    };
}

/// What was read of a time so far. What a pattern does not have is the beginning.
#[derive(Debug, Default)]
struct Fields {
    year: i64,
    month: Option<i64>,
    day: Option<i64>,
    day_of_year: Option<i64>,
    hour: i64,
    afternoon: Option<bool>,
    minute: i64,
    second: i64,
    nanos: i32,
    zone: Option<TimeZone>,
}

/// Reads a time; without a zone in the text it is one of `zone`.
pub fn read(text: &str, pattern: &[Item], zone: &TimeZone) -> Option<Timestamp> {
    let mut fields = Fields::default();
    let mut rest = text;
    for (at, item) in pattern.iter().enumerate() {
        match item {
            Item::Literal(literal) => rest = rest.strip_prefix(&**literal)?,
            Item::Field(letter, width) => {
                let adjacent = pattern.get(at + 1).is_some_and(is_digits);
                rest = fields.read(rest, *letter, *width, adjacent)?;
            }
        }
    }
    if rest.is_empty() { fields.time(zone) } else { None }
}

/// Whether an item is read as digits, so that the one before must know its own.
fn is_digits(item: &Item) -> bool {
    match item {
        Item::Field('M' | 'L', width) => *width < 3,
        Item::Field(letter, _) => "yYudDeHkhKmsS".contains(*letter),
        Item::Literal(_) => false,
    }
}

impl Fields {
    /// Reads one field at the front of the text and gives what follows.
    fn read<'t>(
        &mut self,
        text: &'t str,
        letter: char,
        width: usize,
        adjacent: bool,
    ) -> Option<&'t str> {
        match letter {
            'G' => return strip_word(text, "AD"),
            'a' => return self.read_half(text),
            'M' | 'L' if width >= 3 => {
                let (month, rest) = named(text, &MONTHS)?;
                self.month = Some(month);
                return Some(rest);
            }
            'E' => return named(text, &DAYS).map(|(_, rest)| rest),
            'z' | 'V' | 'Z' | 'X' | 'x' => return self.read_zone(text),
            _ => {}
        }
        let most = match letter {
            'S' if width > 9 => return None,
            _ if adjacent => width,
            'y' | 'Y' | 'u' if width != 2 => 4,
            'S' => 9,
            'D' => 3,
            _ => 2,
        };
        let (number, rest) = digits(text, most)?;
        if adjacent && text.len() - rest.len() != width {
            return None;
        }
        match letter {
            'y' | 'Y' | 'u' => self.year = if width == 2 { 2000 + number } else { number },
            'M' | 'L' => self.month = Some(number),
            'd' => self.day = Some(number),
            'D' => self.day_of_year = Some(number),
            'H' => self.hour = number,
            'k' => self.hour = number % 24,
            'h' | 'K' => self.hour = number % 12,
            'm' => self.minute = number,
            's' => self.second = number,
            'S' => {
                let places = (text.len() - rest.len()) as u32;
                self.nanos = number as i32 * 10_i32.pow(9 - places);
            }
            _ => {}
        }
        Some(rest)
    }

    fn read_half<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        let (afternoon, rest) = match strip_word(text, "AM") {
            Some(rest) => (false, rest),
            None => (true, strip_word(text, "PM")?),
        };
        self.afternoon = Some(afternoon);
        Some(rest)
    }

    fn read_zone<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        let (zone, rest) = zone_at(text)?;
        self.zone = Some(zone);
        Some(rest)
    }

    fn time(self, zone: &TimeZone) -> Option<Timestamp> {
        let date = self.date()?;
        let hour = self.hour + if self.afternoon == Some(true) { 12 } else { 0 };
        let hour = within(hour, 0, 23)?;
        let (minute, second) = (within(self.minute, 0, 59)?, within(self.second, 0, 59)?);
        let time = Time::new(hour, minute, second, self.nanos).ok()?;
        let zone = self.zone.as_ref().unwrap_or(zone);
        zone.to_ambiguous_timestamp(date.to_datetime(time)).compatible().ok()
    }

    /// Days are looked for where there are some, because jiff's errors lie on the heap.
    fn date(&self) -> Option<Date> {
        let year = i16::try_from(self.year).ok().filter(|year| (0..=9999).contains(year))?;
        if let Some(day) = self.day_of_year {
            let first = Date::new(year, 1, 1).ok()?;
            let there_is = (1..=i64::from(first.days_in_year())).contains(&day);
            let later = jiff::SignedDuration::from_hours(24 * (day - 1));
            return there_is.then(|| first.checked_add(later).ok()).flatten();
        }
        let first = Date::new(year, within(self.month.unwrap_or(1), 1, 12)?, 1).ok()?;
        let day = within(self.day.unwrap_or(1), 1, first.days_in_month())?;
        Date::new(year, first.month(), day).ok()
    }
}

fn within(number: i64, least: i8, most: i8) -> Option<i8> {
    i8::try_from(number).ok().filter(|number| (least..=most).contains(number))
}

/// Up to `most` digits at the front of the text, at least one.
fn digits(text: &str, most: usize) -> Option<(i64, &str)> {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let count = text.bytes().take(most).take_while(digit).count();
    let number = text[..count].parse().ok()?;
    Some((number, &text[count..]))
}

fn strip_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let front = text.get(..word.len())?;
    front.eq_ignore_ascii_case(word).then(|| &text[word.len()..])
}

/// The number (from 1) of the name at the front of the text, whole or its first three letters.
fn named<'t>(text: &'t str, names: &[&str]) -> Option<(i64, &'t str)> {
    (1..).zip(names).find_map(|(number, name)| {
        let rest = strip_word(text, name).or_else(|| strip_word(text, &name[..3]));
        rest.map(|rest| (number, rest))
    })
}

/// The zone at the front of the text: `Z`, an offset, `UTC` or `GMT` with or without one, or the id
/// of a zone.
pub fn zone_at(text: &str) -> Option<(TimeZone, &str)> {
    let part_of_zone = |c: char| c.is_ascii_alphanumeric() || "_/+-:".contains(c);
    let end = text.find(|c| !part_of_zone(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    zone(word).map(|zone| (zone, rest))
}

/// The zone that a whole text names.
pub fn zone(word: &str) -> Option<TimeZone> {
    let prefix = ["UTC", "GMT", "UT", "Z"].iter().find_map(|name| strip_word(word, name));
    if prefix == Some("") {
        return Some(TimeZone::UTC);
    }
    let offset = prefix.unwrap_or(word);
    if offset.starts_with(['+', '-']) {
        return fixed(offset).map(TimeZone::fixed);
    }
    jiff::tz::db().get(word).ok()
}

/// `+01`, `+0100`, `+01:00`, `+1`.
fn fixed(text: &str) -> Option<Offset> {
    let (hours, rest) = digits(&text[1..], 2)?;
    let rest = rest.strip_prefix(':').unwrap_or(rest);
    let (minutes, rest) = if rest.is_empty() { (0, "") } else { digits(rest, 2)? };
    (rest.is_empty() && minutes < 60).then_some(())?;
    // Offset::MAX, for the same reason as in Fields::date.
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok().filter(|s| *s <= 93_599)?;
    Offset::from_seconds(if text.starts_with('-') { -seconds } else { seconds }).ok()
}

/// A time as ISO 8601 and RFC 3339 spell it: a date, after `T` or a space a time, then a zone. What
/// is left out is the beginning of the day, and UTC.
pub fn read_iso(text: &str) -> Option<Timestamp> {
    let mut fields = Fields::default();
    let mut rest = text.trim();
    let mut numbers = [0; 3];
    for (at, number) in numbers.iter_mut().enumerate() {
        rest = if at == 0 { rest } else { rest.strip_prefix('-')? };
        let wanted = if at == 0 { 4 } else { 2 };
        let (read, after) = digits(rest, wanted)?;
        (rest.len() - after.len() == wanted).then_some(())?;
        (*number, rest) = (read, after);
    }
    (fields.year, fields.month, fields.day) = (numbers[0], Some(numbers[1]), Some(numbers[2]));
    if let Some(time) = rest.strip_prefix(['T', 't', ' ']) {
        rest = fields.read(time, 'H', 2, true)?;
        rest = fields.read(rest.strip_prefix(':')?, 'm', 2, true)?;
        if let Some(seconds) = rest.strip_prefix(':') {
            rest = fields.read(seconds, 's', 2, true)?;
        }
        if let Some(fraction) = rest.strip_prefix(['.', ',']) {
            rest = fields.read(fraction, 'S', 9, false)?;
            rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        if !rest.is_empty() {
            rest = fields.read_zone(rest.trim_start_matches(' '))?;
        }
    }
    if rest.is_empty() { fields.time(&TimeZone::UTC) } else { None }
}
