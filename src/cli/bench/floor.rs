//! The machine's own floor: what a durable acknowledgement cannot be faster than here.
//!
//! In: two cores and a directory. Out: the round trip of a message and its answer over loopback, a
//! 4 KiB write with flush onto zero-filled space of the directory's disk, the hiccups of the two
//! cores while they only spin, and the CPU time that the host took away. Plain system calls on two
//! pinned threads; no engine, no io_uring. It stands next to every latency that is reported.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::measure::{Percentiles, histogram};
use super::verdict::Noise;
use super::{hiccups, pin, process};

/// What to measure, and where.
#[derive(Debug, Clone)]
pub struct Options {
    pub data_dir: PathBuf,
    pub engine_core: usize,
    pub load_core: usize,
    pub message_bytes: usize,
    /// For each of the parts.
    pub duration: Duration,
}

/// The floor. Sums are of percentiles at the same rank: for p50 that is what a commit that waits
/// for nothing takes.
#[derive(Debug, Clone, Serialize)]
pub struct Floor {
    /// Both ends sleep until something comes.
    pub round_trip_sleeping: Percentiles,
    /// Both ends poll.
    pub round_trip_spinning: Percentiles,
    /// The load polls and the server sleeps, as `tidegate bench` and an engine do.
    pub round_trip: Percentiles,
    /// 4 KiB O_DIRECT write and fdatasync.
    pub write_flush: Percentiles,
    pub sum_p50_us: f64,
    pub sum_p99_us: f64,
    #[serde(rename = "sum_p99.9_us")]
    pub sum_p999_us: f64,
    /// The longest gap of each millisecond on a core that only spins, both cores at once.
    pub hiccups_engine_core: Percentiles,
    pub hiccups_load_core: Percentiles,
    /// Of all CPUs' time, while all this was measured.
    pub steal_share: f64,
    pub noise: Noise,
}

const ANSWER_BYTES: usize = 4;
const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: usize = 16 << 20;

/// Measures.
///
/// # Errors
/// When sockets or files cannot be made; `InvalidInput` from O_DIRECT means that the file system
/// has none.
pub fn measure(options: &Options) -> io::Result<Floor> {
    let (begun, steal_before) = (Instant::now(), process::steal_ns());
    let round_trip = |load_spins, server_spins| round_trip(options, load_spins, server_spins);
    let round_trip_sleeping = round_trip(false, false)?;
    let round_trip_spinning = round_trip(true, true)?;
    let round_trip = round_trip(true, false)?;
    let write_flush = write_flush(options)?;
    let cores = [options.engine_core, options.load_core];
    let hiccups = hiccups::measure(&cores, options.duration)?;
    let steal_ns = process::steal_ns().saturating_sub(steal_before);
    let steal_share = process::share_of_cpus(steal_ns, begun.elapsed().as_nanos() as u64);
    Ok(Floor {
        noise: Noise::judge(&hiccups, steal_share),
        hiccups_engine_core: hiccups[0],
        hiccups_load_core: hiccups[1],
        steal_share,
        round_trip_sleeping,
        round_trip_spinning,
        sum_p50_us: round_trip.p50_us + write_flush.p50_us,
        sum_p99_us: round_trip.p99_us + write_flush.p99_us,
        sum_p999_us: round_trip.p999_us + write_flush.p999_us,
        round_trip,
        write_flush,
    })
}

fn round_trip(options: &Options, load_spins: bool, server_spins: bool) -> io::Result<Percentiles> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let (message_bytes, core) = (options.message_bytes, options.engine_core);
    let server = std::thread::spawn(move || -> io::Result<()> {
        pin(core)?;
        let (mut socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(server_spins)?;
        let mut message = vec![0; message_bytes];
        while read_all(&mut socket, &mut message)? {
            socket.write_all(&[0; ANSWER_BYTES])?;
        }
        Ok(())
    });
    let (core, duration) = (options.load_core, options.duration);
    let load = std::thread::spawn(move || -> io::Result<Percentiles> {
        pin(core)?;
        let mut socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(load_spins)?;
        let message = vec![7; message_bytes];
        let mut answer = [0; ANSWER_BYTES];
        let mut times = histogram();
        let start = Instant::now();
        while start.elapsed() < duration {
            let sent = Instant::now();
            socket.write_all(&message)?;
            if !read_all(&mut socket, &mut answer)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            times.saturating_record(sent.elapsed().as_nanos() as u64);
            // At a moderate rate a server sleeps between two messages.
            pause(Duration::from_micros(50));
        }
        Ok(Percentiles::of(&times))
    });
    let times = load.join().map_err(|_| io::Error::other("the load thread panicked"))??;
    server.join().map_err(|_| io::Error::other("the server thread panicked"))??;
    Ok(times)
}

/// Fills `bytes`; `false` at the stream's end. Polls where the socket does not block.
fn read_all(socket: &mut TcpStream, bytes: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        match socket.read(&mut bytes[filled..]) {
            Ok(0) => return Ok(false),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::hint::spin_loop(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn pause(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

fn write_flush(options: &Options) -> io::Result<Percentiles> {
    std::fs::create_dir_all(&options.data_dir)?;
    let path = options.data_dir.join(format!(".floor-{}", std::process::id()));
    let (core, duration, probe) = (options.engine_core, options.duration, path.clone());
    let thread = std::thread::spawn(move || {
        pin(core)?;
        write_flush_in(&probe, duration)
    });
    let times = thread.join().map_err(|_| io::Error::other("the disk thread panicked"));
    // Gone whatever happened; the error that matters is the measurement's.
    let _ = std::fs::remove_file(&path);
    times?
}

fn write_flush_in(path: &Path, duration: Duration) -> io::Result<Percentiles> {
    File::create(path)?.write_all(&vec![0; FILE_BYTES])?;
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path)?;
    file.sync_all()?;
    let memory = vec![0x5A; 2 * BLOCK_BYTES];
    let block = &memory[memory.as_ptr().align_offset(BLOCK_BYTES)..][..BLOCK_BYTES];
    let mut times = histogram();
    let start = Instant::now();
    for position in (0..FILE_BYTES).step_by(BLOCK_BYTES).cycle() {
        if start.elapsed() > duration {
            break;
        }
        let begun = Instant::now();
        file.write_all_at(block, position as u64)?;
        file.sync_data()?;
        times.saturating_record(begun.elapsed().as_nanos() as u64);
    }
    Ok(Percentiles::of(&times))
}

impl fmt::Display for Floor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |name: &str, p: &Percentiles| {
            writeln!(
                f,
                "{name:<44} p50 {:>7.1}  p99 {:>7.1}  p99.9 {:>7.1} µs",
                p.p50_us, p.p99_us, p.p999_us
            )
        };
        line("loopback round trip, both ends sleep", &self.round_trip_sleeping)?;
        line("loopback round trip, both ends poll", &self.round_trip_spinning)?;
        line("loopback round trip, load polls", &self.round_trip)?;
        line("4 KiB O_DIRECT write + fdatasync", &self.write_flush)?;
        line("hiccups of the engine's core, a millisecond", &self.hiccups_engine_core)?;
        line("hiccups of the load's core, a millisecond", &self.hiccups_load_core)?;
        writeln!(
            f,
            "{:<44} p50 {:>7.1}  p99 {:>7.1}  p99.9 {:>7.1} µs",
            "floor (load polls + write + flush)",
            self.sum_p50_us,
            self.sum_p99_us,
            self.sum_p999_us
        )?;
        write!(f, "stolen by the host {:.2} %; {}", self.steal_share * 100.0, self.noise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_has_all_its_parts_and_leaves_nothing_behind() {
        // Not /tmp: it may be a tmpfs.
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let options = Options {
            data_dir: folder.path().to_owned(),
            engine_core: 0,
            load_core: 0,
            message_bytes: 128,
            duration: Duration::from_millis(20),
        };
        let floor = measure(&options).unwrap();
        assert!(floor.round_trip_sleeping.count > 0);
        assert!(floor.write_flush.count > 0);
        assert!(floor.hiccups_engine_core.count > 0 && floor.hiccups_load_core.count > 0);
        assert_eq!(floor.sum_p50_us, floor.round_trip.p50_us + floor.write_flush.p50_us);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
