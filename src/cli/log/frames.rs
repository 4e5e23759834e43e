//! The batches of one segment, each frame checked: whole, in its place, chained to the one before.
//!
//! Comes in: the bytes of a segment whose identity and end are known. Goes out: its batches, until
//! the end or the first frame that does not hold. No I/O.

use super::inventory::Segment;
use crate::log::frame::{self, Entry};
use crate::log::scan::Damage;
use crate::log::segment::SegmentHeader;
use crate::record::batch::BatchHeader;

/// One batch of a segment.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a> {
    /// Stream.
    pub stream: u32,
    /// Partition.
    pub partition: u32,
    /// First byte in the segment's file.
    pub at: u64,
    /// Its header.
    pub header: BatchHeader,
    /// The whole batch.
    pub bytes: &'a [u8],
}

/// Hands each batch of `segment`, whose file holds `file`, to `visit` until that returns false.
///
/// # Errors
/// [`Damage`] at the first thing that does not hold; what was handed out before is sound.
pub fn for_each_batch<'a>(
    segment: &Segment,
    file: &'a [u8],
    mut visit: impl FnMut(Batch<'a>) -> bool,
) -> Result<(), Damage> {
    let damage = |at: usize, what| Damage { key: segment.key, at: at as u64, what };
    let used = usize::try_from(segment.end).ok().and_then(|end| file.get(..end));
    let used = used.ok_or_else(|| damage(file.len(), "the file is shorter than it was"))?;
    let belongs =
        |header: &SegmentHeader| header.key == segment.key && header.identity == segment.identity;
    let Some((header, header_bytes, mut crc)) =
        SegmentHeader::read(used).filter(|(header, ..)| belongs(header))
    else {
        return Err(damage(0, "its header does not hold, or is another segment's"));
    };
    let mut at = header_bytes;
    while at < used.len() {
        let found = frame::read(&used[at..]).filter(|frame| {
            frame.header.segment_identity == header.identity
                && frame.header.position == header.base_position + at as u64
                && frame.header.previous_crc == crc
        });
        let frame = found.ok_or_else(|| damage(at, "a frame does not hold"))?;
        for entry in frame.entries() {
            match entry {
                Some(Entry::Batch { stream, partition, at: batch_at, batch: bytes }) => {
                    let at = at + batch_at;
                    let header = BatchHeader::read(bytes)
                        .filter(|header| header.crc_holds(bytes))
                        .ok_or_else(|| damage(at, "a record batch does not hold"))?;
                    if !visit(Batch { stream, partition, at: at as u64, header, bytes }) {
                        return Ok(());
                    }
                }
                Some(Entry::Reservation { .. } | Entry::Range { .. }) => {}
                None => return Err(damage(at, "a frame contradicts itself")),
            }
        }
        crc = frame.crc;
        at += frame.bytes.len().next_multiple_of(header.block as usize);
    }
    Ok(())
}
