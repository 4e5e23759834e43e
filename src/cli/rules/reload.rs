//! `tidegate rules reload`: asks a running engine to read its rules again.
//!
//! In: its HTTP address. Out: what it says, as `POST /api/rules/reload` answers it.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::super::{Failure, failure};

/// Longer than the engine waits for its shards, twice.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Let a running engine read its rules again
///
/// All of them are right and take effect in every shard, or the old ones stay; as SIGHUP does.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// HTTP address of the engine
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    http: String,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let (status, said) = ask(&args.http).map_err(|error| {
        let what = format!("asking {} failed: {error}", args.http);
        Failure::at_run_time(&io::Error::other(what))
    })?;
    match status {
        200 => failure::print(&said),
        422 => Err(Failure::of_use(said.trim_end().to_owned())),
        _ => Err(Failure::at_run_time(&io::Error::other(said.trim_end().to_owned()))),
    }
}

/// Status and body.
fn ask(address: &str) -> io::Result<(u16, String)> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    // 1.0: the answer ends with the connection.
    write!(
        socket,
        "POST /api/rules/reload HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\
         Content-Length: 0\r\n\r\n"
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other("the answer is no HTTP"))?;
    Ok((status, body.to_owned()))
}
