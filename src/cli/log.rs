//! `tidegate log`: looks into a data directory that no engine uses.
//!
//! Comes in: a directory and what to show of it. Goes out: text or JSON lines on stdout, what is
//! damaged on stderr. The directory is locked while it is read and nothing in it is changed, but
//! for the process id that whoever holds the lock writes into its file, by no command but `repair
//! --in-place`. A reader that has enough, as `head` has, ends it quietly.

mod beside;
mod dump;
mod examined;
mod export;
mod frames;
mod inventory;
mod progress;
mod repair;
mod stat;
mod text;
mod verify;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufWriter, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::Failure;
use crate::driver::data_dir;
use crate::log::scan::Damage;
use dump::{Filter, Form};
use inventory::{Directory, Inventory};
use text::read_moment;

const EXAMPLES: &str = "\
Examples:
  tidegate log stat ./tidegate-data
  tidegate log verify ./tidegate-data
  tidegate log repair ./tidegate-data --to ./tidegate-mended
  tidegate log export ./tidegate-data --kafka-segment ./exported --stream telemetry
  tidegate log dump ./tidegate-data --stream telemetry --partition 0 --from 1000 --limit 20
  tidegate log dump ./tidegate-data --since 2026-01-31T18:00:00Z --json | jq -r .value

The directory must not be in use: stop the engine first. docs/format.md says what is in its files.
Exit codes: 0 all is well, 1 the log is damaged or cannot be read, 2 it was called wrongly.";

/// Look into a data directory that is not in use
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Dump(DumpArgs),
    Stat(StatArgs),
    Verify(verify::Args),
    Repair(repair::Args),
    Export(export::Args),
}

/// Print batches and records
///
/// Segment by segment, so that the records of a partition come in the order of their offsets.
/// Everything that the files hold is printed, also what retention has let go of while its segment
/// is still there. What is damaged is left out, named on stderr at the end, and the exit code is 1.
#[derive(Debug, clap::Args)]
struct DumpArgs {
    /// The data directory
    dir: PathBuf,
    /// Only this stream
    #[arg(long, value_name = "NAME")]
    stream: Option<String>,
    /// Only this partition of each stream
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Only records from this offset on
    #[arg(long, value_name = "OFFSET")]
    from: Option<u64>,
    /// Only records before this offset
    #[arg(long, value_name = "OFFSET")]
    to: Option<u64>,
    /// Only records of this time or later: RFC 3339, or milliseconds since 1970
    #[arg(long, value_name = "TIME", value_parser = read_moment, allow_negative_numbers = true)]
    since: Option<i64>,
    /// Only records of before this time
    #[arg(long, value_name = "TIME", value_parser = read_moment, allow_negative_numbers = true)]
    until: Option<i64>,
    /// One JSON object a record and line: stream, partition, offset, timestamp (milliseconds since
    /// 1970), key, value, headers ([name, value] pairs). Bytes that are no UTF-8 are {"hex": "…"},
    /// null is null
    #[arg(long)]
    json: bool,
    /// Stop after so many records
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
}

/// Print streams, partitions, segments, bytes, offsets and time ranges
///
/// Reads index files; of the segments, those that have none yet, and the first batches. Of compacted
/// streams the records are those that were there before. What is written for the bytes of the record
/// batches stands as "amplified"; "lost" are offsets that damage took.
#[derive(Debug, clap::Args)]
struct StatArgs {
    /// The data directory
    dir: PathBuf,
}

/// Why a directory could not be shown.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    DataDir(data_dir::Error),
    #[error("the data directory {} is in use by process {pid}\nStop that process first (`kill {pid}` stops an engine in order).", .dir.display())]
    InUse { dir: PathBuf, pid: String },
    #[error("{} {what}\nName the directory that `tidegate serve` has as --data-dir.", .path.display())]
    NotThere { path: PathBuf, what: &'static str },
    #[error("manifest.json of {} is gone or damaged, and so is the copy that the last start left\nBring one of them back from a backup: nothing else says where the log ended.", .0.display())]
    NoManifest(PathBuf),
    #[error("{what} {} failed: {cause}", .path.display())]
    Io { what: &'static str, path: PathBuf, cause: io::Error },
    #[error("the log in {} is damaged:\n{}All else is sound, and nothing was changed. `tidegate log verify` names the offsets that are lost.", .dir.display(), places(.damages))]
    Damaged { dir: PathBuf, damages: Vec<Damage> },
    #[error("{} in {}\nWhat is damaged is fenced when the engine starts from it: readers get an error there and can go on behind it. `tidegate log repair` makes a directory of what is sound.", faults(*.count), .dir.display())]
    Faults { dir: PathBuf, count: usize },
    #[error("{} is incomplete: {cause}\nRemove it, and repair again; the damaged directory is as it was.", .dir.display())]
    Incomplete { dir: PathBuf, cause: data_dir::Error },
    #[error("cannot write to stdout: {0}")]
    Output(io::Error),
}

impl From<data_dir::Error> for Error {
    fn from(cause: data_dir::Error) -> Self {
        match cause {
            data_dir::Error::InUse { dir, pid } => Self::InUse { dir, pid },
            cause => Self::DataDir(cause),
        }
    }
}

fn faults(count: usize) -> String {
    if count == 1 { "there is a fault".to_owned() } else { format!("there are {count} faults") }
}

/// The first place in each segment, and how many there are more; each once, as a start and a tool
/// may say different things of it.
fn places(damages: &[Damage]) -> String {
    let mut segments: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for damage in damages {
        segments.entry(damage.key).or_default().entry(damage.at).or_insert(damage);
    }
    let mut text = String::new();
    for places in segments.values() {
        let more = match places.len() - 1 {
            0 => String::new(),
            1 => ", and at 1 more place".to_owned(),
            more => format!(", and at {more} more places"),
        };
        for damage in places.values().take(1) {
            let _ = writeln!(text, "  {damage}{more}");
        }
    }
    text
}

/// Nothing is ever written over, nor into the directory that is read.
fn refuse_what_is_there(from: &Path, to: &Path, flag: &str) -> Result<(), Failure> {
    let absolute = |path: &Path| fs::canonicalize(path).or_else(|_| std::path::absolute(path));
    if let (Ok(from), Ok(to)) = (absolute(from), absolute(to))
        && to != from
        && to.starts_with(from)
    {
        let text = format!(
            "{} lies in the data directory itself\n  name a directory beside it with {flag}",
            to.display()
        );
        return Err(Failure::of_use(text));
    }
    let is_free = match fs::read_dir(to) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !to.exists(),
    };
    if is_free {
        return Ok(());
    }
    let text =
        format!("{} is there and not empty\n  name a new directory with {flag}", to.display());
    Err(Failure::of_use(text))
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Command::Dump(args) => dump(args),
        Command::Stat(args) => stat(&args.dir).map_err(|error| Failure::at_run_time(&error)),
        Command::Verify(args) => verify::run(args),
        Command::Repair(args) => repair::run(args),
        Command::Export(args) => export::run(args),
    }
}

fn dump(args: &DumpArgs) -> Result<(), Failure> {
    let failed = |error: Error| Failure::at_run_time(&error);
    let directory = Directory::open(&args.dir).map_err(failed)?;
    let filter = filter(args, &directory)?;
    let form = if args.json { Form::Json } else { Form::Text };
    let inventory = Inventory::take(&directory).map_err(failed)?;
    let mut out = BufWriter::new(io::stdout().lock());
    let dumped = dump::run(&directory, &inventory, filter, form, &mut out);
    drop(out);
    for (key, at) in &inventory.torn {
        // Not damage: it is what a crash leaves, and the next start cuts it off.
        eprintln!(
            "tidegate: segment {} has a torn tail at byte {at}: it was never acknowledged",
            key.stem()
        );
    }
    let mut damages = inventory.damages;
    if !quiet(dumped, &mut damages).map_err(failed)? || damages.is_empty() {
        return Ok(());
    }
    Err(failed(Error::Damaged { dir: directory.path, damages }))
}

/// Adds the damage that was found while printing. Returns false when the reader has gone.
fn quiet(result: Result<Vec<Damage>, Error>, damages: &mut Vec<Damage>) -> Result<bool, Error> {
    match result {
        Ok(found) => {
            damages.extend(found);
            Ok(true)
        }
        Err(Error::Output(cause)) if cause.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

/// What to print, once the names are known to be there.
fn filter(args: &DumpArgs, directory: &Directory) -> Result<Filter, Failure> {
    Ok(Filter {
        stream: args.stream.as_ref().map(|name| directory.stream(name)).transpose()?,
        partition: args.partition.map(|asked| directory.partition(asked)).transpose()?,
        from: args.from.unwrap_or(0),
        to: args.to.unwrap_or(u64::MAX),
        since_ms: args.since.unwrap_or(i64::MIN),
        until_ms: args.until.unwrap_or(i64::MAX),
        limit: args.limit,
    })
}

fn stat(dir: &Path) -> Result<(), Error> {
    let directory = Directory::open(dir)?;
    let inventory = Inventory::take(&directory)?;
    let mut damages = inventory.damages.clone();
    let text = stat::report(&directory, &inventory, &mut damages)?;
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if quiet(printed.map(|()| Vec::new()).map_err(Error::Output), &mut damages)?
        && !damages.is_empty()
    {
        return Err(Error::Damaged { dir: directory.path, damages });
    }
    Ok(())
}
