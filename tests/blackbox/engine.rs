//! Starts the real binary on free ports over a directory of its own, waits until it is ready, and
//! ends it the ways that engines end: SIGTERM, SIGKILL, a refusal at start.
//!
//! Nothing here sleeps for a fixed time: `wait_until` looks at a condition until a deadline. An
//! engine that a failed test leaves behind is killed when its `Engine` is dropped, and its output
//! is printed.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Generous, because CI machines are slow and debug builds slower; no test waits this long unless
/// something is wrong.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Kafka ports of one engine: base + shard, for at most this many shards.
const KAFKA_PORTS: u16 = 8;

/// Looks at `condition` until it gives a value. Panics after `DEADLINE` with what was waited for.
pub fn wait_until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, condition)
}

/// `wait_until` with a deadline of its own.
pub fn wait_within<T>(within: Duration, what: &str, condition: impl FnMut() -> Option<T>) -> T {
    poll(within, condition).unwrap_or_else(|| panic!("waited {within:?} in vain for {what}"))
}

/// Looks at `condition` until it gives a value, None after the time given.
pub fn poll<T>(within: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A directory for one test, on the file system of the build (the system's temporary directory is
/// often a tmpfs, which refuses O_DIRECT). Removed with the value.
pub fn scratch() -> TempDir {
    let parent = env!("CARGO_TARGET_TMPDIR");
    tempfile::Builder::new().prefix("engine-").tempdir_in(parent).expect("a scratch directory")
}

#[derive(Debug, Clone, Copy)]
pub struct Ports {
    pub mqtt: u16,
    pub kafka: u16,
    pub http: u16,
}

impl Ports {
    /// A block of ports that nobody listens on, below the range that the kernel gives to outgoing
    /// connections. Processes begin in different places, threads share one counter.
    pub fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        const FIRST: u16 = 10_000;
        const BLOCKS: u16 = 2_200;
        let start = (std::process::id() % u32::from(BLOCKS)) as u16;
        for _ in 0..BLOCKS {
            let block = (start + NEXT.fetch_add(1, Ordering::Relaxed)) % BLOCKS;
            let base = FIRST + block * (KAFKA_PORTS + 2);
            if (base..base + KAFKA_PORTS + 2).all(is_free) {
                return Self { mqtt: base, http: base + 1, kafka: base + 2 };
            }
        }
        panic!("no block of free ports on 127.0.0.1");
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// How an engine is to be started.
#[derive(Debug, Clone)]
pub struct Setup {
    pub data_dir: PathBuf,
    pub ports: Ports,
    pub config: Option<PathBuf>,
    pub arguments: Vec<String>,
    /// Where the engine starts without being told a data directory: it takes its default.
    pub folder: Option<PathBuf>,
    /// Shell commands before the engine, in its own process: limits, for example.
    pub before: String,
}

impl Setup {
    pub fn new(scratch: &Path) -> Self {
        Self {
            data_dir: scratch.join("data"),
            ports: Ports::free(),
            config: None,
            // Small segments: a test's disk has better things to do than to fill zeros.
            arguments: [
                ["--log-segment-bytes", "16MiB"],
                ["--log-segments-ahead", "1"],
                ["--log-buffer-bytes", "8MiB"],
            ]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
            folder: None,
            before: String::new(),
        }
    }

    pub fn argument(mut self, words: &[&str]) -> Self {
        self.arguments.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    /// Runs shell commands in the engine's process before it is the engine's.
    pub fn after(mut self, commands: &str) -> Self {
        self.before = format!("{commands} &&");
        self
    }

    /// Writes a configuration file beside the data directory and uses it.
    pub fn config(mut self, text: &str) -> Self {
        let path = self.data_dir.with_extension("toml");
        std::fs::write(&path, text).expect("the configuration file is written");
        self.config = Some(path);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{} exec \"$0\" \"$@\"", self.before));
        command.arg(env!("CARGO_BIN_EXE_tidegate"));
        command.arg("serve");
        match &self.folder {
            Some(folder) => command.current_dir(folder),
            None => command.arg("--data-dir").arg(&self.data_dir),
        };
        command.arg("--mqtt-listen").arg(format!("127.0.0.1:{}", self.ports.mqtt));
        command.arg("--kafka-listen").arg(format!("127.0.0.1:{}", self.ports.kafka));
        command.arg("--http-listen").arg(format!("127.0.0.1:{}", self.ports.http));
        if let Some(config) = &self.config {
            command.arg("--config").arg(config);
        }
        command.args(&self.arguments);
        clean_environment(&mut command);
        command
    }

    /// Starts an engine and waits until it is ready.
    pub fn start(&self) -> Engine {
        let mut engine = self.spawn();
        engine.await_ready();
        engine
    }

    /// Starts an engine without waiting for it.
    pub fn spawn(&self) -> Engine {
        let output = self.data_dir.with_extension("log");
        let file = File::options().create(true).append(true).open(&output).expect("the log file");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the log file twice"))
            .stderr(file)
            .spawn()
            .expect("the engine starts");
        Engine { child, ports: self.ports, output, setup: self.clone(), ended: false }
    }

    /// Runs an engine that must refuse to start: returns its exit code and all that it said.
    pub fn refused(&self) -> (i32, String) {
        let log = self.data_dir.with_extension("log");
        let before = std::fs::metadata(log).map_or(0, |file| file.len());
        let mut engine = self.spawn();
        let status = engine.await_exit();
        let said = engine.said();
        assert!(!status.success(), "the engine should have refused to start, and said:\n{said}");
        assert!(!said.contains("panicked"), "a refusal is not a panic:\n{said}");
        let code = status.code().unwrap_or_else(|| panic!("ended by a signal: {status}\n{said}"));
        (code, said[(before as usize).min(said.len())..].to_owned())
    }
}

/// Settings of the person who runs the tests must not reach the engine under test.
fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars() {
        if name.starts_with("TIDEGATE_") || name == "RUST_LOG" {
            command.env_remove(name);
        }
    }
}

/// Runs the binary with a command other than `serve`; returns exit code, standard output and
/// standard error.
pub fn run(arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    clean_environment(&mut command);
    let output = command.args(arguments).stdin(Stdio::null()).output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("the binary speaks UTF-8");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

/// A running engine.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    pub ports: Ports,
    output: PathBuf,
    setup: Setup,
    ended: bool,
}

impl Engine {
    pub fn await_ready(&mut self) {
        wait_until("the engine to be ready", || {
            if let Some(status) = self.exited() {
                panic!("the engine ended before it was ready, {status}:\n{}", self.said());
            }
            (self.get("/readyz").ok()?.0 == 200).then_some(())
        });
    }

    /// Everything that this engine (and those before it on the same directory) printed.
    pub fn said(&self) -> String {
        let bytes = std::fs::read(&self.output).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.kafka)
    }

    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name (`TERM`, `INT`). The shell's own `kill` needs no unsafe call here.
    pub fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        let status = Command::new("sh").args(["-c", &kill]).status().expect("sh runs");
        assert!(status.success(), "{kill}: {status}");
    }

    /// It has not ended by itself.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.exited() {
            panic!("the engine ended by itself, {status}:\n{}", self.said());
        }
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("the engine's state");
        self.ended |= status.is_some();
        status
    }

    pub fn await_exit(&mut self) -> ExitStatus {
        let status = poll(DEADLINE, || self.exited());
        status.unwrap_or_else(|| panic!("the engine does not end:\n{}", self.said()))
    }

    /// The clean end: SIGTERM, exit code 0.
    pub fn stop(mut self) -> Setup {
        self.signal("TERM");
        let status = self.await_exit();
        assert!(status.success(), "after SIGTERM the engine left with {status}:\n{}", self.said());
        self.setup.clone()
    }

    /// The end that nobody can prepare for.
    pub fn kill(mut self) -> Setup {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("the killed engine is reaped");
        self.ended = true;
        self.setup.clone()
    }

    /// The most memory that the engine has had resident so far, in bytes.
    pub fn resident_bytes_peak(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("the engine's status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("no VmHWM in {status}")) << 10
    }

    /// Status and body of a GET.
    pub fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        self.ask(&format!("GET {path}"), "*/*", Duration::from_secs(5))
    }

    /// Status and body of a POST without a body.
    pub fn post(&self, path: &str, accept: &str) -> std::io::Result<(u16, String)> {
        self.ask(&format!("POST {path}"), accept, DEADLINE)
    }

    fn ask(&self, what: &str, accept: &str, within: Duration) -> std::io::Result<(u16, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.ports.http));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(within))?;
        write!(
            stream,
            "{what} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Ok((status, body.to_owned()))
    }

    /// The sum of all samples of the metrics whose name contains `name` and whose labels contain
    /// `label`. Histogram buckets are left out.
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let (status, text) = self.get("/metrics").expect("/metrics answers");
        assert_eq!(status, 200, "{text}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples
            .filter(|line| {
                let metric = line.split(['{', ' ']).next().unwrap_or_default();
                metric.contains(name) && !metric.ends_with("_bucket") && line.contains(label)
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- the engine said (last lines) ---\n{tail}\n---");
        }
    }
}
