//! Frames: what one commit writes, and how a reader knows that it is whole and where it belongs.
//!
//! A frame is a header of 64 bytes, entries (16 bytes and a record batch, a reservation or a range
//! each, padded to 8), and zeros up to the log's block. All integers are little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic `TGF1` |
//! | 4..8 | CRC-32C of bytes 8..`frame_bytes` |
//! | 8..12 | CRC of the frame before it in this log (the chain); of the first: the segment header's |
//! | 12..16 | `frame_bytes`: header and entries, without the padding |
//! | 16..24 | identity of the segment: a recycled segment's old frames never pass for new |
//! | 24..32 | position in the log of this frame's first byte |
//! | 32..40 | position up to which the log was durable when this frame was written |
//! | 40..48 | wall clock, milliseconds since 1970 |
//! | 48..56 | age clock, milliseconds (see `retention`) |
//! | 56..60 | entries |
//! | 60..64 | flags: 1 = the engine was stopped cleanly after this frame |

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes before each entry's contents.
pub const ENTRY_HEADER_BYTES: usize = 16;
/// Entries start at multiples of this.
pub const ENTRY_ALIGN: usize = 8;
/// Flag: the engine stopped cleanly after this frame.
pub const FLAG_CLEAN_END: u32 = 1;

const MAGIC: [u8; 4] = *b"TGF1";
const KIND_BATCH: u32 = 0;
const KIND_RESERVATION: u32 = 1;
const KIND_RANGE: u32 = 2;

/// What a frame's header says, apart from magic, CRC and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameHeader {
    /// CRC of the frame before.
    pub previous_crc: u32,
    /// Identity of the segment it is in.
    pub segment_identity: u64,
    /// Log position of its first byte.
    pub position: u64,
    /// Log position below which everything was durable when it was written.
    pub durable: u64,
    /// Wall clock at sealing, milliseconds since 1970.
    pub wall_ms: i64,
    /// Age clock at sealing, milliseconds.
    pub age_ms: u64,
    /// Entries.
    pub entry_count: u32,
    /// `FLAG_…`.
    pub flags: u32,
}

/// One entry of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry<'a> {
    /// A record batch of a stream's partition.
    Batch {
        /// Stream.
        stream: u32,
        /// Partition.
        partition: u32,
        /// Where the batch starts, from the frame's first byte.
        at: usize,
        /// The batch, as Fetch sends it.
        batch: &'a [u8],
    },
    /// Offsets below `ceiling` may have been given out already (streams that are not flushed).
    Reservation {
        /// Stream.
        stream: u32,
        /// Partition.
        partition: u32,
        /// The first offset that was surely not given.
        ceiling: u64,
    },
    /// Of a moved segment: the batches of this partition that follow, until its next range, are all
    /// that is left of these offsets.
    Range {
        /// Stream.
        stream: u32,
        /// Partition.
        partition: u32,
        /// Which offsets, and how old their newest record is.
        range: Range,
    },
}

/// Offsets that a moved segment stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first offset.
    pub from: u64,
    /// The offset after the last.
    pub to: u64,
    /// Age clock of the newest record, milliseconds.
    pub age_ms: u64,
}

/// Writes one frame into a buffer that is large enough, front to back.
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut [u8],
    at: usize,
    entry_count: u32,
}

impl<'a> FrameWriter<'a> {
    /// A frame at the front of `out`.
    pub fn new(out: &'a mut [u8]) -> Self {
        Self { out, at: HEADER_BYTES, entry_count: 0 }
    }

    /// Adds a batch entry: `fill` writes the batch to the front of the bytes that it is given and
    /// returns how many it took. Returns where the batch starts in the frame and its bytes.
    pub fn batch(
        &mut self,
        stream: u32,
        partition: u32,
        fill: impl FnOnce(&mut [u8]) -> usize,
    ) -> (usize, usize) {
        let start = self.at + ENTRY_HEADER_BYTES;
        let bytes = fill(&mut self.out[start..]);
        self.entry(KIND_BATCH, stream, partition, bytes);
        (start, bytes)
    }

    /// Adds a reservation entry.
    pub fn reservation(&mut self, stream: u32, partition: u32, ceiling: u64) {
        let start = self.at + ENTRY_HEADER_BYTES;
        self.out[start..start + 8].copy_from_slice(&ceiling.to_le_bytes());
        self.entry(KIND_RESERVATION, stream, partition, 8);
    }

    /// Adds a range entry.
    pub fn range(&mut self, stream: u32, partition: u32, range: Range) {
        let start = self.at + ENTRY_HEADER_BYTES;
        for (i, word) in [range.from, range.to, range.age_ms].into_iter().enumerate() {
            let at = start + 8 * i;
            self.out[at..at + 8].copy_from_slice(&word.to_le_bytes());
        }
        self.entry(KIND_RANGE, stream, partition, 24);
    }

    fn entry(&mut self, kind: u32, stream: u32, partition: u32, bytes: usize) {
        for (i, word) in [kind, stream, partition, bytes as u32].into_iter().enumerate() {
            let at = self.at + 4 * i;
            self.out[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let end = self.at + ENTRY_HEADER_BYTES + bytes;
        self.at = end.next_multiple_of(ENTRY_ALIGN);
        self.out[end..self.at].fill(0);
        self.entry_count += 1;
    }

    /// Writes the header, pads with zeros to `block`. Returns (bytes with padding, the frame's CRC).
    pub fn finish(self, header: &FrameHeader, block: usize) -> (usize, u32) {
        let frame_bytes = self.at;
        let padded = frame_bytes.next_multiple_of(block);
        self.out[frame_bytes..padded].fill(0);
        let frame = &mut self.out[..frame_bytes];
        frame[0..4].copy_from_slice(&MAGIC);
        frame[8..12].copy_from_slice(&header.previous_crc.to_le_bytes());
        frame[12..16].copy_from_slice(&(frame_bytes as u32).to_le_bytes());
        frame[16..24].copy_from_slice(&header.segment_identity.to_le_bytes());
        frame[24..32].copy_from_slice(&header.position.to_le_bytes());
        frame[32..40].copy_from_slice(&header.durable.to_le_bytes());
        frame[40..48].copy_from_slice(&header.wall_ms.to_le_bytes());
        frame[48..56].copy_from_slice(&header.age_ms.to_le_bytes());
        frame[56..60].copy_from_slice(&self.entry_count.to_le_bytes());
        frame[60..64].copy_from_slice(&header.flags.to_le_bytes());
        let crc = crc32c::crc32c(&frame[8..]);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        (padded, crc)
    }
}

/// A frame that was found whole.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub header: FrameHeader,
    /// Its CRC, which the next frame carries on.
    pub crc: u32,
    /// The frame without its padding.
    pub bytes: &'a [u8],
}

/// Reads the frame at the front of `input`: whole and unharmed, or `None`. Says nothing about
/// whether it belongs there; identity, position and chain are the caller's to check.
pub fn read(input: &[u8]) -> Option<Frame<'_>> {
    let header = input.get(..HEADER_BYTES)?;
    if header[0..4] != MAGIC {
        return None;
    }
    let crc = le_u32(header, 4);
    let frame_bytes = le_u32(header, 12) as usize;
    let bytes = input.get(..frame_bytes).filter(|_| frame_bytes >= HEADER_BYTES)?;
    if crc32c::crc32c(&bytes[8..]) != crc && !mutated!(NoFrameCrc) {
        return None;
    }
    let header = FrameHeader {
        previous_crc: le_u32(header, 8),
        segment_identity: le_u64(header, 16),
        position: le_u64(header, 24),
        durable: le_u64(header, 32),
        wall_ms: le_u64(header, 40) as i64,
        age_ms: le_u64(header, 48),
        entry_count: le_u32(header, 56),
        flags: le_u32(header, 60),
    };
    Some(Frame { header, crc, bytes })
}

/// The identity that the frame at the front of `block` gives, whole or not; `None` where none
/// begins.
pub fn identity_at(block: &[u8]) -> Option<u64> {
    let header = block.get(..HEADER_BYTES)?;
    (header[..4] == MAGIC).then(|| le_u64(header, 16))
}

impl<'a> Frame<'a> {
    /// Its entries in order; an item is `None` where the frame contradicts itself.
    pub fn entries(&self) -> impl Iterator<Item = Option<Entry<'a>>> + use<'a> {
        let bytes = self.bytes;
        let mut at = HEADER_BYTES;
        (0..self.header.entry_count).map(move |_| {
            let head = bytes.get(at..at + ENTRY_HEADER_BYTES)?;
            let (kind, stream, partition) = (le_u32(head, 0), le_u32(head, 4), le_u32(head, 8));
            let start = at + ENTRY_HEADER_BYTES;
            let length = le_u32(head, 12) as usize;
            let contents = bytes.get(start..start + length)?;
            at = (start + length).next_multiple_of(ENTRY_ALIGN);
            match kind {
                KIND_BATCH => Some(Entry::Batch { stream, partition, at: start, batch: contents }),
                KIND_RESERVATION if length == 8 => {
                    Some(Entry::Reservation { stream, partition, ceiling: le_u64(contents, 0) })
                }
                KIND_RANGE if length == 24 => {
                    let [from, to, age_ms] = [0, 8, 16].map(|at| le_u64(contents, at));
                    (from <= to).then_some(Entry::Range {
                        stream,
                        partition,
                        range: Range { from, to, age_ms },
                    })
                }
                _ => None,
            }
        })
    }
}

/// Whether the bytes in front of a batch, [`ENTRY_HEADER_BYTES`] of them, say that it is one of this
/// partition.
pub fn is_batch_of(entry_header: &[u8], (stream, partition): (u32, u32)) -> bool {
    entry_header.len() == ENTRY_HEADER_BYTES
        && le_u32(entry_header, 0) == KIND_BATCH
        && (le_u32(entry_header, 4), le_u32(entry_header, 8)) == (stream, partition)
}

pub(super) fn le_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn le_u64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> FrameHeader {
        FrameHeader {
            previous_crc: 0x0102_0304,
            segment_identity: 0x1122_3344_5566_7788,
            position: 4096,
            durable: 4096,
            wall_ms: 1_700_000_000_000,
            age_ms: 5,
            entry_count: 0,
            flags: 0,
        }
    }

    fn sample() -> (Vec<u8>, usize) {
        let mut out = vec![0xee; 512];
        let mut writer = FrameWriter::new(&mut out);
        writer.batch(3, 9, |out| {
            out[..5].copy_from_slice(b"batch");
            5
        });
        writer.reservation(1, 2, 77);
        writer.range(4, 5, Range { from: 6, to: 9, age_ms: 10 });
        let (padded, _) = writer.finish(&header(), 512);
        (out, padded)
    }

    #[test]
    fn golden_frame() {
        let (out, padded) = sample();
        assert_eq!(padded, 512);
        let mut expected = Vec::new();
        expected.extend(b"TGF1");
        expected.extend([0; 4]);
        expected.extend(0x0102_0304_u32.to_le_bytes());
        expected.extend((64_u32 + 24 + 24 + 40).to_le_bytes());
        expected.extend(0x1122_3344_5566_7788_u64.to_le_bytes());
        expected.extend(4096_u64.to_le_bytes());
        expected.extend(4096_u64.to_le_bytes());
        expected.extend(1_700_000_000_000_i64.to_le_bytes());
        expected.extend(5_u64.to_le_bytes());
        expected.extend(3_u32.to_le_bytes());
        expected.extend(0_u32.to_le_bytes());
        for word in [0_u32, 3, 9, 5] {
            expected.extend(word.to_le_bytes());
        }
        expected.extend(b"batch\0\0\0");
        for word in [1_u32, 1, 2, 8] {
            expected.extend(word.to_le_bytes());
        }
        expected.extend(77_u64.to_le_bytes());
        for word in [2_u32, 4, 5, 24] {
            expected.extend(word.to_le_bytes());
        }
        for word in [6_u64, 9, 10] {
            expected.extend(word.to_le_bytes());
        }
        let crc = crc32c::crc32c(&expected[8..]).to_le_bytes();
        expected[4..8].copy_from_slice(&crc);
        expected.resize(512, 0);
        assert_eq!(out, expected);
    }

    #[test]
    fn what_is_written_reads_back() {
        let (out, _) = sample();
        let frame = read(&out).expect("whole");
        assert_eq!(frame.header, FrameHeader { entry_count: 3, ..header() });
        let entries: Vec<_> = frame.entries().collect();
        assert_eq!(
            entries,
            [
                Some(Entry::Batch { stream: 3, partition: 9, at: 80, batch: b"batch" }),
                Some(Entry::Reservation { stream: 1, partition: 2, ceiling: 77 }),
                Some(Entry::Range {
                    stream: 4,
                    partition: 5,
                    range: Range { from: 6, to: 9, age_ms: 10 }
                }),
            ]
        );
    }

    #[test]
    fn a_harmed_or_cut_frame_is_none() {
        let (out, _) = sample();
        let bytes = 64 + 24 + 24 + 40;
        for at in 0..bytes {
            let mut harmed = out.clone();
            harmed[at] ^= 1;
            assert!(read(&harmed).is_none(), "flipped bit at {at}");
            assert!(read(&out[..at]).is_none(), "cut at {at}");
        }
    }
}
