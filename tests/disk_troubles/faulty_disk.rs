//! A disk that does to an engine what disks do: a FUSE file system of the test's own process.
//!
//! Comes in: what the kernel is asked for by the engine, and the troubles that a test orders. Goes
//! out: answers from the `Volume`. The kernel caches nothing of it, so that each write and each flush
//! arrives. When the power is cut, everything fails until it is back: what the engine does after the
//! cut never reaches the disk, and what it acknowledges after it would be a lie.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::engine::Setup;
use crate::random::Random;
use crate::skipped_for_want_of;
use crate::volume::{Number, SECTOR_BYTES, Status, Volume};

/// The kernel keeps neither names nor attributes.
const NO_TIME: Duration = Duration::ZERO;
const BLOCK_BYTES: u32 = 4096;
/// What statfs tells, always: an engine must not rely on it.
const BLOCKS: u64 = 16 << 20;
/// Requests at a time, so that some may hang.
const THREADS: usize = 12;

/// What happens to what a disk is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trouble {
    #[default]
    None,
    /// It is refused with EIO; what a flush should have kept is lost.
    Fails,
    /// Half of a write is done, in whole sectors, and said to be done.
    Short,
    /// It hangs until the trouble is another.
    Hangs,
    /// A flush says that it kept what it did not keep.
    Lies,
}

/// The troubles of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Troubles {
    pub writes: Trouble,
    pub flushes: Trouble,
    /// There is no room for bytes that have no place yet, whatever statfs says.
    pub is_full: bool,
}

#[derive(Debug)]
struct State {
    volume: Volume,
    troubles: Troubles,
    random: Random,
    /// After how many more requests that change something the power is cut.
    cut_after: Option<u64>,
    is_off: bool,
    /// Requests that change something, so far.
    requests: u64,
    /// Requests that hang.
    hanging: usize,
    /// Requests that met a trouble so far.
    troubled: u64,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    owner: (u32, u32),
}

/// A mounted disk; unmounted with the value. An engine that uses it must have ended by then.
#[derive(Debug)]
pub struct FaultyDisk {
    shared: Arc<Shared>,
    session: Option<BackgroundSession>,
    point: PathBuf,
}

impl FaultyDisk {
    /// Mounts an empty disk below `scratch`. The reason why not, where there is no FUSE.
    pub fn mount(scratch: &Path, seed: u64) -> Result<Self, String> {
        use std::os::unix::fs::MetadataExt;
        let (point, durable) = (scratch.join("disk"), scratch.join("durable"));
        for dir in [&point, &durable] {
            std::fs::create_dir(dir).map_err(|error| error.to_string())?;
        }
        let made = std::fs::metadata(&durable).map_err(|error| error.to_string())?;
        let state = State {
            volume: Volume::new(&durable),
            troubles: Troubles::default(),
            random: Random::new(seed),
            cut_after: None,
            is_off: false,
            requests: 0,
            hanging: 0,
            troubled: 0,
        };
        let owner = (made.uid(), made.gid());
        let shared = Arc::new(Shared { state: state.into(), changed: Condvar::new(), owner });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("faulty-disk".to_owned())];
        config.n_threads = Some(THREADS);
        let session = fuser::spawn_mount(Served(Arc::clone(&shared)), &point, &config)
            .map_err(|error| format!("FUSE cannot be mounted: {error}"))?;
        Ok(Self { shared, session: Some(session), point })
    }

    /// `mount` for a test, which is skipped where there is no FUSE.
    pub fn mount_or_skip(scratch: &Path, seed: u64) -> Option<Self> {
        match Self::mount(scratch, seed) {
            Ok(disk) => Some(disk),
            Err(reason) => {
                skipped_for_want_of("/dev/fuse", &reason);
                None
            }
        }
    }

    /// An engine on this disk, whose configuration is not on it.
    pub fn setup(&self, config: &str) -> Setup {
        let mut setup = Setup::new(&self.point);
        setup.data_dir.clone_from(&self.point);
        setup.arguments.clear();
        setup.config(config)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    pub fn trouble(&self, troubles: Troubles) {
        self.state().troubles = troubles;
        self.shared.changed.notify_all();
    }

    /// Requests that hang now.
    pub fn hanging(&self) -> usize {
        self.state().hanging
    }

    /// Requests that change something, so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Requests that met a trouble so far.
    pub fn troubled(&self) -> u64 {
        self.state().troubled
    }

    /// Cuts the power in the moment of the request after so many others that change something.
    pub fn cut_after(&self, requests: u64) {
        self.state().cut_after = Some(requests);
    }

    /// Cuts the power now, if it is not off.
    pub fn cut(&self) {
        self.state().cut();
        self.shared.changed.notify_all();
    }

    pub fn is_off(&self) -> bool {
        self.state().is_off
    }

    /// The power is back. The engine of before must have ended.
    pub fn power_on(&self) {
        let mut state = self.state();
        state.is_off = false;
        state.cut_after = None;
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.trouble(Troubles::default());
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}

impl State {
    fn cut(&mut self) {
        if !self.is_off {
            self.is_off = true;
            self.volume.cut(&mut self.random).expect("the durable files are there");
        }
    }

    /// Passes a request that changes nothing.
    fn look(&mut self) -> Result<&mut Volume, Errno> {
        if self.is_off { Err(Errno::EIO) } else { Ok(&mut self.volume) }
    }
}

impl Shared {
    /// Passes a request that changes something, or lets the power be cut right before it.
    fn change(&self) -> Result<MutexGuard<'_, State>, Errno> {
        let mut state = self.state.lock().unwrap();
        state.requests += 1;
        match &mut state.cut_after {
            Some(0) => {
                state.cut();
                self.changed.notify_all();
            }
            Some(left) => *left -= 1,
            None => {}
        }
        state.look()?;
        Ok(state)
    }

    /// What becomes of a request that may meet a trouble.
    fn meet(
        &self,
        which: impl Fn(&Troubles) -> Trouble,
    ) -> Result<(MutexGuard<'_, State>, Trouble), Errno> {
        let mut state = self.change()?;
        if which(&state.troubles) == Trouble::Hangs {
            state.hanging += 1;
            state.troubled += 1;
            state = self
                .changed
                .wait_while(state, |s| !s.is_off && which(&s.troubles) == Trouble::Hangs)
                .unwrap();
            state.hanging -= 1;
            state.look()?;
        }
        let trouble = which(&state.troubles);
        state.troubled += u64::from(trouble != Trouble::None);
        Ok((state, trouble))
    }

    fn write(&self, thread: u32, file: Number, at: u64, bytes: &[u8]) -> Result<u32, Errno> {
        let (mut state, trouble) = self.meet(|troubles| troubles.writes)?;
        let length = match trouble {
            Trouble::Fails => return Err(Errno::EIO),
            Trouble::Short => bytes.len() / 2 / SECTOR_BYTES * SECTOR_BYTES,
            _ => bytes.len(),
        };
        // Writes are asynchronous: one may come when its engine has ended, and the power is back.
        if !Path::new("/proc").join(thread.to_string()).exists() {
            return Err(Errno::EIO);
        }
        self.room(&mut state, file, at + length as u64)?;
        state.volume.write(file, at, &bytes[..length])?;
        Ok(length as u32)
    }

    fn room(&self, state: &mut State, file: Number, end: u64) -> Result<(), Errno> {
        if state.troubles.is_full && !state.volume.has_place(file, end)? {
            state.troubled += 1;
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    fn flush(&self, file: Number) -> Result<(), Errno> {
        let (mut state, trouble) = self.meet(|troubles| troubles.flushes)?;
        match trouble {
            Trouble::Fails => {
                state.volume.forget_unflushed(file)?;
                Err(Errno::EIO)
            }
            Trouble::Lies => state.volume.forget_unflushed(file),
            _ => state.volume.flush(file),
        }
    }

    fn attributes(&self, number: Number, status: Status) -> FileAttr {
        let (kind, perm) = match status.is_directory {
            true => (FileType::Directory, 0o700),
            false => (FileType::RegularFile, 0o600),
        };
        FileAttr {
            ino: INodeNo(number),
            size: status.bytes,
            blocks: status.bytes.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: self.owner.0,
            gid: self.owner.1,
            rdev: 0,
            blksize: BLOCK_BYTES,
            flags: 0,
        }
    }

    fn attributes_of(&self, state: &mut State, number: Number) -> Result<FileAttr, Errno> {
        Ok(self.attributes(number, state.look()?.status(number)?))
    }

    fn look_up(&self, directory: Number, name: &OsStr) -> Result<FileAttr, Errno> {
        let mut state = self.state.lock().unwrap();
        let number = state.look()?.lookup(directory, name)?;
        self.attributes_of(&mut state, number)
    }

    fn make(
        &self,
        make: impl FnOnce(&mut Volume) -> Result<Number, Errno>,
    ) -> Result<FileAttr, Errno> {
        let mut state = self.change()?;
        let number = make(&mut state.volume)?;
        self.attributes_of(&mut state, number)
    }

    fn resize(&self, number: Number, bytes: Option<u64>) -> Result<FileAttr, Errno> {
        let mut state = match bytes {
            Some(bytes) => {
                let mut state = self.change()?;
                state.volume.resize(number, bytes)?;
                state
            }
            None => self.state.lock().unwrap(),
        };
        self.attributes_of(&mut state, number)
    }

    fn allocate(&self, file: Number, end: u64, mode: i32) -> Result<(), Errno> {
        /// FALLOC_FL_KEEP_SIZE
        const KEEP_SIZE: i32 = 1;
        if mode & !KEEP_SIZE != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let mut state = self.change()?;
        self.room(&mut state, file, end)?;
        state.volume.allocate(file, end, mode == KEEP_SIZE)
    }
}

/// The disk as the kernel asks it.
#[derive(Debug)]
struct Served(Arc<Shared>);

fn done(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(result: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn attributes(result: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&NO_TIME, &attributes),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Served {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // As on a disk, whoever writes through a ring does not wait in the call.
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        // The tools map files; where a kernel cannot do it for such files they fail.
        let _ = config.add_capabilities(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.0.look_up(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        attributes(self.0.resize(ino.0, None), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        _: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attributes(self.0.resize(ino.0, size), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(self.0.make(|volume| volume.make_directory(parent.0, name)), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.0.make(|volume| volume.make_file(parent.0, name)) {
            Ok(attributes) => {
                let (handle, flags) = (FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
                reply.created(&NO_TIME, &attributes, Generation(0), handle, flags);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let state = self.0.change();
        done(state.and_then(|mut state| state.volume.remove_file(parent.0, name)), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let state = self.0.change();
        done(state.and_then(|mut state| state.volume.remove_directory(parent.0, name)), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let result = match flags.is_empty() {
            true => self.0.change().and_then(|mut state| {
                state.volume.rename((parent.0, name), (newparent.0, newname))
            }),
            false => Err(Errno::EINVAL),
        };
        done(result, reply);
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut state = self.0.state.lock().unwrap();
        match state.look().and_then(|volume| volume.read(ino.0, offset, size as usize)) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        request: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.write(request.pid(), ino.0, offset, data) {
            Ok(bytes) => reply.written(bytes),
            Err(error) => reply.error(error),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        done(self.0.flush(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let state = self.0.change();
        done(state.and_then(|mut state| state.volume.flush_directory(ino.0)), reply);
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        done(self.0.allocate(ino.0, offset + length, mode), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.0.state.lock().unwrap();
        // Numbers serve as places: a removal between two calls moves no other entry.
        match state.look().and_then(|volume| volume.entries(ino.0, offset)) {
            Ok(entries) => {
                for (number, name, status) in entries {
                    let kind = self.0.attributes(number, status).kind;
                    if reply.add(INodeNo(number), number, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(BLOCKS, BLOCKS / 2, BLOCKS / 2, 0, 0, BLOCK_BYTES, 255, BLOCK_BYTES);
    }
}
