//! Functions of time.
//!
//! A time is an integer of milliseconds since 1970-01-01T00:00:00Z, as in AWS IoT SQL and eKuiper;
//! wherever one is wanted, text by ISO 8601 will do. Patterns and zones are constants and compiled
//! with the plan. Zones are those of the IANA database inside the program, so that no file is read
//! and every machine agrees. Nothing here knows what time it is.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::super::value::{EvalError, Scratch, Value};
use super::cast;
use super::given::{Given, Number};
use super::time_format::{self, Pattern};
use super::{Function, Outcome, Prepared, family, prepared, strict};

family! {
    "format_time" (2, 3) "time, pattern[, zone]" -> "text"
        = prepared(prepare_second, format_time), "the time by the pattern, in UTC or the zone";
    "parse_time" (2, 3) "pattern, time[, zone]" -> "text"
        = prepared(prepare_first, parse_time), "the same as format_time, as AWS IoT SQL names it";
    "time_to_epoch" (2, 3) "text, pattern[, zone]" -> "time"
        = prepared(prepare_second, time_to_epoch),
        "the time that the text spells by the pattern; without a zone in it, of UTC or the zone";
    "date_trunc" (2, 3) "unit, time[, zone]" -> "time" = prepared(prepare_trunc, date_trunc),
        "the beginning of its second, minute, hour, day, week (Monday), month, quarter or year";
    "date_calc" | "date_add" (2, 2) "time, duration" -> "time" = strict(date_calc),
        "later by a duration such as '1h30m', '-250ms' (units d, h, m, s, ms, us, ns)";
    "date_diff" (2, 2) "from, to" -> "integer" = strict(date_diff),
        "the milliseconds from one time to the other";
    "from_unix_time" (1, 1) "seconds" -> "time" = strict(from_unix_time),
        "the time so many seconds after 1970";
    "epoch_seconds" | "to_unix_time" (1, 1) "time" -> "integer" = strict(epoch_seconds),
        "the seconds since 1970, rounded down";
    "epoch_ms" | "to_time" (1, 1) "time" -> "time" = strict(epoch_ms),
        "the milliseconds since 1970, of ISO 8601 text too";
    "iso8601" (1, 2) "time[, zone]" -> "text" = prepared(prepare_zone, iso8601),
        "as 2026-11-27T08:00:00.000Z, or with the zone's offset";
    "year" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, year), "its year";
    "quarter" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, quarter),
        "its quarter, 1 to 4";
    "month" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, month),
        "its month, 1 to 12";
    "day" | "day_of_month" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, day),
        "its day of the month";
    "day_of_week" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, day_of_week),
        "its day of the week, Sunday 1 to Saturday 7";
    "day_of_year" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, day_of_year),
        "its day of the year, from 1";
    "hour" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, hour),
        "its hour, 0 to 23";
    "minute" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, minute), "its minute";
    "second" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, second), "its second";
    "microsecond" (1, 2) "time[, zone]" -> "integer" = prepared(prepare_zone, microsecond),
        "the microseconds of its second";
    "day_name" (1, 2) "time[, zone]" -> "text" = prepared(prepare_zone, day_name),
        "its day of the week, such as Monday";
    "month_name" (1, 2) "time[, zone]" -> "text" = prepared(prepare_zone, month_name),
        "its month, such as January";
    "last_day" (1, 2) "time[, zone]" -> "time" = prepared(prepare_zone, last_day),
        "the beginning of the last day of its month";
}

/// What a call needs besides the time, compiled.
#[derive(Debug, Clone)]
pub struct Plan {
    pattern: Pattern,
    zone: TimeZone,
    unit: Unit,
}

/// What a time is cut to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// A length that every one of them has, in milliseconds.
    Fixed(i64),
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

const UNITS: [(&str, Unit); 9] = [
    ("millisecond", Unit::Fixed(1)),
    ("second", Unit::Fixed(1000)),
    ("minute", Unit::Fixed(60_000)),
    ("hour", Unit::Fixed(3_600_000)),
    ("day", Unit::Day),
    ("week", Unit::Week),
    ("month", Unit::Month),
    ("quarter", Unit::Quarter),
    ("year", Unit::Year),
];

fn prepare_first(constants: &[Option<Value<'_>>]) -> Result<Prepared, String> {
    prepare_pattern(constants, 0)
}

fn prepare_second(constants: &[Option<Value<'_>>]) -> Result<Prepared, String> {
    prepare_pattern(constants, 1)
}

fn prepare_pattern(constants: &[Option<Value<'_>>], at: usize) -> Result<Prepared, String> {
    let Some(text) = constant(constants, at, "pattern")? else { return Ok(Prepared::Null) };
    let pattern = time_format::compile(text).map_err(|why| format!("`{text}`: {why}"))?;
    plan(constants, 2, pattern, Unit::Day)
}

fn prepare_trunc(constants: &[Option<Value<'_>>]) -> Result<Prepared, String> {
    let Some(text) = constant(constants, 0, "unit")? else { return Ok(Prepared::Null) };
    let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let Some((_, unit)) = known else {
        let names: Vec<_> = UNITS.iter().map(|(name, _)| *name).collect();
        return Err(format!("`{text}` is no unit; there are {}", names.join(", ")));
    };
    plan(constants, 2, Pattern::default(), *unit)
}

fn prepare_zone(constants: &[Option<Value<'_>>]) -> Result<Prepared, String> {
    plan(constants, 1, Pattern::default(), Unit::Day)
}

fn plan(
    constants: &[Option<Value<'_>>],
    zone_at: usize,
    pattern: Pattern,
    unit: Unit,
) -> Result<Prepared, String> {
    let mut zone = TimeZone::UTC;
    if constants.len() > zone_at {
        let Some(name) = constant(constants, zone_at, "zone")? else { return Ok(Prepared::Null) };
        let known = time_format::zone(name);
        zone = known.ok_or(format!(
            "there is no zone `{name}`; zones are such as UTC, +01:00 or Europe/Berlin"
        ))?;
    }
    Ok(Prepared::Time(Box::new(Plan { pattern, zone, unit })))
}

/// The text of a constant argument; `None` when it is NULL.
fn constant<'c>(
    constants: &'c [Option<Value<'_>>],
    at: usize,
    what: &str,
) -> Result<Option<&'c str>, String> {
    match constants.get(at) {
        Some(Some(Value::Text(text))) => Ok(Some(text)),
        Some(Some(Value::Null)) => Ok(None),
        Some(Some(_)) => Err(format!("the {what} must be text")),
        _ => Err(format!("the {what} must be a constant, so that it is read once")),
    }
}

/// The time that an argument is.
fn time(given: Given<'_, '_>, at: usize) -> Result<Timestamp, EvalError> {
    let ms = match given.value(at) {
        Value::Text(text) => match cast::number_in(text) {
            Some(Number::Int(int)) => int,
            Some(Number::Float(float)) => cast::truncated(float).ok_or(given.out_of_range())?,
            None => {
                let read = time_format::read_iso(text);
                return read.ok_or(given.argument("the text is no time by ISO 8601"));
            }
        },
        Value::Int(_) | Value::Float(_) => given.int(at)?,
        _ => return Err(given.type_error(at, "a time")),
    };
    timestamp(ms).ok_or(given.out_of_range())
}

/// jiff's errors lie on the heap, so it is asked only for what it can do.
fn timestamp(ms: i64) -> Option<Timestamp> {
    let there_is = Timestamp::MIN.as_millisecond()..=Timestamp::MAX.as_millisecond();
    there_is.contains(&ms).then(|| Timestamp::from_millisecond(ms).ok()).flatten()
}

fn ms(time: Timestamp) -> Value<'static> {
    // Rounded down before 1970 too.
    Value::Int(time.as_nanosecond().div_euclid(1_000_000) as i64)
}

fn planned(prepared: &Prepared) -> Option<&Plan> {
    match prepared {
        Prepared::Time(plan) => Some(plan),
        _ => None,
    }
}

fn format_time<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    formatted(prepared, Given::new("format_time", values, scratch), 0)
}

fn parse_time<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    formatted(prepared, Given::new("parse_time", values, scratch), 1)
}

fn formatted<'a>(prepared: &Prepared, given: Given<'_, 'a>, at: usize) -> Outcome<'a> {
    let Some(plan) = planned(prepared) else { return Ok(Value::Null) };
    let mut built = given.built();
    time_format::write(&mut built, &plan.pattern, time(given, at)?, &plan.zone);
    built.text()
}

fn time_to_epoch<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let given = Given::new("time_to_epoch", values, scratch);
    let Some(plan) = planned(prepared) else { return Ok(Value::Null) };
    let read = time_format::read(given.text(0)?, &plan.pattern, &plan.zone);
    read.map(ms).ok_or(given.argument("the text is no time by the pattern"))
}

fn date_trunc<'a>(
    prepared: &'a Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
) -> Outcome<'a> {
    let given = Given::new("date_trunc", values, scratch);
    let Some(plan) = planned(prepared) else { return Ok(Value::Null) };
    let time = time(given, 1)?;
    let local = plan.zone.to_datetime(time);
    let date = match plan.unit {
        Unit::Fixed(length) => {
            // By the offset at that time, because an hour may come twice in a day.
            let offset = i64::from(plan.zone.to_offset(time).seconds()) * 1000;
            let there = time.as_millisecond() + offset;
            return Ok(Value::Int(there - there.rem_euclid(length) - offset));
        }
        Unit::Day => Some(local.date()),
        Unit::Week => {
            let back = 24 * i64::from(local.weekday().to_monday_zero_offset());
            local.date().checked_sub(SignedDuration::from_hours(back)).ok()
        }
        Unit::Month => Some(local.date().first_of_month()),
        Unit::Quarter => Date::new(local.year(), (local.month() - 1) / 3 * 3 + 1, 1).ok(),
        Unit::Year => Some(local.date().first_of_year()),
    };
    begin(date, &plan.zone).ok_or(given.out_of_range())
}

/// The time at which a day begins in a zone.
fn begin(date: Option<Date>, zone: &TimeZone) -> Option<Value<'static>> {
    let midnight = date?.to_datetime(Time::midnight());
    zone.to_ambiguous_timestamp(midnight).compatible().ok().map(ms)
}

fn date_calc<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("date_calc", values, scratch);
    let wrong = given.argument("the duration is not such as '1h30m' or '-250ms'");
    let nanos = nanoseconds(given.text(1)?).ok_or(wrong)?;
    let later = time(given, 0)?.as_nanosecond().checked_add(nanos);
    let later = later.and_then(|nanos| i64::try_from(nanos.div_euclid(1_000_000)).ok());
    later.and_then(timestamp).map(ms).ok_or(given.out_of_range())
}

/// A duration as Go spells it, and days of 24 hours.
fn nanoseconds(text: &str) -> Option<i128> {
    let unsigned = text.strip_prefix('-');
    let mut rest = unsigned.unwrap_or(text);
    let mut sum: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let after = &rest[number..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let nanos: i128 = match &after[..unit] {
            "d" => 86_400_000_000_000,
            "h" => 3_600_000_000_000,
            "m" => 60_000_000_000,
            "s" => 1_000_000_000,
            "ms" => 1_000_000,
            "us" | "µs" => 1_000,
            "ns" => 1,
            _ => return None,
        };
        let (whole, fraction) = rest[..number].split_once('.').unwrap_or((&rest[..number], ""));
        sum = sum.checked_add(whole.parse::<i128>().ok()?.checked_mul(nanos)?)?;
        if !fraction.is_empty() {
            let digits = &fraction[..fraction.len().min(15)];
            let scale = 10_i128.pow(digits.len() as u32);
            sum = sum.checked_add(digits.parse::<i128>().ok()? * nanos / scale)?;
        }
        rest = &after[unit..];
    }
    Some(if unsigned.is_some() { -sum } else { sum })
}

fn date_diff<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("date_diff", values, scratch);
    Ok(Value::Int(time(given, 1)?.as_millisecond() - time(given, 0)?.as_millisecond()))
}

fn from_unix_time<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("from_unix_time", values, scratch);
    let ms = match given.number(0)? {
        Number::Int(seconds) => seconds.checked_mul(1000),
        Number::Float(seconds) => cast::truncated((seconds * 1000.0).round()),
    };
    let in_range = ms.filter(|ms| timestamp(*ms).is_some());
    in_range.map(Value::Int).ok_or(given.out_of_range())
}

fn epoch_seconds<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let time = time(Given::new("epoch_seconds", values, scratch), 0)?;
    Ok(Value::Int(time.as_millisecond().div_euclid(1000)))
}

fn epoch_ms<'a>(values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    Ok(ms(time(Given::new("epoch_ms", values, scratch), 0)?))
}

fn iso8601<'a>(prepared: &'a Prepared, values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("iso8601", values, scratch);
    let Some(plan) = planned(prepared) else { return Ok(Value::Null) };
    let mut built = given.built();
    time_format::write_iso(&mut built, time(given, 0)?, &plan.zone);
    built.text()
}

/// Something of the local date and time.
fn local<'a>(
    of: &'static str,
    prepared: &Prepared,
    values: &[Value<'a>],
    scratch: &'a Scratch,
    part: fn(DateTime) -> Value<'static>,
) -> Outcome<'a> {
    let time = time(Given::new(of, values, scratch), 0)?;
    Ok(planned(prepared).map_or(Value::Null, |plan| part(plan.zone.to_datetime(time))))
}

fn last_day<'a>(prepared: &'a Prepared, values: &[Value<'a>], scratch: &'a Scratch) -> Outcome<'a> {
    let given = Given::new("last_day", values, scratch);
    let Some(plan) = planned(prepared) else { return Ok(Value::Null) };
    let date = plan.zone.to_datetime(time(given, 0)?).date().last_of_month();
    begin(Some(date), &plan.zone).ok_or(given.out_of_range())
}

/// Functions of one part of the local date and time.
macro_rules! parts {
    ($($name:ident = $part:expr;)*) => {
        $(fn $name<'a>(
            prepared: &'a Prepared,
            values: &[Value<'a>],
            scratch: &'a Scratch,
        ) -> Outcome<'a> {
            local(stringify!($name), prepared, values, scratch, $part)
        })*
    };
}

parts! {
    year = |local| Value::Int(local.year().into());
    quarter = |local| Value::Int(((local.month() - 1) / 3 + 1).into());
    month = |local| Value::Int(local.month().into());
    day = |local| Value::Int(local.day().into());
    day_of_week = |local| Value::Int(local.weekday().to_sunday_one_offset().into());
    day_of_year = |local| Value::Int(local.day_of_year().into());
    hour = |local| Value::Int(local.hour().into());
    minute = |local| Value::Int(local.minute().into());
    second = |local| Value::Int(local.second().into());
    microsecond = |local| Value::Int((local.subsec_nanosecond() / 1000).into());
    day_name = |local| Value::Text(time_format::day_name(local.date()));
    month_name = |local| Value::Text(time_format::month_name(local.date()));
}
