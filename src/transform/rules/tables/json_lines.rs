//! JSON lines: an object a line; its members are the columns. A member that a line does not have is
//! NULL; of one that is there twice the last one counts.

use super::super::json::{self, Raw};
use super::super::problem::{Fault, Position};
use super::super::value::{EvalError, Scratch, Value};
use super::{Cell, Rows, place};

/// The names of all members, in the order in which they first appear.
pub fn columns(text: &str) -> Result<Vec<Box<str>>, Fault> {
    let mut columns: Vec<Box<str>> = Vec::new();
    for (number, line) in lines(text) {
        let scratch = Scratch::new();
        let mut likely = 0;
        each_member(number, line, &scratch, |name, _| {
            if !is_at(&columns, &mut likely, name) {
                columns.push(name.into());
            }
        })?;
    }
    Ok(columns)
}

/// Whether a name is among the columns; `likely` is where the last one was, and the next may be.
fn is_at(columns: &[Box<str>], likely: &mut usize, name: &str) -> bool {
    let is = |at: &usize| columns.get(*at).is_some_and(|column| **column == *name);
    let found = Some(*likely).filter(is).or_else(|| (0..columns.len()).find(is));
    *likely = found.map_or(*likely, |at| at + 1);
    found.is_some()
}

/// Every line into `rows`.
pub fn rows(text: &str, wanted: &[Box<str>], key: usize, rows: &mut Rows) -> Result<(), Fault> {
    for (number, line) in lines(text) {
        let scratch = Scratch::new();
        let mut values = vec![None; wanted.len()];
        let mut likely = 0;
        each_member(number, line, &scratch, |name, value| {
            if is_at(wanted, &mut likely, name) {
                values[likely - 1] = Some(value);
            }
        })?;
        let at = |raw: &Raw<'_>| place_in(number, line, raw.text);
        let mut cells = vec![Cell::Null; wanted.len()];
        for (cell, value) in cells.iter_mut().zip(&values) {
            let Some(raw) = value else { continue };
            *cell = match raw.value(&scratch) {
                Ok(Value::Bool(truth)) => Cell::Bool(truth),
                Ok(Value::Int(_) | Value::Float(_)) => Cell::Number(raw.text),
                Ok(Value::Text(text)) => Cell::Text(text),
                Ok(Value::Json(text)) => Cell::Json(text),
                Ok(Value::Null | Value::Bytes(_)) => Cell::Null,
                Err(EvalError::OutOfRange { .. }) => {
                    let what = format!("{} is out of range; quote what is no number", raw.text);
                    return Err(Fault::new(at(raw), what));
                }
                Err(error) => return Err(Fault::new(at(raw), error.to_string())),
            };
        }
        let begin = place_in(number, line, line.trim_start());
        if matches!(cells[key], Cell::Null | Cell::Json(_)) {
            let place = values[key].as_ref().map_or(begin, at);
            let what = format!("{} is the key: a text, a number, true or false", wanted[key]);
            return Err(Fault::new(place, what));
        }
        rows.push(&cells, begin)?;
    }
    Ok(())
}

/// The lines that are not blank, with their numbers from 1.
fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.filter(|(_, line)| !line.trim_ascii().is_empty())
}

fn each_member<'a>(
    number: usize,
    line: &'a str,
    scratch: &'a Scratch,
    mut each: impl FnMut(&'a str, Raw<'a>),
) -> Result<(), Fault> {
    let found = json::members(line, scratch, &mut |name, value| {
        each(name.string(scratch)?, value);
        Ok(())
    });
    found.map_err(|error| match error {
        EvalError::Payload { why, at, .. } => {
            let before = line.get(..at as usize).unwrap_or_default();
            Fault::new(place(number, before), format!("this is no JSON object: {why}"))
        }
        error => Fault::new(place(number, ""), error.to_string()),
    })
}

/// The place of a part of a line.
fn place_in(number: usize, line: &str, part: &str) -> Position {
    let at = (part.as_ptr() as usize).saturating_sub(line.as_ptr() as usize);
    place(number, line.get(..at).unwrap_or_default())
}
