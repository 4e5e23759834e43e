//! CSV as RFC 4180 has it, with a header line: the csv crate splits and unquotes, and here it is said
//! where something is wrong. The crate reads on behind a quote that has no end, and takes quotes that
//! RFC 4180 does not know; a table that lost rows in silence is worse than none.

use csv::{Reader, ReaderBuilder, StringRecord};

use super::super::json;
use super::super::problem::{Fault, Position, instead};
use super::super::value::Scratch;
use super::{Cell, Rows, place};

/// The names in the header line.
pub fn columns(text: &str, delimiter: u8) -> Result<Vec<Box<str>>, Fault> {
    let mut records = Records::new(text, delimiter);
    if !records.next()? {
        return Err(Fault::new(place(1, ""), "the file is empty; a header line is expected"));
    }
    let mut columns: Vec<Box<str>> = Vec::new();
    for (at, name) in records.record.iter().enumerate() {
        if name.is_empty() || columns.iter().any(|known| **known == *name) {
            let what = if name.is_empty() {
                "a column has no name".to_owned()
            } else {
                format!("there is a column {name} already")
            };
            return Err(Fault::new(records.place_of(at), what));
        }
        columns.push(name.into());
    }
    Ok(columns)
}

/// Every row into `rows`. The file may have more columns than those that are wanted.
pub fn rows(
    text: &str,
    delimiter: u8,
    wanted: &[Box<str>],
    key: usize,
    rows: &mut Rows,
) -> Result<(), Fault> {
    let there = columns(text, delimiter)?;
    let mut sources = Vec::with_capacity(wanted.len());
    for name in wanted {
        sources.push(there.iter().position(|column| column == name).ok_or_else(|| {
            let known = there.iter().map(|column| &**column);
            let what = format!("the column {name} is gone{}", instead(name, known));
            Fault::new(place(1, ""), what)
        })?);
    }
    let mut records = Records::new(text, delimiter);
    records.next()?;
    let scratch = Scratch::new();
    while records.next()? {
        let found = records.record.len();
        if found != there.len() {
            let what = format!("this row has {found} field(s), and the header {}", there.len());
            return Err(Fault::new(records.place_at(0), what));
        }
        let cell = |source: &usize| cell(records.record.get(*source).unwrap_or_default(), &scratch);
        let cells: Vec<Cell<'_>> = sources.iter().map(cell).collect();
        if cells[key] == Cell::Null {
            let what = format!("the {} is empty, and it is the key; each row has one", wanted[key]);
            return Err(Fault::new(records.place_of(sources[key]), what));
        }
        rows.push(&cells, records.place_at(0))?;
    }
    Ok(())
}

/// CSV has no types: what is a number of JSON, true or false is one, nothing is NULL.
fn cell<'c>(field: &'c str, scratch: &Scratch) -> Cell<'c> {
    match field {
        "" => Cell::Null,
        "true" => Cell::Bool(true),
        "false" => Cell::Bool(false),
        field if json::is_number(field, scratch) && json::number(field).is_ok() => {
            Cell::Number(field)
        }
        field => Cell::Text(field),
    }
}

/// The records of a file, one after another, with their places.
struct Records<'t> {
    text: &'t str,
    delimiter: u8,
    reader: Reader<&'t [u8]>,
    record: StringRecord,
    /// Where the record begins, and where it ends.
    from: usize,
    to: usize,
    /// The line of `from`.
    line: usize,
}

impl<'t> Records<'t> {
    fn new(text: &'t str, delimiter: u8) -> Self {
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(text.as_bytes());
        Self { text, delimiter, reader, record: StringRecord::new(), from: 0, to: 0, line: 1 }
    }

    /// Goes to the next record; whether there is one.
    fn next(&mut self) -> Result<bool, Fault> {
        let read = self.reader.read_record(&mut self.record);
        let is_end = |c: char| c == '\r' || c == '\n';
        let rest = &self.text[self.to..];
        let blank = rest.len() - rest.trim_start_matches(is_end).len();
        let lines = |text: &str| text.matches('\n').count();
        self.line += lines(&self.text[self.from..self.to + blank]);
        self.from = self.to + blank;
        let end = usize::try_from(self.reader.position().byte()).unwrap_or(self.text.len());
        self.to = end.clamp(self.from, self.text.len());
        match read {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => return Err(Fault::new(self.place_at(0), error.to_string())),
        }
        let raw = &self.text[self.from..self.to];
        if raw.contains('"')
            && let Err((at, what)) = self.fields()
        {
            return Err(Fault::new(self.place_at(at), what));
        }
        Ok(true)
    }

    /// Where each field of the record begins, or where its quotes are wrong.
    fn fields(&self) -> Result<Vec<usize>, (usize, &'static str)> {
        let raw = self.text[self.from..self.to].trim_end_matches(['\r', '\n']).as_bytes();
        let (mut starts, mut at) = (vec![0], 0);
        loop {
            if raw.get(at) == Some(&b'"') {
                let begin = at;
                at += 1;
                loop {
                    match raw.get(at..) {
                        Some([b'"', b'"', ..]) => at += 2,
                        Some([b'"', ..]) => break,
                        Some([_, ..]) => at += 1,
                        _ => return Err((begin, "the quote that begins here has no end")),
                    }
                }
                at += 1;
                if raw.get(at).is_some_and(|byte| *byte != self.delimiter) {
                    return Err((at, "a field ends with its quote; inside of it a quote is \"\""));
                }
            }
            while raw.get(at).is_some_and(|byte| *byte != self.delimiter) {
                if raw[at] == b'"' {
                    return Err((
                        at,
                        "a field with quotes stands in quotes, each of its own twice",
                    ));
                }
                at += 1;
            }
            if at >= raw.len() {
                return Ok(starts);
            }
            at += 1;
            starts.push(at);
        }
    }

    /// The place of a field.
    fn place_of(&self, field: usize) -> Position {
        let starts = self.fields().unwrap_or_default();
        self.place_at(starts.get(field).copied().unwrap_or(0))
    }

    /// The place of a byte of the record, which may have line ends in quotes.
    fn place_at(&self, at: usize) -> Position {
        let before = self.text.get(self.from..self.from + at).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        place(self.line + before.matches('\n').count(), &before[start..])
    }
}
