//! A batch with some of its records taken out, as Kafka's own cleaner leaves it.
//!
//! In: a whole batch and which of its records stay. Out: a batch that keeps the base offset, the
//! last offset, the leader epoch and the compression of the old one, and of its records the bytes as
//! they were; so an offset means the same before and after. Deliberately absent: batches without
//! records, which nobody here needs: a batch of which nothing stays is gone.

use super::{
    BatchFinisher, BatchHeader, HEADER_BYTES, LENGTH_PREFIX_BYTES, RecordView, for_each_encoded,
    put,
};

/// What is left of a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest<'a> {
    /// All of it: the batch stays as it is.
    All,
    /// Nothing.
    Nothing,
    /// This batch.
    Some(&'a [u8]),
}

/// Takes records out of batches, one after the other, in buffers that it keeps.
#[derive(Default)]
pub struct Retainer {
    /// The records of a compressed batch.
    records: Vec<u8>,
    /// The new batch before it is compressed.
    plain: Vec<u8>,
    out: Vec<u8>,
    finisher: BatchFinisher,
}

impl Retainer {
    /// What is left of `batch` when only those records stay for which `stays` is true. `None` when
    /// the batch is malformed.
    pub fn retain(
        &mut self,
        batch: &[u8],
        mut stays: impl FnMut(&RecordView<'_>) -> bool,
    ) -> Option<Rest<'_>> {
        let header = BatchHeader::read(batch)?;
        let plain = &mut self.plain;
        plain.clear();
        plain.extend_from_slice(batch.get(..HEADER_BYTES)?);
        let (mut count, mut max_timestamp_ms) = (0_u32, i64::MIN);
        for_each_encoded(batch, &mut self.records, |encoded, record| {
            if stays(&record) {
                plain.extend_from_slice(encoded);
                count += 1;
                max_timestamp_ms = max_timestamp_ms.max(record.timestamp_ms);
            }
            true
        })?;
        if count == header.record_count {
            return Some(Rest::All);
        }
        if count == 0 {
            return Some(Rest::Nothing);
        }
        let length = (plain.len() - LENGTH_PREFIX_BYTES) as i32;
        put(plain, 8, &length.to_be_bytes());
        put(plain, 35, &max_timestamp_ms.to_be_bytes());
        put(plain, 57, &(count as i32).to_be_bytes());
        let epoch = u32::from_be_bytes([batch[12], batch[13], batch[14], batch[15]]);
        self.out.resize(plain.len(), 0);
        let bytes = self.finisher.finish(plain, header.compression, epoch, &mut self.out);
        Some(Rest::Some(&self.out[..bytes]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BatchBuilder, RecordParts, for_each_record};
    use super::*;
    use crate::record::{Compression, Offset};

    fn batch(compression: Compression) -> Vec<u8> {
        let mut builder = BatchBuilder::default();
        for (i, ms) in [50, 10, 90, 20].into_iter().enumerate() {
            let value = vec![i as u8; 400];
            let record = RecordParts {
                key: Some(b"key".as_slice()),
                value: Some(&value),
                timestamp_ms: ms,
                headers: [(b"name".as_slice(), b"v".as_slice())].into_iter(),
            };
            builder.append(Offset(70 + i as u64), &record, 1 << 20);
        }
        let mut out = vec![0; builder.len()];
        builder.drain(|batch, _| {
            let bytes = BatchFinisher::default().finish(batch, compression, 9, &mut out);
            out.truncate(bytes);
        });
        out
    }

    #[test]
    fn what_stays_is_as_it_was() {
        for compression in [Compression::None, Compression::Lz4] {
            let (batch, mut retainer) = (batch(compression), Retainer::default());
            assert_eq!(retainer.retain(&batch, |_| true), Some(Rest::All));
            assert_eq!(retainer.retain(&batch, |_| false), Some(Rest::Nothing));
            let odd = |record: &RecordView<'_>| record.offset.0 % 2 == 1;
            let Some(Rest::Some(left)) = retainer.retain(&batch, odd) else {
                panic!("two of four stay")
            };
            let (old, new) = (BatchHeader::read(&batch), BatchHeader::read(left));
            let (old, new) = (old.expect("a batch"), new.expect("a batch"));
            assert!(new.crc_holds(left) && left.len() == new.batch_bytes as usize);
            assert_eq!((new.base_offset, new.next_offset()), (old.base_offset, old.next_offset()));
            assert_eq!((new.record_count, new.max_timestamp_ms), (2, 20));
            assert_eq!(new.compression, compression);
            assert_eq!(left[12..16], batch[12..16], "the leader epoch");
            let mut seen = Vec::new();
            for_each_record(left, &mut Vec::new(), |record| {
                assert_eq!(record.key, Some(b"key".as_slice()));
                assert_eq!(record.headers().count(), 1);
                let value = record.value.expect("a value");
                seen.push((record.offset.0, record.timestamp_ms, value[0], value.len()));
                true
            })
            .expect("well formed");
            assert_eq!(seen, [(71, 10, 1, 400), (73, 20, 3, 400)]);
            // And once more.
            let last = left.to_vec();
            let Some(Rest::Some(left)) = retainer.retain(&last, |r| r.offset.0 == 73) else {
                panic!("one of two stays")
            };
            let header = BatchHeader::read(left).expect("a batch");
            assert_eq!((header.base_offset.0, header.offset_count), (70, 4));
        }
    }

    #[test]
    fn what_is_malformed_is_none() {
        let whole = batch(Compression::None);
        for length in 0..whole.len() {
            assert_eq!(Retainer::default().retain(&whole[..length], |_| true), None);
        }
    }
}
