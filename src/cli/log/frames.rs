//! The batches of one segment, each frame checked: whole, in its place, chained to the one before.
//!
//! Comes in: the bytes of a segment whose identity and end are known. Goes out: its batches, and what
//! does not hold, in order; behind damage it goes on with what is whole again, as a start does. No
//! I/O.

use super::inventory::Segment;
use crate::log::frame::Entry;
use crate::log::scan::{Damage, frames_over_damage};
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

/// Hands each sound batch of `segment`, whose file holds `file`, to `visit` until that returns false.
/// Returns what did not hold up to there.
pub fn for_each_batch<'a>(
    segment: &Segment,
    file: &'a [u8],
    mut visit: impl FnMut(Batch<'a>) -> bool,
) -> Vec<Damage> {
    let damage = |at: usize, what| Damage { key: segment.key, at: at as u64, what };
    let mut damages = Vec::new();
    let end = usize::try_from(segment.end).unwrap_or(usize::MAX);
    let used = &file[..end.min(file.len())];
    for found in frames_over_damage(segment.key, segment.identity, used) {
        let (at, frame) = match found {
            Ok(found) => found,
            Err(found) => {
                damages.push(found);
                continue;
            }
        };
        for entry in frame.entries() {
            match entry {
                Some(Entry::Batch { stream, partition, at: batch_at, batch: bytes }) => {
                    let at = at + batch_at;
                    let header = BatchHeader::read(bytes).filter(|header| header.crc_holds(bytes));
                    let Some(header) = header else {
                        damages.push(damage(at, "a record batch does not hold"));
                        continue;
                    };
                    if !visit(Batch { stream, partition, at: at as u64, header, bytes }) {
                        return damages;
                    }
                }
                Some(Entry::Reservation { .. } | Entry::Range { .. }) => {}
                None => damages.push(damage(at, "a frame contradicts itself")),
            }
        }
    }
    if used.len() < end {
        damages.push(damage(used.len(), "it ends before its end"));
    }
    damages
}
