//! `tidegate bench`: how fast a broker acknowledges, and how fast this machine could.
//!
//! In: arguments. Out: a report on stdout (text or JSON), progress on stderr. Three tools in one:
//! the load generator (`load`), the null sink that shows the generator's own limit, and the
//! machine's floor. They run on ordinary threads pinned where the arguments say.
//!
//! Reading order: `args` and `plan` (what is asked for), `schedule` (when messages are meant to go),
//! `connection` and `measure` (the bookkeeping), `connecting`, `load` and `subscribe` (sockets and
//! phases), `threads` (several of them), `consume` (who reads from Kafka), `report`.

mod args;
mod compare;
mod connecting;
mod connection;
mod consume;
mod floor;
mod hgrm;
mod hiccups;
mod html;
#[cfg(feature = "librdkafka")]
mod librdkafka;
mod load;
mod measure;
mod null_sink;
mod payload;
mod plan;
mod process;
mod report;
mod runs;
mod schedule;
mod storm;
mod subscribe;
mod sweep;
mod threads;
mod verdict;
pub(in crate::cli) mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

pub use args::Args;
use plan::Scenario;
use runs::{Outcome, Runs};

/// Why there is no report, or none to be trusted.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Arguments that do not fit together.
    #[error("{0}")]
    Usage(String),
    #[error("{0:?} is no HOST:PORT that can be resolved")]
    Address(String),
    #[error("cannot connect to {0}: {1}; is the broker running, and is `ulimit -n` high enough?")]
    Unreachable(SocketAddr, io::Error),
    #[error("the broker refused the connection with code {0:#04x}")]
    Refused(u8),
    #[error("the broker accepted {accepted} of {wanted} connections within 10 s and closed {lost}")]
    NotAccepted { accepted: u32, wanted: u32, lost: u32 },
    /// Another thread tells why.
    #[error("another generator thread failed")]
    GaveUp,
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
    #[error("the Kafka consumer: {0}")]
    Consumer(io::Error),
    #[error(
        "the broker refused the subscription to {0:?} with code {1:#04x}; does it have MQTT \
         subscribers? (Tidegate's consumers read over Kafka: --consume-kafka)"
    )]
    SubscriptionRefused(String, u8),
    #[error("the subscriber to {0:?}: {1}")]
    Subscriber(String, io::Error),
    #[error("the null sink: {0}")]
    NullSink(io::Error),
    #[error("the floor: {0}")]
    Floor(io::Error),
    #[error("cannot write {0}: {1}")]
    File(PathBuf, io::Error),
    #[error("{0} cannot be put on the page: {1}")]
    NoReport(PathBuf, String),
    #[error("the report as JSON: {0}")]
    Json(serde_json::Error),
}

/// Runs the command: prints a report, or tells why not.
///
/// # Errors
/// Every variant of [`BenchError`]; connections that broke and messages that were refused or never
/// acknowledged are an error too, after the report is printed.
pub fn run(args: &Args) -> Result<(), BenchError> {
    if let Some(args::Command::Report(report)) = &args.command {
        return html::run(report);
    }
    if let Some(address) = args.null_sink {
        pin_if(args.core.first())?;
        let listener = TcpListener::bind(address).map_err(BenchError::NullSink)?;
        if !args.quiet {
            eprintln!("null sink on {address}: acknowledges and forgets; end it with Ctrl-C");
        }
        null_sink::serve(&listener, &AtomicBool::new(false)).map_err(BenchError::NullSink)?;
        return Ok(());
    }
    if args.floor {
        return floor_of(args)?.map_or(Ok(()), |floor| print(args.json, &floor));
    }
    let plan = args.plan()?;
    if let Some(range) = args.sweep {
        let percentages = range.percentages(args.sweep_points);
        let floor = floor_of(args)?;
        let sweep = sweep::measure(&plan, floor.as_ref(), args.in_flight_max, percentages)?;
        if args.json {
            warn(sweep.reports());
        }
        hand_out(args, &sweep)?;
        return if sweep.is_whole() { Ok(()) } else { Err(BenchError::Untrustworthy) };
    }
    match plan.scenario {
        Scenario::ConnectStorm => {
            pin_if(args.core.first())?;
            repeat(args, || {
                let floor = floor_of(args)?;
                Ok(load::storm(&plan)?.against(floor))
            })
        }
        _ => repeat(args, || {
            let floor = floor_of(args)?;
            Ok(threads::run(&plan)?.against(floor))
        }),
    }
}

/// On stdout, and as a page where that is asked for.
fn hand_out<T: serde::Serialize + std::fmt::Display>(
    args: &Args,
    report: &T,
) -> Result<(), BenchError> {
    if let Some(path) = &args.html {
        html::write_one(path, &args.connect, report)?;
    }
    print(args.json, report)
}

/// Warnings for those whose table nobody prints.
fn warn<'a, R: Outcome + 'a>(reports: impl Iterator<Item = &'a R>) {
    reports.flat_map(Outcome::warnings).for_each(|warning| eprintln!("WARNING: {warning}"));
}

fn floor_of(args: &Args) -> Result<Option<floor::Floor>, BenchError> {
    let options = args.floor_options();
    options.map(|options| floor::measure(&options)).transpose().map_err(BenchError::Floor)
}

/// Runs a load as often as asked and tells what it has shown.
fn repeat<R: Outcome>(
    args: &Args,
    mut run: impl FnMut() -> Result<R, BenchError>,
) -> Result<(), BenchError> {
    let mut runs = Vec::new();
    for number in 1..=args.runs {
        if args.runs > 1 && !args.quiet {
            eprintln!("run {number} of {}", args.runs);
        }
        runs.push(run()?);
    }
    if let Some(path) = &args.hgrm {
        let text = hgrm::text(&runs::all_latencies(&runs));
        std::fs::write(path, text).map_err(|error| BenchError::File(path.clone(), error))?;
    }
    if args.json {
        warn(runs.iter());
    }
    let whole = runs.iter().all(Outcome::is_whole);
    match <[R; 1]>::try_from(runs) {
        Ok([run]) => hand_out(args, &run)?,
        Err(runs) => hand_out(args, &Runs::new(runs)?)?,
    }
    if whole { Ok(()) } else { Err(BenchError::Untrustworthy) }
}

fn print<T: serde::Serialize + std::fmt::Display>(json: bool, what: &T) -> Result<(), BenchError> {
    if json {
        println!("{}", serde_json::to_string_pretty(what).map_err(BenchError::Json)?);
    } else {
        println!("{what}");
    }
    Ok(())
}

fn pin_if(core: Option<&usize>) -> Result<(), BenchError> {
    core.map_or(Ok(()), |&core| pin(core).map_err(|_| BenchError::Pin(core)))
}

/// Pins the calling thread.
fn pin(core: usize) -> io::Result<()> {
    // Beyond its set of cores libc panics.
    let in_set = core < libc::CPU_SETSIZE as usize;
    if in_set && core_affinity::set_for_current(core_affinity::CoreId { id: core }) {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("cannot pin to core {core}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_none_is_said() {
        let args = args::tests::parsed(&["--connect", "nowhere"]).unwrap();
        assert!(matches!(run(&args), Err(BenchError::Address(_))));
    }
}
