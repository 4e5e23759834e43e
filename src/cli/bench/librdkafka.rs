//! The Kafka consumer that most clients are made of, beside the load: librdkafka through the rdkafka
//! crate, with its defaults but for what it needs to read from the end.
//!
//! In and out as in `consume`. One thread polls; librdkafka has its own threads for each node, on the
//! same core where one is named. The latency ends where the library hands a message over. The
//! invariant: it is done when every partition was read up to the end that it had after the load.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use super::consume::{Consuming, Options, Read, origin_ns};
use super::measure::histogram;
use super::pin;

const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it looks whether the load has ended.
const LOOK: Duration = Duration::from_millis(100);

/// A consumer at work.
#[derive(Debug)]
pub struct Consumer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Read>>,
}

impl Consumer {
    /// As [`consume::start`](super::consume::start).
    pub fn start(options: &Options, tag: u64, begin: &Arc<OnceLock<Instant>>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = mpsc::channel();
        let (options, begin, stopped) = (options.clone(), Arc::clone(begin), Arc::clone(&stop));
        // The library's threads inherit the core of the one that makes them.
        let thread = std::thread::spawn(move || match Reader::open(options, tag) {
            Ok(reader) => {
                let _ = ready.send(Ok(()));
                reader.read_all(&begin, &stopped)
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                Err(io::Error::other("it did not start"))
            }
        });
        is_ready.recv().map_err(io::Error::other)??;
        Ok(Self { stop, thread })
    }
}

impl Consuming for Consumer {
    fn client(&self) -> String {
        format!("librdkafka {}", rdkafka::util::get_rdkafka_version().1)
    }

    fn finish(self: Box<Self>) -> io::Result<Read> {
        // Relaxed: the flag carries nothing else.
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| io::Error::other("the consumer's thread panicked"))?
    }
}

struct Reader {
    consumer: BaseConsumer,
    options: Options,
    tag: u64,
    /// By partition: the next offset.
    offsets: BTreeMap<i32, i64>,
    latencies: Histogram<u64>,
}

impl Reader {
    fn open(options: Options, tag: u64) -> io::Result<Self> {
        if let Some(core) = options.core {
            pin(core)?;
        }
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &options.bootstrap)
            .set("group.id", "tidegate-bench")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "error")
            .create()
            .map_err(io::Error::other)?;
        let metadata = consumer.fetch_metadata(Some(&options.stream), TIMEOUT);
        let metadata = metadata.map_err(io::Error::other)?;
        let topic = metadata.topics().first();
        let topic = topic.ok_or_else(|| io::Error::other("no topic in Metadata"))?;
        if let Some(error) = topic.error() {
            let error = rdkafka::types::RDKafkaErrorCode::from(error);
            return Err(io::Error::other(format!("Metadata answered with {error}")));
        }
        let partitions = topic.partitions().iter().map(|partition| (partition.id(), 0)).collect();
        let latencies = histogram();
        let mut reader = Self { consumer, options, tag, offsets: partitions, latencies };
        reader.offsets = reader.ends()?;
        let mut list = TopicPartitionList::new();
        for (&partition, &offset) in &reader.offsets {
            list.add_partition_offset(&reader.options.stream, partition, Offset::Offset(offset))
                .map_err(io::Error::other)?;
        }
        reader.consumer.assign(&list).map_err(io::Error::other)?;
        Ok(reader)
    }

    /// Where each partition ends now.
    fn ends(&self) -> io::Result<BTreeMap<i32, i64>> {
        let end = |&partition: &i32| {
            let found = self.consumer.fetch_watermarks(&self.options.stream, partition, TIMEOUT);
            found.map(|(_, high)| (partition, high)).map_err(io::Error::other)
        };
        self.offsets.keys().map(end).collect()
    }

    fn read_all(mut self, begin: &OnceLock<Instant>, stop: &AtomicBool) -> io::Result<Read> {
        let mut records = 0;
        let mut last: Option<(BTreeMap<i32, i64>, Instant)> = None;
        let counted = self.options.from_ns..self.options.to_ns;
        loop {
            if last.is_none() && stop.load(Ordering::Relaxed) {
                last = Some((self.ends()?, Instant::now()));
            }
            if let Some((ends, since)) = &last {
                let behind = ends.iter().any(|(partition, &end)| self.offsets[partition] < end);
                if !behind || since.elapsed() > TIMEOUT {
                    return Ok(Read { latencies: self.latencies, records });
                }
            }
            let Some(message) = self.consumer.poll(LOOK) else { continue };
            let now_ns = begin.get().map_or(0, |begin| begin.elapsed().as_nanos() as u64);
            let message = message.map_err(io::Error::other)?;
            records += 1;
            self.offsets.insert(message.partition(), message.offset() + 1);
            let origin = message.payload().and_then(|payload| origin_ns(payload, self.tag));
            if let Some(origin) = origin.filter(|origin| counted.contains(origin)) {
                self.latencies.saturating_record(now_ns.saturating_sub(origin));
            }
        }
    }
}
