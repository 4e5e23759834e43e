//! Why a data directory cannot be used: what was found, where, and what to do.

use std::io;
use std::path::PathBuf;

use crate::log::manifest::Refused;
use crate::log::recovery::Damage;

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
    /// Acknowledged data is harmed.
    #[error("the log in {} is damaged: {damage}\nNothing was changed. Restore the directory from a copy, or move it away to begin anew.", .dir.display())]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What and where.
        damage: Damage,
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
