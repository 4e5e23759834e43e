//! `tidegate log export`: partitions as log segments of Kafka, which Kafka's own tools read.
//!
//! Comes in: a directory, and what of it. Goes out: for each partition a directory `STREAM-PARTITION`
//! with files named after their first offsets, of the record batches as they are. The index orders
//! them. What is damaged is left out and named; nothing is ever written over.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use super::inventory::{Directory, Inventory, failed};
use super::{Error, refuse_what_is_there};
use crate::cli::Failure;
use crate::cli::failure::print;
use crate::driver::data_dir::{index_path, segment_path};
use crate::log::SegmentKey;
use crate::log::index::{IndexEntry, Span};
use crate::log::scan::Damage;
use crate::record::{Offset, PartitionId, StreamId, batch};

/// Bytes of an exported segment, as Kafka's `log.segment.bytes` is by default.
const SEGMENT_BYTES: u64 = 1 << 30;

/// Write partitions as Kafka's own log segments
///
/// OUTDIR gets a directory STREAM-PARTITION for each partition that holds something, as a Kafka
/// broker has it. Kafka's tools read the files: kafka-dump-log.sh --deep-iteration --files FILE
/// (scripts/kafka-tools.sh runs it).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data directory
    dir: PathBuf,
    /// Where to, a new or an empty directory
    #[arg(long, value_name = "OUTDIR", required = true)]
    kafka_segment: PathBuf,
    /// Only this stream
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Only this partition of each stream
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let at_run_time = |error: Error| Failure::at_run_time(&error);
    refuse_what_is_there(&args.dir, &args.kafka_segment, "--kafka-segment")?;
    let directory = Directory::open(&args.dir).map_err(at_run_time)?;
    let stream = args.stream.as_ref().map(|name| directory.stream(name)).transpose()?;
    let partition = args.partition.map(|asked| directory.partition(asked)).transpose()?;
    let inventory = Inventory::take(&directory).map_err(at_run_time)?;
    let mut damages = inventory.damages.clone();
    let mut told = String::new();
    for (number, named) in directory.manifest.streams.iter().enumerate() {
        for number_of_partition in 0..directory.manifest.partitions {
            let (id, place) = (StreamId(number as u32), PartitionId(number_of_partition));
            let asked = stream.is_none_or(|asked| asked == id.0)
                && partition.is_none_or(|asked| asked == place.0);
            if !asked || inventory.recovered.layout(id, place).spans.is_empty() {
                continue;
            }
            let name = format!("{}-{number_of_partition}", named.name);
            let out = Output::new(args.kafka_segment.join(&name));
            let mut export = Export { directory: &directory, inventory: &inventory, out };
            damages.extend(export.partition(id, place).map_err(at_run_time)?);
            let Output { batches, records, bytes, .. } = export.out;
            let _ = writeln!(told, "{name}: {records} records in {batches} batches, {bytes} bytes");
        }
    }
    if told.is_empty() {
        told += "nothing is stored there: nothing was written\n";
    }
    print(&told)?;
    if damages.is_empty() {
        return Ok(());
    }
    Err(at_run_time(Error::Damaged { dir: directory.path, damages }))
}

struct Export<'a> {
    directory: &'a Directory,
    inventory: &'a Inventory,
    out: Output,
}

impl Export<'_> {
    /// Writes what is kept of a partition, by offset. Returns what does not hold.
    fn partition(
        &mut self,
        stream: StreamId,
        partition: PartitionId,
    ) -> Result<Vec<Damage>, Error> {
        let start = self.inventory.recovered.offsets(stream, partition).start;
        let mut damages = Vec::new();
        let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
        for (key, span) in self.inventory.recovered.layout(stream, partition).spans {
            let path = segment_path(&self.directory.path, key);
            let file = File::open(&path).map_err(failed("opening", &path))?;
            let Some(entries) = self.entries(key, &span)? else {
                damages.push(Damage { key, at: 0, what: "its index does not hold" });
                continue;
            };
            for entry in entries.into_iter().filter(|entry| entry.next() > start) {
                bytes.resize(entry.bytes as usize, 0);
                let at = u64::from(entry.position);
                let checked = match file.read_exact_at(&mut bytes, at) {
                    Ok(()) => batch::check(&bytes, &mut scratch),
                    Err(_) => Err("it cannot be read"),
                };
                match checked {
                    Ok(()) => self.out.batch(&entry, &bytes)?,
                    Err(what) => damages.push(Damage { key, at, what }),
                }
            }
        }
        self.out.close()?;
        Ok(damages)
    }

    /// Where the batches of a run lie; `None` where the index does not hold.
    fn entries(&self, key: SegmentKey, span: &Span) -> Result<Option<Vec<IndexEntry>>, Error> {
        let Some(located) = span.entries else { return Ok(None) };
        let mut bytes = vec![0; located.bytes()];
        match self.inventory.indexes.get(&key) {
            Some(index) => {
                match index.get(located.at as usize..).and_then(|i| i.get(..bytes.len())) {
                    Some(held) => bytes.copy_from_slice(held),
                    None => return Ok(None),
                }
            }
            None => {
                let path = index_path(&self.directory.path, key);
                let file = File::open(&path).map_err(failed("opening", &path))?;
                if file.read_exact_at(&mut bytes, located.at).is_err() {
                    return Ok(None);
                }
            }
        }
        let holds = crc32c::crc32c(&bytes) == located.crc;
        let entry = |number: usize| IndexEntry::read(&bytes, number);
        Ok(holds.then(|| (0..located.count as usize).filter_map(entry).collect()))
    }
}

/// The segments of one partition.
struct Output {
    dir: PathBuf,
    /// The file that is written, its name's offset, and its bytes.
    open: Option<(BufWriter<File>, PathBuf, Offset, u64)>,
    batches: u64,
    records: u64,
    bytes: u64,
}

impl Output {
    fn new(dir: PathBuf) -> Self {
        Self { dir, open: None, batches: 0, records: 0, bytes: 0 }
    }

    fn batch(&mut self, entry: &IndexEntry, bytes: &[u8]) -> Result<(), Error> {
        let full = self.open.as_ref().is_some_and(|(_, _, base, written)| {
            // Kafka's indexes hold offsets relative to the file's, in 31 bits.
            written + bytes.len() as u64 > SEGMENT_BYTES
                || entry.next().0 - base.0 > i32::MAX as u64
        });
        if full {
            self.close()?;
        }
        if self.open.is_none() {
            fs::create_dir_all(&self.dir).map_err(failed("creating", &self.dir))?;
            let path = self.dir.join(format!("{:020}.log", entry.base.0));
            let file = File::create_new(&path).map_err(failed("creating", &path))?;
            self.open = Some((BufWriter::new(file), path, entry.base, 0));
        }
        if let Some((file, path, _, written)) = &mut self.open {
            file.write_all(bytes).map_err(failed("writing", path))?;
            *written += bytes.len() as u64;
        }
        self.batches += 1;
        self.records += u64::from(entry.record_count);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        let Some((mut file, path, ..)) = self.open.take() else { return Ok(()) };
        let flushed = file.flush().and_then(|()| file.get_ref().sync_all());
        flushed.map_err(failed("writing", &path))
    }
}
