//! `tidegate log stat`: streams, partitions, segments, bytes, offsets, time ranges.
//!
//! Comes in: a directory and what was found in it. Goes out: a text. Offsets are those that the next
//! start would go on with. The first timestamps are read from the first batches themselves, as index
//! files hold only the latest; the walk to them is checked like any other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::Error;
use super::frames::for_each_batch;
use super::inventory::{Directory, Inventory};
use super::text::moment;
use crate::log::SegmentKey;
use crate::log::manifest::ManifestStream;
use crate::log::scan::Damage;
use crate::log::segment::PartitionOffsets;
use crate::record::{PartitionId, StreamId};

/// Timestamps of the first records that are kept, by (stream, partition).
type FirstTimes = BTreeMap<(u32, u32), i64>;

/// The whole text; damage that is met on the way is added to `damages`.
///
/// # Errors
/// The system's.
pub fn report(
    directory: &Directory,
    inventory: &Inventory,
    damages: &mut Vec<Damage>,
) -> Result<String, Error> {
    let first = first_times(directory, inventory, damages)?;
    let mut out = String::new();
    summary(&mut out, directory, inventory);
    let partitions = partitions(directory, inventory, &first);
    let head = ["stream", "records", "batches", "bytes", "lost", "first", "latest"];
    table(&mut out, &head, &stream_rows(directory, &partitions));
    let head = [
        "stream",
        "partition",
        "start",
        "next",
        "records",
        "batches",
        "bytes",
        "lost",
        "first",
        "latest",
    ];
    let rows: Vec<_> = partitions.iter().map(|row| partition_row(directory, row)).collect();
    table(&mut out, &head, &rows);
    table(
        &mut out,
        &["segment", "state", "in use", "file", "last written"],
        &segment_rows(inventory),
    );
    Ok(out)
}

fn summary(out: &mut String, directory: &Directory, inventory: &Inventory) {
    let manifest = &directory.manifest;
    let used: u64 = inventory.segments.iter().map(|segment| segment.end).sum();
    let files: u64 = inventory.segments.iter().map(|segment| segment.file_bytes).sum();
    let sealed = inventory.segments.iter().filter(|segment| segment.sealed).count();
    let (unused, unused_bytes) = inventory.unused;
    let open = inventory.segments.len() - sealed;
    let mut line = |name: &str, text: String| {
        let _ = writeln!(out, "{name:<10} {text}");
    };
    line("directory", directory.path.display().to_string());
    line("format", format!("{}, features {:#x}", manifest.format, manifest.features));
    line("cluster", manifest.cluster_id.clone());
    line(
        "starts",
        format!("{}, the last with {} shards", manifest.starts, manifest.current.shards),
    );
    line("streams", format!("{} of {} partitions", manifest.streams.len(), manifest.partitions));
    line("segments", format!("{sealed} sealed, {open} that the next start seals, {unused} unused"));
    line(
        "bytes",
        format!(
            "{used} in use of {files} in segments, {unused_bytes} in unused ones, {} in indexes",
            inventory.index_bytes
        ),
    );
    let recovered = &inventory.recovered;
    let kept = recovered.segments.iter().flat_map(|segment| &segment.spans);
    let stored: u64 = kept.map(|span| span.stored_bytes).sum();
    let written = used + inventory.index_bytes;
    let amplification = match stored {
        0 => "-".to_owned(),
        _ => format!("{:.2}", written as f64 / stored as f64),
    };
    line(
        "amplified",
        format!(
            "{amplification}: {written} bytes of segments and indexes for {stored} of record batches"
        ),
    );
    for (key, at) in &inventory.torn {
        let text = format!("segment {} at byte {at}: it was never acknowledged", key.stem());
        line("torn tail", text);
    }
}

/// What is kept of a partition, or of a stream.
#[derive(Debug, Clone, Copy, Default)]
struct Kept {
    records: u64,
    batches: u64,
    bytes: u64,
    /// Offsets that damage took.
    lost: u64,
    first_ms: Option<i64>,
    latest_ms: Option<i64>,
}

impl Kept {
    fn and(self, other: Self) -> Self {
        let earlier = |one: Option<i64>, two: Option<i64>| one.into_iter().chain(two).min();
        Self {
            records: self.records + other.records,
            batches: self.batches + other.batches,
            bytes: self.bytes + other.bytes,
            lost: self.lost + other.lost,
            first_ms: earlier(self.first_ms, other.first_ms),
            latest_ms: self.latest_ms.max(other.latest_ms),
        }
    }

    fn cells(&self) -> impl Iterator<Item = String> {
        let time = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), moment);
        let numbers = [self.records, self.batches, self.bytes, self.lost];
        let times = [time(self.first_ms), time(self.latest_ms)];
        numbers.into_iter().map(|number| number.to_string()).chain(times)
    }
}

/// Each partition with its offsets and what is kept of it.
fn partitions(
    directory: &Directory,
    inventory: &Inventory,
    first: &FirstTimes,
) -> Vec<(PartitionOffsets, Kept)> {
    let recovered = &inventory.recovered;
    let streams = 0..directory.manifest.streams.len() as u32;
    let places = streams.flat_map(|s| (0..directory.manifest.partitions).map(move |p| (s, p)));
    let kept = |(stream, partition): (u32, u32)| {
        let place = (StreamId(stream), PartitionId(partition));
        let layout = recovered.layout(place.0, place.1);
        let entries = layout.spans.iter().filter_map(|(_, span)| span.entries);
        let latest = layout.spans.iter().map(|(_, span)| span.max_timestamp_ms).max();
        let kept = Kept {
            records: layout.spans.iter().map(|(_, span)| span.next.0 - span.base.0).sum(),
            batches: entries.map(|entries| u64::from(entries.count)).sum(),
            bytes: layout.spans.iter().map(|(_, span)| span.stored_bytes).sum(),
            lost: layout.holes.iter().map(|(from, to)| to.0 - from.0).sum(),
            first_ms: first.get(&(stream, partition)).copied(),
            latest_ms: latest,
        };
        (recovered.offsets(place.0, place.1), kept)
    };
    places.map(kept).collect()
}

fn partition_row(directory: &Directory, (offsets, kept): &(PartitionOffsets, Kept)) -> Vec<String> {
    let name = directory.manifest.streams[offsets.stream as usize].name.to_string();
    let numbers = [offsets.start.0, offsets.next.0].map(|number| number.to_string());
    let mut row = vec![name, offsets.partition.to_string()];
    row.extend(numbers);
    row.extend(kept.cells());
    row
}

fn stream_rows(directory: &Directory, partitions: &[(PartitionOffsets, Kept)]) -> Vec<Vec<String>> {
    let row = |(number, stream): (usize, &ManifestStream)| {
        let mine = partitions.iter().filter(|(offsets, _)| offsets.stream as usize == number);
        let kept = mine.fold(Kept::default(), |sum, (_, kept)| sum.and(*kept));
        std::iter::once(stream.name.to_string()).chain(kept.cells()).collect()
    };
    directory.manifest.streams.iter().enumerate().map(row).collect()
}

fn segment_rows(inventory: &Inventory) -> Vec<Vec<String>> {
    let last_written = |key: SegmentKey| {
        let found = inventory.recovered.segments.iter().find(|segment| segment.key == key);
        found.map_or_else(|| "-".to_owned(), |segment| moment(segment.end.wall_ms))
    };
    let row = |segment: &super::inventory::Segment| {
        vec![
            segment.key.stem(),
            if segment.sealed { "sealed" } else { "open" }.to_owned(),
            segment.end.to_string(),
            segment.file_bytes.to_string(),
            last_written(segment.key),
        ]
    };
    inventory.segments.iter().map(row).collect()
}

/// An empty line and a table: the columns as wide as their widest cell, numbers to the right.
fn table(out: &mut String, head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].len());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let is_number = |column: usize| {
        !rows.is_empty() && rows.iter().all(|row| row[column].bytes().all(|b| b.is_ascii_digit()))
    };
    let numbers: Vec<bool> = (0..head.len()).map(is_number).collect();
    let mut line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (column, cell) in cells.into_iter().enumerate() {
            let width = widths[column];
            let _ = match numbers[column] {
                true => write!(text, "{cell:>width$}  "),
                false => write!(text, "{cell:<width$}  "),
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(vec![""; head.len()]);
    line(head.to_vec());
    for row in rows {
        line(row.iter().map(String::as_str).collect());
    }
}

/// Looks for the first batch of each partition in the segment in which it begins.
fn first_times(
    directory: &Directory,
    inventory: &Inventory,
    damages: &mut Vec<Damage>,
) -> Result<FirstTimes, Error> {
    let recovered = &inventory.recovered;
    let mut wanted: BTreeMap<SegmentKey, BTreeSet<(u32, u32)>> = BTreeMap::new();
    for &(stream, partition) in recovered.offsets.keys() {
        if let Some((key, _)) =
            recovered.layout(StreamId(stream), PartitionId(partition)).spans.front()
        {
            wanted.entry(*key).or_default().insert((stream, partition));
        }
    }
    let mut first = FirstTimes::new();
    for (key, mut places) in wanted {
        let Some(segment) = inventory.segments.iter().find(|segment| segment.key == key) else {
            continue;
        };
        let walked = for_each_batch(segment, &directory.map(key)?, |batch| {
            let place = (batch.stream, batch.partition);
            if places.remove(&place) {
                first.insert(place, batch.header.base_timestamp_ms);
            }
            !places.is_empty()
        });
        damages.extend(walked);
    }
    Ok(first)
}
