//! What the log keeps in memory of what it wrote or read: the tail, and extents read from disk.
//!
//! Both are bounded in bytes and hold references, not copies: the tail holds the very buffers that
//! were written, which go back to the driver when they drop out.

use std::collections::VecDeque;
use std::fmt;

use super::segment::SegmentKey;
use crate::record::SharedBytes;

/// A file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FileKey {
    /// A segment.
    Segment(SegmentKey),
    /// The index beside a segment.
    Index(SegmentKey),
}

impl FileKey {
    /// The file, relative to the data directory.
    pub fn path(&self) -> String {
        match self {
            Self::Segment(key) => key.path(),
            Self::Index(key) => key.index_path(),
        }
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(key) => write!(f, "segment {}", key.stem()),
            Self::Index(key) => write!(f, "the index of segment {}", key.stem()),
        }
    }
}

/// The most recently written bytes of the log, in order.
pub struct TailCache {
    bytes_max: usize,
    bytes: usize,
    pieces: VecDeque<TailPiece>,
}

struct TailPiece {
    segment: SegmentKey,
    position: u64,
    length: usize,
    /// Memory that the piece holds, at least `length`.
    held_bytes: usize,
    bytes: SharedBytes,
}

impl TailCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, pieces: VecDeque::new() }
    }

    /// Adds what was written to `segment` at `position`, behind everything added before. The
    /// newest piece stays whatever its size.
    pub fn push(&mut self, segment: SegmentKey, position: u64, length: usize, bytes: SharedBytes) {
        let held_bytes = bytes.held_bytes();
        self.bytes += held_bytes;
        self.pieces.push_back(TailPiece { segment, position, length, held_bytes, bytes });
        while self.bytes > self.bytes_max && self.pieces.len() > 1 {
            if let Some(oldest) = self.pieces.pop_front() {
                self.bytes -= oldest.held_bytes;
            }
        }
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `length` bytes of `segment` from `position` on, if the tail holds them all in one piece.
    pub fn find(&self, segment: SegmentKey, position: u64, length: usize) -> Option<&[u8]> {
        let after = self.pieces.partition_point(|p| (p.segment, p.position) <= (segment, position));
        let piece = self.pieces.get(after.checked_sub(1)?)?;
        if piece.segment != segment {
            return None;
        }
        let start = usize::try_from(position - piece.position).ok()?;
        let held = &piece.bytes.as_bytes()[..piece.length];
        held.get(start..start.checked_add(length)?)
    }
}

/// Extents that stay whatever their size: a reader needs one of an index and one of a segment at
/// a time, and where they drove each other out it would never get on.
const EXTENTS_MIN: usize = 2;

/// Extents read from disk, least recently used out first.
pub struct ReadCache {
    bytes_max: usize,
    bytes: usize,
    clock: u64,
    extents: Vec<Extent>,
}

struct Extent {
    file: FileKey,
    position: u64,
    used: u64,
    bytes: SharedBytes,
}

impl ReadCache {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, clock: 0, extents: Vec::new() }
    }

    pub fn insert(&mut self, file: FileKey, position: u64, bytes: SharedBytes) {
        self.clock += 1;
        self.bytes += bytes.as_bytes().len();
        self.extents.push(Extent { file, position, used: self.clock, bytes });
        while self.bytes > self.bytes_max && self.extents.len() > EXTENTS_MIN {
            let newest = self.extents.len() - 1;
            let oldest = (0..newest).min_by_key(|&i| self.extents[i].used).unwrap_or_default();
            self.bytes -= self.extents.swap_remove(oldest).bytes.as_bytes().len();
        }
    }

    /// Bytes that hold `length` bytes of `file` from `position` on, and where in them that is.
    pub fn find(
        &mut self,
        file: FileKey,
        position: u64,
        length: usize,
    ) -> Option<(SharedBytes, usize)> {
        self.clock += 1;
        let end = position + length as u64;
        let extent = self.extents.iter_mut().find(|extent| {
            extent.file == file
                && extent.position <= position
                && end <= extent.position + extent.bytes.as_bytes().len() as u64
        })?;
        extent.used = self.clock;
        Some((extent.bytes.clone(), (position - extent.position) as usize))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all extents of `file`.
    pub fn forget(&mut self, file: FileKey) {
        self.extents.retain(|extent| extent.file != file);
        self.bytes = self.extents.iter().map(|e| e.bytes.as_bytes().len()).sum();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    fn key(sequence: u64) -> SegmentKey {
        SegmentKey::chain(1, 0, sequence)
    }

    #[test]
    fn the_tail_finds_what_it_holds_and_drops_the_oldest() {
        let mut tail = TailCache::new(8192);
        for i in 0..3_u8 {
            tail.push(key(0), u64::from(i) * 4096, 4096, Rc::new(vec![i; 4096]));
        }
        tail.push(key(1), 0, 100, Rc::new(vec![9; 4096]));
        assert_eq!(tail.find(key(0), 0, 10), None);
        assert_eq!(tail.find(key(0), 8200, 3), Some([2_u8, 2, 2].as_slice()));
        assert_eq!(tail.find(key(0), 8192 + 4090, 10), None, "beyond the piece");
        assert_eq!(tail.find(key(1), 98, 2), Some([9_u8, 9].as_slice()));
        assert_eq!(tail.find(key(1), 98, 3), None, "beyond what was written");
        assert_eq!(tail.find(key(2), 0, 1), None);
    }

    #[test]
    fn the_read_cache_keeps_what_was_used_last() {
        let file = FileKey::Segment(key(0));
        let mut cache = ReadCache::new(2500);
        cache.insert(file, 0, Rc::new(vec![1; 1000]));
        cache.insert(file, 5000, Rc::new(vec![2; 1000]));
        assert!(cache.find(file, 10, 100).is_some());
        cache.insert(file, 9000, Rc::new(vec![3; 1000]));
        assert!(cache.find(file, 10, 100).is_some());
        assert!(cache.find(file, 5000, 100).is_none(), "least recently used");
        assert!(cache.find(file, 900, 200).is_none(), "beyond the extent");
        cache.forget(file);
        assert!(cache.find(file, 10, 1).is_none());
    }
}
