//! A Kafka consumer beside the load: how long from a message's send to whoever reads the stream.
//!
//! In: a bootstrap address, a stream, and payloads that carry a tag and the time that their latency
//! counts from. Out: latencies until a Fetch response with the record has been read. A thread for
//! each node that leads partitions, which blocks in a long poll as real consumers do. The invariant:
//! every partition is read from its end at the start, and after the load until nothing comes any
//! more. This is our own client over kafka-protocol's schemas: it decodes records and does nothing
//! else, so a real consumer is slower by what it does besides; `librdkafka` is such a one.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use hdrhistogram::Histogram;
use kafka_protocol::messages::{ApiKey, FetchRequest, FetchResponse};
use kafka_protocol::records::{Compression, RecordBatchDecoder};

use super::measure::histogram;
use super::pin;
use super::subscribe::SLOW_REST;
use crate::cli::kafka::{FETCH_VERSION, LATEST, Node, broken, check, fetch, layout};

/// Who reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Client {
    /// A small Fetch client of our own
    Own,
    /// The C library that most clients are made of, through the rdkafka crate; the feature
    /// `librdkafka` of the build
    Librdkafka,
}

impl Client {
    /// A real consumer where this build has one.
    pub const DEFAULT: Self =
        if cfg!(feature = "librdkafka") { Self::Librdkafka } else { Self::Own };
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub client: Client,
    /// Takes 4 KiB and rests for 100 ms, over and over. Our own client only.
    pub slow: bool,
    /// HOST:PORT of any node.
    pub bootstrap: String,
    pub stream: String,
    pub core: Option<usize>,
    /// Origins that count: those of the measured time.
    pub from_ns: u64,
    pub to_ns: u64,
}

/// The tag and the origin, at the beginning of a payload.
pub const STAMP_BYTES: usize = 16;

/// Writes a stamp.
#[inline]
pub fn stamp(payload: &mut [u8], tag: u64, origin_ns: u64) {
    payload[..8].copy_from_slice(&tag.to_le_bytes());
    payload[8..STAMP_BYTES].copy_from_slice(&origin_ns.to_le_bytes());
}

/// The origin, where the payload has this tag.
#[inline]
pub fn origin_ns(payload: &[u8], tag: u64) -> Option<u64> {
    let (found, rest) = payload.split_first_chunk::<8>()?;
    let (origin, _) = rest.split_first_chunk::<8>()?;
    (u64::from_le_bytes(*found) == tag).then(|| u64::from_le_bytes(*origin))
}

/// A consumer at work.
pub trait Consuming {
    /// As reports name it.
    fn client(&self) -> String;
    /// Reads what is still to come, and tells the latencies of every message that counts.
    ///
    /// # Errors
    /// The first thing that went wrong on any thread.
    fn finish(self: Box<Self>) -> io::Result<Read>;
}

/// What a consumer has read.
#[derive(Debug)]
pub struct Read {
    pub latencies: Histogram<u64>,
    pub records: u64,
}

/// Finds every partition and its end, and begins to read. `begin`: the moment from which origins
/// count, known before the first message is sent.
///
/// # Errors
/// When no node answers, the stream is not there, or a thread cannot be pinned.
pub fn start(
    options: &Options,
    tag: u64,
    begin: &Arc<OnceLock<Instant>>,
) -> io::Result<Box<dyn Consuming>> {
    match options.client {
        #[cfg(feature = "librdkafka")]
        Client::Librdkafka if !options.slow => {
            Ok(Box::new(super::librdkafka::Consumer::start(options, tag, begin)?))
        }
        _ => Ok(Box::new(Consumers::start(options, tag, begin)?)),
    }
}

/// Consumers at work, a thread for each node.
#[derive(Debug)]
struct Consumers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<Read>>>,
}

const LONG_POLL_MS: i32 = 500;
const FETCH_BYTES_MAX: i32 = 16 << 20;
/// A batch that is larger comes all the same, whole.
const SLOW_BYTES_MAX: i32 = 4 << 10;

impl Consumers {
    fn start(options: &Options, tag: u64, begin: &Arc<OnceLock<Instant>>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for (address, partitions) in layout(&options.bootstrap, &options.stream)?.leaders {
            let mut node = Node::connect(&address)?;
            let reader = Reader {
                offsets: node.offsets(&options.stream, &partitions, LATEST)?,
                node,
                options: options.clone(),
                tag,
                latencies: histogram(),
            };
            let (stop, begin) = (Arc::clone(&stop), Arc::clone(begin));
            threads.push(std::thread::spawn(move || reader.read_all(&begin, &stop)));
        }
        Ok(Self { stop, threads })
    }
}

impl Consuming for Consumers {
    fn client(&self) -> String {
        "own Fetch client".to_owned()
    }

    fn finish(self: Box<Self>) -> io::Result<Read> {
        // Relaxed: the flag carries nothing else.
        self.stop.store(true, Ordering::Relaxed);
        let (mut all, mut records) = (histogram(), 0);
        for thread in self.threads {
            let read =
                thread.join().map_err(|_| io::Error::other("a consumer thread panicked"))??;
            all.add(&read.latencies).map_err(io::Error::other)?;
            records += read.records;
        }
        Ok(Read { latencies: all, records })
    }
}

/// Reads the partitions of one node.
struct Reader {
    node: Node,
    /// By partition: the next offset.
    offsets: BTreeMap<i32, i64>,
    options: Options,
    tag: u64,
    latencies: Histogram<u64>,
}

impl Reader {
    fn read_all(mut self, begin: &OnceLock<Instant>, stop: &AtomicBool) -> io::Result<Read> {
        let mut records = 0;
        if let Some(core) = self.options.core {
            pin(core)?;
        }
        loop {
            // Before the request: what it does not find was not there when the load had ended.
            let last = stop.load(Ordering::Relaxed);
            let response: FetchResponse =
                self.node.call(ApiKey::Fetch, FETCH_VERSION, &self.request())?;
            let now_ns = begin.get().map_or(0, |begin| begin.elapsed().as_nanos() as u64);
            let count = self.take(response, now_ns)?;
            records += count as u64;
            if last && (count == 0 || self.options.slow) {
                return Ok(Read { latencies: self.latencies, records });
            }
            if self.options.slow {
                std::thread::sleep(SLOW_REST);
            }
        }
    }

    fn request(&self) -> FetchRequest {
        let bytes_max = if self.options.slow { SLOW_BYTES_MAX } else { FETCH_BYTES_MAX };
        fetch(&self.options.stream, &self.offsets, bytes_max, LONG_POLL_MS)
    }

    /// How many records came.
    fn take(&mut self, response: FetchResponse, now_ns: u64) -> io::Result<usize> {
        check(response.error_code, "Fetch")?;
        let mut count = 0;
        for partition in response.responses.into_iter().flat_map(|topic| topic.partitions) {
            check(partition.error_code, "Fetch")?;
            let next = self.offsets.entry(partition.partition_index).or_default();
            let mut bytes = partition.records.unwrap_or_default();
            while !bytes.is_empty() {
                let decoded = RecordBatchDecoder::decode_with_custom_compression(
                    &mut bytes,
                    Some(|bytes: &mut Bytes, how: Compression| {
                        decompress(bytes, how).map_err(Into::into)
                    }),
                );
                for record in decoded.map_err(broken)?.records {
                    if record.offset < *next {
                        continue; // a batch comes whole, also when its middle was asked for
                    }
                    *next = record.offset + 1;
                    count += 1;
                    let origin = record.value.and_then(|value| origin_ns(&value, self.tag));
                    let counts =
                        |origin: &u64| (self.options.from_ns..self.options.to_ns).contains(origin);
                    if let Some(origin) = origin.filter(counts) {
                        self.latencies.saturating_record(now_ns.saturating_sub(origin));
                    }
                }
            }
        }
        Ok(count)
    }
}

/// What Tidegate's streams have: none or LZ4.
fn decompress(bytes: &mut Bytes, compression: Compression) -> io::Result<Bytes> {
    match compression {
        Compression::None => Ok(std::mem::take(bytes)),
        Compression::Lz4 => {
            let mut out = Vec::new();
            lz4_flex::frame::FrameDecoder::new(&bytes[..]).read_to_end(&mut out)?;
            Ok(out.into())
        }
        other => Err(broken(format!("{other:?} is not decompressed here"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_are_read_back_by_their_tag() {
        let mut payload = [7; 20];
        stamp(&mut payload, 0x0102_0304, 99);
        assert_eq!(origin_ns(&payload, 0x0102_0304), Some(99));
        assert_eq!(origin_ns(&payload, 1), None);
        assert_eq!(origin_ns(&payload[..15], 0x0102_0304), None);
        assert_eq!(payload[16..], [7; 4]);
    }

    #[test]
    fn nobody_there_is_an_error_at_once() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let options = Options {
            client: Client::Own,
            slow: false,
            bootstrap: address,
            stream: "s".into(),
            core: None,
            from_ns: 0,
            to_ns: 1,
        };
        assert!(start(&options, 1, &Arc::default()).is_err());
    }
}
