//! The metrics by name: one table from what the shards publish to what Prometheus reads.
//!
//! docs/metrics.md lists them for the operator; a test compares the two.

use std::time::SystemTime;

use super::process::Process;
use super::text::{Kind, Samples};
use crate::observe::{
    ByLabel, Counter, Distribution, Gauge, Label, QUANTILES, Registry, RuleMetrics, ShardMetrics,
    Station, StreamMetrics, TableMetrics, WayMetrics,
};

const NS: f64 = 1e-9;

/// What a scrape reads.
struct Source<'a> {
    registry: &'a Registry,
    process: Process,
}

struct Metric {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    samples: fn(&Source<'_>, &mut Samples<'_>),
}

macro_rules! metrics {
    ($($kind:ident $name:literal $help:literal $samples:expr;)+) => {
        &[$(Metric { name: $name, kind: Kind::$kind, help: $help, samples: $samples }),+]
    };
}

/// Every metric's name with its type, in the order of /metrics.
pub fn metric_names() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLES.iter().copied().flatten().map(|metric| (metric.name, metric.kind.name()))
}

/// All metrics in the text format.
pub(super) fn render(registry: &Registry) -> String {
    let source = Source { registry, process: Process::read() };
    let mut text = String::with_capacity(64 * 1024);
    for metric in TABLES.iter().copied().flatten() {
        let mut samples = Samples::begin(&mut text, metric.name, metric.kind, metric.help);
        (metric.samples)(&source, &mut samples);
    }
    text
}

static TABLES: [&[Metric]; 10] =
    [ENGINE, MQTT, LOG, KAFKA, RING, LOOP, STREAM, RULE, LOOKUP, PROCESS];

#[rustfmt::skip]
static ENGINE: &[Metric] = metrics! {
    Gauge "tidegate_info" "Version of the program, always 1."
        |s, out| out.value(&[("version", &s.registry.info().version)], 1);
    Gauge "tidegate_ready" "1 once every shard accepts connections."
        |s, out| out.value(&[], u8::from(s.registry.readiness().is_ok()));
    Gauge "tidegate_healthy" "0 while a shard cannot commit."
        |s, out| out.value(&[], u8::from(s.registry.health().is_ok()));
    Gauge "tidegate_shard_state" "What the shard is doing; 1 with the label of the state."
        |s, out| shards(s, |shard, m| {
            out.value(&[("shard", &shard), ("state", &m.state().name().replace(' ', "_"))], 1);
        });
    Gauge "tidegate_partitions" "Partitions of every stream."
        |s, out| out.value(&[], s.registry.info().partitions);
};

#[rustfmt::skip]
static MQTT: &[Metric] = metrics! {
    Gauge "tidegate_mqtt_connections" "MQTT connections open."
        |s, out| gauge(s, out, |m| &m.mqtt.connections);
    Counter "tidegate_mqtt_connections_accepted_total" "Sockets accepted for MQTT."
        |s, out| counter(s, out, |m| &m.mqtt.accepted);
    Counter "tidegate_mqtt_connections_closed_total" "MQTT connections closed, by reason."
        |s, out| by_label(s, out, "reason", |m| &m.mqtt.closed);
    Counter "tidegate_mqtt_rejects_total" "MQTT input rejected, by reason."
        |s, out| by_label(s, out, "reason", |m| &m.mqtt.rejects);
    Counter "tidegate_mqtt_sessions_taken_over_total" "Sessions that a second CONNECT with the same client id took over."
        |s, out| counter(s, out, |m| &m.mqtt.taken_over);
    Counter "tidegate_mqtt_messages_received_total" "Messages taken in, by QoS."
        |s, out| shards(s, |shard, m| for (qos, count) in m.mqtt.messages.iter().enumerate() {
            out.value(&[("shard", &shard), ("qos", &qos)], count.value());
        });
    Counter "tidegate_mqtt_received_bytes_total" "Bytes received from MQTT clients."
        |s, out| counter(s, out, |m| &m.mqtt.bytes_in);
    Counter "tidegate_mqtt_sent_bytes_total" "Bytes sent to MQTT clients."
        |s, out| counter(s, out, |m| &m.mqtt.bytes_out);
    Counter "tidegate_mqtt_messages_unmatched_total" "Messages that no stream wanted."
        |s, out| counter(s, out, |m| &m.mqtt.unmatched);
    Counter "tidegate_mqtt_messages_shed_total" "QoS 0 messages dropped because the configuration says so."
        |s, out| counter(s, out, |m| &m.mqtt.shed);
    Counter "tidegate_mqtt_pubacks_sent_total" "PUBACKs sent."
        |s, out| counter(s, out, |m| &m.mqtt.pubacks);
    Gauge "tidegate_mqtt_connections_held" "MQTT connections that are not read for now."
        |s, out| gauge(s, out, |m| &m.mqtt.held);
    Counter "tidegate_mqtt_holds_total" "How often an MQTT connection was held, by cause."
        |s, out| by_label(s, out, "cause", |m| &m.mqtt.holds);
};

#[rustfmt::skip]
static LOG: &[Metric] = metrics! {
    Counter "tidegate_log_commits_total" "Commits that are durable."
        |s, out| counter(s, out, |m| &m.log.commits);
    Histogram "tidegate_log_commit_size_bytes" "Bytes of each commit as written, padding included."
        |s, out| distribution(s, out, |m| &m.log.commit_bytes);
    Histogram "tidegate_log_commit_records" "Records of each commit."
        |s, out| distribution(s, out, |m| &m.log.commit_records);
    Counter "tidegate_log_flushes_total" "Flushes (fdatasync) that completed."
        |s, out| counter(s, out, |m| &m.log.flushes);
    Gauge "tidegate_log_position_bytes" "Position in the log up to which bytes are appended, written, flushed."
        |s, out| shards(s, |shard, m| {
            let log = &m.log;
            let cells = [("appended", &log.appended), ("written", &log.written), ("flushed", &log.flushed)];
            for (reached, cell) in cells {
                out.value(&[("shard", &shard), ("reached", &reached)], cell.value());
            }
        });
    Gauge "tidegate_log_segments" "Segments that hold data, and those made ready ahead."
        |s, out| shards(s, |shard, m| {
            out.value(&[("shard", &shard), ("state", &"data")], m.log.segments.value());
            out.value(&[("shard", &shard), ("state", &"ready")], m.log.segments_ready.value());
        });
    Counter "tidegate_log_disk_full_episodes_total" "How often the disk became full."
        |s, out| counter(s, out, |m| &m.log.disk_full_episodes);
    Counter "tidegate_log_damages_total" "Places in which readers found something else than was written."
        |s, out| counter(s, out, |m| &m.log.damages);
    Counter "tidegate_log_moved_segments_total" "Segments that the cleaner wrote, with what it kept of others."
        |s, out| counter(s, out, |m| &m.log.moved_segments);
    Counter "tidegate_log_clean_read_bytes_total" "Bytes that the cleaner read."
        |s, out| counter(s, out, |m| &m.log.clean_read_bytes);
    Counter "tidegate_log_clean_written_bytes_total" "Bytes that the cleaner wrote."
        |s, out| counter(s, out, |m| &m.log.clean_written_bytes);
    Counter "tidegate_log_compacted_keys_total" "Keys that compactions looked at."
        |s, out| counter(s, out, |m| &m.log.compacted_keys);
    Counter "tidegate_log_compacted_records_total" "Records that compactions took out."
        |s, out| counter(s, out, |m| &m.log.compacted_records);
    Counter "tidegate_log_clean_failures_total" "Jobs of the cleaner that ended early; nothing is lost by it."
        |s, out| counter(s, out, |m| &m.log.clean_failures);
    Counter "tidegate_log_cold_reads_total" "Reads from the disk for consumers."
        |s, out| counter(s, out, |m| &m.log.cold_reads);
    Counter "tidegate_log_cold_read_bytes_total" "Bytes read from the disk for consumers."
        |s, out| counter(s, out, |m| &m.log.cold_read_bytes);
};

#[rustfmt::skip]
static KAFKA: &[Metric] = metrics! {
    Gauge "tidegate_kafka_connections" "Kafka connections open."
        |s, out| gauge(s, out, |m| &m.kafka.connections);
    Counter "tidegate_kafka_connections_accepted_total" "Sockets accepted for Kafka."
        |s, out| counter(s, out, |m| &m.kafka.accepted);
    Counter "tidegate_kafka_requests_total" "Kafka requests, by API."
        |s, out| by_label(s, out, "api", |m| &m.kafka.requests);
    Counter "tidegate_kafka_errors_total" "Kafka requests answered with an error code or by closing, by API."
        |s, out| by_label(s, out, "api", |m| &m.kafka.errors);
    Counter "tidegate_kafka_received_bytes_total" "Bytes received from Kafka clients."
        |s, out| counter(s, out, |m| &m.kafka.bytes_in);
    Counter "tidegate_kafka_sent_bytes_total" "Bytes sent to Kafka clients."
        |s, out| counter(s, out, |m| &m.kafka.bytes_out);
    Gauge "tidegate_kafka_fetches_parked" "Fetches that wait for data."
        |s, out| gauge(s, out, |m| &m.kafka.parked_fetches);
};

#[rustfmt::skip]
static RING: &[Metric] = metrics! {
    Counter "tidegate_ring_hand_offs_total" "Connections handed to another shard."
        |s, out| counter(s, out, |m| &m.ring.hand_offs);
    Counter "tidegate_ring_wakes_sent_total" "Wake-ups sent to sleeping shards."
        |s, out| counter(s, out, |m| &m.ring.wakes_sent);
    Counter "tidegate_ring_records_total" "Records sent to the other shard."
        |s, out| ways(s, out, |way| way.records.value());
    Counter "tidegate_ring_granted_bytes_total" "Bytes of credit that the other shard granted."
        |s, out| ways(s, out, |way| way.granted_bytes.value());
    Counter "tidegate_ring_spent_bytes_total" "Bytes of credit spent on records to the other shard."
        |s, out| ways(s, out, |way| way.spent_bytes.value());
    Counter "tidegate_ring_waits_total" "How often a connection had to wait for credit or a slot on the way to the other shard."
        |s, out| ways(s, out, |way| way.waits.value());
    Gauge "tidegate_ring_held_connections" "Connections that wait for credit or a slot on the way to the other shard."
        |s, out| ways(s, out, |way| way.held.value());
    Counter "tidegate_ring_settled_records_total" "Records sent that the other shard has committed."
        |s, out| ways(s, out, |way| way.settled.value());
    Gauge "tidegate_ring_pinned_buffers" "Receive buffers that records on their way to other shards refer to."
        |s, out| gauge(s, out, |m| &m.ring.pinned_buffers);
    Counter "tidegate_ring_arrived_records_total" "Records that came from other shards."
        |s, out| counter(s, out, |m| &m.ring.arrived);
};

#[rustfmt::skip]
static LOOP: &[Metric] = metrics! {
    Counter "tidegate_loop_turns_total" "Turns of the shard's loop."
        |s, out| counter(s, out, |m| &m.turns.turns);
    Counter "tidegate_loop_sleeps_total" "How often the shard went to sleep."
        |s, out| counter(s, out, |m| &m.turns.sleeps);
    Counter "tidegate_loop_wakes_total" "How often the shard was woken by something else than its own timer."
        |s, out| counter(s, out, |m| &m.turns.wakes);
    Counter "tidegate_loop_buffers_exhausted_total" "How often receive buffers ran out."
        |s, out| counter(s, out, |m| &m.turns.buffers_exhausted);
    Histogram "tidegate_station_duration_seconds" "Time that a station takes."
        |s, out| stations(s, |shard, station, m| {
            let times = &m.stations[station.index()].times;
            out.distribution(&[("shard", &shard), ("station", &station.label())], times, NS);
        });
    Gauge "tidegate_station_recent_seconds" "Percentiles of the station's time in its last interval of a second or so."
        |s, out| stations(s, |shard, station, m| {
            for (quantile, cell) in QUANTILES.iter().zip(&m.stations[station.index()].quantiles) {
                // Rounded, because 0.999 has no exact double.
                let percentile = (quantile * 100_000.0).round() / 1_000.0;
                let labels = [("shard", &shard as _), ("station", &station.label() as _), ("percentile", &percentile as _)];
                out.value(&labels, cell.value() as f64 * NS);
            }
        });
};

#[rustfmt::skip]
static STREAM: &[Metric] = metrics! {
    Counter "tidegate_stream_records_total" "Records appended to the stream."
        |s, out| streams(s, out, |m| &m.records);
    Counter "tidegate_stream_received_bytes_total" "Payload bytes appended to the stream."
        |s, out| streams(s, out, |m| &m.bytes_in);
    Counter "tidegate_stream_stored_bytes_total" "Bytes of the stream's record batches as stored, after compression."
        |s, out| streams(s, out, |m| &m.bytes_stored);
    Gauge "tidegate_partition_log_start_offset" "First offset that can be read."
        |s, out| partitions(s, out, |p| &p.log_start);
    Gauge "tidegate_partition_fenced_offsets" "Offsets that damage took; readers get CORRUPT_MESSAGE there."
        |s, out| partitions(s, out, |p| &p.fenced_offsets);
    Gauge "tidegate_partition_high_watermark" "First offset that is not committed."
        |s, out| partitions(s, out, |p| &p.high_watermark);
};

#[rustfmt::skip]
static RULE: &[Metric] = metrics! {
    Counter "tidegate_rule_matched_total" "Messages that the rule looked at."
        |s, out| rules(s, out, |rule| &rule.matched);
    Counter "tidegate_rule_passed_total" "Records that the rule made."
        |s, out| rules(s, out, |rule| &rule.passed);
    Counter "tidegate_rule_errors_total" "Messages and expressions that the rule could not evaluate."
        |s, out| rules(s, out, |rule| &rule.errors);
    Gauge "tidegate_rules_version" "Rules that the shard runs: 1 for those of the start, one more at each reload."
        |s, out| gauge(s, out, |m| &m.rules_version);
    Counter "tidegate_rules_reloads_total" "How often the rules were read again."
        |s, out| out.value(&[], s.registry.reloads.tries.value());
    Counter "tidegate_rules_reload_failures_total" "How often the old rules stayed, as the new ones were wrong or could not be taken."
        |s, out| out.value(&[], s.registry.reloads.failures.value());
    Gauge "tidegate_rules_last_reload_successful" "1 unless the last reload left the old rules."
        |s, out| out.value(&[], 1 - s.registry.reloads.last_failed.value().min(1));
};

#[rustfmt::skip]
static LOOKUP: &[Metric] = metrics! {
    Gauge "tidegate_table_rows" "Rows of the lookup table."
        |s, out| tables(s, out, |table| table.rows.value());
    Gauge "tidegate_table_bytes" "Bytes that the lookup table takes, compiled."
        |s, out| tables(s, out, |table| table.bytes.value());
    Gauge "tidegate_table_loaded_time_seconds" "When the version in use was loaded, in Unix time."
        |s, out| tables(s, out, |table| table.loaded_s.value());
    Counter "tidegate_table_loads_total" "Versions of the table's file that were taken, the first one included."
        |s, out| tables(s, out, |table| table.loads.value());
    Counter "tidegate_table_load_failures_total" "Versions of the table's file that were refused; the one before stays in use."
        |s, out| tables(s, out, |table| table.failures.value());
};

#[rustfmt::skip]
static PROCESS: &[Metric] = metrics! {
    Counter "process_cpu_seconds_total" "User and system time of the process."
        |s, out| if let Some(seconds) = s.process.cpu_seconds { out.value(&[], seconds) };
    Gauge "process_resident_memory_bytes" "Resident memory of the process."
        |s, out| if let Some(bytes) = s.process.resident_bytes { out.value(&[], bytes) };
    Gauge "process_threads" "Threads of the process."
        |s, out| if let Some(threads) = s.process.threads { out.value(&[], threads) };
    Gauge "process_open_fds" "Files that the process has open."
        |s, out| if let Some(fds) = s.process.open_fds { out.value(&[], fds) };
    Gauge "process_max_fds" "Files that the process may open."
        |s, out| if let Some(fds) = s.process.max_fds { out.value(&[], fds) };
    Gauge "process_start_time_seconds" "When the process started, in Unix time."
        |s, out| if let Ok(age) = s.registry.info().started.duration_since(SystemTime::UNIX_EPOCH) {
            out.value(&[], age.as_secs_f64());
        };
};

fn shards(source: &Source<'_>, mut each: impl FnMut(usize, &ShardMetrics)) {
    source.registry.shards().iter().enumerate().for_each(|(shard, m)| each(shard, m));
}

fn counter(source: &Source<'_>, out: &mut Samples<'_>, cell: fn(&ShardMetrics) -> &Counter) {
    shards(source, |shard, m| out.value(&[("shard", &shard)], cell(m).value()));
}

fn gauge(source: &Source<'_>, out: &mut Samples<'_>, cell: fn(&ShardMetrics) -> &Gauge) {
    shards(source, |shard, m| out.value(&[("shard", &shard)], cell(m).value()));
}

/// A sample for each ordered pair of shards.
fn ways(source: &Source<'_>, out: &mut Samples<'_>, value: fn(&WayMetrics) -> u64) {
    shards(source, |shard, m| {
        for (to, way) in m.ring.ways.iter().enumerate().filter(|(to, _)| *to != shard) {
            out.value(&[("shard", &shard), ("to", &to)], value(way));
        }
    });
}

fn by_label<L: Label, const COUNT: usize>(
    source: &Source<'_>,
    out: &mut Samples<'_>,
    name: &str,
    row: fn(&ShardMetrics) -> &ByLabel<L, COUNT>,
) {
    shards(source, |shard, m| {
        for (label, count) in row(m).values() {
            out.value(&[("shard", &shard), (name, &label)], count);
        }
    });
}

fn distribution(
    source: &Source<'_>,
    out: &mut Samples<'_>,
    cell: fn(&ShardMetrics) -> &Distribution,
) {
    shards(source, |shard, m| out.distribution(&[("shard", &shard)], cell(m), 1.0));
}

fn stations(source: &Source<'_>, mut each: impl FnMut(usize, Station, &ShardMetrics)) {
    shards(source, |shard, m| {
        Station::ALL.iter().for_each(|station| each(shard, *station, m));
    });
}

fn streams(source: &Source<'_>, out: &mut Samples<'_>, cell: fn(&StreamMetrics) -> &Counter) {
    let streams = source.registry.streams();
    shards(source, |shard, m| {
        for (stream, info) in m.streams.iter().zip(&*streams) {
            out.value(&[("shard", &shard), ("stream", &info.name)], cell(stream).value());
        }
    });
}

fn rules(source: &Source<'_>, out: &mut Samples<'_>, cell: fn(&RuleMetrics) -> &Counter) {
    let streams = source.registry.streams();
    shards(source, |shard, m| {
        for (stream, info) in m.streams.iter().zip(&*streams).filter(|(_, info)| info.is_rule) {
            out.value(&[("shard", &shard), ("rule", &info.name)], cell(&stream.rule).value());
        }
    });
}

fn tables(source: &Source<'_>, out: &mut Samples<'_>, value: fn(&TableMetrics) -> u64) {
    for (name, table) in &*source.registry.tables() {
        out.value(&[("table", name)], value(table));
    }
}

fn partitions(
    source: &Source<'_>,
    out: &mut Samples<'_>,
    cell: fn(&crate::observe::PartitionMetrics) -> &Gauge,
) {
    let count = source.registry.info().shards as usize;
    let streams = source.registry.streams();
    shards(source, |shard, m| {
        for (stream, info) in m.streams.iter().zip(&*streams) {
            for (row, partition) in stream.partitions().enumerate() {
                // The inverse of PartitionId::owner and PartitionId::row.
                let id = row * count + shard;
                let labels: [(&str, &dyn std::fmt::Display); 3] =
                    [("shard", &shard), ("stream", &info.name), ("partition", &id)];
                out.value(&labels, cell(partition).value());
            }
        }
    });
}
