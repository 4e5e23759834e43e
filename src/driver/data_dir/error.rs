//! Why a data directory cannot be used: what was found, where, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::log::IoError;
use crate::log::manifest::Refused;
use crate::log::start;

/// Why a data directory cannot be used, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds it.
    #[error("the data directory {} is in use by process {pid}\nStop that process, or name another directory with --data-dir.", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Its process id as it wrote it.
        pid: String,
    },
    /// The manifest is not one that this engine can go on from.
    #[error("the data directory {} cannot be used: {cause}\n{remedy}", .dir.display())]
    Manifest {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        cause: Refused,
        /// What to do.
        remedy: &'static str,
    },
    /// There are files in it, but no manifest.
    #[error("the directory {} is not empty and holds no Tidegate data\nName an empty or new directory with --data-dir.", .0.display())]
    NotOurs(PathBuf),
    /// There are segments in it, but no manifest.
    #[error("{} has segments, but its manifest.json is gone\n`tidegate log repair` restores it from the copy that the last start left.", .0.display())]
    ManifestGone(PathBuf),
    /// The number of partitions is fixed.
    #[error("the data directory {} has {there} partitions, the configuration asks for {asked}\nThe number is fixed when a directory is created: leave --partitions out, or name another directory.", .dir.display())]
    Partitions {
        /// The directory.
        dir: PathBuf,
        /// As created.
        there: u32,
        /// As asked for.
        asked: u32,
    },
    /// The operating system refused.
    #[error("{what} {} failed: {cause}", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
}

impl Error {
    /// What a start of `dir` failed with.
    pub fn new(dir: &Path, cause: start::Error) -> Self {
        let dir = dir.to_owned();
        match cause {
            start::Error::Io(IoError { what, path, cause }) => {
                Self::Io { what, path: dir.join(path), cause }
            }
            start::Error::NotOurs => Self::NotOurs(dir),
            start::Error::ManifestGone => Self::ManifestGone(dir),
            start::Error::Partitions { there, asked } => Self::Partitions { dir, there, asked },
            start::Error::Manifest(cause) => Self::Manifest {
                remedy: match cause {
                    Refused::Newer(..) => {
                        "Start the version of Tidegate that wrote it, or a newer one."
                    }
                    Refused::Older(..) => {
                        "Read it with the version that wrote it, and name a new directory with \
                         --data-dir."
                    }
                    _ => "`tidegate log repair` restores it from the copy of an earlier start.",
                },
                dir,
                cause,
            },
        }
    }
}
