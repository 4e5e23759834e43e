//! Offsets as types: an offset that was handed out and one that is committed cannot be mixed up.

use std::fmt;

/// The position of a record in one partition of a stream; Kafka's offset. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset `count` records further on.
    #[must_use]
    pub fn plus(self, count: u64) -> Self {
        Self(self.0 + count)
    }

    /// As Kafka's signed 64-bit offset.
    pub fn to_wire(self) -> i64 {
        i64::try_from(self.0).unwrap_or(i64::MAX)
    }

    /// From Kafka's signed 64-bit offset; negative ones are no position.
    pub fn from_wire(wire: i64) -> Option<Self> {
        u64::try_from(wire).ok().map(Self)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An offset below which everything has the durability that its stream is configured for.
///
/// Only the log makes one; only what lies below one may be acknowledged or read. A partition's
/// `Committed` is Kafka's high watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Committed(pub(crate) Offset);

impl Committed {
    /// The first offset that is not committed.
    pub fn end(self) -> Offset {
        self.0
    }
}
