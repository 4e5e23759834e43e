//! The load generator: one thread, one socket ring, polling.
//!
//! In: a [`Plan`]. Out: a [`Report`]. Runs on the calling thread, which never sleeps while it
//! measures: what it measures must not wait for it. Bookkeeping is [`Connection`] and
//! [`Measurement`]; here are the sockets, the clock and the phases. The invariant: a turn of the
//! loop allocates nothing. Absent: threads, retries, reconnects (a connection that breaks is
//! counted as lost).

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::BenchError;
use super::connection::{Connection, Pace};
use super::measure::{CountBy, Measurement};
use super::process;
use super::report::{ProcessReport, Report};
use super::schedule::{Due, Schedule};
use super::wire::{self, ConnectReply, Malformed, PublishTemplate, Version, packet};
use crate::driver::socket_ring::{Completion, Options, SlotId, SocketRing, Wait};

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    pub address: SocketAddr,
    pub version: Version,
    pub connections: u32,
    pub loop_kind: LoopKind,
    pub payload_bytes: usize,
    /// `{client}` stands for the client id.
    pub topic: String,
    pub client_prefix: String,
    pub warmup: Duration,
    pub duration: Duration,
    /// Open loop: how long late acknowledgements are waited for.
    pub drain: Duration,
    /// The process under test.
    pub process: Option<u32>,
    /// A line a second on stderr.
    pub progress: bool,
}

/// Closed or open loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoopKind {
    /// So many messages in flight on each connection.
    Closed { window: u16 },
    /// So many messages a second in total, at most so many in flight on each connection.
    Open { rate_per_s: u64, in_flight_max: u16 },
}

const BUFFER_GROUP: u16 = 0;
const SEND_BIT: u64 = 1 << 32;
/// At most so much in one send.
const SEND_BYTES_MAX: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs the plan.
///
/// # Errors
/// When the broker cannot be reached or refuses, or the ring fails. Lost connections and missing
/// acknowledgements are in the report.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let mut load = Load::new(plan)?;
    load.connect()?;
    load.measure()
}

struct Load<'a> {
    plan: &'a Plan,
    ring: SocketRing,
    sockets: Vec<TcpStream>,
    connections: Vec<Connection>,
    slots: Vec<SlotId>,
    /// Connections that may have something to send.
    listed: Vec<u32>,
    listed_before: Vec<u32>,
    due: Option<Due>,
    measurement: Measurement,
    clock: Instant,
    accepted: u32,
    refused_code: Option<u8>,
    lost: u32,
    receive_max: Option<u16>,
    /// Of all time and since the last progress line.
    acknowledged: u64,
    latency_max_ns: u64,
    idle_ns: u64,
    enters: u64,
}

impl<'a> Load<'a> {
    fn new(plan: &'a Plan) -> Result<Self, BenchError> {
        let count = plan.connections as usize;
        let options = Options { entries: 4096, cq_entries: (4 * plan.connections).max(8192) };
        let mut ring = SocketRing::new(options).map_err(BenchError::Ring)?;
        ring.add_buffers(BUFFER_GROUP, 512, 2048).map_err(BenchError::Ring)?;
        let (pace, in_flight_max, due) = match plan.loop_kind {
            LoopKind::Closed { window } => (Pace::Window, window, None),
            LoopKind::Open { rate_per_s, in_flight_max } => {
                let schedule = Schedule::new(rate_per_s);
                let pace = Pace::Schedule { schedule, connections: u64::from(plan.connections) };
                (pace, in_flight_max, Some(Due::new(schedule)))
            }
        };
        let count_by = if due.is_some() { CountBy::Intention } else { CountBy::Arrival };
        let payload = payload(plan.payload_bytes);
        let mut connections = Vec::with_capacity(count);
        let mut slots = Vec::with_capacity(count);
        for index in 0..plan.connections {
            let topic = plan.topic.replace("{client}", &client_id(plan, index));
            let template = PublishTemplate::new(plan.version, &topic, &payload);
            let one = template.bytes.len();
            let all = one * usize::from(in_flight_max);
            slots.push(ring.add_send_slot(all.min(SEND_BYTES_MAX).max(one)));
            connections.push(Connection::new(u64::from(index), pace, template, in_flight_max));
        }
        Ok(Self {
            plan,
            ring,
            sockets: Vec::with_capacity(count),
            connections,
            slots,
            listed: Vec::with_capacity(count),
            listed_before: Vec::with_capacity(count),
            due,
            measurement: Measurement::new(count_by),
            clock: Instant::now(),
            accepted: 0,
            refused_code: None,
            lost: 0,
            receive_max: None,
            acknowledged: 0,
            latency_max_ns: 0,
            idle_ns: 0,
            enters: 0,
        })
    }

    fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Opens every connection and waits until the broker has accepted all.
    fn connect(&mut self) -> Result<(), BenchError> {
        let unreachable = |error| BenchError::Unreachable(self.plan.address, error);
        for _ in 0..self.plan.connections {
            let socket = TcpStream::connect_timeout(&self.plan.address, CONNECT_TIMEOUT)
                .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
                .map_err(unreachable)?;
            self.sockets.push(socket);
        }
        for index in 0..self.plan.connections {
            let hello = wire::connect(self.plan.version, &client_id(self.plan, index));
            let slot = self.slots[index as usize];
            if let Some(bytes) = self.ring.slot_mut(slot) {
                bytes.clear();
                bytes.extend_from_slice(&hello);
            }
            self.send(index);
            self.receive(index);
        }
        let deadline = self.clock.elapsed() + CONNECT_TIMEOUT;
        while self.accepted < self.plan.connections {
            let timeout = Some(Duration::from_millis(100));
            self.ring.enter(Wait::For { count: 1, timeout }).map_err(BenchError::Ring)?;
            self.take_completions();
            if let Some(code) = self.refused_code {
                return Err(BenchError::Refused(code));
            }
            if self.lost > 0 || self.clock.elapsed() > deadline {
                return Err(BenchError::NotAccepted {
                    accepted: self.accepted,
                    wanted: self.plan.connections,
                    lost: self.lost,
                });
            }
        }
        Ok(())
    }

    fn measure(mut self) -> Result<Report, BenchError> {
        // The schedule's time begins now.
        self.clock = Instant::now();
        if self.due.is_none() {
            (0..self.plan.connections).for_each(|index| self.list(index));
        }
        self.turn_until(self.plan.warmup.as_nanos() as u64)?;

        let (before, steal_before) = (self.process_usage()?, process::steal_ns());
        let (enters, idle_ns) = (self.enters, self.idle_ns);
        let start_ns = self.now_ns();
        let end_ns = start_ns + self.plan.duration.as_nanos() as u64;
        self.measurement.open(start_ns, end_ns);
        self.turn_until(end_ns)?;
        let ended_ns = self.now_ns();
        let (after, steal_after) = (self.process_usage()?, process::steal_ns());
        let (enters, idle_ns) = (self.enters - enters, self.idle_ns - idle_ns);

        if self.due.is_some() {
            self.drain(end_ns, ended_ns + self.plan.drain.as_nanos() as u64)?;
        } else {
            self.measurement.close(ended_ns);
        }
        let now_ns = self.now_ns();
        for connection in &self.connections {
            connection
                .unacknowledged()
                .for_each(|origin_ns| self.measurement.never_acknowledged(origin_ns, now_ns));
        }
        let mut report =
            Report::new(self.plan, &self.measurement, (ended_ns - start_ns) as f64 / 1e9);
        report.connections_lost = self.lost;
        report.receive_max = self.receive_max;
        report.generator_idle_share = idle_ns as f64 / (ended_ns - start_ns) as f64;
        report.acknowledgements_per_enter = self.measurement.arrived as f64 / enters.max(1) as f64;
        report.steal_ms = (steal_after - steal_before) as f64 / 1e6;
        if let (Some(before), Some(after)) = (before, after) {
            let cpu_ns = process::cpu_ns_between(&before, &after);
            let acks = self.measurement.arrived;
            report.process = Some(ProcessReport::new(cpu_ns, ended_ns - start_ns, acks, &after));
        }
        Ok(report)
    }

    fn process_usage(&self) -> Result<Option<process::Usage>, BenchError> {
        let Some(pid) = self.plan.process else { return Ok(None) };
        process::usage(pid).map(Some).map_err(|error| BenchError::Process(pid, error))
    }

    fn turn_until(&mut self, end_ns: u64) -> Result<(), BenchError> {
        const SECOND_NS: u64 = 1_000_000_000;
        let mut acknowledged = self.acknowledged;
        let mut now_ns = self.now_ns();
        let mut line_ns = now_ns + SECOND_NS;
        while now_ns < end_ns {
            let worked = self.turn(now_ns, end_ns)?;
            let next_ns = self.now_ns();
            if !worked {
                self.idle_ns += next_ns - now_ns;
            }
            now_ns = next_ns;
            if now_ns >= line_ns {
                self.progress(now_ns, self.acknowledged - acknowledged);
                acknowledged = self.acknowledged;
                line_ns += SECOND_NS;
                if self.lost == self.plan.connections {
                    return Err(BenchError::AllLost);
                }
            }
        }
        Ok(())
    }

    /// Open loop: nothing new is due after the window's end, what is late is still sent, and all is
    /// waited for.
    fn drain(&mut self, end_ns: u64, deadline_ns: u64) -> Result<(), BenchError> {
        loop {
            let now_ns = self.now_ns();
            self.turn(now_ns, end_ns)?;
            if self.measurement.is_complete() || now_ns > deadline_ns {
                return Ok(());
            }
        }
    }

    /// One turn: what is due before `end_ns` is sent, what has come is taken. Whether there was
    /// anything to do.
    #[inline]
    fn turn(&mut self, now_ns: u64, end_ns: u64) -> Result<bool, BenchError> {
        self.list_due(now_ns.min(end_ns.saturating_sub(1)));
        self.send_listed(now_ns);
        if !self.ring.has_unsubmitted() && !self.ring.has_deferred_work() {
            std::hint::spin_loop();
            return Ok(false);
        }
        self.enters += 1;
        self.ring.enter(Wait::No).map_err(BenchError::Ring)?;
        self.take_completions();
        Ok(true)
    }

    #[inline]
    fn list_due(&mut self, now_ns: u64) {
        let Some(mut due) = self.due else { return };
        while let Some((number, intended_ns)) = due.next(now_ns) {
            let index = (number % u64::from(self.plan.connections)) as u32;
            self.measurement.message_due(intended_ns);
            self.connections[index as usize].message_due();
            self.list(index);
        }
        self.due = Some(due);
    }

    #[inline]
    fn list(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        if !connection.listed {
            connection.listed = true;
            self.listed.push(index);
        }
    }

    #[inline]
    fn send_listed(&mut self, now_ns: u64) {
        std::mem::swap(&mut self.listed, &mut self.listed_before);
        for position in 0..self.listed_before.len() {
            let index = self.listed_before[position];
            let connection = &mut self.connections[index as usize];
            connection.listed = false;
            if connection.is_held_back() || connection.lost {
                continue;
            }
            let slot = self.slots[index as usize];
            let Some(out) = self.ring.slot_mut(slot) else { continue };
            out.clear();
            let measurement = &mut self.measurement;
            let lag = |intended_ns, lag_ns| measurement.sent(intended_ns, lag_ns);
            if connection.fill(out, SEND_BYTES_MAX, now_ns, lag) > 0 {
                self.send(index);
            }
        }
        self.listed_before.clear();
    }

    #[inline]
    fn send(&mut self, index: u32) {
        self.connections[index as usize].sending = true;
        let fd = self.sockets[index as usize].as_raw_fd();
        self.ring.send_slot(fd, self.slots[index as usize], SEND_BIT | u64::from(index));
    }

    fn receive(&mut self, index: u32) {
        let fd = self.sockets[index as usize].as_raw_fd();
        self.ring.recv_multishot(fd, BUFFER_GROUP, u64::from(index));
    }

    #[inline]
    fn take_completions(&mut self) {
        let now_ns = self.now_ns();
        while let Some(completion) = self.ring.next_completion() {
            let index = completion.user_data as u32;
            if completion.user_data & SEND_BIT != 0 {
                self.connections[index as usize].send_ended(now_ns);
                if completion.result.is_err() {
                    self.lose(index);
                }
            } else {
                self.received(index, completion, now_ns);
            }
            self.list(index);
        }
    }

    #[inline]
    fn received(&mut self, index: u32, completion: Completion, now_ns: u64) {
        let mut alive = match completion.result {
            Ok(len) => len > 0,
            Err(errno) => errno == libc::ENOBUFS,
        };
        if let (Some(buffer), Ok(len)) = (completion.buffer, completion.result) {
            alive &= self.packets(index, completion, now_ns).is_ok() && len > 0;
            self.ring.recycle(buffer);
        }
        if !alive {
            self.lose(index);
        } else if !completion.more {
            self.receive(index);
        }
    }

    #[inline]
    fn packets(
        &mut self,
        index: u32,
        completion: Completion,
        now_ns: u64,
    ) -> Result<(), Malformed> {
        let (Some(buffer), Ok(len)) = (completion.buffer, completion.result) else {
            return Ok(());
        };
        let connection = &mut self.connections[index as usize];
        let mut reassembly = std::mem::take(&mut connection.reassembly);
        let bytes = self.ring.buffer(buffer, len);
        let result = reassembly.feed(bytes, |first, body| match first {
            packet::PUBACK => {
                let (&id, rest) = body.split_first_chunk().ok_or(Malformed)?;
                let done = connection.acknowledge(u16::from_be_bytes(id), now_ns);
                let origin_ns = done.ok_or(Malformed)?.origin_ns;
                self.measurement.refused += u64::from(rest.first().is_some_and(|&r| r >= 0x80));
                self.measurement.acknowledged(origin_ns, now_ns);
                self.acknowledged += 1;
                self.latency_max_ns = self.latency_max_ns.max(now_ns.saturating_sub(origin_ns));
                Ok(())
            }
            packet::CONNACK if !connection.accepted => {
                let ConnectReply { code, receive_max } =
                    wire::connect_reply(self.plan.version, body)?;
                if code != 0 {
                    self.refused_code = Some(code);
                    return Ok(());
                }
                if usize::from(receive_max) < connection.in_flight_max() {
                    connection.limit_in_flight(receive_max);
                    self.receive_max = Some(receive_max);
                }
                connection.accepted = true;
                self.accepted += 1;
                Ok(())
            }
            packet::PINGRESP => Ok(()),
            _ => Err(Malformed),
        });
        connection.reassembly = reassembly;
        result
    }

    #[cold]
    fn lose(&mut self, index: u32) {
        let connection = &mut self.connections[index as usize];
        self.lost += u32::from(!connection.lost);
        connection.lost = true;
    }

    #[cold]
    fn progress(&mut self, now_ns: u64, acknowledged: u64) {
        if self.plan.progress {
            let in_flight: u64 = self.connections.iter().map(|c| u64::from(c.in_flight())).sum();
            eprintln!(
                "{:5.0} s {acknowledged:>9} acks/s  {in_flight:>6} in flight  longest {:.1} ms",
                now_ns as f64 / 1e9,
                self.latency_max_ns as f64 / 1e6
            );
        }
        self.latency_max_ns = 0;
    }
}

impl Drop for Load<'_> {
    /// Says goodbye, so that a broker does not log a thousand broken connections.
    fn drop(&mut self) {
        use io::Write;
        for (socket, connection) in self.sockets.iter_mut().zip(&self.connections) {
            if connection.accepted && !connection.lost && !connection.sending {
                let _ = socket.set_nonblocking(true);
                let _ = socket.write_all(&[packet::DISCONNECT, 0]);
            }
        }
    }
}

fn client_id(plan: &Plan, index: u32) -> String {
    format!("{}{index}", plan.client_prefix)
}

/// Bytes that do not compress, the same in every run (splitmix64).
fn payload(bytes: usize) -> Vec<u8> {
    let mut state: u64 = 0x7469_6465_6761_7465;
    let mut words = std::iter::repeat_with(move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    });
    let mut payload = Vec::with_capacity(bytes + 8);
    while payload.len() < bytes {
        payload.extend_from_slice(&words.next().unwrap_or(0).to_le_bytes());
    }
    payload.truncate(bytes);
    payload
}

#[cfg(test)]
mod tests {
    use super::super::null_sink::tests::Sink;
    use super::*;

    fn plan(sink: &Sink, version: Version, loop_kind: LoopKind) -> Plan {
        Plan {
            address: sink.address,
            version,
            connections: 7,
            loop_kind,
            payload_bytes: 128,
            topic: "bench/{client}".to_owned(),
            client_prefix: "c".to_owned(),
            warmup: Duration::from_millis(20),
            duration: Duration::from_millis(100),
            drain: Duration::from_secs(5),
            process: Some(std::process::id()),
            progress: false,
        }
    }

    #[test]
    fn closed_loop_against_a_null_sink() {
        for version in [Version::V311, Version::V5] {
            let sink = Sink::start();
            let report = run(&plan(&sink, version, LoopKind::Closed { window: 5 })).unwrap();
            assert_eq!((report.connections_lost, report.refused), (0, 0));
            assert!(report.acknowledgements > 0);
            assert_eq!(report.latency.count, report.acknowledgements);
            assert!(report.latency.p50_us > 0.0);
            assert!(sink.stop() >= report.acknowledgements);
        }
    }

    #[test]
    fn open_loop_against_a_null_sink_sends_everything_that_was_due() {
        let sink = Sink::start();
        let loop_kind = LoopKind::Open { rate_per_s: 5_000, in_flight_max: 100 };
        let report = run(&plan(&sink, Version::V311, loop_kind)).unwrap();
        let open = report.open_loop.unwrap();
        // 100 ms at 5,000/s.
        assert!((499..=501).contains(&open.intended), "{}", open.intended);
        assert_eq!(open.unacknowledged, 0);
        assert_eq!(report.latency.count, open.intended);
        assert_eq!(open.lag.count, open.intended);
        assert!(sink.stop() >= open.intended);
    }

    #[test]
    fn nobody_listens() {
        let mut plan = plan(&Sink::start(), Version::V311, LoopKind::Closed { window: 1 });
        // A privileged port that nothing uses.
        plan.address.set_port(1);
        assert!(matches!(run(&plan), Err(BenchError::Unreachable(..))));
    }

    #[test]
    fn payloads_are_as_long_as_asked() {
        assert_eq!([0, 1, 8, 127].map(|bytes| payload(bytes).len()), [0, 1, 8, 127]);
        assert_eq!(payload(20)[..16], payload(16));
    }
}
