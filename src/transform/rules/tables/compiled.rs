//! A table in its compiled form: an index by key and rows of cells, in one run of bytes.
//!
//! ```text
//! index  slots × 8 bytes: half of the key's hash, the number of the row from 1; 0 is a free slot
//! cells  rows × columns × 12 bytes: kind, where its text begins in the heap, how many bytes it has
//! heap   texts: of numbers, strings, objects and arrays
//! ```
//!
//! Numbers are little-endian. The bytes are written and read by one process, so they say nothing of
//! their layout. At most half of the slots are taken; a slot that is taken leads to the next one.
//! Keys are equal as `=` has it: numbers by their value, whatever their type. CSV does not tell 17
//! from '17', so a key of it is found by its text too.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};

use super::super::json::{self, Field, Raw};
use super::super::operators::order;
use super::super::value::Value;
use super::Cell;

const CELL_BYTES: usize = 12;
const SLOT_BYTES: usize = 8;
/// A row's number fits an entry of the index.
const ROWS_MAX: u32 = u32::MAX - 1;

const NULL: u32 = 0;
const FALSE: u32 = 1;
const TRUE: u32 = 2;
const NUMBER: u32 = 3;
const TEXT: u32 = 4;
const JSON: u32 = 5;

type HashOf = fn(&Value<'_>) -> u64;

/// Where things are in the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    rows: u32,
    columns: usize,
    key: usize,
    /// A power of two.
    slots: u32,
    untyped: bool,
    hash: HashOf,
}

/// A compiled table.
pub struct Table {
    layout: Layout,
    bytes: Box<dyn AsRef<[u8]> + Send + Sync>,
}

/// A row of a table.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    cells: &'a [u8],
    heap: &'a [u8],
}

/// Why a table cannot be.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    TooLarge {
        bytes_max: usize,
    },
    TooManyRows,
    /// Two rows, counted from 0, that have one key.
    Duplicate {
        first: u32,
        again: u32,
        shown: String,
    },
}

/// A key's hash. Numbers that are equal have the same, integers or floats.
fn hash_of(key: &Value<'_>) -> u64 {
    /// Floats from here on are integers too, but none of 64 bits.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    let mut hasher = DefaultHasher::new();
    match key {
        Value::Text(text) => hasher.write(text.as_bytes()),
        Value::Int(int) => hasher.write_i64(*int),
        Value::Float(float) if float.trunc() == *float && (-BEYOND..BEYOND).contains(float) => {
            hasher.write_i64(*float as i64);
        }
        Value::Float(float) => hasher.write_u64(float.to_bits()),
        Value::Bool(truth) => hasher.write_u8(u8::from(*truth)),
        Value::Null | Value::Bytes(_) | Value::Json(_) => {}
    }
    hasher.finish()
}

/// What the index says of a key.
enum Found {
    Row(u32),
    Free(u32),
}

/// Looks for a key: from the slot of its hash on, until a row has it or a slot is free.
#[inline]
fn probe(slots: u32, hash: u64, entry: impl Fn(u32) -> u64, is: impl Fn(u32) -> bool) -> Found {
    let mask = slots - 1;
    let mut slot = hash as u32 & mask;
    loop {
        let entry = entry(slot);
        let row = entry as u32;
        if row == 0 {
            return Found::Free(slot);
        }
        if entry >> 32 == hash >> 32 && is(row - 1) {
            return Found::Row(row - 1);
        }
        slot = (slot + 1) & mask;
    }
}

impl Layout {
    fn cells_at(&self) -> usize {
        self.slots as usize * SLOT_BYTES
    }

    fn heap_at(&self) -> usize {
        self.cells_at() + self.rows as usize * self.columns * CELL_BYTES
    }
}

impl Table {
    /// How many rows it has.
    pub fn rows(&self) -> u32 {
        self.layout.rows
    }

    /// What it consists of.
    pub fn bytes(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }

    /// The same table in a copy of its bytes.
    pub fn moved_to(&self, bytes: Box<dyn AsRef<[u8]> + Send + Sync>) -> Self {
        Self { layout: self.layout, bytes }
    }

    /// The row of a key.
    #[inline]
    pub fn find(&self, key: &Value<'_>) -> Option<Row<'_>> {
        let Layout { columns, key: key_at, untyped, .. } = self.layout;
        let (index, rest) = self.bytes().split_at_checked(self.layout.cells_at())?;
        let (cells, heap) = rest.split_at_checked(self.layout.heap_at() - index.len())?;
        let index = index.as_chunks::<SLOT_BYTES>().0;
        let row = |row: u32| row_of(cells, heap, columns, row);
        let entry = |slot: u32| u64::from_le_bytes(index[slot as usize]);
        let is = |number: u32| row(number).cell(key_at).is(key, untyped);
        match probe(self.layout.slots, (self.layout.hash)(key), entry, is) {
            Found::Row(found) => Some(row(found)),
            Found::Free(_) => None,
        }
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rows in {} bytes", self.layout.rows, self.bytes().len())
    }
}

fn row_of<'a>(cells: &'a [u8], heap: &'a [u8], columns: usize, row: u32) -> Row<'a> {
    let bytes = columns * CELL_BYTES;
    Row { cells: cells.get(row as usize * bytes..).unwrap_or_default(), heap }
}

impl<'a> Row<'a> {
    fn cell(&self, column: usize) -> Cell<'a> {
        let at = column * CELL_BYTES;
        let Some(cell) = self.cells.get(at..at + CELL_BYTES) else { return Cell::Null };
        let word = |at: usize| cell[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let text = || {
            let from = word(4) as usize;
            let text = self.heap.get(from..from + word(8) as usize).unwrap_or_default();
            // It was text when it was compiled.
            std::str::from_utf8(text).unwrap_or_default()
        };
        match word(0) {
            FALSE => Cell::Bool(false),
            TRUE => Cell::Bool(true),
            NUMBER => Cell::Number(text()),
            TEXT => Cell::Text(text()),
            JSON => Cell::Json(text()),
            _ => Cell::Null,
        }
    }

    /// The value in a column, as a field of a payload is found.
    pub fn field(&self, column: usize) -> Field<'a> {
        match self.cell(column) {
            Cell::Null => Field::Missing,
            Cell::Bool(truth) => Field::Value(Value::Bool(truth)),
            // As it stands in the file.
            Cell::Number(text) => Field::Json(Raw::plain(text)),
            Cell::Text(text) => Field::Value(Value::Text(text)),
            Cell::Json(text) => Field::Value(Value::Json(text)),
        }
    }
}

impl<'c> Cell<'c> {
    fn value(self) -> Value<'c> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(truth) => Value::Bool(truth),
            Self::Number(text) => json::number(text).unwrap_or(Value::Null),
            Self::Text(text) => Value::Text(text),
            Self::Json(text) => Value::Json(text),
        }
    }

    /// As CSV has it.
    fn text(self) -> Option<&'c str> {
        match self {
            Self::Null | Self::Json(_) => None,
            Self::Bool(truth) => Some(if truth { "true" } else { "false" }),
            Self::Number(text) | Self::Text(text) => Some(text),
        }
    }

    #[inline]
    fn is(self, key: &Value<'_>, untyped: bool) -> bool {
        match key {
            Value::Text(text) if untyped => self.text() == Some(text),
            key => order(&self.value(), key).is_some_and(|order| order.is_eq()),
        }
    }
}

/// A table being compiled.
pub struct Builder {
    layout: Layout,
    bytes_max: usize,
    cells: Vec<u8>,
    heap: Vec<u8>,
}

impl Builder {
    pub fn new(columns: usize, key: usize, untyped: bool, bytes_max: usize) -> Self {
        Self::with_hash(columns, key, untyped, bytes_max, hash_of)
    }

    /// As [`Builder::new`], for tests whose keys are to meet.
    pub fn with_hash(
        columns: usize,
        key: usize,
        untyped: bool,
        bytes_max: usize,
        hash: HashOf,
    ) -> Self {
        let layout = Layout { rows: 0, columns, key, slots: 0, untyped, hash };
        Self { layout, bytes_max, cells: Vec::new(), heap: Vec::new() }
    }

    /// Takes a row: a cell a column.
    pub fn push(&mut self, cells: &[Cell<'_>]) -> Result<(), Refused> {
        debug_assert_eq!(cells.len(), self.layout.columns);
        if self.layout.rows == ROWS_MAX {
            return Err(Refused::TooManyRows);
        }
        for cell in cells {
            let (kind, text) = match cell {
                Cell::Null => (NULL, ""),
                Cell::Bool(false) => (FALSE, ""),
                Cell::Bool(true) => (TRUE, ""),
                Cell::Number(text) => (NUMBER, *text),
                Cell::Text(text) => (TEXT, *text),
                Cell::Json(text) => (JSON, *text),
            };
            // Both fit: the whole is bounded.
            for word in [kind, self.heap.len() as u32, text.len() as u32] {
                self.cells.extend_from_slice(&word.to_le_bytes());
            }
            self.heap.extend_from_slice(text.as_bytes());
        }
        self.layout.rows += 1;
        self.check(self.cells.len() + self.heap.len())
    }

    fn check(&self, bytes: usize) -> Result<(), Refused> {
        let bytes_max = self.bytes_max;
        if bytes > bytes_max { Err(Refused::TooLarge { bytes_max }) } else { Ok(()) }
    }

    /// Makes the index.
    pub fn finish(mut self) -> Result<Table, Refused> {
        let Layout { rows, columns, key, untyped, hash, .. } = self.layout;
        let entries = rows as usize * if untyped { 2 } else { 1 };
        let slots = (entries * 2).next_power_of_two().max(2);
        self.check(slots * SLOT_BYTES + self.cells.len() + self.heap.len())?;
        self.layout.slots = slots as u32;
        let mut index = vec![0_u64; slots];
        for number in 0..rows {
            let cell_of = |row| row_of(&self.cells, &self.heap, columns, row).cell(key);
            let cell = cell_of(number);
            let as_text = cell.text().filter(|_| untyped).map(Value::Text);
            let value = Some(cell.value()).filter(|value| Some(*value) != as_text);
            for key in as_text.into_iter().chain(value) {
                let is = |row| cell_of(row).is(&key, untyped);
                let hash = hash(&key);
                match probe(slots as u32, hash, |slot| index[slot as usize], is) {
                    Found::Free(slot) => {
                        index[slot as usize] = (hash >> 32) << 32 | u64::from(number + 1);
                    }
                    // Its text and its value have one hash.
                    Found::Row(first) if first == number => {}
                    Found::Row(first) => {
                        let shown = cell.text().unwrap_or_default().to_owned();
                        return Err(Refused::Duplicate { first, again: number, shown });
                    }
                }
            }
        }
        let mut bytes = Vec::with_capacity(self.layout.heap_at() + self.heap.len());
        bytes.extend(index.iter().flat_map(|entry| entry.to_le_bytes()));
        bytes.append(&mut self.cells);
        bytes.append(&mut self.heap);
        Ok(Table { layout: self.layout, bytes: Box::new(bytes) })
    }
}
