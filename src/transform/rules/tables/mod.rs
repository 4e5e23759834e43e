//! Lookup tables: files of the operator, compiled, found by key, replaced while messages run.
//!
//! Comes in: the text of a file, CSV or JSON lines. Goes out: a [`Table`] in which a key is found with
//! one hash and no allocation. All shards look into one table. A new version is put beside the old
//! one and taken by each shard between two messages: it sees that there is one by a word of memory.
//! Absent: reading files, and mapping what was compiled, which the driver does.

mod compiled;
mod csv;
mod json_lines;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::problem::{Fault, Position, Problem};
use compiled::{Builder, Refused};
pub use compiled::{Row, Table};

/// What a file may have, and take compiled, where its statement says nothing else; and at the most.
pub const BYTES_MAX: usize = 256 << 20;
pub const BYTES_MAX_MAX: usize = 2 << 30;
/// Columns of a table at the most.
const COLUMNS_MAX: usize = 1024;

/// What tells one version of a file from another: device, inode, size and times.
pub type Stamp = [i64; 5];

/// A file as it was read.
#[derive(Debug, Clone, Default)]
pub struct Text {
    pub bytes: Vec<u8>,
    pub stamp: Stamp,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RFC 4180 with a header line.
    Csv { delimiter: u8 },
    /// An object a line.
    JsonLines,
}

/// A table as its statement and its file at the start say it is.
#[derive(Debug, Clone)]
pub struct LookupTable {
    pub name: Box<str>,
    /// The file of rules, and where it stands there.
    pub file: Box<str>,
    pub at: Position,
    pub path: PathBuf,
    pub format: Format,
    /// Of the file, and of its compiled form.
    pub bytes_max: usize,
    pub columns: Vec<Box<str>>,
    /// The column that is the key.
    pub key: usize,
    /// Of the file that it was first made of.
    pub stamp: Stamp,
}

impl LookupTable {
    /// Takes a text of the file over; it must have the columns that the table has.
    pub fn compile(&self, text: &[u8]) -> Result<Table, Problem> {
        let fault = match utf8(text) {
            Ok(text) => match compile(self.format, text, &self.columns, self.key, self.bytes_max) {
                Ok(table) => return Ok(table),
                Err(fault) => fault,
            },
            Err(fault) => fault,
        };
        Err(fault.in_file(&self.path.display().to_string()))
    }
}

/// The text of a file; a byte order mark before it is left out.
pub fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(error) => {
            let valid = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let line = valid.matches('\n').count() + 1;
            let start = valid.rfind('\n').map_or(0, |at| at + 1);
            let what = "this is not UTF-8; save the file as UTF-8";
            Err(Fault::new(place(line, &valid[start..]), what))
        }
    }
}

/// The columns of a file, in their order.
pub fn columns(format: Format, text: &str) -> Result<Vec<Box<str>>, Fault> {
    let columns = match format {
        Format::Csv { delimiter } => csv::columns(text, delimiter)?,
        Format::JsonLines => json_lines::columns(text)?,
    };
    if columns.len() > COLUMNS_MAX {
        let what = format!("there are {} columns, at most {COLUMNS_MAX} can be", columns.len());
        return Err(Fault::new(place(1, ""), what));
    }
    Ok(columns)
}

/// Compiles a text.
pub fn compile(
    format: Format,
    text: &str,
    columns: &[Box<str>],
    key: usize,
    bytes_max: usize,
) -> Result<Table, Fault> {
    let untyped = matches!(format, Format::Csv { .. });
    let mut rows =
        Rows { builder: Builder::new(columns.len(), key, untyped, bytes_max), lines: Vec::new() };
    match format {
        Format::Csv { delimiter } => csv::rows(text, delimiter, columns, key, &mut rows)?,
        Format::JsonLines => json_lines::rows(text, columns, key, &mut rows)?,
    }
    rows.finish(&columns[key])
}

/// A value of a row as it is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell<'c> {
    Null,
    Bool(bool),
    /// JSON's text of it.
    Number(&'c str),
    Text(&'c str),
    /// An object or array.
    Json(&'c str),
}

/// Rows being compiled, and the line of each.
struct Rows {
    builder: Builder,
    lines: Vec<u32>,
}

impl Rows {
    fn push(&mut self, cells: &[Cell<'_>], at: Position) -> Result<(), Fault> {
        self.lines.push(at.line);
        self.builder.push(cells).map_err(|refused| too_large(refused, at))
    }

    fn finish(self, key: &str) -> Result<Table, Fault> {
        let lines = self.lines;
        self.builder.finish().map_err(|refused| match refused {
            Refused::Duplicate { first, again, shown } => {
                let at = Position { line: lines[again as usize], column: 1 };
                let first = lines[first as usize];
                let what = format!("the {key} {shown} is in line {first} already; keys are unique");
                Fault::new(at, what)
            }
            refused => too_large(refused, Position { line: 1, column: 1 }),
        })
    }
}

fn too_large(refused: Refused, at: Position) -> Fault {
    let Refused::TooLarge { bytes_max } = refused else {
        return Fault::new(at, "there are more rows than 4,294,967,294");
    };
    let what = format!(
        "the table takes more than {bytes_max} bytes; CREATE TABLE … WITH (max_bytes = …) allows more"
    );
    Fault::new(at, what)
}

/// Line `line`, behind what stands `before` in it.
fn place(line: usize, before: &str) -> Position {
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    Position { line: number(line), column: number(before.chars().count() + 1) }
}

/// The tables of a plan, each with the version that there is now.
#[derive(Default)]
pub struct Tables {
    pub all: Vec<LookupTable>,
    /// Another one whenever `current` is, and no two plans have the same. 0: there are no tables.
    serial: AtomicU64,
    /// Held for as long as a pointer is read or written.
    current: Mutex<Arc<[Arc<Table>]>>,
}

/// The versions of all tables that one shard looks into.
#[derive(Debug, Default)]
pub struct Held {
    serial: u64,
    tables: Arc<[Arc<Table>]>,
}

fn next_serial() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

impl Tables {
    pub fn new(tables: Vec<(LookupTable, Table)>) -> Self {
        let serial = if tables.is_empty() { 0 } else { next_serial() };
        let (all, current): (_, Vec<_>) =
            tables.into_iter().map(|(about, table)| (about, Arc::new(table))).unzip();
        Self { all, serial: AtomicU64::new(serial), current: Mutex::new(current.into()) }
    }

    /// The versions that there are now.
    pub fn current(&self) -> Arc<[Arc<Table>]> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a new version of one table in the place of the old one, which is returned: whoever is
    /// last to let go of it frees it, and that is better none of the shards.
    pub fn replace(&self, index: usize, table: Table) -> Arc<Table> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tables = current.to_vec();
        let old = std::mem::replace(&mut tables[index], Arc::new(table));
        *current = tables.into();
        // After the versions: who sees the serial finds them, or later ones.
        self.serial.store(next_serial(), Ordering::Release);
        old
    }
}

impl Held {
    /// Takes the versions that there are now: between messages one load, where nothing is new.
    #[inline]
    pub fn refresh(&mut self, tables: &Tables) {
        let serial = tables.serial.load(Ordering::Acquire);
        if serial != self.serial {
            self.serial = serial;
            self.tables = tables.current();
        }
    }

    pub fn tables(&self) -> &[Arc<Table>] {
        &self.tables
    }
}

impl fmt::Debug for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.all.iter().map(|table| &table.name)).finish()
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Csv { delimiter: b',' } => f.write_str("CSV"),
            Self::Csv { delimiter } => write!(f, "CSV with {}", char::from(*delimiter)),
            Self::JsonLines => f.write_str("JSON lines"),
        }
    }
}
