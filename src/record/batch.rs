//! Kafka record batches, version 2: built in place, read in place.
//!
//! Records go in one at a time, written once, straight from the receive buffer; finished batches
//! come out as the bytes that the log stores and that Fetch sends. The CRC is computed when a batch
//! is gathered, over bytes that are then still in the cache. Layout: Kafka protocol guide, "Record
//! Batch" (message format v2). Deliberately absent: control batches, transactions, producer ids.

mod headers;
mod retain;

use std::io::{Read, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

pub use headers::{Headers, HeadersSize, write_header};
pub use retain::{Rest, Retainer};

use super::{Compression, Offset, varint};

/// Bytes of a batch before its records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the part that `batchLength` counts.
const LENGTH_PREFIX_BYTES: usize = 12;
/// The CRC covers everything from here on (`attributes`).
const CRC_FROM: usize = 21;
const MAGIC: u8 = 2;
const CODEC_MASK: u16 = 0b111;
const CODEC_LZ4: u16 = 3;

/// What a batch says of itself in its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Records, at least one.
    pub record_count: u32,
    /// Offsets from the first record to the last, both counted: more than records where compaction
    /// took some out.
    pub offset_count: u32,
    /// Bytes of the whole batch with its header.
    pub batch_bytes: u32,
    /// The latest timestamp of its records, milliseconds since 1970.
    pub max_timestamp_ms: i64,
    /// The earliest record's timestamp base, milliseconds since 1970.
    pub base_timestamp_ms: i64,
    /// CRC-32C over `attributes` to the end, as stored.
    pub crc: u32,
    /// Compressed with LZ4 (the only codec that this engine writes).
    pub compression: Compression,
}

impl BatchHeader {
    /// The offset after the last record.
    pub fn next_offset(&self) -> Offset {
        self.base_offset.plus(u64::from(self.offset_count))
    }

    /// Reads the header at the front of `bytes`; `None` when it is cut short or no v2 batch.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || bytes[16] != MAGIC {
            return None;
        }
        let attributes = be_u16(bytes, 21);
        let compression = match attributes & CODEC_MASK {
            0 => Compression::None,
            CODEC_LZ4 => Compression::Lz4,
            _ => return None,
        };
        let length = usize::try_from(be_i32(bytes, 8)).ok()?;
        let record_count = u32::try_from(be_i32(bytes, 57)).ok().filter(|&count| count > 0)?;
        let last_offset_delta = u32::try_from(be_i32(bytes, 23)).ok()?;
        if length + LENGTH_PREFIX_BYTES < HEADER_BYTES || last_offset_delta < record_count - 1 {
            return None;
        }
        Some(Self {
            base_offset: Offset::from_wire(be_i64(bytes, 0))?,
            record_count,
            offset_count: last_offset_delta + 1,
            batch_bytes: u32::try_from(length + LENGTH_PREFIX_BYTES).ok()?,
            max_timestamp_ms: be_i64(bytes, 35),
            base_timestamp_ms: be_i64(bytes, 27),
            crc: be_i32(bytes, 17) as u32,
            compression,
        })
    }

    /// Whether the CRC-32C stored in the batch at the front of `bytes` is that of its contents.
    pub fn crc_holds(&self, bytes: &[u8]) -> bool {
        bytes
            .get(CRC_FROM..self.batch_bytes as usize)
            .is_some_and(|covered| crc32c::crc32c(covered) == self.crc)
    }
}

/// The record batches of one stream and partition that wait for the next commit.
///
/// Memory: one buffer that keeps its capacity from commit to commit, so that the steady state
/// allocates nothing.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    /// Whole batches, the last one still open: its header is filled in when it is closed.
    bytes: Vec<u8>,
    /// Where the open batch starts in `bytes`.
    open_start: usize,
    open: Open,
    /// Records in all batches of the builder.
    record_count: u64,
    batch_count: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Open {
    base_offset: Offset,
    record_count: u32,
    base_timestamp_ms: i64,
    max_timestamp_ms: i64,
}

/// What becomes a record; borrowed until [`BatchBuilder::append`] has copied it.
#[derive(Debug, Clone, Copy)]
pub struct RecordParts<'a, H> {
    /// The record's key; it chose the partition.
    pub key: Option<&'a [u8]>,
    /// The payload, unchanged; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Arrival, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Header names and values.
    pub headers: H,
}

impl<'a, H: Headers<'a>> RecordParts<'a, H> {
    /// Bytes that the parts take in a batch at the most, without what every record costs:
    /// [`record_bytes_max`] of nothing.
    #[inline]
    pub fn parts_bytes_max(&self) -> usize {
        let bytes_of = |part: Option<&[u8]>| part.map_or(0, <[u8]>::len);
        bytes_of(self.key) + bytes_of(self.value) + self.headers.size().bytes
    }
}

/// An upper bound of the bytes that a record adds to its batch, from the sizes of its parts.
pub fn record_bytes_max(key: usize, value: usize, header_count: usize, headers: usize) -> usize {
    HEADER_BYTES + 40 + key + value + headers + 10 * header_count
}

impl BatchBuilder {
    /// Bytes that wait here, headers included; what a commit takes at the most.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing waits here.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Records that wait here.
    pub fn record_count(&self) -> u64 {
        self.record_count
    }

    /// Batches that wait here, the open one included.
    pub fn batch_count(&self) -> usize {
        self.batch_count
    }

    /// Appends a record that gets `offset`, the one after the last appended. Begins another batch
    /// where the open one would grow beyond `batch_bytes_max`. Returns the bytes added.
    pub fn append<'a, H>(
        &mut self,
        offset: Offset,
        record: &RecordParts<'a, H>,
        batch_bytes_max: usize,
    ) -> usize
    where
        H: Headers<'a>,
    {
        let before = self.bytes.len();
        let header_count = record.headers.size().count as i64;
        let payload_bytes = record.parts_bytes_max();
        if self.open.record_count == 0 {
            self.begin(offset, record.timestamp_ms);
        } else if self.bytes.len() - self.open_start + payload_bytes > batch_bytes_max {
            self.close();
            self.begin(offset, record.timestamp_ms);
        }
        let timestamp_delta = record.timestamp_ms - self.open.base_timestamp_ms;
        let offset_delta = i64::from(self.open.record_count);
        let length_of = |part: Option<&[u8]>| part.map_or(-1, |bytes| bytes.len() as i64);
        let (key_length, value_length) = (length_of(record.key), length_of(record.value));
        let body_bytes = 1
            + varint::size(timestamp_delta)
            + varint::size(offset_delta)
            + varint::size(key_length)
            + varint::size(value_length)
            + varint::size(header_count)
            + payload_bytes;
        let out = &mut self.bytes;
        out.reserve(body_bytes + 5);
        varint::write(out, body_bytes as i64);
        out.push(0); // attributes: none are defined
        varint::write(out, timestamp_delta);
        varint::write(out, offset_delta);
        varint::write(out, key_length);
        out.extend_from_slice(record.key.unwrap_or_default());
        varint::write(out, value_length);
        out.extend_from_slice(record.value.unwrap_or_default());
        varint::write(out, header_count);
        record.headers.write(out);
        self.open.record_count += 1;
        self.open.max_timestamp_ms = self.open.max_timestamp_ms.max(record.timestamp_ms);
        self.record_count += 1;
        self.bytes.len() - before
    }

    fn begin(&mut self, offset: Offset, timestamp_ms: i64) {
        self.batch_count += 1;
        self.open_start = self.bytes.len();
        self.bytes.resize(self.open_start + HEADER_BYTES, 0);
        self.open = Open {
            base_offset: offset,
            record_count: 0,
            base_timestamp_ms: timestamp_ms,
            max_timestamp_ms: timestamp_ms,
        };
    }

    /// Fills in the header of the open batch, all but the CRC and the leader epoch.
    fn close(&mut self) {
        if self.open.record_count == 0 {
            return;
        }
        let batch = &mut self.bytes[self.open_start..];
        let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
        put(batch, 0, &self.open.base_offset.to_wire().to_be_bytes());
        put(batch, 8, &length.to_be_bytes());
        batch[16] = MAGIC;
        put(batch, 23, &(self.open.record_count as i32 - 1).to_be_bytes());
        put(batch, 27, &self.open.base_timestamp_ms.to_be_bytes());
        put(batch, 35, &self.open.max_timestamp_ms.to_be_bytes());
        put(batch, 43, &(-1_i64).to_be_bytes()); // producer id
        put(batch, 51, &(-1_i16).to_be_bytes()); // producer epoch
        put(batch, 53, &(-1_i32).to_be_bytes()); // base sequence
        put(batch, 57, &(self.open.record_count as i32).to_be_bytes());
        self.open.record_count = 0;
    }

    /// Closes what is open and hands each batch, in order, to `take`; then the builder is empty and
    /// keeps its memory.
    pub fn drain(&mut self, mut take: impl FnMut(&[u8], BatchHeader)) {
        self.close();
        let mut rest = self.bytes.as_slice();
        while let Some(header) = BatchHeader::read(rest) {
            let (batch, after) = rest.split_at(header.batch_bytes as usize);
            take(batch, header);
            rest = after;
        }
        debug_assert!(rest.is_empty());
        self.bytes.clear();
        self.open_start = 0;
        self.record_count = 0;
        self.batch_count = 0;
    }
}

/// Writes finished batches into the commit buffer: copies or compresses, sets epoch and CRC.
///
/// Keeps the compressor's tables and output between batches.
pub struct BatchFinisher {
    encoder: FrameEncoder<Vec<u8>>,
}

impl Default for BatchFinisher {
    fn default() -> Self {
        // Kafka's clients refuse linked blocks; 64 KiB is what Kafka itself writes.
        let info =
            FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
        Self { encoder: FrameEncoder::with_frame_info(info, Vec::new()) }
    }
}

impl BatchFinisher {
    /// Writes the closed `batch` to the front of `out` and returns its bytes there: never more than
    /// `batch.len()`, as records that LZ4 does not make smaller stay as they are.
    pub fn finish(
        &mut self,
        batch: &[u8],
        compression: Compression,
        leader_epoch: u32,
        out: &mut [u8],
    ) -> usize {
        let compressed = match compression {
            Compression::None => None,
            Compression::Lz4 => self.compress(&batch[HEADER_BYTES..]),
        };
        let (records, attributes) = match compressed {
            Some(records) if records.len() + HEADER_BYTES < batch.len() => (records, CODEC_LZ4),
            _ => (&batch[HEADER_BYTES..], 0),
        };
        let bytes = HEADER_BYTES + records.len();
        let out = &mut out[..bytes];
        out[..HEADER_BYTES].copy_from_slice(&batch[..HEADER_BYTES]);
        out[HEADER_BYTES..].copy_from_slice(records);
        put(out, 8, &((bytes - LENGTH_PREFIX_BYTES) as i32).to_be_bytes());
        put(out, 12, &leader_epoch.to_be_bytes());
        put(out, CRC_FROM, &attributes.to_be_bytes());
        let crc = crc32c::crc32c(&out[CRC_FROM..]);
        put(out, 17, &crc.to_be_bytes());
        bytes
    }

    /// The records as one LZ4 frame, or `None` when the encoder refused (then they stay plain).
    fn compress(&mut self, records: &[u8]) -> Option<&[u8]> {
        self.encoder.get_mut().clear();
        self.encoder.write_all(records).ok()?;
        self.encoder.try_finish().ok()?;
        Some(self.encoder.get_ref())
    }
}

/// One record as a reader sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers, still encoded; see [`RecordView::headers`].
    encoded_headers: &'a [u8],
    header_count: u32,
}

impl<'a> RecordView<'a> {
    /// Header names and values, in order; ends early where they are malformed.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let mut rest = self.encoded_headers;
        (0..self.header_count).map_while(move |_| {
            let name = sized(&mut rest)??;
            let value = sized(&mut rest)?.unwrap_or_default();
            Some((name, value))
        })
    }

    /// Whether the record holds its headers and nothing else behind its value.
    fn ends_with_its_headers(&self) -> bool {
        let mut rest = self.encoded_headers;
        let whole = (0..self.header_count)
            .all(|_| matches!(sized(&mut rest), Some(Some(_))) && sized(&mut rest).is_some());
        whole && rest.is_empty()
    }
}

/// Calls `visit` for each record of a whole batch until it returns false. `scratch` takes the
/// records when they are compressed. Returns `None` when the batch is malformed.
pub fn for_each_record(
    batch: &[u8],
    scratch: &mut Vec<u8>,
    mut visit: impl FnMut(RecordView<'_>) -> bool,
) -> Option<()> {
    for_each_encoded(batch, scratch, |_, record| visit(record))
}

/// The same, with the bytes of each record as they stand in the batch, its length included.
fn for_each_encoded(
    batch: &[u8],
    scratch: &mut Vec<u8>,
    mut visit: impl FnMut(&[u8], RecordView<'_>) -> bool,
) -> Option<()> {
    let header = BatchHeader::read(batch)?;
    let stored = batch.get(HEADER_BYTES..header.batch_bytes as usize)?;
    let mut records = match header.compression {
        Compression::None => stored,
        Compression::Lz4 => {
            scratch.clear();
            FrameDecoder::new(stored).read_to_end(scratch).ok()?;
            scratch.as_slice()
        }
    };
    for _ in 0..header.record_count {
        let mut behind = records;
        let length = usize::try_from(varint::read(&mut behind)?).ok()?;
        let (record, rest) = behind.split_at_checked(length)?;
        let encoded = &records[..records.len() - rest.len()];
        records = rest;
        if !visit(encoded, read_record(record, &header)?) {
            break;
        }
    }
    Some(())
}

/// Checks everything of a stored batch: its length and CRC, that it can be decompressed, and that its
/// records are well formed, in order, and as many as it says. `scratch` as in [`for_each_record`].
///
/// # Errors
/// What does not hold.
pub fn check(batch: &[u8], scratch: &mut Vec<u8>) -> Result<(), &'static str> {
    let header = BatchHeader::read(batch).ok_or("something is no record batch")?;
    if header.batch_bytes as usize != batch.len() || !header.crc_holds(batch) {
        return Err("the CRC of a record batch does not hold");
    }
    let (mut next, mut count) = (header.base_offset, 0);
    for_each_record(batch, scratch, |record| {
        let well = record.offset >= next && record.ends_with_its_headers();
        next = record.offset.plus(1);
        count += u32::from(well);
        well
    })
    .ok_or("a record batch cannot be decoded")?;
    if count == header.record_count && next <= header.next_offset() {
        Ok(())
    } else {
        Err("a record batch contradicts itself")
    }
}

fn read_record<'a>(record: &'a [u8], header: &BatchHeader) -> Option<RecordView<'a>> {
    let (_attributes, mut rest) = record.split_first()?;
    let timestamp_delta = varint::read(&mut rest)?;
    let offset_delta = u64::try_from(varint::read(&mut rest)?).ok()?;
    let key = sized(&mut rest)?;
    let value = sized(&mut rest)?;
    let header_count = u32::try_from(varint::read(&mut rest)?).ok()?;
    Some(RecordView {
        offset: header.base_offset.plus(offset_delta),
        timestamp_ms: header.base_timestamp_ms.checked_add(timestamp_delta)?,
        key,
        value,
        encoded_headers: rest,
        header_count,
    })
}

/// Bytes behind a varint length; the inner `None` is a null.
fn sized<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::read(rest)?;
    if length < 0 {
        return Some(None);
    }
    let (bytes, after) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(bytes))
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn be_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn be_i32(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn be_i64(bytes: &[u8], at: usize) -> i64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair<'a> = (&'a [u8], &'a [u8]);

    fn append(builder: &mut BatchBuilder, offset: u64, key: &str, value: &[u8], ts: i64) {
        let headers: [Pair<'_>; 1] = [(b"mqtt.topic", b"a/b")];
        let record = RecordParts {
            key: Some(key.as_bytes()),
            value: Some(value),
            timestamp_ms: ts,
            headers: headers.iter().copied(),
        };
        builder.append(Offset(offset), &record, 1 << 20);
    }

    fn finish(builder: &mut BatchBuilder, compression: Compression) -> Vec<Vec<u8>> {
        let mut finisher = BatchFinisher::default();
        let mut batches = Vec::new();
        builder.drain(|batch, _| {
            let mut out = vec![0; batch.len()];
            let bytes = finisher.finish(batch, compression, 7, &mut out);
            out.truncate(bytes);
            batches.push(out);
        });
        batches
    }

    /// Field by field from the message format v2 of the Kafka protocol guide.
    #[test]
    fn golden_batch() {
        let mut builder = BatchBuilder::default();
        append(&mut builder, 5, "k", b"v1", 1000);
        append(&mut builder, 6, "k", b"", 1003);
        let batch = finish(&mut builder, Compression::None).remove(0);
        let mut expected = Vec::new();
        expected.extend(5_i64.to_be_bytes()); // base offset
        expected.extend((batch.len() as i32 - 12).to_be_bytes()); // batch length
        expected.extend(7_i32.to_be_bytes()); // partition leader epoch
        expected.push(2); // magic
        let crc_at = expected.len();
        expected.extend([0; 4]);
        expected.extend([0, 0]); // attributes
        expected.extend(1_i32.to_be_bytes()); // last offset delta
        expected.extend(1000_i64.to_be_bytes());
        expected.extend(1003_i64.to_be_bytes());
        expected.extend((-1_i64).to_be_bytes());
        expected.extend((-1_i16).to_be_bytes());
        expected.extend((-1_i32).to_be_bytes());
        expected.extend(2_i32.to_be_bytes());
        // length, attributes, timestamp delta, offset delta, key, value, one header
        let header = b"\x14mqtt.topic\x06a/b";
        expected.extend([2 * 24, 0, 0, 0, 2, b'k', 4, b'v', b'1', 2]);
        expected.extend(header);
        expected.extend([2 * 22, 0, 6, 2, 2, b'k', 0, 2]);
        expected.extend(header);
        let crc = crc32c::crc32c(&expected[21..]);
        expected[crc_at..crc_at + 4].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(batch, expected);
    }

    #[test]
    fn records_read_back_whatever_the_codec() {
        for compression in [Compression::None, Compression::Lz4] {
            let mut builder = BatchBuilder::default();
            let big = vec![b'x'; 10_000];
            append(&mut builder, 0, "dev", &big, 10);
            append(&mut builder, 1, "dev", b"", 9);
            let batch = finish(&mut builder, compression).remove(0);
            let header = BatchHeader::read(&batch).expect("a batch");
            assert!(header.crc_holds(&batch));
            assert_eq!(header.compression, compression);
            assert_eq!((header.next_offset(), header.max_timestamp_ms), (Offset(2), 10));
            let mut seen = Vec::new();
            for_each_record(&batch, &mut Vec::new(), |record| {
                assert_eq!(record.key, Some(b"dev".as_slice()));
                let headers: Vec<_> = record.headers().collect();
                assert_eq!(headers, [(b"mqtt.topic".as_slice(), b"a/b".as_slice())]);
                seen.push((record.offset.0, record.timestamp_ms, record.value.map(<[u8]>::len)));
                true
            })
            .expect("well formed");
            assert_eq!(seen, [(0, 10, Some(10_000)), (1, 9, Some(0))]);
        }
    }

    /// A batch whose contents are wrong is found also where its CRC was made of them.
    #[test]
    fn a_check_looks_into_the_records() {
        let seal = |mut batch: Vec<u8>| {
            let crc = crc32c::crc32c(&batch[CRC_FROM..]);
            put(&mut batch, 17, &crc.to_be_bytes());
            batch
        };
        let mut builder = BatchBuilder::default();
        append(&mut builder, 0, "dev", &[b'x'; 500], 10);
        append(&mut builder, 1, "dev", b"", 9);
        let check_of = |batch: &[u8], at: usize, byte: u8, expected: &str| {
            assert_eq!(check(batch, &mut Vec::new()), Ok(()));
            let mut harmed = batch.to_vec();
            harmed[at] = byte;
            let by_crc = Err("the CRC of a record batch does not hold");
            assert_eq!(check(&harmed, &mut Vec::new()), by_crc, "{at}");
            assert_eq!(check(&seal(harmed), &mut Vec::new()), Err(expected), "{at}");
        };
        let plain = finish(&mut builder, Compression::None).remove(0);
        let (undecodable, contradicts) =
            ("a record batch cannot be decoded", "a record batch contradicts itself");
        check_of(&plain, HEADER_BYTES, 1, undecodable); // a length
        check_of(&plain, HEADER_BYTES + 4, 8, contradicts); // an offset, beyond the last one
        let headers = plain.len() - b"\x14mqtt.topic\x06a/b".len() - 1;
        check_of(&plain, headers, 0, contradicts); // their number
        append(&mut builder, 0, "dev", &[b'x'; 500], 10);
        let packed = finish(&mut builder, Compression::Lz4).remove(0);
        check_of(&packed, HEADER_BYTES, 1, undecodable); // LZ4's magic
        assert!(check(&plain[..plain.len() - 1], &mut Vec::new()).is_err());
    }

    #[test]
    fn what_lz4_cannot_shrink_stays_plain() {
        let mut builder = BatchBuilder::default();
        append(&mut builder, 0, "d", b"q", 1);
        let batch = finish(&mut builder, Compression::Lz4).remove(0);
        assert_eq!(BatchHeader::read(&batch).map(|h| h.compression), Some(Compression::None));
    }

    #[test]
    fn a_full_batch_is_followed_by_another() {
        let mut builder = BatchBuilder::default();
        let none: [Pair<'_>; 0] = [];
        for offset in 0..10 {
            let record = RecordParts {
                key: None,
                value: Some(&[7; 100]),
                timestamp_ms: 0,
                headers: none.iter().copied(),
            };
            builder.append(Offset(offset), &record, 400);
        }
        let batches = finish(&mut builder, Compression::None);
        let bases: Vec<_> =
            batches.iter().filter_map(|b| BatchHeader::read(b)).map(|h| h.base_offset.0).collect();
        assert_eq!(bases, [0, 3, 6, 9]);
        assert!(builder.is_empty());
    }

    #[test]
    fn damaged_batches_are_no_batches() {
        let mut builder = BatchBuilder::default();
        append(&mut builder, 0, "d", b"value", 1);
        let batch = finish(&mut builder, Compression::None).remove(0);
        for at in CRC_FROM..batch.len() {
            let mut damaged = batch.clone();
            damaged[at] ^= 0x40;
            let holds = BatchHeader::read(&damaged).is_some_and(|h| h.crc_holds(&damaged));
            assert!(!holds, "a flipped bit at {at} passed");
        }
        for length in 0..batch.len() {
            assert!(for_each_record(&batch[..length], &mut Vec::new(), |_| true).is_none());
        }
    }
}
