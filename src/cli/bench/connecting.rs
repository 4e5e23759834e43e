//! Connections opened, all at once or at a rate, and how long each waited to be accepted.
//!
//! In: a plan. Out: accepted connections, and the times from TCP connect (or, at a rate, from the
//! intended time) to CONNACK. Runs on the generator's thread. TCP's own handshake is waited for one
//! connection after the other: over loopback that is some 20 µs, over a network a round trip, which
//! then limits the rate. The invariant: `begun` counts the connections that exist.

use std::net::TcpStream;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::BenchError;
use super::load::Load;
use super::measure::{Percentiles, histogram};
use super::plan::{LoopKind, Scenario};
use super::process;
use super::schedule::Due;
use super::storm::{StormReport, StormTimes};
use super::wire;
use crate::driver::socket_ring::Wait;

pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts under way at once, where it is not the attempts that are measured.
const ATTEMPTS_MAX: u32 = 256;

/// The accounting of connects.
#[derive(Debug)]
pub struct Connects {
    /// By connection: what its time counts from.
    origins: Vec<u64>,
    tcp: Histogram<u64>,
    latency: Histogram<u64>,
    pub accepted: u32,
    pub refused_code: Option<u8>,
}

impl Connects {
    pub fn with_capacity(connections: usize) -> Self {
        let origins = Vec::with_capacity(connections);
        Self { origins, tcp: histogram(), latency: histogram(), accepted: 0, refused_code: None }
    }

    fn begun(&self) -> u32 {
        self.origins.len() as u32
    }

    /// The CONNACK of a connection came.
    pub fn accept(&mut self, index: u32, now_ns: u64) {
        self.accepted += 1;
        self.latency.saturating_record(now_ns.saturating_sub(self.origins[index as usize]));
    }
}

impl Load<'_> {
    /// Opens every connection and waits until the broker has accepted all.
    pub fn connect(&mut self) -> Result<(), BenchError> {
        let storm = self.plan.scenario == Scenario::ConnectStorm;
        let wanted = self.share.count(self.plan.connections);
        let (mut due, attempts_max) = match self.plan.loop_kind {
            LoopKind::Open { .. } if storm => (self.plan.schedule().map(Due::new), u32::MAX),
            LoopKind::Closed { window } if storm => (None, u32::from(window)),
            _ => (None, ATTEMPTS_MAX),
        };
        let mut heard = (self.connects.accepted, self.now_ns());
        while self.connects.accepted < wanted {
            let now_ns = self.now_ns();
            let begun = self.connects.begun();
            let more = begun < wanted && begun - self.connects.accepted < attempts_max;
            let origin_ns = match &mut due {
                _ if !more => None,
                Some(due) => due.next(now_ns).map(|(_, intended_ns)| intended_ns),
                None => Some(now_ns),
            };
            if let Some(origin_ns) = origin_ns {
                self.attempt(begun, origin_ns)?;
            }
            // Whoever has nothing to begin and no schedule to keep may sleep.
            let wait = if more { Wait::No } else { Wait::For { count: 1, timeout: SOON } };
            self.ring.enter(wait).map_err(BenchError::Ring)?;
            self.take_completions();
            if heard.0 != self.connects.accepted || more && due.is_some() {
                heard = (self.connects.accepted, now_ns);
            }
            self.check_connecting(now_ns - heard.1)?;
        }
        Ok(())
    }

    fn attempt(&mut self, index: u32, origin_ns: u64) -> Result<(), BenchError> {
        let begun_ns = self.now_ns();
        let socket = TcpStream::connect_timeout(&self.plan.address, CONNECT_TIMEOUT)
            .and_then(|socket| socket.set_nodelay(true).map(|()| socket))
            .map_err(|error| BenchError::Unreachable(self.plan.address, error))?;
        self.connects.tcp.saturating_record(self.now_ns() - begun_ns);
        self.sockets.push(socket);
        self.connects.origins.push(origin_ns);
        let client_id = self.plan.client_id(self.share.global(index));
        let hello = wire::connect(self.plan.version, &client_id, self.plan.keep_alive_s());
        if let Some(bytes) = self.ring.slot_mut(self.slots[index as usize]) {
            bytes.clear();
            bytes.extend_from_slice(&hello);
        }
        self.send(index);
        self.receive(index);
        Ok(())
    }

    fn check_connecting(&self, silent_ns: u64) -> Result<(), BenchError> {
        if let Some(code) = self.connects.refused_code {
            return Err(BenchError::Refused(code));
        }
        if self.lost > 0 || u128::from(silent_ns) > CONNECT_TIMEOUT.as_nanos() {
            return Err(BenchError::NotAccepted {
                accepted: self.connects.accepted,
                wanted: self.share.count(self.plan.connections),
                lost: self.lost,
            });
        }
        Ok(())
    }

    /// Connects and reports it.
    pub fn storm(mut self) -> Result<StormReport, BenchError> {
        let (usage_before, steal_before) = (self.process_usage()?, process::steal_ns());
        let begun_ns = self.now_ns();
        self.connect()?;
        let times = StormTimes {
            histogram: self.connects.latency.clone(),
            duration_ns: self.now_ns() - begun_ns,
            steal_ns: process::steal_ns() - steal_before,
            tcp: Percentiles::of(&self.connects.tcp),
        };
        let usage = usage_before.zip(self.process_usage()?);
        Ok(StormReport::new(self.plan, &times, usage.as_ref()))
    }
}

const SOON: Option<Duration> = Some(Duration::from_millis(100));
