//! Reading what is cleaned: index entries, and batches in large pieces where they lie close.
//!
//! Every batch and every index is checked against its CRC and its place before it is handed on: what
//! is damaged is never copied. Absent: what becomes of them.

use super::super::cache::FileKey;
use super::super::files::Files;
use super::super::index::IndexEntry;
use super::super::segment::SegmentKey;
use super::{Error, Run};
use crate::log::files::failed;

/// Bytes read at once at the most, but for a larger batch.
const READ_BYTES: u64 = 1 << 20;
/// Batches that lie no further apart are read together.
const APART_BYTES: u64 = 64 << 10;

/// A batch in a segment.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub key: SegmentKey,
    pub entry: IndexEntry,
    /// Of which stream and partition.
    pub of: (u32, u32),
    /// The part that it goes to, and its run of that part.
    pub part: usize,
    pub run: usize,
    /// The number of its first record among all of a compaction.
    pub ordinal: u64,
}

/// Reads one piece of one segment at a time.
pub struct Source<'a> {
    files: &'a dyn Files,
    read_bytes: u64,
    /// The piece at hand.
    key: Option<SegmentKey>,
    at: u64,
    piece: Vec<u8>,
}

impl<'a> Source<'a> {
    pub fn new(files: &'a dyn Files) -> Self {
        Self { files, read_bytes: 0, key: None, at: 0, piece: Vec::new() }
    }

    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Adds the batches of a run, in their order, as those of run `number` of a part. Returns how
    /// many records they hold.
    pub fn places(
        &mut self,
        &(key, span): &Run,
        (part, number): (usize, usize),
        first_ordinal: u64,
        into: &mut Vec<Place>,
    ) -> Result<u64, Error> {
        let Some(located) = span.entries.filter(|located| located.count > 0) else { return Ok(0) };
        let file = FileKey::Index(key);
        let bytes = self.read(&file.path(), located.at, located.bytes())?;
        if bytes.len() != located.bytes() || crc32c::crc32c(&bytes) != located.crc {
            return Err(Error::Harmed { file, at: located.at });
        }
        let mut ordinal = first_ordinal;
        let entries = (0..located.count as usize).filter_map(|at| IndexEntry::read(&bytes, at));
        into.extend(entries.map(|entry| {
            let of = (span.stream, span.partition);
            let place = Place { key, entry, of, part, run: number, ordinal };
            ordinal += u64::from(entry.record_count);
            place
        }));
        Ok(ordinal - first_ordinal)
    }

    /// The batch at `places[at]`. What follows closely is read with it.
    pub fn batch(&mut self, places: &[Place], at: usize) -> Result<&[u8], Error> {
        let Place { key, entry, of, .. } = places[at];
        let position = entry.framed_position();
        let end = position + entry.framed_bytes() as u64;
        let at_hand = self.at..=self.at + self.piece.len() as u64;
        if self.key != Some(key) || !at_hand.contains(&position) || !at_hand.contains(&end) {
            let length = extent(&places[at..]) as usize;
            self.key = None;
            self.piece = self.read(&key.path(), position, length)?;
            (self.key, self.at) = (Some(key), position);
        }
        let harmed = Error::Harmed { file: FileKey::Segment(key), at: position };
        let start = (position - self.at) as usize;
        let framed = self.piece.get(start..start + entry.framed_bytes());
        framed.and_then(|framed| entry.batch_in(of, framed)).ok_or(harmed)
    }

    fn read(&mut self, path: &str, at: u64, bytes: usize) -> Result<Vec<u8>, Error> {
        let read = self.files.read(path, at, bytes).map_err(failed("reading", path))?;
        self.read_bytes += read.len() as u64;
        Ok(read)
    }
}

/// Bytes from the first place to the end of the last that lies close enough to what is before it.
fn extent(places: &[Place]) -> u64 {
    let first = &places[0];
    let from = first.entry.framed_position();
    let mut end = from;
    for place in places {
        let (start, bytes) = (place.entry.framed_position(), place.entry.framed_bytes() as u64);
        let far = start < end || start - end > APART_BYTES || start + bytes - from > READ_BYTES;
        if place.key != first.key || (far && end > from) {
            break;
        }
        end = start + bytes;
    }
    end - from
}
