//! `tidegate log dump`: batches and records, in the order in which the segments hold them.
//!
//! Comes in: a directory and what was found in it. Goes out: lines. One segment is mapped at a time;
//! those whose index says that nothing of them is asked for are not opened. What is damaged is left
//! out and returned; what is sound behind it is printed.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::Error;
use super::frames::{Batch, for_each_batch};
use super::inventory::{Directory, Inventory, Segment};
use super::text::{json_of, moment, quoted};
use crate::log::scan::Damage;
use crate::record::Offset;
use crate::record::batch::{RecordView, for_each_record};

/// What to print.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    /// Only this stream.
    pub stream: Option<u32>,
    /// Only this partition.
    pub partition: Option<u32>,
    /// Only offsets from here on.
    pub from: u64,
    /// Only offsets before this one.
    pub to: u64,
    /// Only records of this time or later, milliseconds since 1970.
    pub since_ms: i64,
    /// Only records of before this time.
    pub until_ms: i64,
    /// At most so many records.
    pub limit: Option<u64>,
}

/// How to print it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A line a batch and one a record.
    Text,
    /// A JSON object a record.
    Json,
}

impl Filter {
    /// Whether something of a partition may be asked for, whose offsets are from `base` to before
    /// `next`, and whose latest time is `latest_ms`.
    fn takes(
        &self,
        (stream, partition): (u32, u32),
        (base, next): (Offset, Offset),
        latest_ms: i64,
    ) -> bool {
        self.stream.is_none_or(|asked| asked == stream)
            && self.partition.is_none_or(|asked| asked == partition)
            && next.0 > self.from
            && base.0 < self.to
            && latest_ms >= self.since_ms
    }

    fn takes_record(&self, record: &RecordView<'_>) -> bool {
        (self.from..self.to).contains(&record.offset.0)
            && (self.since_ms..self.until_ms).contains(&record.timestamp_ms)
    }
}

/// Prints to `out` and returns the damage that it met.
///
/// # Errors
/// Those of the system, [`Error::Output`] among them.
pub fn run(
    directory: &Directory,
    inventory: &Inventory,
    filter: Filter,
    form: Form,
    out: &mut impl Write,
) -> Result<Vec<Damage>, Error> {
    let names = directory.manifest.streams.iter().map(|stream| stream.name.as_str()).collect();
    let left = filter.limit.unwrap_or(u64::MAX);
    let mut printer = Printer { names, filter, form, left, out, scratch: Vec::new() };
    let mut damages = Vec::new();
    for segment in &inventory.segments {
        if printer.left == 0 {
            break;
        }
        if holds_something(inventory, segment, &filter) {
            damages.extend(printer.segment(directory, segment)?);
        }
    }
    printer.out.flush().map_err(Error::Output)?;
    Ok(damages)
}

fn holds_something(inventory: &Inventory, segment: &Segment, filter: &Filter) -> bool {
    let found = inventory.recovered.segments.iter().find(|found| found.key == segment.key);
    found.is_none_or(|found| {
        let mut spans = found.spans.iter();
        spans.any(|span| {
            let place = (span.stream, span.partition);
            filter.takes(place, (span.base, span.next), span.max_timestamp_ms)
        })
    })
}

struct Printer<'a, W> {
    /// Stream names by id.
    names: Vec<&'a str>,
    filter: Filter,
    form: Form,
    /// Records that may still be printed.
    left: u64,
    out: &'a mut W,
    /// Decompressed records.
    scratch: Vec<u8>,
}

impl<W: Write> Printer<'_, W> {
    /// Prints what is asked for of one segment. Returns what does not hold in it.
    fn segment(&mut self, directory: &Directory, segment: &Segment) -> Result<Vec<Damage>, Error> {
        let file = directory.map(segment.key)?;
        let mut undecodable = Vec::new();
        let mut printed = Ok(());
        let mut damages = for_each_batch(segment, &file, |batch| {
            let header = &batch.header;
            let offsets = (header.base_offset, header.next_offset());
            let place = (batch.stream, batch.partition);
            if self.filter.takes(place, offsets, header.max_timestamp_ms) {
                match self.batch(segment, &batch) {
                    Ok(damage) => undecodable.extend(damage),
                    Err(error) => printed = Err(error),
                }
            }
            printed.is_ok() && self.left > 0
        });
        damages.append(&mut undecodable);
        printed.map(|()| damages)
    }

    fn batch(&mut self, segment: &Segment, batch: &Batch<'_>) -> Result<Option<Damage>, Error> {
        let number = batch.stream as usize;
        let stream = self.names.get(number).map_or(Value::from(number), |name| (*name).into());
        let Self { filter, form, left, out, scratch, .. } = self;
        let place = format!("{}:{}", segment.key.stem(), batch.at);
        let mut printed = Ok(());
        // Its line goes before the first of its records that is asked for.
        let mut head = (*form == Form::Text).then(|| batch_line(&stream, batch, &place));
        let decoded = for_each_record(batch.bytes, scratch, |record| {
            if !filter.takes_record(&record) {
                return true;
            }
            if let Some(head) = head.take() {
                printed = writeln!(out, "{head}");
            }
            if printed.is_err() {
                return false;
            }
            printed = match form {
                Form::Text => writeln!(out, "{}", record_line(&record)),
                Form::Json => record_json(&stream, batch.partition, &record)
                    .map_err(io::Error::from)
                    .and_then(|line| writeln!(out, "{line}")),
            };
            *left -= 1;
            *left > 0 && printed.is_ok()
        });
        printed.map_err(Error::Output)?;
        let what = "a record batch cannot be decoded";
        Ok(decoded.is_none().then_some(Damage { key: segment.key, at: batch.at, what }))
    }
}

fn batch_line(stream: &Value, batch: &Batch<'_>, place: &str) -> String {
    let header = &batch.header;
    format!(
        "{} {} offsets {}..{} records {} latest {} compression {} bytes {} at {place}",
        stream.as_str().map_or_else(|| stream.to_string(), str::to_owned),
        batch.partition,
        header.base_offset,
        header.next_offset(),
        header.record_count,
        moment(header.max_timestamp_ms),
        header.compression.name(),
        header.batch_bytes,
    )
}

fn record_line(record: &RecordView<'_>) -> String {
    let bytes = |bytes: Option<&[u8]>| bytes.map_or_else(|| "null".to_owned(), quoted);
    let headers: Vec<String> = record
        .headers()
        .map(|(name, value)| format!("{}: {}", quoted(name), quoted(value)))
        .collect();
    format!(
        "  {} {} {} = {} [{}]",
        record.offset,
        moment(record.timestamp_ms),
        bytes(record.key),
        bytes(record.value),
        headers.join(", ")
    )
}

/// A record as a line of JSON; the fields in this order.
#[derive(Serialize)]
struct RecordJson<'a> {
    stream: &'a Value,
    partition: u32,
    offset: u64,
    timestamp: i64,
    key: Option<Value>,
    value: Option<Value>,
    headers: Vec<(Value, Value)>,
}

fn record_json(
    stream: &Value,
    partition: u32,
    record: &RecordView<'_>,
) -> Result<String, serde_json::Error> {
    serde_json::to_string(&RecordJson {
        stream,
        partition,
        offset: record.offset.0,
        timestamp: record.timestamp_ms,
        key: record.key.map(json_of),
        value: record.value.map(json_of),
        headers: record.headers().map(|(name, value)| (json_of(name), json_of(value))).collect(),
    })
}
