//! `tidegate log repair`: what is sound, as a directory that the engine starts from without damage.
//!
//! Comes in: a directory, and where to. Goes out: another directory, or the same one mended, and a
//! report of what is lost. Without `--in-place` nothing in the damaged directory is changed.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::examined::{Examined, named};
use super::inventory::Directory;
use super::verify::faults;
use super::{Error, refuse_what_is_there};
use crate::cli::Failure;
use crate::cli::failure::print;
use crate::driver::data_dir;
use crate::driver::disk_files::DiskFiles;
use crate::driver::read_ahead::ReadAhead;
use crate::log::Files;
use crate::log::manifest::Manifest;
use crate::log::repair::Job;

const EXAMPLES: &str = "\
Examples:
  tidegate log repair ./tidegate-data --dry-run
  tidegate log repair ./tidegate-data --to ./tidegate-mended
  tidegate serve --data-dir ./tidegate-mended

Offsets stay what they are. What is lost stays fenced: consumers get CORRUPT_MESSAGE there and can
go on behind it. Segments that have changed places are put back. A manifest that is gone or damaged
is taken from the copy that the last start left.";

/// Copy what is sound to a new directory, or mend in place
///
/// Reads everything first, as `verify` does. Segments that are sound stay as they are; of the others
/// every record batch that holds is copied into new segments. What the engine could serve before it
/// serves afterwards.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("where").required(true).args(["to", "in_place", "dry_run"]))]
pub struct Args {
    /// The data directory
    dir: PathBuf,
    /// Write into this directory, a new or an empty one
    #[arg(long, value_name = "NEWDIR")]
    to: Option<PathBuf>,
    /// Mend the directory itself; may be interrupted and called again. What is replaced or taken out
    /// is moved into a directory damaged-N in it
    #[arg(long)]
    in_place: bool,
    /// Only tell what is damaged and what would be lost
    #[arg(long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: Error| Failure::at_run_time(&error);
    if let Some(to) = &args.to {
        refuse_what_is_there(&args.dir, to, "--to")?;
    }
    let (directory, manifest_copy) = Directory::open_to_repair(&args.dir).map_err(failed)?;
    let examined = Examined::take(&directory).map_err(failed)?;
    let mut told = String::new();
    if let Some(copy) = &manifest_copy {
        let _ = writeln!(told, "manifest.json is gone or damaged; {copy} stands for it");
    }
    told += &faults(&examined.faults);
    for (key, at) in &examined.found.recovery.torn {
        let path = key.path();
        let _ =
            writeln!(told, "{path}, byte {at}: a torn tail, which was never acknowledged, is cut");
    }
    print(&told)?;
    let is_sound = examined.faults.is_empty()
        && examined.found.recovery.torn.is_empty()
        && manifest_copy.is_none();
    let (manifest, done) = match &args.to {
        _ if args.dry_run => {
            let lost = examined.lost.iter().map(ToString::to_string).collect();
            return print(&summary(lost, "nothing was written"));
        }
        Some(to) => {
            let manifest = copy(&directory, &examined, to).map_err(failed)?;
            (
                manifest,
                format!("{0} holds what is sound: tidegate serve --data-dir {0}", to.display()),
            )
        }
        None if is_sound => return print("all is sound; nothing was written\n"),
        None => {
            let (manifest, aside) = mend(&directory, &examined).map_err(failed)?;
            (manifest, format!("mended; what was replaced is in {}", aside.display()))
        }
    };
    let lost = manifest.lost.iter().map(|range| named(&directory, range).to_string()).collect();
    print(&summary(lost, &done))
}

fn summary(lost: Vec<String>, done: &str) -> String {
    let mut out = String::new();
    for lost in &lost {
        let _ = writeln!(out, "lost: {lost}");
    }
    let lost = if lost.is_empty() { "nothing is lost; " } else { "" };
    let _ = writeln!(out, "{lost}{done}");
    out
}

fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn copy(directory: &Directory, examined: &Examined, to: &Path) -> Result<Manifest, Error> {
    let failed = |cause| Error::Io { what: "creating", path: to.to_owned(), cause };
    fs::create_dir_all(to).map_err(failed)?;
    // Held until all is written: no engine starts from half of it.
    let lock = data_dir::lock(to)?;
    let (files, into) = (DiskFiles::new(&directory.path), DiskFiles::new(to));
    // What the disk cannot read is zeros there, and so left out.
    let copied = job(directory, examined).copy(&ReadAhead::none(&files), &into);
    drop(lock);
    copied.map_err(|cause| Error::Incomplete {
        dir: to.to_owned(),
        cause: data_dir::Error::new(to, cause),
    })
}

fn mend(directory: &Directory, examined: &Examined) -> Result<(Manifest, PathBuf), Error> {
    let files = DiskFiles::new(&directory.path);
    let failed = |cause| Error::from(data_dir::Error::new(&directory.path, cause));
    let aside = (0_u32..)
        .map(|number| format!("damaged-{number}"))
        .find(|name| files.list(name).is_ok_and(|names| names.is_empty()))
        .unwrap_or_default();
    let mended = job(directory, examined).in_place(&ReadAhead::none(&files), &files, &aside);
    Ok((mended.map_err(failed)?, directory.path.join(aside)))
}

fn job<'a>(directory: &'a Directory, examined: &'a Examined) -> Job<'a> {
    Job { manifest: &directory.manifest, examined: &examined.found, wall_ms: wall_ms() }
}
