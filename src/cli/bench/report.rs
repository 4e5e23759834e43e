//! What a run has shown, for people (Display) and for programs (JSON).
//!
//! In: the plan and the measurement. Out: text. The names of JSON fields carry their units.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::floor::Floor;
use super::hgrm;
use super::load::Part;
use super::measure::{Measurement, Percentiles, Second};
use super::plan::{LoopKind, Plan, Scenario};
use super::process::{Usage, cpu_ns_between, share_of_cpus};
use super::runs::Outcome;
use super::schedule::fell_behind;
use super::verdict::{AgainstFloor, Needs, write_floor};

/// One run.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    pub address: String,
    pub mqtt_version: String,
    pub scenario: &'static str,
    pub qos: u8,
    pub payload: &'static str,
    pub connections: u32,
    pub generator_threads: u32,
    /// Closed loop: messages in flight a connection.
    pub window: Option<u16>,
    pub payload_bytes: usize,
    /// By wall time.
    pub duration_s: f64,
    /// That came while it was measured.
    pub acknowledgements: u64,
    pub acknowledgements_per_s: f64,
    /// From the send (closed loop) or the intended send time (open loop) to the PUBACK; with QoS 0
    /// and in the idle scenario to the PINGRESP behind it.
    pub latency: Percentiles,
    /// (quantile, microseconds), for a plot.
    pub latency_curve: Vec<(f64, f64)>,
    #[serde(skip)]
    pub latencies: Histogram<u64>,
    /// By time of arrival, in runs of a second and more.
    pub seconds: Vec<Second>,
    pub open_loop: Option<OpenLoop>,
    /// PUBACKs with an error code, of the whole run.
    pub refused: u64,
    pub connections_lost: u32,
    /// The broker's Receive Maximum, where it was smaller than what the plan wanted.
    pub receive_max: Option<u16>,
    /// Of the generator's time (its busiest thread's) it had nothing to do; near 0 it is the generator that is measured.
    pub generator_idle_share: f64,
    pub acknowledgements_per_enter: f64,
    /// The host gave this much CPU time to others while the machine wanted it.
    pub steal_ms: f64,
    pub process: Option<ProcessReport>,
    /// Where a consumer read along.
    pub consumer: Option<ConsumerReport>,
    /// Where MQTT subscribers were beside it.
    pub subscriber: Option<SubscriberReport>,
    /// Who read slowly, in that scenario.
    pub slow: Option<SlowReport>,
    /// Where the floor was measured right before.
    pub floor: Option<AgainstFloor>,
    /// What to know before the figures are believed.
    pub warnings: Vec<String>,
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

/// From a message's send (closed loop) or intended send (open loop) to a Kafka consumer.
#[derive(Debug, Clone, Serialize)]
pub struct ConsumerReport {
    pub client: String,
    pub latency: Percentiles,
    /// (quantile, microseconds), for a plot.
    pub latency_curve: Vec<(f64, f64)>,
    /// Open loop: messages meant for the measured time that it has not seen, at the least.
    pub unread: Option<u64>,
}

/// From a message's send (closed loop) or intended send (open loop) to its receipt by MQTT
/// subscribers.
#[derive(Debug, Clone, Serialize)]
pub struct SubscriberReport {
    pub subscribers: u32,
    pub messages_per_s: f64,
    pub latency: Percentiles,
    /// (quantile, microseconds), for a plot.
    pub latency_curve: Vec<(f64, f64)>,
    /// Open loop: messages for all subscribers together, meant for the measured time and never
    /// received.
    pub unreceived: Option<u64>,
    /// Subscribers whose connection broke.
    pub lost: u32,
}

/// A reader that takes 4 KiB and rests for 100 ms, over and over, all the while.
#[derive(Debug, Clone, Serialize)]
pub struct SlowReport {
    pub client: &'static str,
    pub messages: u64,
    pub closed_by_broker: bool,
}

impl SlowReport {
    /// Of a Kafka consumer.
    pub fn of_consumer(messages: u64) -> Self {
        Self { client: "Kafka consumer", messages, closed_by_broker: false }
    }

    /// Of an MQTT subscriber that has seen nothing yet.
    pub fn of_subscriber() -> Self {
        Self { client: "MQTT subscriber", messages: 0, closed_by_broker: false }
    }
}

impl SubscriberReport {
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.lost > 0 {
            warnings.push(format!("{} of {} subscribers broke", self.lost, self.subscribers));
        }
        if let Some(count @ 1..) = self.unreceived {
            warnings.push(format!(
                "subscribers have not received {count} messages: the broker dropped them, or was \
                 too slow to be waited for"
            ));
        }
        warnings
    }
}

/// The process under test.
#[derive(Debug, Clone, Serialize)]
pub struct ProcessReport {
    pub cpu_ns_per_message: f64,
    /// 1.0: one core was busy all the time.
    pub cpu_cores: f64,
    pub rss_bytes: u64,
    pub rss_peak_bytes: u64,
    /// Before the first of the connections; 0: not known.
    pub rss_before_bytes: u64,
    /// What a connection that does nothing adds (idle and connect-storm only).
    pub rss_bytes_a_connection: Option<f64>,
}

impl ProcessReport {
    pub fn new(cpu_ns: u64, wall_ns: u64, messages: u64, after: &Usage) -> Self {
        Self {
            cpu_ns_per_message: cpu_ns as f64 / messages.max(1) as f64,
            cpu_cores: cpu_ns as f64 / wall_ns.max(1) as f64,
            rss_bytes: after.rss_bytes,
            rss_peak_bytes: after.rss_peak_bytes,
            rss_before_bytes: 0,
            rss_bytes_a_connection: None,
        }
    }

    /// With what the plan's connections have added to the memory.
    pub fn grown_from(mut self, rss_before_bytes: u64, plan: &Plan) -> Self {
        self.rss_before_bytes = rss_before_bytes;
        if matches!(plan.scenario, Scenario::Idle | Scenario::ConnectStorm) {
            let grown = self.rss_bytes.saturating_sub(rss_before_bytes);
            self.rss_bytes_a_connection = Some(grown as f64 / f64::from(plan.connections));
        }
        self
    }
}

impl fmt::Display for ProcessReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            f,
            "{:.0} ns CPU a message, {:.2} cores, {:.1} MiB resident (peak {:.1})",
            self.cpu_ns_per_message,
            self.cpu_cores,
            mebibytes(self.rss_bytes),
            mebibytes(self.rss_peak_bytes)
        )?;
        if let Some(bytes) = self.rss_bytes_a_connection {
            write!(
                f,
                ", {:.1} KiB a connection over {:.1} MiB before",
                bytes / 1024.0,
                mebibytes(self.rss_before_bytes)
            )?;
        }
        Ok(())
    }
}

impl Report {
    /// What the measurement itself knows.
    fn new(plan: &Plan, measurement: &Measurement, duration_s: f64) -> Self {
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
            scenario: plan.scenario.name(),
            qos: plan.qos,
            payload: plan.payload.name(),
            connections: plan.connections,
            generator_threads: plan.threads(),
            window,
            payload_bytes: plan.payload_bytes,
            duration_s,
            acknowledgements: measurement.arrived,
            acknowledgements_per_s: measurement.arrived as f64 / duration_s.max(1e-9),
            latency: Percentiles::of(measurement.latency()),
            latency_curve: hgrm::curve(measurement.latency()),
            latencies: measurement.latency().clone(),
            seconds: measurement.seconds().to_vec(),
            open_loop,
            refused: measurement.refused,
            connections_lost: 0,
            receive_max: None,
            generator_idle_share: 0.0,
            acknowledgements_per_enter: 0.0,
            steal_ms: 0.0,
            process: None,
            consumer: None,
            subscriber: None,
            slow: None,
            floor: None,
            warnings: Vec::new(),
        }
    }

    /// With what a consumer has read of it.
    pub fn consumed(&mut self, client: String, latencies: &Histogram<u64>) {
        let intended = self.open_loop.as_ref().map(|open| open.intended);
        self.consumer = Some(ConsumerReport {
            client,
            latency: Percentiles::of(latencies),
            latency_curve: hgrm::curve(latencies),
            unread: intended.map(|intended| intended.saturating_sub(latencies.len())),
        });
    }

    fn received(&mut self, plan: &Plan, received: &Measurement, lost: u32) {
        let open = self.open_loop.is_some();
        self.subscriber = Some(SubscriberReport {
            subscribers: plan.subscribers,
            messages_per_s: received.arrived as f64 / self.duration_s.max(1e-9),
            latency: Percentiles::of(received.latency()),
            latency_curve: hgrm::curve(received.latency()),
            unreceived: open.then(|| received.intended.saturating_sub(received.answered)),
            lost,
        });
    }

    /// Of all threads together; there is one at least.
    pub fn of_parts(plan: &Plan, parts: Vec<Part>, rss_before_bytes: u64) -> Self {
        let wall_ns = parts.iter().map(|part| part.wall_ns).max().unwrap_or(0).max(1);
        let enters = parts.iter().map(|part| part.enters).sum::<u64>();
        let idle = parts.iter().map(|part| part.idle_ns as f64 / part.wall_ns.max(1) as f64);
        let idle_share = idle.fold(1.0, f64::min);
        let lost = parts.iter().map(|part| part.connections_lost).sum();
        let subscribers_lost = parts.iter().map(|part| part.subscribers_lost).sum();
        let receive_max = parts.iter().filter_map(|part| part.receive_max).min();
        let steal_ns = parts.iter().map(|part| part.steal_ns).max().unwrap_or(0);
        let mut parts = parts.into_iter();
        let Part { mut measurement, usage, mut received, .. } = parts.next().unwrap_or_default();
        for part in parts {
            measurement.add(&part.measurement);
            received.as_mut().zip(part.received).into_iter().for_each(|(all, more)| all.add(&more));
        }
        let arrived = measurement.arrived;
        let mut report = Self::new(plan, &measurement, wall_ns as f64 / 1e9);
        report.connections_lost = lost;
        received.iter().for_each(|received| report.received(plan, received, subscribers_lost));
        report.receive_max = receive_max;
        report.generator_idle_share = idle_share;
        report.acknowledgements_per_enter = arrived as f64 / enters.max(1) as f64;
        report.steal_ms = steal_ns as f64 / 1e6;
        report.process = usage.map(|(before, after)| {
            let cpu_ns = cpu_ns_between(&before, &after);
            ProcessReport::new(cpu_ns, wall_ns, arrived, &after).grown_from(rss_before_bytes, plan)
        });
        report
    }

    /// Next to a floor that was measured right before, and with what to know about it all.
    pub fn against(mut self, floor: Option<Floor>) -> Self {
        let pings = self.qos == 0 || self.scenario == Scenario::Idle.name();
        let needs = if pings { Needs::RoundTrip } else { Needs::WriteAndFlush };
        let steal = steal_share(self.steal_ms, self.duration_s);
        self.floor = floor.map(|floor| AgainstFloor::new(floor, needs, &self.latency, steal));
        self.warnings = self.found();
        self
    }

    fn found(&self) -> Vec<String> {
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
        warnings.extend(stolen(self.steal_ms, self.duration_s));
        let unread = self.consumer.as_ref().and_then(|consumer| consumer.unread).unwrap_or(0);
        if unread > 0 {
            warnings.push(format!("the consumer has not seen {unread} messages"));
        }
        if let Some(subscriber) = &self.subscriber {
            warnings.extend(subscriber.warnings());
        }
        warnings.extend(too_noisy(self.floor.as_ref()));
        warnings
    }
}

impl Outcome for Report {
    fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    fn is_whole(&self) -> bool {
        let unacknowledged = self.open_loop.as_ref().map_or(0, |open| open.unacknowledged);
        let received = |it: &SubscriberReport| it.lost == 0 && it.unreceived.unwrap_or(0) == 0;
        self.connections_lost == 0
            && self.refused == 0
            && unacknowledged == 0
            && self.subscriber.as_ref().is_none_or(received)
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, MQTT {}, {}, ", self.address, self.mqtt_version, self.scenario)?;
        if self.scenario != Scenario::Idle.name() {
            write!(f, "QoS {}, {} bytes {}, ", self.qos, self.payload_bytes, self.payload)?;
        }
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
        writeln!(f, ", {:.1} s", self.duration_s)?;
        writeln!(f, "acknowledged   {:.0}/s", self.acknowledgements_per_s)?;
        writeln!(f, "latency        {}", self.latency)?;
        if let Some(consumer) = &self.consumer {
            writeln!(f, "to a consumer  {} ({})", consumer.latency, consumer.client)?;
        }
        if let Some(subscriber) = &self.subscriber {
            writeln!(f, "to subscribers {}", subscriber.latency)?;
            writeln!(
                f,
                "received       {:.0}/s by {} subscribers",
                subscriber.messages_per_s, subscriber.subscribers
            )?;
        }
        if let Some(slow) = &self.slow {
            let closed = if slow.closed_by_broker { ", until the broker closed it" } else { "" };
            writeln!(
                f,
                "slow reader    took {} messages ({}){closed}",
                slow.messages, slow.client
            )?;
        }
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
            writeln!(f, "process        {process}")?;
        }
        write_floor(f, self.floor.as_ref())?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "WARNING: {warning}"))
    }
}

/// Of all CPUs' time.
pub fn steal_share(steal_ms: f64, duration_s: f64) -> f64 {
    share_of_cpus((steal_ms * 1e6) as u64, (duration_s * 1e9) as u64)
}

/// What a floor says of the machine, where that is bad.
pub fn too_noisy(floor: Option<&AgainstFloor>) -> Option<String> {
    floor.map(|floor| &floor.noise).filter(|noise| noise.too_noisy).map(ToString::to_string)
}

/// Told where it was more than a hundredth.
pub fn stolen(steal_ms: f64, duration_s: f64) -> Option<String> {
    (steal_ms > 1e3 * duration_s * 0.01)
        .then(|| format!("the host took {steal_ms:.0} ms of CPU time away"))
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
