//! What the data directory's file system can do, found out before the shards start.
//!
//! In: the directory. Out: alignment, space, and how long a commit will take; or a `DiskError`
//! that names the remedy. Plain blocking calls on the main thread. Files of the probe are removed
//! again, also those that a crash left: the caller holds the directory's lock.
//!
//! Absent on purpose: trust in `O_DIRECT` being accepted. A tmpfs accepts it and uses memory
//! nevertheless, so the file system's type and statx(2) are asked as well.
#![allow(unsafe_code)]

mod probe;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

pub use probe::{Prepare, Probe, Timing};

/// The smallest block that the log writes: the page of most devices, and a write that they do not
/// tear.
const LOG_BLOCK_MIN: u32 = 4096;

/// What was found out about the data directory's file system.
#[derive(Debug, Clone)]
pub struct Disk {
    /// What direct I/O asks for.
    pub alignment: Alignment,
    /// Free bytes that this user may fill.
    pub free_bytes: u64,
    /// Size of the file system.
    pub total_bytes: u64,
    /// How long a commit takes, and so how segments are to be made.
    pub probe: Probe,
}

/// What direct I/O on a file asks for, in bytes; each a power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alignment {
    /// Of positions in the file and of lengths.
    pub offset: u32,
    /// Of buffers in memory.
    pub memory: u32,
    /// The unit that serves for both, at least 512.
    pub unit: u32,
    /// The unit of the log: `unit`, and at least 4096.
    pub log_block: u32,
}

/// Why no log can be kept in a directory, and the remedy.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum DiskError {
    #[error("{path} is no directory: choose another with --data-dir, or move what is there away", path = path.display())]
    NotADirectory { path: PathBuf },
    #[error("{path} cannot be written by this user: `chown` it, or choose another with --data-dir", path = path.display())]
    Permission { path: PathBuf },
    #[error("{path} is on a file system that is mounted read-only: remount it, or choose another directory with --data-dir", path = path.display())]
    ReadOnly { path: PathBuf },
    #[error(
        "the file system of {path}{kind} does no direct I/O (O_DIRECT), so that nothing can be \
         promised about what is on the disk: choose a directory on ext4, XFS or another disk file \
         system with --data-dir", path = path.display()
    )]
    NoDirectIo { path: PathBuf, kind: &'static str },
    #[error(
        "the disk of {path} is full: {free_bytes} bytes are free and {needed_bytes} are needed to \
         start; free some, or choose another directory with --data-dir", path = path.display()
    )]
    Full { path: PathBuf, free_bytes: u64, needed_bytes: u64 },
    #[error("{path} cannot be used: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl DiskError {
    fn new(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::NotADirectory | ErrorKind::AlreadyExists => Self::NotADirectory { path },
            ErrorKind::PermissionDenied => Self::Permission { path },
            ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { path },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                let free_bytes = space(&path).map_or(0, |(free, _)| free);
                Self::Full { path, free_bytes, needed_bytes: probe::BYTES }
            }
            _ => Self::Io { path, source },
        }
    }
}

/// Makes `directory` where it does not exist yet, durably.
pub fn create(directory: &Path) -> Result<(), DiskError> {
    if directory.is_dir() {
        return Ok(());
    }
    let missing = directory.ancestors().take_while(|path| !path.exists()).count();
    fs::create_dir_all(directory).map_err(|source| DiskError::new(directory, source))?;
    // A directory is durable when the one that names it is flushed.
    for parent in directory.ancestors().skip(1).take(missing) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flushed = File::open(parent).and_then(|parent| parent.sync_all());
        flushed.map_err(|source| DiskError::new(parent, source))?;
    }
    Ok(())
}

/// Finds out what the file system of `directory` can do; takes about 150 ms.
///
/// The caller holds the directory's lock: files that look like an earlier probe's are removed.
/// `free_bytes_min` is what the engine needs to start.
pub fn check(directory: &Path, free_bytes_min: u64) -> Result<Disk, DiskError> {
    let failed = |source| DiskError::new(directory, source);
    if !directory.is_dir() {
        return Err(DiskError::NotADirectory { path: directory.to_owned() });
    }
    let no_direct_io = |kind| DiskError::NoDirectIo { path: directory.to_owned(), kind };
    if let Some(kind) = in_memory(directory).map_err(failed)? {
        return Err(no_direct_io(kind));
    }
    let (free_bytes, total_bytes) = space(directory).map_err(failed)?;
    if free_bytes < free_bytes_min.max(probe::BYTES) {
        let (path, needed_bytes) = (directory.to_owned(), free_bytes_min.max(probe::BYTES));
        return Err(DiskError::Full { path, free_bytes, needed_bytes });
    }
    probe::remove_stale(directory).map_err(failed)?;
    let alignment = match alignment(directory) {
        Ok(Some(alignment)) => alignment,
        Ok(None) => return Err(no_direct_io("")),
        Err(source) => return Err(failed(source)),
    };
    let probe = Probe::run(directory, alignment.log_block as usize).map_err(failed)?;
    Ok(Disk { alignment, free_bytes, total_bytes, probe })
}

/// Opens a new file for direct I/O.
fn open_direct(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true).mode(0o600);
    options.custom_flags(libc::O_DIRECT).open(path)
}

/// What a file in `directory` asks of direct I/O; None where it cannot be had.
fn alignment(directory: &Path) -> io::Result<Option<Alignment>> {
    let scratch = probe::Scratch::new(directory, "align");
    let file = match open_direct(scratch.path()) {
        Ok(file) => file,
        // The file may have been made before its flags were refused; Scratch removes it.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => return Ok(None),
        Err(error) => return Err(error),
    };
    let status = statx(&file)?;
    let (offset, memory) = if status.stx_mask & libc::STATX_DIOALIGN == 0 {
        // The file system does not say; the device's logical block is what the kernel checks.
        let block = logical_block(status.stx_dev_major, status.stx_dev_minor);
        (block.unwrap_or(LOG_BLOCK_MIN), block.unwrap_or(LOG_BLOCK_MIN))
    } else {
        (status.stx_dio_offset_align, status.stx_dio_mem_align)
    };
    Ok(combine(offset, memory))
}

fn combine(offset: u32, memory: u32) -> Option<Alignment> {
    // statx(2): 0 means that this file does no direct I/O.
    if offset == 0 || memory == 0 {
        return None;
    }
    let unit = offset.max(memory).max(512).next_power_of_two();
    Some(Alignment { offset, memory, unit, log_block: unit.max(LOG_BLOCK_MIN) })
}

/// The logical block of a block device, or of the disk that a partition lies on.
fn logical_block(major: u32, minor: u32) -> Option<u32> {
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let read = |below| fs::read_to_string(device.join(below)).ok()?.trim().parse().ok();
    read("queue/logical_block_size").or_else(|| read("../queue/logical_block_size"))
}

fn statx(file: &File) -> io::Result<libc::statx> {
    let mut status = MaybeUninit::<libc::statx>::zeroed();
    let (flags, mask) = (libc::AT_EMPTY_PATH, libc::STATX_BASIC_STATS | libc::STATX_DIOALIGN);
    // SAFETY: the path is an empty C string, the descriptor is open, and the kernel writes one
    // statx to a place that is one.
    let result =
        unsafe { libc::statx(file.as_raw_fd(), c"".as_ptr(), flags, mask, status.as_mut_ptr()) };
    match result {
        // SAFETY: all bits 0 is a valid statx, and the kernel has filled it in.
        0 => Ok(unsafe { status.assume_init() }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The name of a file system that keeps files in memory only.
fn in_memory(directory: &Path) -> io::Result<Option<&'static str>> {
    const RAMFS_MAGIC: u64 = 0x8584_58f6;
    let path = CString::new(directory.as_os_str().as_bytes())?;
    let mut status = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the path is a C string, and the kernel writes one statfs to a place that is one.
    if unsafe { libc::statfs(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bits 0 is a valid statfs, and the kernel has filled it in.
    let kind = unsafe { status.assume_init() }.f_type as u64;
    Ok(match kind {
        _ if kind == libc::TMPFS_MAGIC as u64 => Some(" (tmpfs, which is memory)"),
        RAMFS_MAGIC => Some(" (ramfs, which is memory)"),
        _ => None,
    })
}

/// Free bytes for this user and all bytes of the file system that holds `path`.
pub fn space(path: &Path) -> io::Result<(u64, u64)> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut status = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the path is a C string, and libc writes one statvfs to a place that is one.
    if unsafe { libc::statvfs(path.as_ptr(), status.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: all bits 0 is a valid statvfs, and libc has filled it in.
    let status = unsafe { status.assume_init() };
    Ok((status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory on the disk that holds the build, which the system's temporary one may not be.
    fn directory() -> tempfile::TempDir {
        tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
    }

    fn refusal(path: &Path, free_bytes_min: u64) -> String {
        check(path, free_bytes_min).unwrap_err().to_string()
    }

    #[test]
    fn alignment_is_the_larger_demand() {
        let check = |offset, memory, expected: Option<(u32, u32)>| {
            let units = combine(offset, memory).map(|a| (a.unit, a.log_block));
            assert_eq!(units, expected, "{offset} {memory}");
        };
        check(512, 4, Some((512, 4096)));
        check(4096, 512, Some((4096, 4096)));
        check(16_384, 4, Some((16_384, 16_384)));
        check(1, 1, Some((512, 4096)));
        check(0, 512, None);
        check(512, 0, None);
    }

    #[test]
    fn a_disk_is_probed_and_left_as_it_was() {
        let directory = directory();
        let stale = directory.path().join(".tidegate-probe-1-zero");
        fs::write(&stale, "left by a crash").unwrap();
        fs::write(directory.path().join("keep"), "").unwrap();
        let disk = super::check(directory.path(), 1).unwrap();
        assert!(disk.alignment.log_block >= 4096 && disk.total_bytes >= disk.free_bytes);
        assert!(disk.probe.overwrite.writes >= 3 && disk.probe.append.writes >= 3);
        assert!(disk.probe.overwrite.min <= disk.probe.overwrite.median);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn each_refusal_names_its_remedy() {
        let directory = directory();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let contains = |text: String, expected: &str| {
            assert!(text.contains(expected), "{text:?} does not contain {expected:?}");
        };
        contains(refusal(&file, 0), "is no directory");
        contains(create(&file).unwrap_err().to_string(), "is no directory");
        contains(create(&file.join("below")).unwrap_err().to_string(), "is no directory");
        contains(refusal(directory.path(), u64::MAX), "is full");
        let kind = |kind: ErrorKind| DiskError::new(directory.path(), kind.into()).to_string();
        contains(kind(ErrorKind::PermissionDenied), "`chown` it");
        contains(kind(ErrorKind::ReadOnlyFilesystem), "mounted read-only");
        contains(kind(ErrorKind::StorageFull), "is full");
        contains(kind(ErrorKind::QuotaExceeded), "is full");
    }

    #[test]
    fn memory_is_refused_though_it_accepts_direct_io() {
        let memory = Path::new("/dev/shm");
        if !memory.is_dir() || in_memory(memory).unwrap().is_none() {
            return;
        }
        let directory = tempfile::tempdir_in(memory).unwrap();
        let text = refusal(directory.path(), 0);
        assert!(text.contains("(tmpfs, which is memory) does no direct I/O"), "{text}");
    }

    #[test]
    fn directories_are_made_with_their_parents() {
        let directory = directory();
        let deep = directory.path().join("a/b/c");
        create(&deep).unwrap();
        create(&deep).unwrap();
        assert!(deep.is_dir());
    }
}
