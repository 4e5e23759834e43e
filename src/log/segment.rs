//! Segments: files of one log, each with an identity, its place in the chain and the offsets of
//! every partition when it was begun.
//!
//! A *moved* segment is no part of a chain: the cleaner wrote it, whole, with what it kept of other
//! segments. It begins at position 0, and its table has no rows.
//!
//! The header takes whole blocks at the front of the file and is written together with the
//! segment's first frame. All integers are little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic: `TGS1` of a chain, `TGM1` of a moved segment |
//! | 4..8 | CRC-32C of bytes 8..`header_bytes` |
//! | 8..12 | `header_bytes`, without padding |
//! | 12..16 | block: header and frames start at multiples of it |
//! | 16..24 | identity, random |
//! | 24..32 | identity of the segment before it in this log, 0 for the first |
//! | 32..36 | generation |
//! | 36..40 | log (the shard that wrote it) |
//! | 40..48 | sequence number in its log |
//! | 48..56 | log position of the file's first byte |
//! | 56..60 | CRC of the last frame before it in this log, 0 for the first |
//! | 60..64 | rows of the table |
//! | 64.. | table: stream u32, partition u32, log start offset u64, next offset u64, ceiling u64 |

use super::frame::{le_u32, le_u64};
use crate::record::Offset;

const MAGIC_CHAIN: [u8; 4] = *b"TGS1";
const MAGIC_MOVED: [u8; 4] = *b"TGM1";
const FIXED_BYTES: usize = 64;
const ROW_BYTES: usize = 32;

/// Which segment: its generation, its log there, and its place in that log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentKey {
    /// Counts the starts that wrote anything.
    pub generation: u32,
    /// The shard that wrote it.
    pub log: u32,
    /// Whether it is a moved segment, and not one of the log's chain.
    pub moved: bool,
    /// Counts up from 0 in its chain, and among the moved segments of its log.
    pub sequence: u64,
}

/// The directory of a generation, relative to the data directory.
pub fn generation_dir(generation: u32) -> String {
    format!("g{generation:06}")
}

/// The directory of a log, relative to the data directory.
pub fn log_dir(generation: u32, log: u32) -> String {
    format!("g{generation:06}/s{log:04}")
}

impl SegmentKey {
    /// A segment of a log's chain.
    pub fn chain(generation: u32, log: u32, sequence: u64) -> Self {
        Self { generation, log, moved: false, sequence }
    }

    /// A segment that the cleaner wrote.
    pub fn moved(generation: u32, log: u32, sequence: u64) -> Self {
        Self { generation, log, moved: true, sequence }
    }

    /// Its file, relative to the data directory, without the ending.
    pub fn stem(&self) -> String {
        let dir = log_dir(self.generation, self.log);
        match self.moved {
            false => format!("{dir}/{:010}", self.sequence),
            true => format!("{dir}/m{:09}", self.sequence),
        }
    }

    /// Its file, relative to the data directory.
    pub fn path(&self) -> String {
        format!("{}.log", self.stem())
    }

    /// Its index file, relative to the data directory.
    pub fn index_path(&self) -> String {
        format!("{}.idx", self.stem())
    }

    /// The segment of log `log` whose file has this name.
    pub fn from_name(generation: u32, log: u32, name: &str) -> Option<Self> {
        let stem = name.strip_suffix(".log")?;
        let digits = stem.strip_prefix('m').unwrap_or(stem);
        let moved = digits.len() < stem.len();
        let key = Self { generation, log, moved, sequence: digits.parse().ok()? };
        // One name a segment: `7.log` and `+7.log` are none.
        (key.path().ends_with(&format!("/{name}"))).then_some(key)
    }
}

/// The identity of a segment: 64 random bits of the start, which the manifest keeps, mixed with the
/// key.
pub fn identity(seed: u64, key: SegmentKey) -> u64 {
    if mutated!(OneIdentity) {
        return 1 + u64::from(key.log);
    }
    seed ^ (u64::from(key.log) << 48)
        ^ (u64::from(key.moved) << 47)
        ^ key.sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ u64::from(key.generation)
}

/// Offsets of one partition, as a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionOffsets {
    /// Stream.
    pub stream: u32,
    /// Partition.
    pub partition: u32,
    /// Log start offset.
    pub start: Offset,
    /// The next offset to be given.
    pub next: Offset,
    /// Offsets below may have been given out; equal to `next` for flushed streams.
    pub ceiling: Offset,
}

impl PartitionOffsets {
    /// A partition that never held anything.
    pub fn new(stream: u32, partition: u32) -> Self {
        Self { stream, partition, start: Offset(0), next: Offset(0), ceiling: Offset(0) }
    }
}

/// A segment's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Which segment.
    pub key: SegmentKey,
    /// Header and frames start at multiples of it.
    pub block: u32,
    /// See [`identity`]; in every frame.
    pub identity: u64,
    /// Identity of the one before, 0 for the first.
    pub previous_identity: u64,
    /// Log position of the file's first byte.
    pub base_position: u64,
    /// CRC of the last frame before.
    pub previous_crc: u32,
    /// Offsets of every partition of the log.
    pub partitions: Vec<PartitionOffsets>,
}

/// Bytes of a header with a table of `rows`, padded to `block`.
pub fn header_bytes(rows: usize, block: usize) -> usize {
    (FIXED_BYTES + rows * ROW_BYTES).next_multiple_of(block)
}

impl SegmentHeader {
    /// Writes it to the front of `out` with its padding. Returns (bytes, the header's CRC, which
    /// the first frame carries on).
    pub fn write(&self, out: &mut [u8]) -> (usize, u32) {
        let bytes = FIXED_BYTES + self.partitions.len() * ROW_BYTES;
        let padded = bytes.next_multiple_of(self.block as usize);
        out[..padded].fill(0);
        let mut put = Cursor { out: &mut out[..bytes], at: 8 };
        put.u32(bytes as u32);
        put.u32(self.block);
        put.u64(self.identity);
        put.u64(self.previous_identity);
        put.u32(self.key.generation);
        put.u32(self.key.log);
        put.u64(self.key.sequence);
        put.u64(self.base_position);
        put.u32(self.previous_crc);
        put.u32(self.partitions.len() as u32);
        for row in &self.partitions {
            put.u32(row.stream);
            put.u32(row.partition);
            put.u64(row.start.0);
            put.u64(row.next.0);
            put.u64(row.ceiling.0);
        }
        let crc = crc32c::crc32c(&out[8..bytes]);
        out[..4].copy_from_slice(if self.key.moved { &MAGIC_MOVED } else { &MAGIC_CHAIN });
        out[4..8].copy_from_slice(&crc.to_le_bytes());
        (padded, crc)
    }

    /// Reads the header at the front of a segment's bytes: the header, its bytes with padding and
    /// its CRC; `None` when there is no whole one.
    pub fn read(input: &[u8]) -> Option<(Self, usize, u32)> {
        let fixed = input.get(..FIXED_BYTES)?;
        let moved = fixed[..4] == MAGIC_MOVED;
        if !moved && fixed[..4] != MAGIC_CHAIN {
            return None;
        }
        let crc = le_u32(fixed, 4);
        let bytes = le_u32(fixed, 8) as usize;
        let rows = le_u32(fixed, 60) as usize;
        let block = le_u32(fixed, 12);
        let whole = input.get(..bytes)?;
        if bytes != FIXED_BYTES + rows * ROW_BYTES
            || crc32c::crc32c(&whole[8..]) != crc
            || !block.is_power_of_two()
        {
            return None;
        }
        let partitions = whole[FIXED_BYTES..]
            .chunks_exact(ROW_BYTES)
            .map(|row| PartitionOffsets {
                stream: le_u32(row, 0),
                partition: le_u32(row, 4),
                start: Offset(le_u64(row, 8)),
                next: Offset(le_u64(row, 16)),
                ceiling: Offset(le_u64(row, 24)),
            })
            .collect();
        let header = Self {
            key: SegmentKey {
                generation: le_u32(fixed, 32),
                log: le_u32(fixed, 36),
                moved,
                sequence: le_u64(fixed, 40),
            },
            block,
            identity: le_u64(fixed, 16),
            previous_identity: le_u64(fixed, 24),
            base_position: le_u64(fixed, 48),
            previous_crc: le_u32(fixed, 56),
            partitions,
        };
        Some((header, bytes.next_multiple_of(block as usize), crc))
    }
}

/// Writes little-endian integers one behind the other.
struct Cursor<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Cursor<'_> {
    fn u32(&mut self, value: u32) {
        self.out[self.at..self.at + 4].copy_from_slice(&value.to_le_bytes());
        self.at += 4;
    }

    fn u64(&mut self, value: u64) {
        self.out[self.at..self.at + 8].copy_from_slice(&value.to_le_bytes());
        self.at += 8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back_and_harm_is_seen() {
        let header = SegmentHeader {
            key: SegmentKey::chain(2, 1, 7),
            block: 512,
            identity: 99,
            previous_identity: 98,
            base_position: 1 << 30,
            previous_crc: 5,
            partitions: (0..3)
                .map(|partition| PartitionOffsets {
                    stream: 1,
                    partition,
                    start: Offset(4),
                    next: Offset(10),
                    ceiling: Offset(10),
                })
                .collect(),
        };
        let mut out = vec![0xee; 1024];
        let moved = SegmentHeader { key: SegmentKey::moved(2, 1, 7), ..header.clone() };
        let (bytes, crc) = moved.write(&mut out);
        assert_eq!(SegmentHeader::read(&out), Some((moved, bytes, crc)));
        let (bytes, crc) = header.write(&mut out);
        assert_eq!(bytes, header_bytes(3, 512));
        assert_eq!(SegmentHeader::read(&out), Some((header, bytes, crc)));
        for at in 0..FIXED_BYTES + 3 * ROW_BYTES {
            let mut harmed = out.clone();
            harmed[at] ^= 1;
            assert_eq!(SegmentHeader::read(&harmed), None, "flipped bit at {at}");
        }
    }

    #[test]
    fn a_segment_has_one_name() {
        for key in [SegmentKey::chain(2, 1, 7), SegmentKey::moved(2, 1, 7)] {
            let path = key.path();
            let name = path.rsplit('/').next().expect("a name");
            assert_eq!(SegmentKey::from_name(2, 1, name), Some(key));
        }
        let none =
            ["7.log", "+000000007.log", "0000000007.idx", "m7.log", "m0000000007.log", ".log"];
        for name in none {
            assert_eq!(SegmentKey::from_name(2, 1, name), None, "{name}");
        }
        let large = SegmentKey::chain(1, 0, 123_456_789_012);
        assert_eq!(SegmentKey::from_name(1, 0, "123456789012.log"), Some(large));
    }
}
