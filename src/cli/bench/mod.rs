//! `tidegate bench`: how fast a broker acknowledges, and how fast this machine could.
//!
//! In: arguments. Out: a report on stdout (text or JSON), progress on stderr. Three tools in one:
//! the load generator (`load`), the null sink that shows the generator's own limit, and the
//! machine's floor. They run on ordinary threads pinned where the arguments say.
//!
//! Reading order: `schedule` (when messages are meant to go), `connection` and `measure` (the
//! bookkeeping), `load` (sockets and phases), `report`.

mod connection;
mod floor;
mod load;
mod measure;
mod null_sink;
mod process;
mod report;
mod schedule;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use load::{LoopKind, Plan};
use wire::Version;

/// Measure how fast an MQTT broker acknowledges QoS 1 messages
///
/// The load generator is one thread that polls without ever sleeping: give it a core of its own
/// (--core) and the broker another.
#[derive(Debug, Clone, clap::Args)]
#[command(group(clap::ArgGroup::new("mode").args(["floor", "null_sink"])))]
pub struct Args {
    /// The broker
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:1883")]
    connect: String,
    /// 3.1.1 or 5
    #[arg(long, value_name = "VERSION", default_value = "3.1.1")]
    mqtt_version: Version,
    /// Publishers
    #[arg(long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Closed loop: messages in flight on each connection
    #[arg(long, value_name = "W", default_value_t = 16, conflicts_with = "rate",
        value_parser = clap::value_parser!(u16).range(1..))]
    window: u16,
    /// Open loop: messages a second in total. Each has an intended send time from which its latency
    /// counts; late ones are sent, never skipped
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,
    /// Open loop: messages in flight on each connection; what is beyond waits, and its latency
    /// with it
    #[arg(long, value_name = "N", default_value_t = 1024,
        value_parser = clap::value_parser!(u16).range(1..))]
    in_flight_max: u16,
    /// Payload of each message
    #[arg(long, value_name = "BYTES", default_value_t = 128,
        value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    payload_bytes: u32,
    /// Topic; {client} stands for the client id
    #[arg(long, value_name = "TOPIC", default_value = "bench/{client}")]
    topic: String,
    /// Client ids are this and a number
    #[arg(long, value_name = "PREFIX", default_value = "bench-")]
    client_prefix: String,
    /// Load before the measurement
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_time)]
    warmup: Duration,
    /// The measurement (--floor: each part of it)
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    duration: Duration,
    /// Open loop: how long late acknowledgements are waited for
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_time)]
    drain: Duration,
    /// Pin the load generator (or the null sink) to this core
    #[arg(long, value_name = "CORE")]
    core: Option<usize>,
    /// The process under test: report its CPU time a message and its memory
    #[arg(long, value_name = "PID", alias = "engine-pid")]
    pid: Option<u32>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
    /// No line a second on stderr
    #[arg(long)]
    quiet: bool,
    /// Measure the machine's own floor instead: loopback round trip, and write + flush on the disk
    /// of --data-dir
    #[arg(long, requires = "data_dir")]
    floor: bool,
    /// --floor: a directory on the disk in question
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// --floor: the core that an engine would run on
    #[arg(long, value_name = "CORE", default_value_t = 0)]
    engine_core: usize,
    /// Be a server instead that acknowledges and does nothing else, to know the generator's limit
    #[arg(long, value_name = "ADDRESS:PORT")]
    null_sink: Option<SocketAddr>,
}

/// Why there is no report, or none to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{0:?} is no HOST:PORT that can be resolved")]
    Address(String),
    #[error("cannot connect to {0}: {1}; is the broker running, and is `ulimit -n` high enough?")]
    Unreachable(SocketAddr, io::Error),
    #[error("the broker refused the connection with code {0:#04x}")]
    Refused(u8),
    #[error("the broker accepted {accepted} of {wanted} connections within 10 s and closed {lost}")]
    NotAccepted { accepted: u32, wanted: u32, lost: u32 },
    #[error("the broker closed every connection")]
    AllLost,
    #[error("not a result to trust: see the warnings")]
    Untrustworthy,
    #[error("the socket ring: {0}")]
    Ring(io::Error),
    #[error("process {0} cannot be read: {1}")]
    Process(u32, io::Error),
    #[error("cannot pin to core {0}: no such core, or not in this process's affinity mask")]
    Pin(usize),
    #[error("the null sink: {0}")]
    NullSink(io::Error),
    #[error("the floor: {0}")]
    Floor(io::Error),
    #[error("the report as JSON: {0}")]
    Json(serde_json::Error),
}

/// Runs the command: prints a report, or tells why not.
///
/// # Errors
/// Every variant of [`BenchError`]; connections that broke and messages that were refused or never
/// acknowledged are an error too, after the report is printed.
pub fn run(args: &Args) -> Result<(), BenchError> {
    if let Some(address) = args.null_sink {
        pin_if(args.core)?;
        let listener = TcpListener::bind(address).map_err(BenchError::NullSink)?;
        if !args.quiet {
            eprintln!("null sink on {address}: acknowledges and forgets; end it with Ctrl-C");
        }
        null_sink::serve(&listener, &AtomicBool::new(false)).map_err(BenchError::NullSink)?;
        return Ok(());
    }
    if let (true, Some(data_dir)) = (args.floor, &args.data_dir) {
        let options = floor::Options {
            data_dir: data_dir.clone(),
            engine_core: args.engine_core,
            load_core: args.core.unwrap_or(args.engine_core + 1),
            message_bytes: args.payload_bytes as usize,
            duration: args.duration.min(Duration::from_secs(60)),
        };
        let floor = floor::measure(&options).map_err(BenchError::Floor)?;
        return print(args.json, &floor);
    }
    pin_if(args.core)?;
    let report = load::run(&plan(args)?)?;
    print(args.json, &report)?;
    if args.json {
        report.warnings().iter().for_each(|warning| eprintln!("WARNING: {warning}"));
    }
    let unacknowledged = report.open_loop.as_ref().map_or(0, |open| open.unacknowledged);
    if report.connections_lost > 0 || report.refused > 0 || unacknowledged > 0 {
        return Err(BenchError::Untrustworthy);
    }
    Ok(())
}

fn plan(args: &Args) -> Result<Plan, BenchError> {
    let address = args.connect.to_socket_addrs().ok().and_then(|mut found| found.next());
    let loop_kind = match args.rate {
        Some(rate_per_s) => LoopKind::Open { rate_per_s, in_flight_max: args.in_flight_max },
        None => LoopKind::Closed { window: args.window },
    };
    Ok(Plan {
        address: address.ok_or_else(|| BenchError::Address(args.connect.clone()))?,
        version: args.mqtt_version,
        connections: args.connections,
        loop_kind,
        payload_bytes: args.payload_bytes as usize,
        topic: args.topic.clone(),
        client_prefix: args.client_prefix.clone(),
        warmup: args.warmup,
        duration: args.duration,
        drain: args.drain,
        process: args.pid,
        progress: !args.quiet,
    })
}

fn print<T: serde::Serialize + std::fmt::Display>(json: bool, what: &T) -> Result<(), BenchError> {
    if json {
        println!("{}", serde_json::to_string_pretty(what).map_err(BenchError::Json)?);
    } else {
        println!("{what}");
    }
    Ok(())
}

fn pin_if(core: Option<usize>) -> Result<(), BenchError> {
    core.map_or(Ok(()), |core| pin(core).map_err(|_| BenchError::Pin(core)))
}

/// Pins the calling thread.
fn pin(core: usize) -> io::Result<()> {
    if core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("cannot pin to core {core}")))
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
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
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
            let line = std::iter::once(&"bench").chain(line);
            let parsed = Line::try_parse_from(line).ok();
            assert_eq!(parsed.map(|p| plan(&p.args).unwrap().loop_kind), expected);
        }
        check(&[], Some(LoopKind::Closed { window: 16 }));
        check(&["--window", "1"], Some(LoopKind::Closed { window: 1 }));
        let open = LoopKind::Open { rate_per_s: 2000, in_flight_max: 1024 };
        check(&["--rate", "2000"], Some(open));
        check(&["--rate", "2000", "--window", "4"], None);
        check(&["--window", "0"], None);
        check(&["--floor"], None);
    }

    #[test]
    fn a_host_that_is_none_is_said() {
        let line = Line::try_parse_from(["bench", "--connect", "nowhere"]).unwrap();
        assert!(matches!(run(&line.args), Err(BenchError::Address(_))));
    }
}
