//! Cells of streams, to which more can be added while a shard writes those that there are.
//!
//! The invariant: a cell never moves. Who adds is the control plane; it does so before any shard is
//! told of the stream, so that whoever knows a stream's id finds its cells.

use std::ops::Index;
use std::sync::OnceLock;

/// Rows by index; each block is at least as long as all before it, so that there are few.
#[derive(Debug)]
pub struct Rows<T> {
    rows: Box<[T]>,
    more: OnceLock<Box<Rows<T>>>,
}

impl<T> Rows<T> {
    /// So many rows.
    pub fn new(count: usize, row: impl FnMut() -> T) -> Self {
        let rows = std::iter::repeat_with(row).take(count).collect();
        Self { rows, more: OnceLock::new() }
    }

    /// Sees to it that there are so many rows at the least. One thread at a time calls it.
    pub fn grow(&self, count: usize, mut row: impl FnMut() -> T) {
        let (mut last, mut have) = (self, self.rows.len());
        while let Some(more) = last.more.get() {
            last = more;
            have += more.rows.len();
        }
        if have < count {
            last.more.get_or_init(|| Box::new(Self::new(have.max(count - have), &mut row)));
        }
    }

    /// All rows, those included that no stream has yet.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::successors(Some(self), |block| block.more.get().map(|more| &**more))
            .flat_map(|block| &block.rows)
    }

    #[cold]
    fn beyond(&self, index: usize) -> &T {
        let more = self.more.get().expect("rows are made before anyone knows of them");
        &more[index - self.rows.len()]
    }
}

impl<T> Index<usize> for Rows<T> {
    type Output = T;

    #[inline]
    fn index(&self, index: usize) -> &T {
        match self.rows.get(index) {
            Some(row) => row,
            None => self.beyond(index),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_added_and_none_moves() {
        let mut next = 0;
        let mut row = || {
            next += 1;
            next - 1
        };
        let rows = Rows::new(2, &mut row);
        let first: *const i32 = &rows[1];
        for count in 1..100 {
            rows.grow(count, &mut row);
            assert!(rows.iter().count() >= count, "{count}");
            assert_eq!(rows[count - 1], count as i32 - 1);
        }
        assert!(std::ptr::eq(first, &rows[1]));
        assert_eq!(rows.iter().copied().collect::<Vec<_>>(), (0..128).collect::<Vec<_>>());
    }
}
