//! The small files beside the segments: the log starts of the generation that was written last, and its
//! copy of the manifest. Nothing is lost while they are harmed; but what they stand for would be.
//!
//! Comes in: a directory whose manifest holds. Goes out: a fault for each that is not what was
//! written, with what to do. Those of older generations mean nothing any more, and are not looked at.

use std::io;

use super::examined::Fault;
use crate::driver::disk_files::DiskFiles;
use crate::log::manifest::Manifest;
use crate::log::segment::{generation_dir, log_dir};
use crate::log::start::MANIFEST;
use crate::log::{Files, starts};

const STARTS_HARMED: &str = "it does not hold: what retention let go of since the last start cannot be \
                             told from what is lost; nothing to do, the next start goes on without it";
const COPY_MISSING: &str = "the copy of the manifest is missing";
const COPY_HARMED: &str = "it does not hold, or is not the manifest";
const COPY_TO_DO: &str = "if manifest.json is lost nothing stands for it; copy manifest.json there, or \
                          start the engine, which writes another";

/// Looks at them.
///
/// # Errors
/// The system's.
pub fn faults(files: &DiskFiles, manifest: &Manifest) -> io::Result<Vec<Fault>> {
    let mut faults = Vec::new();
    let current = manifest.current;
    for log in 0..current.shards {
        let path = format!("{}/{}", log_dir(current.generation, log), starts::FILE);
        if read(files, &path)?.is_some_and(|file| starts::decode(&file).is_none()) {
            faults.push(Fault::of_file(path, STARTS_HARMED.to_owned()));
        }
    }
    // A directory that was made and never started from has none.
    if current.generation > 0 {
        let path = format!("{}/{MANIFEST}", generation_dir(current.generation));
        let what = match read(files, &path)? {
            Some(copy) if Some(&copy) == read(files, MANIFEST)?.as_ref() => return Ok(faults),
            Some(_) => COPY_HARMED,
            None => COPY_MISSING,
        };
        faults.push(Fault::of_file(path, format!("{what}: {COPY_TO_DO}")));
    }
    Ok(faults)
}

fn read(files: &DiskFiles, path: &str) -> io::Result<Option<Vec<u8>>> {
    match files.size(path)? {
        Some(_) => files.read(path, 0, usize::MAX).map(Some),
        None => Ok(None),
    }
}
