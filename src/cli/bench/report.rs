//! What a run has shown, for people (Display) and for programs (JSON).
//!
//! In: the plan and the measurement. Out: text. The names of JSON fields carry their units.

use std::fmt;

use serde::Serialize;

use super::load::{LoopKind, Plan};
use super::measure::{Measurement, Percentiles};
use super::process::Usage;
use super::schedule::fell_behind;

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub address: String,
    pub mqtt_version: String,
    pub connections: u32,
    /// Closed loop: messages in flight a connection.
    pub window: Option<u16>,
    pub payload_bytes: usize,
    /// By wall time.
    pub duration_s: f64,
    /// That came while it was measured.
    pub acknowledgements: u64,
    pub acknowledgements_per_s: f64,
    /// From the send (closed loop) or the intended send time (open loop) to the PUBACK.
    pub latency: Percentiles,
    pub open_loop: Option<OpenLoop>,
    /// PUBACKs with an error code, of the whole run.
    pub refused: u64,
    pub connections_lost: u32,
    /// The broker's Receive Maximum, where it was smaller than what the plan wanted.
    pub receive_max: Option<u16>,
    /// Of the generator's time it had nothing to do; near 0 it is the generator that is measured.
    pub generator_idle_share: f64,
    pub acknowledgements_per_enter: f64,
    /// The host gave this much CPU time to others while the machine wanted it.
    pub steal_ms: f64,
    pub process: Option<ProcessReport>,
}

/// What only the open loop has.
#[derive(Debug, Clone, Serialize)]
pub struct OpenLoop {
    pub rate_per_s: u64,
    /// Messages meant for the measured time.
    pub intended: u64,
    /// Of these, without an acknowledgement when the run ended; in the latencies with the time
    /// that they had waited.
    pub unacknowledged: u64,
    /// How long messages that could have been sent waited for the generator (it is part of the
    /// latency).
    pub lag: Percentiles,
    pub generator_fell_behind: bool,
}

/// The process under test.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessReport {
    pub cpu_ns_per_message: f64,
    /// 1.0: one core was busy all the time.
    pub cpu_cores: f64,
    pub rss_bytes: u64,
    pub rss_peak_bytes: u64,
}

impl ProcessReport {
    pub fn new(cpu_ns: u64, wall_ns: u64, messages: u64, after: &Usage) -> Self {
        Self {
            cpu_ns_per_message: cpu_ns as f64 / messages.max(1) as f64,
            cpu_cores: cpu_ns as f64 / wall_ns.max(1) as f64,
            rss_bytes: after.rss_bytes,
            rss_peak_bytes: after.rss_peak_bytes,
        }
    }
}

impl Report {
    /// What the measurement itself knows; the load generator adds the rest.
    pub fn new(plan: &Plan, measurement: &Measurement, duration_s: f64) -> Self {
        let lag = measurement.lag();
        let (window, open_loop) = match plan.loop_kind {
            LoopKind::Closed { window } => (Some(window), None),
            LoopKind::Open { rate_per_s, .. } => {
                let behind = fell_behind((lag.p99_us * 1e3) as u64, (lag.p999_us * 1e3) as u64);
                let open_loop = OpenLoop {
                    rate_per_s,
                    intended: measurement.intended,
                    unacknowledged: measurement.unacknowledged,
                    lag,
                    generator_fell_behind: behind,
                };
                (None, Some(open_loop))
            }
        };
        Self {
            address: plan.address.to_string(),
            mqtt_version: plan.version.to_string(),
            connections: plan.connections,
            window,
            payload_bytes: plan.payload_bytes,
            duration_s,
            acknowledgements: measurement.arrived,
            acknowledgements_per_s: measurement.arrived as f64 / duration_s.max(1e-9),
            latency: measurement.latency(),
            open_loop,
            refused: measurement.refused,
            connections_lost: 0,
            receive_max: None,
            generator_idle_share: 0.0,
            acknowledgements_per_enter: 0.0,
            steal_ms: 0.0,
            process: None,
        }
    }

    /// Whether the figures say what they seem to say; otherwise what to know first.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.connections_lost > 0 {
            warnings.push(format!(
                "{} of {} connections broke during the run",
                self.connections_lost, self.connections
            ));
        }
        if self.refused > 0 {
            warnings.push(format!("the broker refused {} messages", self.refused));
        }
        if let Some(max) = self.receive_max {
            warnings
                .push(format!("the broker's Receive Maximum of {max} limited what is in flight"));
        }
        if let Some(open) = &self.open_loop {
            if open.unacknowledged > 0 {
                warnings.push(format!(
                    "{} of {} messages were not acknowledged by the end",
                    open.unacknowledged, open.intended
                ));
            }
            if open.generator_fell_behind {
                warnings.push(format!(
                    "the generator itself fell behind (send lag p99 {:.0} µs, p99.9 {:.0} µs): the \
                     latencies are not the broker's alone",
                    open.lag.p99_us, open.lag.p999_us
                ));
            }
        } else if self.generator_idle_share < 0.02 {
            warnings.push("the generator was busy all the time: it may be the limit".to_owned());
        }
        if self.steal_ms > 1e3 * self.duration_s * 0.01 {
            warnings.push(format!("the host took {:.0} ms of CPU time away", self.steal_ms));
        }
        warnings
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, MQTT {}, QoS 1, ", self.address, self.mqtt_version)?;
        match (&self.window, &self.open_loop) {
            (_, Some(open)) => write!(
                f,
                "open loop at {}/s over {} connections",
                open.rate_per_s, self.connections
            )?,
            (window, None) => write!(
                f,
                "closed loop, {} connections × {} in flight",
                self.connections,
                window.unwrap_or(0)
            )?,
        }
        writeln!(f, ", {} bytes, {:.1} s", self.payload_bytes, self.duration_s)?;
        writeln!(f, "acknowledged   {:.0}/s", self.acknowledgements_per_s)?;
        writeln!(f, "latency        {}", self.latency)?;
        if let Some(open) = &self.open_loop {
            writeln!(f, "generator lag  {}", open.lag)?;
        }
        writeln!(
            f,
            "generator      idle {:.0} %, {:.1} acknowledgements an enter",
            self.generator_idle_share * 100.0,
            self.acknowledgements_per_enter
        )?;
        if let Some(process) = &self.process {
            writeln!(
                f,
                "process        {:.0} ns CPU a message, {:.2} cores, {:.1} MiB resident (peak {:.1})",
                process.cpu_ns_per_message,
                process.cpu_cores,
                process.rss_bytes as f64 / f64::from(1 << 20),
                process.rss_peak_bytes as f64 / f64::from(1 << 20)
            )?;
        }
        self.warnings().iter().try_for_each(|warning| writeln!(f, "WARNING: {warning}"))
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.1}  p90 {:.1}  p99 {:.1}  p99.9 {:.1}  p99.99 {:.1}  max {:.1} µs",
            self.p50_us, self.p90_us, self.p99_us, self.p999_us, self.p9999_us, self.max_us
        )
    }
}
