//! Bytes that stay where they are and may be read by several parts of one shard.

use std::rc::Rc;

/// Memory whose address and contents do not change while a reference to it is held.
///
/// The driver implements it for its aligned buffers, so that the log can serve reads from the very
/// bytes that were written without knowing what a DMA buffer is.
pub trait StableBytes {
    /// The bytes.
    fn as_bytes(&self) -> &[u8];

    /// Bytes of memory that are held for them, at least their length.
    fn held_bytes(&self) -> usize {
        self.as_bytes().len()
    }
}

impl StableBytes for Vec<u8> {
    fn as_bytes(&self) -> &[u8] {
        self
    }
}

/// A counted reference to stable bytes, for one shard only.
pub type SharedBytes = Rc<dyn StableBytes>;
