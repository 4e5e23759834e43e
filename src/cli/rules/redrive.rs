//! `tidegate rules redrive`: dead letters through their rules again, once the rules are mended.
//!
//! In: a running engine's `_deadletter`, read with Fetch up to where it ends at the start. Out: each as
//! a message to the rule that could not evaluate it, over MQTT with QoS 1; what is acknowledged is noted
//! in a file. A message goes to the shard of the device that sent it first, whose state its rules may
//! need: so there is a connection for each shard, with a client id that belongs there.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kafka_protocol::messages::{ApiKey, FetchResponse};

use super::super::bench::wire::{self, Reassembly, Version, packet};
use super::super::{Failure, failure, kafka};
use super::dead_letter::DeadLetter;
use super::redriven::Redriven;
use crate::config::parse_duration;
use crate::record::batch::{BatchHeader, for_each_record};
use crate::record::partition_of;
use crate::transform::rules::DEAD_LETTERS;

const EXAMPLES: &str = "\
Examples:
  tidegate rules redrive --dry-run                       what is there?
  tidegate rules reload                                  the mended rules take effect
  tidegate rules redrive --rule hot --since 2h --state /var/lib/tidegate/redriven.json

Exit codes: 0 all were redriven, 1 some were not, 2 it was called wrongly.";

/// Dead letters that are sent before what was acknowledged is noted.
const AT_ONCE: usize = 256;
const FETCH_BYTES: i32 = 1 << 20;
const FETCH_WAIT_MS: i32 = 500;
const TIMEOUT: Duration = Duration::from_secs(60);
/// PUBACK's reason where nobody wants a message (MQTT 5, section 3.4.2.1).
const NOBODY: u8 = 0x10;

/// Put dead letters through their rules again
///
/// Each goes through the rule that could not evaluate it, and through the rules that read that one's
/// records, as a message of the device that sent it; other rules and streams had it already. What
/// fails again is a dead letter again.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Kafka address of any shard of the running engine
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    kafka: String,

    /// Its MQTT address
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    mqtt: String,

    /// Dead letters of this rule only, repeatable
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,

    /// Only messages that came first within so long, such as 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,

    /// File that says what was redriven; nothing in it is redriven again
    #[arg(long, value_name = "FILE", default_value = "tidegate-redriven.json")]
    state: PathBuf,

    /// Show the dead letters, and send nothing
    #[arg(long)]
    dry_run: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| format!("{text:?} is no time such as 30m, 2h or 7d"))
}

/// What became of the dead letters of one rule.
#[derive(Debug, Default)]
struct Count {
    redriven: u64,
    /// No such rule reads their topics now.
    unwanted: u64,
    /// Larger with their destination than a packet may be.
    too_large: u64,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| {
            Failure::at_run_time(&io::Error::other(format!("{what} failed: {error}")))
        }
    };
    let reading = format!("reading {DEAD_LETTERS} from {}", args.kafka);
    let layout = kafka::layout(&args.kafka, DEAD_LETTERS).map_err(failed(&reading))?;
    let redriven = Redriven::load(&args.state, &layout.cluster_id).map_err(Failure::of_use)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let since_ms =
        args.since.map_or(i64::MIN, |since| now_ms.saturating_sub(since.as_millis()) as i64);
    let mut run = Run {
        args,
        since_ms,
        redriven,
        waiting: Vec::new(),
        counts: BTreeMap::new(),
        sender: Sender::new(&args.mqtt, layout.nodes, layout.partitions),
    };
    let mut ends = Vec::new();
    for (address, partitions) in &layout.leaders {
        let read = Partitions::find(address, partitions).map_err(failed(&reading))?;
        ends.push(read.ends.values().sum::<i64>());
        run.read(read, &reading)?;
    }
    run.send()?;
    let mut text = run.told();
    if !args.dry_run {
        let after = layout.leaders.iter().map(|(address, partitions)| {
            Ok(Partitions::find(address, partitions)?.ends.values().sum::<i64>())
        });
        let after: i64 = after.sum::<io::Result<i64>>().map_err(failed(&reading))?;
        let new = after - ends.iter().sum::<i64>();
        if new > 0 {
            let _ = writeln!(
                text,
                "{new} new dead letter(s) came meanwhile, some of them perhaps again"
            );
        }
    }
    failure::print(&text)?;
    match run.counts.values().map(|count| count.unwanted + count.too_large).sum::<u64>() {
        0 => Ok(()),
        left => {
            let what = format!("{left} dead letter(s) were not redriven");
            Err(Failure::at_run_time(&io::Error::other(what)))
        }
    }
}

/// Partitions of one node, up to where they end at the start.
struct Partitions {
    node: kafka::Node,
    starts: BTreeMap<i32, i64>,
    ends: BTreeMap<i32, i64>,
}

impl Partitions {
    fn find(address: &str, partitions: &[i32]) -> io::Result<Self> {
        let mut node = kafka::Node::connect(address)?;
        let starts = node.offsets(DEAD_LETTERS, partitions, kafka::EARLIEST)?;
        let ends = node.offsets(DEAD_LETTERS, partitions, kafka::LATEST)?;
        Ok(Self { node, starts, ends })
    }
}

/// A redrive under way.
struct Run<'a> {
    args: &'a Args,
    since_ms: i64,
    redriven: Redriven,
    waiting: Vec<DeadLetter>,
    counts: BTreeMap<String, Count>,
    sender: Sender,
}

impl Run<'_> {
    /// Reads the partitions of a node, and sends what is to be redriven.
    fn read(&mut self, from: Partitions, reading: &str) -> Result<(), Failure> {
        let Partitions { mut node, starts, ends } = from;
        let failed = |error: io::Error| {
            Failure::at_run_time(&io::Error::other(format!("{reading} failed: {error}")))
        };
        for (partition, start) in &starts {
            self.redriven.forget_before(*partition, *start);
        }
        let mut next = starts;
        loop {
            next.retain(|partition, next| *next < ends[partition]);
            if next.is_empty() {
                return Ok(());
            }
            let request = kafka::fetch(DEAD_LETTERS, &next, FETCH_BYTES, FETCH_WAIT_MS);
            let response: FetchResponse =
                node.call(ApiKey::Fetch, kafka::FETCH_VERSION, &request).map_err(failed)?;
            let before = next.clone();
            for partition in response.responses.iter().flat_map(|topic| &topic.partitions) {
                kafka::check(partition.error_code, "Fetch").map_err(failed)?;
                let index = partition.partition_index;
                let bytes = partition.records.as_deref().unwrap_or_default();
                let reached = next.entry(index).or_default();
                self.take(index, bytes, (reached, ends[&index])).map_err(failed)?;
                if self.waiting.len() >= AT_ONCE {
                    self.send()?;
                }
            }
            // Offsets that were reserved and never used are at an end.
            if next == before {
                return Ok(());
            }
        }
    }

    /// Takes the dead letters of some batches, from `next` to before `end`.
    fn take(
        &mut self,
        partition: i32,
        mut bytes: &[u8],
        (next, end): (&mut i64, i64),
    ) -> io::Result<()> {
        let mut scratch = Vec::new();
        while let Some(header) = BatchHeader::read(bytes) {
            let Some((batch, rest)) = bytes.split_at_checked(header.batch_bytes as usize) else {
                break; // the last one may be cut short
            };
            bytes = rest;
            let whole = for_each_record(batch, &mut scratch, |record| {
                let offset = record.offset.0 as i64;
                if offset < *next || offset >= end {
                    return true; // a batch comes whole
                }
                match DeadLetter::read(partition, &record) {
                    Some(letter) if self.wants(&letter) => self.waiting.push(letter),
                    _ => {}
                }
                true
            });
            whole.ok_or_else(|| kafka::broken("a batch that cannot be read"))?;
            *next = (*next).max(header.next_offset().0 as i64);
        }
        Ok(())
    }

    fn wants(&self, letter: &DeadLetter) -> bool {
        let rules = &self.args.rules;
        (rules.is_empty() || rules.contains(&letter.rule))
            && letter.received_ms >= self.since_ms
            && !self.redriven.has(letter.partition, letter.offset)
    }

    /// Sends what waits.
    fn send(&mut self) -> Result<(), Failure> {
        let letters = std::mem::take(&mut self.waiting);
        if self.args.dry_run {
            return self.show(&letters);
        }
        letters.chunks(AT_ONCE).try_for_each(|letters| self.send_some(letters))
    }

    /// Sends dead letters, and notes what is acknowledged, also where not all is.
    fn send_some(&mut self, letters: &[DeadLetter]) -> Result<(), Failure> {
        let (fates, result) = self.sender.send(letters);
        for (letter, fate) in letters.iter().zip(fates) {
            let count = self.counts.entry(letter.rule.clone()).or_default();
            match fate {
                Fate::Unknown => {}
                Fate::Redriven => {
                    count.redriven += 1;
                    self.redriven.add(letter.partition, letter.offset);
                }
                Fate::Unwanted => count.unwanted += 1,
                Fate::TooLarge => count.too_large += 1,
            }
        }
        let state = &self.args.state;
        self.redriven.save(state).map_err(|error| {
            let what = format!(
                "writing {} failed, after dead letters were redriven: {error}",
                state.display()
            );
            Failure::at_run_time(&io::Error::other(what))
        })?;
        result.map_err(|error| {
            let what = format!(
                "redriving over {} failed: {error}\n  help: what was acknowledged is noted in {}; \
                 redrive again for the rest",
                self.args.mqtt,
                state.display()
            );
            Failure::at_run_time(&io::Error::other(what))
        })
    }

    fn show(&mut self, letters: &[DeadLetter]) -> Result<(), Failure> {
        let mut text = String::new();
        for letter in letters {
            let DeadLetter { partition, offset, rule, topic, client_id, reason, .. } = letter;
            let _ = writeln!(text, "{partition}:{offset} {rule} {topic} {client_id}: {reason}");
            self.counts.entry(rule.clone()).or_default().redriven += 1;
        }
        failure::print(&text)
    }

    /// A line a rule.
    fn told(&self) -> String {
        let mut text = String::new();
        for (rule, Count { redriven, unwanted, too_large }) in &self.counts {
            let done = if self.args.dry_run { "to be redriven" } else { "redriven" };
            let _ = write!(text, "{rule}: {redriven} {done}");
            if *unwanted > 0 {
                let _ = write!(text, ", {unwanted} left: no rule {rule} reads their topics now");
            }
            if *too_large > 0 {
                let _ = write!(text, ", {too_large} left: too large for a packet with their rule");
            }
            text.push('\n');
        }
        if text.is_empty() {
            text += "no dead letters\n";
        }
        text
    }
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Not acknowledged.
    Unknown,
    Redriven,
    Unwanted,
    TooLarge,
}

/// Connections to the shards.
struct Sender {
    address: String,
    shards: u32,
    partitions: u32,
    links: BTreeMap<u32, Link>,
}

impl Sender {
    fn new(address: &str, shards: u32, partitions: u32) -> Self {
        Self { address: address.to_owned(), shards, partitions, links: BTreeMap::new() }
    }

    /// Sends dead letters and waits for all acknowledgements, or the first error.
    fn send(&mut self, letters: &[DeadLetter]) -> (Vec<Fate>, io::Result<()>) {
        let mut fates = vec![Fate::Unknown; letters.len()];
        let result = self.send_each(letters, &mut fates);
        (fates, result)
    }

    fn send_each(&mut self, letters: &[DeadLetter], fates: &mut [Fate]) -> io::Result<()> {
        let mut result = Ok(());
        for (index, letter) in letters.iter().enumerate() {
            result = self.link(&letter.client_id).and_then(|link| {
                let packet = letter.packet(link.next_id());
                if letter.is_too_long() || packet.len() > link.packet_bytes_max {
                    fates[index] = Fate::TooLarge;
                    return Ok(());
                }
                link.send(&packet, index, fates)
            });
            if result.is_err() {
                break;
            }
        }
        // Also after an error: what is acknowledged is noted.
        for link in self.links.values_mut() {
            result = result.and(link.finish(fates));
        }
        result
    }

    /// The connection to the shard that a device belongs to.
    fn link(&mut self, client_id: &str) -> io::Result<&mut Link> {
        let owner = |id: &str| partition_of(id.as_bytes(), self.partitions).owner(self.shards).0;
        let shard = owner(client_id);
        if !self.links.contains_key(&shard) {
            let one = uuid::Uuid::new_v4().simple().to_string();
            let mut names = (0..).map(|n| format!("tidegate-redrive-{}-{n}", &one[..8]));
            let name = names.find(|name| owner(name) == shard).unwrap_or_default();
            self.links.insert(shard, Link::connect(&self.address, &name)?);
        }
        self.links.get_mut(&shard).ok_or_else(|| kafka::broken("a connection is gone"))
    }
}

/// One MQTT connection.
struct Link {
    socket: TcpStream,
    reassembly: Reassembly,
    receive_max: usize,
    packet_bytes_max: usize,
    packet_id: u16,
    /// Letters that are not acknowledged, oldest first: acknowledgements come in their order.
    sent: std::collections::VecDeque<usize>,
}

impl Link {
    fn connect(address: &str, client_id: &str) -> io::Result<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let mut link = Self {
            socket,
            reassembly: Reassembly::default(),
            receive_max: 1,
            packet_bytes_max: 0,
            packet_id: 0,
            sent: std::collections::VecDeque::new(),
        };
        link.socket.write_all(&wire::connect(Version::V5, client_id, 0))?;
        let mut reply = None;
        while reply.is_none() {
            link.read(|first, body| {
                if first == packet::CONNACK {
                    reply = Some(wire::connect_reply(Version::V5, body)?);
                }
                Ok(())
            })?;
        }
        match reply {
            Some(reply) if reply.code == 0 => {
                link.receive_max = usize::from(reply.receive_max).max(1);
                link.packet_bytes_max = reply.packet_bytes_max as usize;
                Ok(link)
            }
            Some(reply) => Err(kafka::broken(format!("CONNECT was refused, {:#04x}", reply.code))),
            None => Err(kafka::broken("no CONNACK")),
        }
    }

    fn next_id(&mut self) -> u16 {
        self.packet_id = self.packet_id % u16::MAX + 1;
        self.packet_id
    }

    /// Reads once.
    fn read(
        &mut self,
        each: impl FnMut(u8, &[u8]) -> Result<(), wire::Malformed>,
    ) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        match self.socket.read(&mut bytes)? {
            0 => Err(kafka::broken("the engine closed the connection")),
            count => self.reassembly.feed(&bytes[..count], each).map_err(io::Error::other),
        }
    }

    fn send(&mut self, packet: &[u8], letter: usize, fates: &mut [Fate]) -> io::Result<()> {
        while self.sent.len() >= self.receive_max {
            self.take_acknowledgements(fates)?;
        }
        self.socket.write_all(packet)?;
        self.sent.push_back(letter);
        Ok(())
    }

    fn take_acknowledgements(&mut self, fates: &mut [Fate]) -> io::Result<()> {
        let mut sent = std::mem::take(&mut self.sent);
        let mut refused = None;
        let result = self.read(|first, body| {
            match (first, sent.front()) {
                (packet::PUBACK, Some(&letter)) => {
                    match body.get(2).copied().unwrap_or(0) {
                        NOBODY => fates[letter] = Fate::Unwanted,
                        code if code < 0x80 => fates[letter] = Fate::Redriven,
                        code => refused = Some(format!("a message was refused, {code:#04x}")),
                    }
                    sent.pop_front();
                }
                (packet::DISCONNECT, _) => {
                    let code = body.first().copied().unwrap_or(0);
                    refused = Some(format!("the engine disconnected, {code:#04x}"));
                }
                _ => {}
            }
            Ok(())
        });
        self.sent = sent;
        match refused {
            Some(what) => Err(kafka::broken(what)),
            None => result,
        }
    }

    /// Waits for what was sent.
    fn finish(&mut self, fates: &mut [Fate]) -> io::Result<()> {
        while !self.sent.is_empty() {
            let result = self.take_acknowledgements(fates);
            if result.is_err() {
                self.sent.clear();
                return result;
            }
        }
        Ok(())
    }
}
