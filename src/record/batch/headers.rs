//! The headers of a record, from wherever they come, as they stand in a batch.

use crate::record::varint;

/// The headers of a record: an iterator of names and values, or whatever knows their bytes without
/// one.
pub trait Headers<'a> {
    /// What they take in a record; asked for several times a record.
    fn size(&self) -> HeadersSize;

    /// Writes them as they stand in a record, behind their count.
    fn write(&self, out: &mut Vec<u8>);
}

impl<'a, I: Iterator<Item = (&'a [u8], &'a [u8])> + Clone> Headers<'a> for I {
    fn size(&self) -> HeadersSize {
        let mut size = HeadersSize::default();
        self.clone().for_each(|(name, value)| size.add(name, value));
        size
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.clone().for_each(|(name, value)| write_header(out, name, value));
    }
}

/// Writes one header as it stands in a record.
#[inline]
pub fn write_header(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    varint::write(out, name.len() as i64);
    out.extend_from_slice(name);
    varint::write(out, value.len() as i64);
    out.extend_from_slice(value);
}

/// What headers take in a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HeadersSize {
    pub(super) count: usize,
    /// With their lengths, without the count before them.
    pub(super) bytes: usize,
}

impl HeadersSize {
    /// `count` headers that take `bytes` in all, with their lengths.
    #[inline]
    pub fn new(count: usize, bytes: usize) -> Self {
        Self { count, bytes }
    }

    /// One header more.
    #[inline]
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let run = |bytes: &[u8]| varint::size(bytes.len() as i64) + bytes.len();
        self.count += 1;
        self.bytes += run(name) + run(value);
    }
}
