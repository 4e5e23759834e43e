//! The arguments of `tidegate bench`, and the plan that they make.
//!
//! In: the command line. Out: a [`Plan`], or what does not fit together. No I/O but the resolution
//! of a host's name.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use super::consume::{self, Client, STAMP_BYTES};
use super::payload::{JSON_BYTES_MIN, Kind};
use super::plan::{LoopKind, Plan, Scenario, pings_per_s};
use super::sweep::Range;
use super::wire::Version;
use super::{BenchError, floor, html};

const EXAMPLES: &str = "\
Examples (engine on core 0, load on core 1):
  What is the most it acknowledges, and at what CPU a message?
    tidegate bench --core 1 --pid PID --connections 100 --window 16
  How long does an acknowledgement take at 2,000 messages a second, over this machine's floor?
    tidegate bench --core 1 --pid PID --rate 2000 --floor-data DIR
  How long until a Kafka consumer has it? Until an MQTT subscriber has it?
    tidegate bench --core 1 --rate 2000 --consume-kafka 127.0.0.1:9092 --stream telemetry
    tidegate bench --core 1 --rate 2000 --scenario one-to-one --connections 100
  The throughput-latency curve of two brokers on one page:
    tidegate bench --core 1 --sweep 10%..110% --json >a.json
    tidegate bench --core 1 --sweep 10%..110% --json --connect HOST:PORT >b.json
    tidegate bench report a.json b.json --html curve.html
  Is it the broker or the generator? Is the machine quiet?
    tidegate bench --null-sink 127.0.0.1:2883 --core 0
    tidegate bench --floor --data-dir DIR --core 1
scripts/bench/ has a script a question, and how to read the answers.";

/// Measure how fast an MQTT broker acknowledges messages
///
/// The load generator polls without ever sleeping: give it a core of its own (--core), or several
/// with a thread on each, and the broker others.
#[derive(Debug, Clone, clap::Args)]
#[command(args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
#[command(group(clap::ArgGroup::new("mode").args(["floor", "null_sink"])))]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    pub connect: String,
    /// 3.1.1 or 5
    #[arg(long, value_name = "VERSION", default_value = "3.1.1")]
    pub mqtt_version: Version,
    /// fan-in: all connections publish alike. burst: the same with a second of ten times the rate
    /// in every ten. skew: one connection has 90 % of the rate. idle: all keep alive and nobody
    /// publishes; with --pid, memory a connection (of a fresh process: one that has served as many
    /// before has kept their memory). connect-storm: how fast connections are
    /// accepted, at --rate a second or as fast as --window attempts at once allow. one-to-one: each
    /// publisher has a subscriber of its own. fan-out: one publishes, --subscribe N subscribers
    /// receive. slow-consumer: fan-in with --subscribe or --consume-kafka, and beside those readers
    /// one that takes 4 KiB and rests for 100 ms, over and over
    #[arg(long, value_name = "NAME", default_value = "fan-in")]
    pub scenario: Scenario,
    /// Publishers
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub connections: u32,
    /// Closed loop: messages in flight on each connection
    #[arg(long, value_name = "W", default_value_t = 16, conflicts_with = "rate",
        value_parser = clap::value_parser!(u16).range(1..))]
    pub window: u16,
    /// Open loop: messages a second in total. Each has an intended send time from which its latency
    /// counts; late ones are sent, never skipped
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub rate: Option<u64>,
    /// The throughput–latency curve: measure the saturation in a closed loop, then run in the open
    /// loop at parts of it
    #[arg(long, value_name = "FROM%..TO%", conflicts_with_all = ["rate", "runs", "hgrm"])]
    pub sweep: Option<Range>,
    /// --sweep: at so many rates, evenly spaced
    #[arg(long, value_name = "N", default_value_t = 11,
        value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub sweep_points: u32,
    /// Open loop: messages in flight on each connection; what is beyond waits, and its latency
    /// with it
    #[arg(long, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub in_flight_max: u16,
    /// 1: a PUBACK answers each message. 0: nothing does, so a PINGREQ follows what is sent at once
    /// and its answer says that the broker has read it; "acknowledged" means that then
    #[arg(long, value_name = "QOS", default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(0..=1))]
    pub qos: u8,
    /// What the messages carry; a pool of different ones, larger than what LZ4 looks back
    #[arg(long, value_name = "KIND", value_enum, default_value_t = Kind::Random)]
    pub payload: Kind,
    /// Payload of each message
    #[arg(long, value_name = "BYTES", default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    pub payload_bytes: u32,
    /// Topic; {client} stands for the client id
    #[arg(long, value_name = "TOPIC", default_value = "bench/{client}")]
    pub topic: String,
    /// Client ids are this and a number
    #[arg(long, value_name = "PREFIX", default_value = "bench-")]
    pub client_prefix: String,
    /// Load before the measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    pub warmup: Duration,
    /// The measurement (--floor: each part of it)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    pub duration: Duration,
    /// Open loop: how long late acknowledgements are waited for
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    pub drain: Duration,
    /// Pin the load generator (or the null sink) to this core; several, as 1,2: a thread on each,
    /// with its share of the connections
    #[arg(long, value_name = "CORE", value_delimiter = ',')]
    pub core: Vec<usize>,
    /// So many MQTT subscribers to all that is published: report the latency from a message's send
    /// to each receipt. They subscribe with --qos. Payloads then begin with 16 bytes for them
    #[arg(long, value_name = "N", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub subscribe: u32,
    /// A Kafka consumer reads along: report the latency from a message's send to it. Payloads then
    /// begin with 16 bytes for it
    #[arg(long, value_name = "HOST:PORT", requires = "stream")]
    pub consume_kafka: Option<String>,
    /// --consume-kafka: the stream (topic) into which the load goes
    #[arg(long, value_name = "NAME")]
    pub stream: Option<String>,
    /// --consume-kafka: the client that reads; librdkafka by default where this build has it
    #[arg(long, value_name = "CLIENT", value_enum, requires = "consume_kafka")]
    pub consumer: Option<Client>,
    /// --consume-kafka: pin the consumer to this core
    #[arg(long, value_name = "CORE")]
    pub consumer_core: Option<usize>,
    /// The process under test: report its CPU time a message and its memory
    #[arg(long, value_name = "PID", alias = "engine-pid")]
    pub pid: Option<u32>,
    /// Run the load so often, and tell the median, lowest and highest of each figure
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub runs: u32,
    /// Write the latencies of all runs as HdrHistogram's tools read them, in microseconds
    #[arg(long, value_name = "FILE")]
    pub hgrm: Option<PathBuf>,
    /// Write the report as one HTML page that needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
    /// No line a second on stderr
    #[arg(long)]
    pub quiet: bool,
    /// Measure the machine's own floor instead: loopback round trip, write + flush on the disk of
    /// --data-dir, hiccups of two cores that only spin, CPU time that the host takes away
    #[arg(long, requires = "data_dir")]
    pub floor: bool,
    /// --floor: a directory on the disk in question
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Measure the floor on this directory's disk right before the load, and tell how far above it
    /// the latencies are, and whether the machine was quiet enough to conclude anything
    #[arg(long, value_name = "DIR", conflicts_with = "mode")]
    pub floor_data: Option<PathBuf>,
    /// --floor-data: time for each of the five parts
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    pub floor_part: Duration,
    /// --floor, --floor-data: the core that an engine would run on
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    pub engine_core: usize,
    /// Be a server instead that acknowledges and does nothing else, to know the generator's limit
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub null_sink: Option<SocketAddr>,
}

/// What is done with reports.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum Command {
    Report(html::Args),
}

impl Args {
    /// The load that they ask for.
    ///
    /// # Errors
    /// When the broker's name cannot be resolved, or arguments do not fit together.
    pub fn plan(&self) -> Result<Plan, BenchError> {
        self.check()?;
        let address = self.connect.to_socket_addrs().ok().and_then(|mut found| found.next());
        let loop_kind = match (self.scenario, self.rate) {
            (Scenario::Idle, _) => {
                LoopKind::Open { rate_per_s: pings_per_s(self.connections), in_flight_max: 1 }
            }
            (_, Some(rate_per_s)) => {
                LoopKind::Open { rate_per_s, in_flight_max: self.in_flight_max }
            }
            (_, None) => LoopKind::Closed { window: self.window },
        };
        Ok(Plan {
            address: address.ok_or_else(|| BenchError::Address(self.connect.clone()))?,
            version: self.mqtt_version,
            scenario: self.scenario,
            connections: if self.scenario == Scenario::FanOut { 1 } else { self.connections },
            loop_kind,
            qos: self.qos,
            payload: self.payload,
            payload_bytes: self.payload_bytes as usize,
            topic: self.topic.clone(),
            client_prefix: self.client_prefix.clone(),
            warmup: self.warmup,
            duration: self.duration,
            drain: self.drain,
            process: self.pid,
            cores: self.core.clone(),
            consume: self.consume(),
            subscribers: match self.scenario {
                Scenario::OneToOne => self.connections,
                _ => self.subscribe,
            },
            progress: !self.quiet,
        })
    }

    fn consume(&self) -> Option<consume::Options> {
        let (bootstrap, stream) = self.consume_kafka.clone().zip(self.stream.clone())?;
        let from_ns = self.warmup.as_nanos() as u64;
        let to_ns = from_ns + self.duration.as_nanos() as u64;
        let client = self.consumer.unwrap_or(Client::DEFAULT);
        let core = self.consumer_core;
        Some(consume::Options { client, slow: false, bootstrap, stream, core, from_ns, to_ns })
    }

    /// The floor that is asked for, by itself or beside a load.
    pub fn floor_options(&self) -> Option<floor::Options> {
        let (data_dir, duration) = match (&self.data_dir, &self.floor_data) {
            (Some(data_dir), _) if self.floor => (data_dir, self.duration),
            (_, Some(data_dir)) => (data_dir, self.floor_part),
            _ => return None,
        };
        Some(floor::Options {
            data_dir: data_dir.clone(),
            engine_core: self.engine_core,
            load_core: self.core.first().copied().unwrap_or(self.engine_core + 1),
            message_bytes: self.payload_bytes as usize,
            duration: duration.min(Duration::from_secs(60)),
        })
    }

    fn check(&self) -> Result<(), BenchError> {
        let scenario = self.scenario;
        let refused = |what: String| Err(BenchError::Usage(what));
        if matches!(scenario, Scenario::Burst | Scenario::Skew)
            && self.rate.is_none()
            && self.sweep.is_none()
        {
            return refused(format!("--scenario {scenario} is a rate's shape; say --rate"));
        }
        let silent = matches!(scenario, Scenario::Idle | Scenario::ConnectStorm);
        if silent && (self.sweep.is_some() || self.consume_kafka.is_some()) {
            return refused(format!(
                "--sweep and --consume-kafka are for loads that publish, not {scenario}"
            ));
        }
        if scenario == Scenario::Idle && self.rate.is_some() {
            return refused("--scenario idle publishes nothing; leave --rate out".to_owned());
        }
        if scenario == Scenario::Skew && self.connections < 2 {
            return refused("--scenario skew needs two connections at least".to_owned());
        }
        if scenario == Scenario::ConnectStorm && self.core.len() > 1 {
            return refused("--scenario connect-storm runs on one --core".to_owned());
        }
        if self.core.len() > self.connections as usize {
            return refused(
                "there are more generator threads (--core) than connections".to_owned(),
            );
        }
        if self.payload == Kind::Json && (self.payload_bytes as usize) < JSON_BYTES_MIN {
            return refused(format!(
                "--payload json needs --payload-bytes of {JSON_BYTES_MIN} at least"
            ));
        }
        self.check_readers()
    }

    /// Who reads along.
    fn check_readers(&self) -> Result<(), BenchError> {
        let scenario = self.scenario;
        let refused = |what: &str| Err(BenchError::Usage(what.to_owned()));
        let silent = matches!(scenario, Scenario::Idle | Scenario::ConnectStorm);
        if silent && self.subscribe > 0 {
            return refused("--subscribe is for loads that publish");
        }
        if scenario == Scenario::FanOut && self.subscribe == 0 {
            return refused("--scenario fan-out needs --subscribe N");
        }
        if scenario == Scenario::OneToOne && !self.topic.contains("{client}") {
            return refused("--scenario one-to-one needs {client} in --topic");
        }
        if scenario == Scenario::FanOut && self.core.len() > 1 {
            return refused("--scenario fan-out has one publisher, so one --core");
        }
        let read = self.subscribe > 0 || self.consume_kafka.is_some();
        if scenario == Scenario::SlowConsumer && !read {
            return refused(
                "--scenario slow-consumer needs readers to be compared with: --subscribe N or \
                 --consume-kafka",
            );
        }
        let stamps = self.payload != Kind::Json && self.payload_bytes as usize >= STAMP_BYTES;
        if (read || scenario == Scenario::OneToOne) && !stamps {
            return refused(
                "--consume-kafka and subscribers need payloads of 16 bytes at least that are not \
                 JSON",
            );
        }
        if self.consumer == Some(Client::Librdkafka) && !cfg!(feature = "librdkafka") {
            return refused(
                "this build has no librdkafka: `cargo build --release --features librdkafka` makes \
                 one (it needs make and a C++ compiler); --consumer own reads without it",
            );
        }
        Ok(())
    }
}

/// `250ms`, `10s`, `2m`; a bare number is seconds.
fn parse_time(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: f64 = digits.parse().map_err(|_| format!("{text:?} is not a time like 10s"))?;
    let seconds = match &text[digits.len()..] {
        "us" => number / 1e6,
        "ms" => number / 1e3,
        "" | "s" => number,
        "m" => number * 60.0,
        unit => return Err(format!("{unit:?} is not one of us, ms, s, m")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    /// What a line means, where it can be read.
    pub fn parsed(line: &[&str]) -> Option<Args> {
        Line::try_parse_from(std::iter::once(&"bench").chain(line)).ok().map(|line| line.args)
    }

    #[test]
    fn times() {
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(parse_time(text).ok().map(|t| t.as_micros() as u64), expected, "{text}");
        }
        check("10s", Some(10_000_000));
        check("250ms", Some(250_000));
        check("1.5", Some(1_500_000));
        check("2m", Some(120_000_000));
        check("7us", Some(7));
        check("-1s", None);
        check("s", None);
        check("3h", None);
    }

    #[test]
    fn loops_are_open_or_closed() {
        fn check(line: &[&str], expected: Option<LoopKind>) {
            assert_eq!(parsed(line).map(|args| args.plan().unwrap().loop_kind), expected);
        }
        check(&[], Some(LoopKind::Closed { window: 16 }));
        check(&["--window", "1"], Some(LoopKind::Closed { window: 1 }));
        let open = LoopKind::Open { rate_per_s: 2000, in_flight_max: 1024 };
        check(&["--rate", "2000"], Some(open));
        check(&["--rate", "2000", "--scenario", "skew"], Some(open));
        let idle = LoopKind::Open { rate_per_s: 4, in_flight_max: 1 };
        check(&["--scenario", "idle"], Some(idle));
        check(&["--rate", "2000", "--window", "4"], None);
        check(&["--window", "0"], None);
        check(&["--scenario", "fan-outs"], None);
        check(&["--qos", "2"], None);
        check(&["--floor"], None);
        check(&["--rate", "9", "report", "a.json"], None);
        check(
            &["--scenario", "burst", "--sweep", "10%..90%"],
            Some(LoopKind::Closed { window: 16 }),
        );
        check(&["--sweep", "10%..90%", "--rate", "9"], None);
    }

    #[test]
    fn what_does_not_fit_together_is_said() {
        fn check(line: &[&str], expected: &str) {
            let error = parsed(line).unwrap().plan().unwrap_err();
            assert!(matches!(error, BenchError::Usage(_)), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
        check(&["--scenario", "burst"], "--rate");
        check(&["--scenario", "idle", "--sweep", "10%..90%"], "loads that publish");
        check(&["--scenario", "skew", "--rate", "9", "--connections", "1"], "two connections");
        check(&["--scenario", "idle", "--rate", "9"], "publishes nothing");
        check(&["--scenario", "connect-storm", "--core", "1,2"], "one --core");
        let consume = ["--consume-kafka", "h:1", "--stream", "s", "--payload-bytes", "8"];
        check(&consume, "16 bytes");
        check(&["--scenario", "1:1", "--payload", "json"], "16 bytes");
        check(&["--scenario", "1:1", "--topic", "t"], "{client}");
        check(&["--scenario", "fan-out"], "--subscribe N");
        check(&["--scenario", "slow-consumer"], "readers");
        check(&["--scenario", "idle", "--subscribe", "1"], "publish");
        check(&["--connections", "1", "--core", "1,2"], "more generator threads");
        check(&["--payload", "json", "--payload-bytes", "63"], "64 at least");
    }
}
