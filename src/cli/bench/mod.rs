//! `tidegate bench`: how fast a broker acknowledges, and how fast this machine could.
//!
//! In: arguments. Out: a report on stdout (text or JSON), progress on stderr. Three tools in one:
//! the load generator (`load`), the null sink that shows the generator's own limit, and the
//! machine's floor. They run on ordinary threads pinned where the arguments say.
//!
//! Reading order: `args` and `plan` (what is asked for), `schedule` (when messages are meant to go),
//! `connection` and `measure` (the bookkeeping), `connecting` and `load` (sockets and phases),
//! `report`.

mod args;
mod connecting;
mod connection;
mod floor;
mod load;
mod measure;
mod null_sink;
mod payload;
mod plan;
mod process;
mod report;
mod schedule;
mod wire;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub use args::Args;
use plan::Scenario;

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
    let plan = args.plan()?;
    if plan.scenario == Scenario::ConnectStorm {
        return print(args.json, &load::storm(&plan)?);
    }
    let report = load::run(&plan)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_none_is_said() {
        let args = args::tests::parsed(&["--connect", "nowhere"]).unwrap();
        assert!(matches!(run(&args), Err(BenchError::Address(_))));
    }
}
