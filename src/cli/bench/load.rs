//! The load generator on one thread: one socket ring, polling.
//!
//! In: a [`Plan`] and the thread's share of its connections. Out: a [`Part`]. Runs on the calling thread, which never sleeps while it
//! measures: what it measures must not wait for it. Bookkeeping is [`Connection`] and
//! [`Measurement`]; here are the sockets, the clock and the phases. The invariant: a turn of the
//! loop allocates nothing. Absent: other threads (`threads` joins them), retries, reconnects (a connection that breaks is
//! counted as lost).

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use super::BenchError;
use super::connecting::Connects;
use super::connection::{Connection, Content, PING, Pace};
use super::measure::{CountBy, Measurement};
use super::payload::Payloads;
use super::plan::{LoopKind, Plan, Scenario};
use super::process;
use super::schedule::Due;
use super::storm::StormReport;
use super::subscribe::{SUBSCRIBER_BIT, Subscribers};
use super::threads::Share;
use super::wire::{self, ConnectReply, Malformed, PublishHead, packet};
use crate::driver::socket_ring::{Completion, Options, SlotId, SocketRing, Wait};

pub const BUFFER_GROUP: u16 = 0;
const SEND_BIT: u64 = 1 << 32;
/// At most so much in one send.
const SEND_BYTES_MAX: usize = 64 << 10;

/// Opens the plan's connections and nothing more.
///
/// # Errors
/// Those of [`threads::run`](super::threads::run).
pub fn storm(plan: &Plan) -> Result<StormReport, BenchError> {
    Load::new(plan, Share::WHOLE, None)?.storm()
}

/// What a thread has measured.
#[derive(Debug, Default)]
pub struct Part {
    pub measurement: Measurement,
    /// What its subscribers received.
    pub received: Option<Measurement>,
    pub subscribers_lost: u32,
    pub connections_lost: u32,
    pub receive_max: Option<u16>,
    pub wall_ns: u64,
    /// Of which it had nothing to do.
    pub idle_ns: u64,
    pub enters: u64,
    /// All CPUs together, meanwhile.
    pub steal_ns: u64,
    /// Of the process under test, at both ends.
    pub usage: Option<(process::Usage, process::Usage)>,
}

/// The state of a generator's thread. Its connections have indexes of their own.
pub struct Load<'a> {
    pub(super) plan: &'a Plan,
    pub(super) share: Share,
    pub(super) ring: SocketRing,
    pub(super) sockets: Vec<TcpStream>,
    connections: Vec<Connection>,
    pub(super) slots: Vec<SlotId>,
    /// Connections that may have something to send.
    listed: Vec<u32>,
    listed_before: Vec<u32>,
    due: Option<Due>,
    measurement: Measurement,
    pub(super) subscribers: Option<Subscribers>,
    clock: Instant,
    pub(super) connects: Connects,
    pub(super) lost: u32,
    receive_max: Option<u16>,
    idle_ns: u64,
    enters: u64,
}

impl<'a> Load<'a> {
    /// With the connections of its share, none of them open. Payloads carry `tag` for a consumer.
    ///
    /// # Errors
    /// When the ring cannot be made.
    pub fn new(plan: &'a Plan, share: Share, tag: Option<u64>) -> Result<Self, BenchError> {
        let own = share.count(plan.connections);
        let count = own as usize;
        let sockets = own + share.count(plan.subscribers);
        let options = Options { entries: 4096, cq_entries: (4 * sockets).max(8192) };
        let mut ring = SocketRing::new(options).map_err(BenchError::Ring)?;
        ring.add_buffers(BUFFER_GROUP, 512, 2048).map_err(BenchError::Ring)?;
        let (in_flight_max, schedule) = match plan.loop_kind {
            LoopKind::Closed { window } => (window, None),
            LoopKind::Open { in_flight_max, .. } => (in_flight_max, plan.schedule()),
        };
        let pace = schedule.map_or(Pace::Window, Pace::Schedule);
        let count_by = if schedule.is_some() { CountBy::Intention } else { CountBy::Arrival };
        let payloads = Arc::new(Payloads::new(plan.payload, plan.payload_bytes));
        let mut connections = Vec::with_capacity(count);
        let mut slots = Vec::with_capacity(count);
        for index in (0..own).map(|index| share.global(index)) {
            let content = content(plan, index, &payloads);
            let one = content.message_bytes();
            let all = one * usize::from(in_flight_max);
            slots.push(ring.add_send_slot(all.min(SEND_BYTES_MAX).max(one) + PING.len()));
            let connection = Connection::new(u64::from(index), pace, content, in_flight_max);
            connections.push(connection.stamped(tag));
        }
        let measurement = || Measurement::new(count_by, plan.duration.as_secs());
        let subscribing = tag.filter(|_| plan.subscribers > 0);
        let subscribers = subscribing.map(|tag| Subscribers::new(plan, tag, measurement()));
        Ok(Self {
            plan,
            share,
            ring,
            sockets: Vec::with_capacity(count),
            connections,
            slots,
            listed: Vec::with_capacity(count),
            listed_before: Vec::with_capacity(count),
            due: schedule.map(Due::new),
            measurement: measurement(),
            subscribers,
            clock: Instant::now(),
            connects: Connects::with_capacity(count),
            lost: 0,
            receive_max: None,
            idle_ns: 0,
            enters: 0,
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.elapsed().as_nanos() as u64
    }

    /// Load and measurement; the schedule's time begins at `begin`.
    ///
    /// # Errors
    /// When the ring fails, every connection broke, or the process under test is gone.
    pub fn measure(mut self, begin: Instant) -> Result<Part, BenchError> {
        self.clock = begin;
        if self.due.is_none() {
            (0..self.connections.len() as u32).for_each(|index| self.list(index));
        }
        // The same for every thread, and known before anything is due: what a thread's subscribers
        // wait for is what the other threads send.
        let start_ns = self.plan.warmup.as_nanos() as u64;
        let end_ns = start_ns + self.plan.duration.as_nanos() as u64;
        self.counts().for_each(|counts| counts.open(start_ns, end_ns));
        self.turn_until(start_ns)?;

        let (before, steal_before) = (self.process_usage()?, process::steal_ns());
        let (enters, idle_ns) = (self.enters, self.idle_ns);
        self.counts().for_each(Measurement::begin);
        self.turn_until(end_ns)?;
        let ended_ns = self.now_ns();
        let (after, steal_after) = (self.process_usage()?, process::steal_ns());
        let (enters, idle_ns) = (self.enters - enters, self.idle_ns - idle_ns);

        if self.due.is_some() {
            self.drain(end_ns, ended_ns + self.plan.drain.as_nanos() as u64)?;
        } else {
            self.counts().for_each(|counts| counts.close(ended_ns));
        }
        let mut part = self.part();
        part.wall_ns = ended_ns - start_ns;
        part.idle_ns = idle_ns;
        part.enters = enters;
        part.steal_ns = steal_after - steal_before;
        part.usage = before.zip(after);
        Ok(part)
    }

    /// What is counted: acknowledgements, and what subscribers receive.
    fn counts(&mut self) -> impl Iterator<Item = &mut Measurement> {
        let received = self.subscribers.as_mut().map(|all| &mut all.received);
        std::iter::once(&mut self.measurement).chain(received)
    }

    /// What was counted, with what is still without an acknowledgement.
    fn part(&mut self) -> Part {
        let now_ns = self.now_ns();
        for connection in &self.connections {
            connection
                .unacknowledged()
                .for_each(|origin_ns| self.measurement.never_acknowledged(origin_ns, now_ns));
        }
        let subscribers = self.subscribers.as_mut();
        Part {
            subscribers_lost: subscribers.as_ref().map_or(0, |all| all.lost),
            received: subscribers.map(|all| std::mem::take(&mut all.received)),
            measurement: std::mem::take(&mut self.measurement),
            connections_lost: self.lost,
            receive_max: self.receive_max,
            ..Part::default()
        }
    }

    pub(super) fn process_usage(&self) -> Result<Option<process::Usage>, BenchError> {
        let Some(pid) = self.plan.process else { return Ok(None) };
        process::usage(pid).map(Some).map_err(|error| BenchError::Process(pid, error))
    }

    fn turn_until(&mut self, end_ns: u64) -> Result<(), BenchError> {
        const SECOND_NS: u64 = 1_000_000_000;
        let mut now_ns = self.now_ns();
        // Whole seconds that end where the window does.
        let seconds = (end_ns.saturating_sub(now_ns) + SECOND_NS / 2) / SECOND_NS;
        let mut line_ns = match seconds {
            0 => u64::MAX,
            seconds => end_ns - (seconds - 1) * SECOND_NS,
        };
        while now_ns < end_ns {
            let worked = self.turn(now_ns, end_ns)?;
            let next_ns = self.now_ns();
            if !worked {
                self.idle_ns += next_ns - now_ns;
            }
            now_ns = next_ns;
            if now_ns >= line_ns {
                self.progress(now_ns);
                line_ns += SECOND_NS;
                if self.lost as usize == self.connections.len() {
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
            let seen = self.subscribers.as_ref().is_none_or(|all| all.received.is_complete());
            if self.measurement.is_complete() && seen || now_ns > deadline_ns {
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
        self.send_pubacks();
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
        while let Some((connection, intended_ns)) = due.next(now_ns) {
            let own = self.share.local(connection as u32);
            if let Some(subscribers) = &mut self.subscribers {
                subscribers.message_due(intended_ns, own.is_some());
            }
            let Some(index) = own else { continue };
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
    pub(super) fn send(&mut self, index: u32) {
        self.connections[index as usize].sending = true;
        let fd = self.sockets[index as usize].as_raw_fd();
        self.ring.send_slot(fd, self.slots[index as usize], SEND_BIT | u64::from(index));
    }

    pub(super) fn receive(&mut self, index: u32) {
        let fd = self.sockets[index as usize].as_raw_fd();
        self.ring.recv_multishot(fd, BUFFER_GROUP, u64::from(index));
    }

    #[inline]
    pub(super) fn take_completions(&mut self) {
        let now_ns = self.now_ns();
        while let Some(completion) = self.ring.next_completion() {
            let index = completion.user_data as u32;
            if completion.user_data & SUBSCRIBER_BIT != 0 {
                self.subscriber_completed(completion, now_ns);
                continue;
            }
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
                Ok(())
            }
            packet::CONNACK if !connection.accepted => {
                let ConnectReply { code, receive_max, .. } =
                    wire::connect_reply(self.plan.version, body)?;
                if code != 0 {
                    self.connects.refused_code = Some(code);
                    return Ok(());
                }
                if usize::from(receive_max) < connection.in_flight_max() {
                    connection.limit_in_flight(receive_max);
                    self.receive_max = Some(receive_max);
                }
                connection.accepted = true;
                self.connects.accept(index, now_ns);
                Ok(())
            }
            packet::PINGRESP => {
                let measurement = &mut self.measurement;
                connection.read_by_broker(now_ns, |origin_ns| {
                    measurement.acknowledged(origin_ns, now_ns);
                });
                Ok(())
            }
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
    fn progress(&mut self, now_ns: u64) {
        let second = self.measurement.second_over(now_ns);
        if self.plan.progress {
            let in_flight: u64 = self.connections.iter().map(|c| u64::from(c.in_flight())).sum();
            let thread = match self.share.threads {
                1 => String::new(),
                _ => format!("core {}: ", self.plan.cores[self.share.thread as usize]),
            };
            eprintln!(
                "{thread}{:5.0} s {:>9} acks/s  {in_flight:>6} in flight  p99 {:.1}  longest {:.1} ms",
                now_ns as f64 / 1e9,
                second.acknowledgements,
                second.p99_us / 1e3,
                second.max_us / 1e3
            );
        }
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

fn content(plan: &Plan, index: u32, payloads: &Arc<Payloads>) -> Content {
    if plan.scenario == Scenario::Idle {
        return Content::KeepAlive;
    }
    let topic = plan.topic.replace("{client}", &plan.client_id(index));
    let head = PublishHead::new(plan.version, plan.qos, &topic, payloads.bytes_each());
    let payloads = Arc::clone(payloads);
    match plan.qos {
        0 => Content::Unacknowledged(head, payloads),
        _ => Content::Acknowledged(head, payloads),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::null_sink::tests::Sink;
    use super::super::payload::Kind;
    use super::super::plan::pings_per_s;
    use super::super::runs::Outcome;
    use super::super::threads::run;
    use super::super::wire::Version;
    use super::*;

    fn plan(sink: &Sink, version: Version, loop_kind: LoopKind) -> Plan {
        Plan {
            address: sink.address,
            version,
            scenario: Scenario::FanIn,
            connections: 7,
            loop_kind,
            qos: 1,
            payload: Kind::Random,
            payload_bytes: 128,
            topic: "bench/{client}".to_owned(),
            client_prefix: "c".to_owned(),
            warmup: Duration::from_millis(20),
            duration: Duration::from_millis(100),
            drain: Duration::from_secs(5),
            process: Some(std::process::id()),
            cores: Vec::new(),
            consume: None,
            subscribers: 0,
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
    fn threads_share_one_schedule() {
        let sink = Sink::start();
        let loop_kind = LoopKind::Open { rate_per_s: 5_000, in_flight_max: 100 };
        // Two threads on the same core, for machines that have one.
        let plan = Plan { cores: vec![0, 0], ..plan(&sink, Version::V5, loop_kind) };
        let report = run(&plan).unwrap();
        assert!(report.is_whole());
        let open = report.open_loop.unwrap();
        assert!((499..=501).contains(&open.intended), "{}", open.intended);
        assert_eq!((report.latency.count, open.lag.count), (open.intended, open.intended));
        let nowhere = Plan { cores: vec![0, 99_999], ..plan };
        assert!(matches!(run(&nowhere), Err(BenchError::Pin(99_999))));
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
    fn without_acknowledgements_all_that_was_due_is_read_by_the_broker() {
        for version in [Version::V311, Version::V5] {
            let sink = Sink::start();
            let loop_kind = LoopKind::Open { rate_per_s: 5_000, in_flight_max: 100 };
            let mut plan = plan(&sink, version, loop_kind);
            (plan.qos, plan.payload, plan.scenario) = (0, Kind::Json, Scenario::Skew);
            let report = run(&plan).unwrap();
            let open = report.open_loop.unwrap();
            assert!((499..=501).contains(&open.intended), "{}", open.intended);
            assert_eq!((open.unacknowledged, report.latency.count), (0, open.intended));
            assert!(sink.stop() >= open.intended);
        }
    }

    #[test]
    fn idle_connections_ping_and_publish_nothing() {
        let sink = Sink::start();
        let loop_kind = LoopKind::Open { rate_per_s: pings_per_s(7) * 100, in_flight_max: 1 };
        let mut plan = plan(&sink, Version::V5, loop_kind);
        plan.scenario = Scenario::Idle;
        let report = run(&plan).unwrap();
        assert_eq!(report.open_loop.unwrap().unacknowledged, 0);
        assert!(report.latency.count > 0);
        assert!(report.process.unwrap().rss_bytes_a_connection.is_some());
        assert_eq!(sink.stop(), 0);
    }

    #[test]
    fn a_storm_is_every_connection_once() {
        let rate = LoopKind::Open { rate_per_s: 10_000, in_flight_max: 1 };
        for loop_kind in [LoopKind::Closed { window: 2 }, rate] {
            let sink = Sink::start();
            let mut plan = plan(&sink, Version::V311, loop_kind);
            (plan.scenario, plan.connections) = (Scenario::ConnectStorm, 50);
            let report = storm(&plan).unwrap();
            assert_eq!((report.latency.count, report.tcp.count), (50, 50));
            assert!(report.connects_per_s > 0.0 && report.process.is_some());
            assert!(report.to_string().contains("floor          not measured"));
        }
    }
}
