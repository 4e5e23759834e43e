//! The index of one segment: where each batch of each partition lies.
//!
//! While a segment is appended to its index is in memory; when it is full the index goes to a file
//! beside it and memory keeps one [`Span`] a partition. The file only speeds things up: it says all
//! that recovery would find in the segment, which rebuilds it where it is missing or torn. All
//! integers are little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `TGI1` |
//! | 4..8 | CRC-32C of bytes 8 to the end of the directory |
//! | 8..12 | rows of the directory |
//! | 12..16 | CRC of the segment's last frame |
//! | 16..24 | identity of the segment |
//! | 24..32 | end: bytes of the segment that are in use |
//! | 32..40 | wall clock of the last frame, milliseconds since 1970 |
//! | 40..48 | age clock of the last frame, milliseconds |
//! | 48..52 | flags: 1 = the engine was stopped cleanly after the last frame |
//! | 52..56 | 0 |
//! | 56.. | directory: stream u32, partition u32, base offset u64, next offset u64, max timestamp i64, stored bytes u64, ceiling u64, entries at u64, entries u32, CRC of entries u32, age clock u64 |
//! | … | entries: base offset u64, max timestamp i64, position u32, bytes u32, offsets u32, records u32 |
//!
//! A row of the directory is a *run*: batches of one partition whose offsets follow one another. A
//! partition has one in a segment of a chain, more where damage made holes, and in a moved segment
//! one for each range that the segment stands for.

use super::frame::{self, ENTRY_HEADER_BYTES, Range, le_u32, le_u64};
use crate::record::Offset;
use crate::record::batch::BatchHeader;

const MAGIC: [u8; 4] = *b"TGI1";
const FIXED_BYTES: usize = 56;
const ROW_BYTES: usize = 72;
const FLAG_CLEAN: u32 = 1;
/// Bytes of an entry in the file.
pub const ENTRY_BYTES: usize = 32;

/// Where one batch lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Offset of its first record.
    pub base: Offset,
    /// Latest timestamp of its records, milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// First byte in the segment's file.
    pub position: u32,
    /// Bytes.
    pub bytes: u32,
    /// Offsets from the first record to the last, both counted.
    pub offset_count: u32,
    /// Records.
    pub record_count: u32,
}

impl IndexEntry {
    /// The entry of a batch that starts at `position` of its segment.
    pub fn of(batch: &BatchHeader, position: u32) -> Self {
        Self {
            base: batch.base_offset,
            max_timestamp_ms: batch.max_timestamp_ms,
            position,
            bytes: batch.batch_bytes,
            offset_count: batch.offset_count,
            record_count: batch.record_count,
        }
    }

    /// The offset after its last record.
    pub fn next(&self) -> Offset {
        self.base.plus(u64::from(self.offset_count))
    }

    /// First byte in the segment's file of what must be read to know the batch: that, and before it
    /// what the frame says whose it is.
    pub fn framed_position(&self) -> u64 {
        u64::from(self.position).saturating_sub(ENTRY_HEADER_BYTES as u64)
    }

    /// Bytes from there to the end of the batch.
    pub fn framed_bytes(&self) -> usize {
        ENTRY_HEADER_BYTES + self.bytes as usize
    }

    /// The batch in the segment's whole file, where that holds it.
    pub fn batch_of<'a>(&self, place: (u32, u32), file: &'a [u8]) -> Option<&'a [u8]> {
        let at = usize::try_from(self.framed_position()).ok()?;
        self.batch_in(place, file.get(at..at.checked_add(self.framed_bytes())?)?)
    }

    /// The batch, where `framed` holds it as it was written, as one of the partition `place`.
    pub fn batch_in<'a>(&self, place: (u32, u32), framed: &'a [u8]) -> Option<&'a [u8]> {
        let (entry_header, batch) = framed.split_at_checked(ENTRY_HEADER_BYTES)?;
        let header = BatchHeader::read(batch)?;
        let sound = frame::is_batch_of(entry_header, place)
            && batch.len() == self.bytes as usize
            && header.batch_bytes == self.bytes
            && header.base_offset == self.base
            && header.record_count == self.record_count
            && header.crc_holds(batch);
        sound.then_some(batch)
    }

    /// Reads entry `index` of a partition's entries as they are in the file.
    pub fn read(entries: &[u8], index: usize) -> Option<Self> {
        let bytes = entries.get(index * ENTRY_BYTES..(index + 1) * ENTRY_BYTES)?;
        Some(Self {
            base: Offset(le_u64(bytes, 0)),
            max_timestamp_ms: le_u64(bytes, 8) as i64,
            position: le_u32(bytes, 16),
            bytes: le_u32(bytes, 20),
            offset_count: le_u32(bytes, 24),
            record_count: le_u32(bytes, 28),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend(self.base.0.to_le_bytes());
        out.extend(self.max_timestamp_ms.to_le_bytes());
        out.extend(self.position.to_le_bytes());
        out.extend(self.bytes.to_le_bytes());
        out.extend(self.offset_count.to_le_bytes());
        out.extend(self.record_count.to_le_bytes());
    }
}

/// A run: what a segment holds of one partition, or a part of it without a jump in the offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Stream.
    pub stream: u32,
    /// Partition.
    pub partition: u32,
    /// The first offset that it stands for: that of its first record, but for moved segments.
    pub base: Offset,
    /// The offset after the last one that it stands for.
    pub next: Offset,
    /// Latest timestamp, milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// Bytes of the batches.
    pub stored_bytes: u64,
    /// The last ceiling reserved in the segment, 0 for none.
    pub ceiling: Offset,
    /// Age clock of its newest record, milliseconds.
    pub age_ms: u64,
    /// Where the entries lie in the index file; `None` while they are in memory.
    pub entries: Option<EntriesAt>,
    /// The offset after its last batch, where a reader found that to be less than `next`; in memory
    /// only.
    pub reach: Option<Offset>,
}

impl Span {
    /// Whether both are of one partition.
    pub fn is_of_partition(&self, other: &Self) -> bool {
        (self.stream, self.partition) == (other.stream, other.partition)
    }

    /// Whether every offset of `other` is one of its own.
    pub fn covers(&self, other: &Self) -> bool {
        self.base <= other.base && other.next <= self.next
    }
}

/// Where a run's entries lie in an index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntriesAt {
    /// First byte.
    pub at: u64,
    /// Entries.
    pub count: u32,
    /// CRC-32C of their bytes.
    pub crc: u32,
}

impl EntriesAt {
    /// Bytes of all the entries.
    pub fn bytes(&self) -> usize {
        self.count as usize * ENTRY_BYTES
    }
}

/// How a segment ended; kept in its index file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SegmentEnd {
    /// Identity of the segment.
    pub identity: u64,
    /// Bytes of the file in use.
    pub end: u64,
    /// CRC of its last frame.
    pub last_crc: u32,
    /// Whether the last frame says that the engine was stopped cleanly.
    pub clean: bool,
    /// Wall clock of its last frame, milliseconds since 1970.
    pub wall_ms: i64,
    /// Age clock of its last frame, milliseconds.
    pub age_ms: u64,
}

/// One run of an index in memory.
#[derive(Debug, Default, Clone)]
pub struct IndexRow {
    /// Stream.
    pub stream: u32,
    /// Partition.
    pub partition: u32,
    /// The last ceiling reserved, 0 for none. Where there is one there is a batch as well.
    pub ceiling: Offset,
    /// What it stands for; `None` in a chain, where that is what its batches hold.
    pub range: Option<Range>,
    /// Its batches, by offset.
    pub entries: Vec<IndexEntry>,
}

impl IndexRow {
    /// The row in short; `None` when it stands for nothing. `age_ms` is the segment's.
    pub fn span(&self, age_ms: u64) -> Option<Span> {
        let held = || Some((self.entries.first()?.base, self.entries.last()?.next(), age_ms));
        let (base, next, age_ms) = match self.range {
            Some(range) => (Offset(range.from), Offset(range.to), range.age_ms),
            None => held()?,
        };
        let timestamps = self.entries.iter().map(|entry| entry.max_timestamp_ms);
        Some(Span {
            stream: self.stream,
            partition: self.partition,
            base,
            next,
            max_timestamp_ms: timestamps.max().unwrap_or(i64::MIN),
            stored_bytes: self.entries.iter().map(|e| u64::from(e.bytes)).sum(),
            ceiling: self.ceiling,
            age_ms,
            entries: None,
            reach: None,
        })
    }
}

/// The index file of a segment, padded to `block`, and the spans that point into it.
pub fn encode(end: &SegmentEnd, rows: &[IndexRow], block: usize) -> (Vec<u8>, Vec<Span>) {
    let filled = || rows.iter().filter_map(|row| Some((row, row.span(end.age_ms)?)));
    let count = filled().count();
    let mut at = (FIXED_BYTES + count * ROW_BYTES) as u64;
    let entry_count = rows.iter().map(|row| row.entries.len()).sum::<usize>();
    let mut entries = Vec::with_capacity(entry_count * ENTRY_BYTES);
    let mut out = Vec::with_capacity((at as usize + entries.capacity()).next_multiple_of(block));
    out.resize(FIXED_BYTES, 0);
    let mut spans = Vec::with_capacity(count);
    for (row, mut span) in filled() {
        let start = entries.len();
        for entry in &row.entries {
            entry.write(&mut entries);
        }
        let crc = crc32c::crc32c(&entries[start..]);
        let located = EntriesAt { at, count: row.entries.len() as u32, crc };
        at += located.bytes() as u64;
        span.entries = Some(located);
        write_row(&mut out, &span, located);
        spans.push(span);
    }
    out[8..12].copy_from_slice(&(count as u32).to_le_bytes());
    out[12..16].copy_from_slice(&end.last_crc.to_le_bytes());
    out[16..24].copy_from_slice(&end.identity.to_le_bytes());
    out[24..32].copy_from_slice(&end.end.to_le_bytes());
    out[32..40].copy_from_slice(&end.wall_ms.to_le_bytes());
    out[40..48].copy_from_slice(&end.age_ms.to_le_bytes());
    out[48..52].copy_from_slice(&(if end.clean { FLAG_CLEAN } else { 0 }).to_le_bytes());
    let crc = crc32c::crc32c(&out[8..]);
    out[..4].copy_from_slice(&MAGIC);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out.extend(entries);
    out.resize(out.len().next_multiple_of(block), 0);
    (out, spans)
}

fn write_row(out: &mut Vec<u8>, span: &Span, located: EntriesAt) {
    out.extend(span.stream.to_le_bytes());
    out.extend(span.partition.to_le_bytes());
    out.extend(span.base.0.to_le_bytes());
    out.extend(span.next.0.to_le_bytes());
    out.extend(span.max_timestamp_ms.to_le_bytes());
    out.extend(span.stored_bytes.to_le_bytes());
    out.extend(span.ceiling.0.to_le_bytes());
    out.extend(located.at.to_le_bytes());
    out.extend(located.count.to_le_bytes());
    out.extend(located.crc.to_le_bytes());
    out.extend(span.age_ms.to_le_bytes());
}

/// Reads a whole index file; `None` when anything of it, entries included, is not what was written.
/// For tools: a file that is there under its own name was durable before, so that a start reads the
/// directory alone.
pub fn decode(file: &[u8]) -> Option<(SegmentEnd, Vec<Span>)> {
    let (end, spans) = decode_directory(file)?;
    spans.iter().all(|span| entries_of(file, span).is_some()).then_some((end, spans))
}

/// The entries of a run in its whole index file; `None` when they are not what was written.
pub fn entries_of(file: &[u8], span: &Span) -> Option<Vec<IndexEntry>> {
    let Some(located) = span.entries else { return Some(Vec::new()) };
    let at = usize::try_from(located.at).ok()?;
    let entries = file.get(at..at.checked_add(located.bytes())?)?;
    if crc32c::crc32c(entries) != located.crc {
        return None;
    }
    (0..located.count as usize).map(|number| IndexEntry::read(entries, number)).collect()
}

/// Bytes of the directory at the front of an index file, as that says; `None` where there is none.
pub fn directory_bytes(front: &[u8]) -> Option<usize> {
    let fixed = front.get(..FIXED_BYTES).filter(|fixed| fixed[..4] == MAGIC)?;
    FIXED_BYTES.checked_add((le_u32(fixed, 8) as usize).checked_mul(ROW_BYTES)?)
}

/// Reads the directory at the front of an index file that is known to be durable; `None` when it
/// is not whole. The entries are read, and checked, when somebody needs them.
pub fn decode_directory(file: &[u8]) -> Option<(SegmentEnd, Vec<Span>)> {
    let directory = file.get(..directory_bytes(file)?)?;
    let fixed = &directory[..FIXED_BYTES];
    if crc32c::crc32c(&directory[8..]) != le_u32(fixed, 4) {
        return None;
    }
    let end = SegmentEnd {
        identity: le_u64(fixed, 16),
        end: le_u64(fixed, 24),
        last_crc: le_u32(fixed, 12),
        clean: le_u32(fixed, 48) & FLAG_CLEAN != 0,
        wall_ms: le_u64(fixed, 32) as i64,
        age_ms: le_u64(fixed, 40),
    };
    let spans = directory[FIXED_BYTES..]
        .chunks_exact(ROW_BYTES)
        .map(|row| Span {
            stream: le_u32(row, 0),
            partition: le_u32(row, 4),
            base: Offset(le_u64(row, 8)),
            next: Offset(le_u64(row, 16)),
            max_timestamp_ms: le_u64(row, 24) as i64,
            stored_bytes: le_u64(row, 32),
            ceiling: Offset(le_u64(row, 40)),
            age_ms: le_u64(row, 64),
            entries: Some(EntriesAt {
                at: le_u64(row, 48),
                count: le_u32(row, 56),
                crc: le_u32(row, 60),
            }),
            reach: None,
        })
        .collect();
    Some((end, spans))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_file_reads_back_and_harm_is_seen() {
        let entry = |base, position| IndexEntry {
            base: Offset(base),
            max_timestamp_ms: 1000 + base as i64,
            position,
            bytes: 100,
            offset_count: 5,
            record_count: 4,
        };
        let row = |stream, partition, ceiling, entries| IndexRow {
            stream,
            partition,
            ceiling: Offset(ceiling),
            range: None,
            entries,
        };
        let range = Some(Range { from: 30, to: 50, age_ms: 8 });
        let rows = [
            row(0, 2, 77, vec![entry(10, 4096), entry(15, 8192)]),
            row(0, 4, 0, vec![]),
            row(1, 2, 0, vec![entry(0, 4200)]),
            IndexRow { range, ..row(1, 3, 0, vec![]) },
        ];
        let end = SegmentEnd {
            identity: 7,
            end: 12288,
            last_crc: 3,
            clean: true,
            wall_ms: 99,
            age_ms: 1,
        };
        let (file, spans) = encode(&end, &rows, 4096);
        assert_eq!(file.len() % 4096, 0);
        assert_eq!(decode(&file), Some((end, spans.clone())));
        assert_eq!(spans.len(), 3);
        assert_eq!((spans[2].base, spans[2].next, spans[2].age_ms), (Offset(30), Offset(50), 8));
        assert_eq!((spans[0].age_ms, spans[2].stored_bytes), (end.age_ms, 0));
        assert_eq!((spans[0].base, spans[0].next), (Offset(10), Offset(20)));
        assert_eq!((spans[0].stored_bytes, spans[0].max_timestamp_ms), (200, 1015));
        assert_eq!((spans[0].ceiling, spans[1].ceiling), (Offset(77), Offset(0)));
        for span in &spans[..2] {
            let located = span.entries.expect("in the file");
            let bytes = &file[located.at as usize..][..located.bytes()];
            assert_eq!(crc32c::crc32c(bytes), located.crc);
            assert_eq!(IndexEntry::read(bytes, 0).map(|e| e.base), Some(span.base));
        }
        let directory = FIXED_BYTES + 3 * ROW_BYTES;
        for at in 0..directory + 3 * ENTRY_BYTES {
            let mut harmed = file.clone();
            harmed[at] ^= 1;
            assert_eq!(decode(&harmed), None, "flipped bit at {at}");
            assert_eq!(decode_directory(&harmed).is_some(), at >= directory, "at {at}");
        }
        for length in 0..directory + 3 * ENTRY_BYTES {
            assert_eq!(decode(&file[..length]), None, "cut to {length}");
        }
    }
}
