//! The bounds of each key and the relations between them.
//!
//! Pure: looks at a configuration, returns every problem. A station may rely on what is checked
//! here: above all, that the largest packet with its headers fits a batch, a log buffer and a
//! segment, so that no accepted packet can ever wait for room that will not come.

mod compaction;
mod shards;

use std::net::IpAddr;
use std::time::Duration;

use super::problem::Problem;
use super::section::Section;
use super::setting::show_size;
use super::{Config, CoreSet, Spin, Stream};

/// What blocks on disk, segments and O_DIRECT writes are aligned to, in bytes.
pub const BLOCK_BYTES: usize = 4096;
/// Room in a segment for what is not batches: its header, frame headers and padding.
const SEGMENT_OVERHEAD: usize = 64 << 10;
/// Bytes of a small message's packet, by which the window of a held connection is judged.
const SMALL_PACKET_BYTES: usize = 128;
/// Bytes of a PUBACK with reason code and no properties, rounded up.
const ACKNOWLEDGEMENT_BYTES: usize = 8;

impl Config {
    /// Checks bounds and relations; returns all that is wrong. The number of shards is taken from
    /// `shards` or the list of `cores`; where both leave it to the machine, [`Config::check_shards`]
    /// completes this once they are counted.
    pub fn check(&self) -> Result<(), Vec<Problem>> {
        let mut problems = self.bounds();
        // Relations of values that are out of bounds would only add noise.
        if problems.is_empty() {
            problems.extend(self.log_relations());
            problems.extend(self.mqtt_relations());
            problems.extend(self.kafka_relations());
            problems.extend(self.check_shards(self.shards_known()).err().into_iter().flatten());
        }
        problems.extend(self.shapes());
        problems.extend(self.stream_relations());
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The number of shards as far as the configuration alone says.
    fn shards_known(&self) -> u32 {
        match (&self.shards, &self.cores) {
            (Some(shards), _) => *shards,
            (None, CoreSet::List(cores)) => u32::try_from(cores.len()).unwrap_or(u32::MAX),
            (None, CoreSet::Auto) => 1,
        }
    }

    fn bounds(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut check = |section: &dyn Section, prefix: &str| {
            for key in section.about().keys {
                if section.within_bounds(key.name) {
                    continue;
                }
                let path = format!("{prefix}{}", key.name);
                let value = section.show(key.name).unwrap_or_default();
                let (least, greatest) = section.bounds(key.name).unwrap_or_default();
                problems.push(Problem::of(
                    &[&path],
                    format!("{path} = {value} is out of bounds"),
                    format!("set it from {least} to {greatest}"),
                ));
            }
        };
        for section in self.sections() {
            check(section, &section.about().path(""));
        }
        for (index, stream) in self.streams.iter().enumerate() {
            check(stream, &format!("stream[{index}]."));
        }
        problems
    }

    /// The largest packet fits a batch; a batch fits everything that holds batches.
    fn log_relations(&self) -> impl Iterator<Item = Problem> {
        let (log, packet) = (&self.log, self.mqtt.packet_bytes_max);
        let record = self.record_bytes_max();
        let batch = log.batch_bytes_max;
        let streams = streams_a_message(&self.streams);
        let segment = usize::try_from(log.segment_bytes).unwrap_or(usize::MAX);
        let the_packet = format!("mqtt.packet_bytes_max = {}", bare(packet));
        let the_batch = format!("log.batch_bytes_max = {}", bare(batch));
        let holds = |key, value, why: &str| {
            AtLeast::bytes(key, value, batch + 2 * BLOCK_BYTES, "log.batch_bytes_max")
                .because(format!("{why} ({the_batch})"))
        };
        [
            AtLeast::bytes("log.batch_bytes_max", batch, record, "mqtt.packet_bytes_max").because(
                format!("it must hold the largest packet with its headers ({the_packet})"),
            ),
            holds("log.buffer_bytes", log.buffer_bytes, "it must hold the largest batch"),
            AtLeast::bytes(
                "log.buffer_bytes",
                log.buffer_bytes,
                streams * record + 2 * BLOCK_BYTES,
                "mqtt.packet_bytes_max",
            )
            .because(format!(
                "the largest packet ({the_packet}) may belong to {streams} streams at once"
            )),
            holds("log.tail_cache_bytes", log.tail_cache_bytes, "it must hold the largest batch"),
            holds("log.read_cache_bytes", log.read_cache_bytes, "it must hold the largest batch"),
            AtLeast::bytes(
                "log.segment_bytes",
                segment,
                batch + SEGMENT_OVERHEAD,
                "log.batch_bytes_max",
            )
            .because(format!("a segment must hold the largest batch ({the_batch})")),
        ]
        .into_iter()
        .filter_map(AtLeast::problem)
    }

    fn mqtt_relations(&self) -> impl Iterator<Item = Problem> {
        let mqtt = &self.mqtt;
        let window = usize::from(mqtt.receive_maximum);
        let unacknowledged = mqtt.unacknowledged_max as usize;
        [
            AtLeast::count(
                "mqtt.unacknowledged_max",
                unacknowledged,
                window,
                "mqtt.receive_maximum",
            )
            .because(format!(
                "MQTT 3.1.1 must have the window of MQTT 5 (mqtt.receive_maximum = {window})"
            )),
            AtLeast::bytes(
                "mqtt.send_bytes_max",
                mqtt.send_bytes_max,
                unacknowledged * ACKNOWLEDGEMENT_BYTES,
                "mqtt.unacknowledged_max",
            )
            .because(format!(
                "it must hold the acknowledgements of a whole window \
                 (mqtt.unacknowledged_max = {unacknowledged})"
            )),
            AtLeast::bytes(
                "mqtt.held_bytes_max",
                mqtt.held_bytes_max,
                window * SMALL_PACKET_BYTES,
                "mqtt.receive_maximum",
            )
            .because(format!(
                "a PINGREQ behind a window of small messages must be seen \
                 (mqtt.receive_maximum = {window}, {SMALL_PACKET_BYTES} bytes each)"
            )),
            AtLeast::bytes(
                "mqtt.held_bytes_max",
                mqtt.held_bytes_max,
                self.receive.buffer_bytes,
                "receive.buffer_bytes",
            )
            .because(format!(
                "a held connection has at least one receive buffer \
                 (receive.buffer_bytes = {})",
                bare(self.receive.buffer_bytes)
            )),
        ]
        .into_iter()
        .filter_map(AtLeast::problem)
    }

    fn kafka_relations(&self) -> impl Iterator<Item = Problem> {
        let (kafka, batch) = (&self.kafka, self.log.batch_bytes_max);
        [
            AtLeast::bytes(
                "kafka.fetch_bytes_max",
                kafka.fetch_bytes_max,
                batch,
                "log.batch_bytes_max",
            )
            .because(format!(
                "a consumer must get the largest batch (log.batch_bytes_max = {})",
                bare(batch)
            )),
            AtLeast::bytes(
                "kafka.send_bytes_max",
                kafka.send_bytes_max,
                kafka.fetch_bytes_max,
                "kafka.fetch_bytes_max",
            )
            .because(format!(
                "the largest answer must have room (kafka.fetch_bytes_max = {})",
                bare(kafka.fetch_bytes_max)
            )),
        ]
        .into_iter()
        .filter_map(AtLeast::problem)
    }

    /// What one key alone must look like, beyond its bounds.
    fn shapes(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut unless = |fine: bool, key: &str, what: String, remedy: &str| {
            if !fine {
                problems.push(Problem::of(&[key], what, remedy.to_owned()));
            }
        };
        unless(
            self.log.segment_bytes.is_multiple_of(BLOCK_BYTES as u64),
            "log.segment_bytes",
            format!(
                "log.segment_bytes = {} is no multiple of {BLOCK_BYTES}",
                self.log.segment_bytes
            ),
            "segments are written in whole blocks; set a multiple of 4096, such as \"64MiB\"",
        );
        for (key, count, rings, most) in [
            ("receive.buffers", self.receive.buffers, "the kernel's buffer rings", 1 << 15),
            (
                "receive.kafka_buffers",
                self.receive.kafka_buffers,
                "the kernel's buffer rings",
                1 << 15,
            ),
            ("ring.slots", self.ring.slots, "the rings between shards", 1 << 16),
        ] {
            let near = count.checked_next_power_of_two().unwrap_or(most).min(most);
            unless(
                count.is_power_of_two(),
                key,
                format!("{key} = {count} is no power of two"),
                &format!("{rings} have sizes of powers of two; set {near}"),
            );
        }
        unless(
            self.mqtt.keep_alive_max.subsec_nanos() == 0,
            "mqtt.keep_alive_max",
            "mqtt.keep_alive_max is no whole number of seconds".to_owned(),
            "MQTT counts keep-alive in seconds; set a time such as \"60s\"",
        );
        unless(
            !self.data_dir.as_os_str().is_empty(),
            "data_dir",
            "data_dir is empty".to_owned(),
            "name a directory; \".\" is the one in which tidegate is started",
        );
        if let Some(host) = &self.kafka.advertise {
            unless(
                valid_host(host),
                "kafka.advertise",
                format!("kafka.advertise = {host:?} is no host name or address"),
                "name the host alone, such as \"broker.example.org\"; the port is that of \
                 kafka.listen + shard",
            );
        }
        problems
    }

    fn stream_relations(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.streams.is_empty() {
            problems.push(Problem::of(
                &["stream"],
                "there is no stream".to_owned(),
                "name at least one [[stream]], or leave them all out to have `telemetry`"
                    .to_owned(),
            ));
        }
        for (index, stream) in self.streams.iter().enumerate() {
            let name = stream.name.as_str();
            let key = |key: &str| format!("stream[{index}].{key}");
            if self.streams[..index].iter().any(|other| other.name == stream.name) {
                problems.push(Problem::of(
                    &[&key("name")],
                    format!("two streams are named \"{name}\""),
                    "give each its own name; one stream may have several topics".to_owned(),
                ));
            }
            if name.starts_with("__") {
                problems.push(Problem::of(
                    &[&key("name")],
                    format!("the stream name \"{name}\" begins with \"__\""),
                    "such names are kept for internal streams; choose another".to_owned(),
                ));
            }
            if stream.topics.is_empty() {
                problems.push(Problem::of(
                    &[&key("topics"), &format!("stream[{index}]")],
                    format!("the stream \"{name}\" has no topics, so nothing would feed it"),
                    "name at least one filter; [\"#\"] is every topic".to_owned(),
                ));
            }
            problems.extend(compaction::compaction_relations(stream, index));
            if let Some(bytes) = stream.retention_bytes
                && bytes < self.log.segment_bytes
            {
                problems.push(Problem::of(
                    &[&key("retention_bytes"), "log.segment_bytes"],
                    format!(
                        "{} is {}, less than a segment (log.segment_bytes = {})",
                        key("retention_bytes"),
                        plain_size(bytes),
                        plain_size(self.log.segment_bytes)
                    ),
                    "space comes free by segments; raise it or lower log.segment_bytes".to_owned(),
                ));
            }
        }
        problems
    }

    /// What is allowed but deserves a word at start.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let listeners = [
            ("mqtt.listen", self.mqtt.listen),
            ("kafka.listen", self.kafka.listen),
            ("http.listen", self.http.listen),
        ];
        for (key, listen) in listeners.iter().filter(|(_, listen)| !listen.ip().is_loopback()) {
            warnings.push(format!(
                "{key} = {listen} can be reached from other hosts, and there is no authentication \
                 yet: keep it within a network that you trust"
            ));
        }
        if self.kafka.listen.ip().is_unspecified() && self.kafka.advertise.is_none() {
            warnings.push(format!(
                "kafka.listen = {} and kafka.advertise is not set: clients are told to connect to \
                 {}, which is right on this host only; set --kafka-advertise HOST",
                self.kafka.listen,
                self.kafka_host()
            ));
        }
        if let Some(partitions) = self.partitions
            && partitions < self.shards_known()
        {
            warnings.push(format!(
                "partitions = {partitions} for {} shards: only {partitions} shards will start",
                self.shards_known()
            ));
        }
        if self.spin == Spin::Always
            || matches!(self.spin, Spin::For(t) if t > Duration::from_secs(1))
        {
            warnings.push("spin keeps the cores busy even when nothing arrives".to_owned());
        }
        warnings
    }
}

/// A size without quotes, for messages.
fn bare(bytes: usize) -> String {
    plain_size(bytes as u64)
}

fn plain_size(bytes: u64) -> String {
    show_size(bytes).replace('"', "")
}

/// One key must be at least what follows from another.
struct AtLeast {
    holds: bool,
    key: &'static str,
    other: &'static str,
    /// The value and the least, as a person would write them.
    value: String,
    least: String,
    why: String,
}

impl AtLeast {
    /// Of amounts of bytes; the least is told in whole KiB.
    fn bytes(key: &'static str, value: usize, least: usize, other: &'static str) -> Self {
        let told = bare(least.next_multiple_of(1 << 10));
        Self {
            holds: value >= least,
            key,
            other,
            value: bare(value),
            least: told,
            why: String::new(),
        }
    }

    fn count(key: &'static str, value: usize, least: usize, other: &'static str) -> Self {
        let (holds, value, least) = (value >= least, value.to_string(), least.to_string());
        Self { holds, key, other, value, least, why: String::new() }
    }

    fn because(self, why: String) -> Self {
        Self { why, ..self }
    }

    fn problem(self) -> Option<Problem> {
        let Self { holds, key, other, value, least, why } = self;
        (!holds).then(|| {
            Problem::of(
                &[key, other],
                format!("{key} = {value} is too small: {why}"),
                format!("raise {key} to at least {least}, or lower {other}"),
            )
        })
    }
}

/// A host name of letters, digits, '-', '_' and '.', or an IP address, without a port.
fn valid_host(host: &str) -> bool {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    host.parse::<IpAddr>().is_ok()
        || (!host.is_empty() && host.len() <= 255 && host.bytes().all(name))
}

/// An upper bound on how many streams one message may belong to: the largest k such that k streams
/// overlap with at least k - 1 others, since all streams of one message overlap pairwise.
fn streams_a_message(streams: &[Stream]) -> usize {
    let overlap = |a: &Stream, b: &Stream| {
        a.topics.iter().any(|filter| b.topics.iter().any(|other| filter.overlaps(other)))
    };
    let mut overlaps: Vec<usize> = streams
        .iter()
        .map(|stream| streams.iter().filter(|other| overlap(stream, other)).count())
        .collect();
    overlaps.sort_unstable_by(|a, b| b.cmp(a));
    overlaps.iter().enumerate().take_while(|(index, count)| **count > *index).count().max(1)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, SocketAddr};

    use super::*;
    use crate::config::{Retention, TopicFilter, setting::Setting};

    /// Checks a default configuration that `change` has changed; `expected` is in the one problem.
    fn check(change: impl FnOnce(&mut Config), expected: &str) {
        let mut config = Config::default();
        change(&mut config);
        let problems = config.check().unwrap_err();
        let [problem] = &problems[..] else { panic!("{expected}: {problems:?}") };
        assert!(problem.to_string().contains(expected), "{problem}");
        assert!(problem.remedy.is_some(), "no remedy: {problem}");
    }

    fn stream(name: &str, topics: &[&str]) -> Stream {
        Stream {
            name: Setting::parse(name).unwrap(),
            topics: topics.iter().map(|text| TopicFilter::parse(text).unwrap()).collect(),
            ..Stream::default()
        }
    }

    #[test]
    fn the_defaults_are_right() {
        assert_eq!(Config::default().check(), Ok(()));
        assert_eq!(Config::default().warnings(), [""; 0]);
    }

    #[test]
    fn bounds() {
        check(|c| c.shards = Some(0), "shards = 0 is out of bounds\n  help: set it from 1 to 256");
        check(|c| c.partitions = Some(5000), "partitions = 5000 is out of bounds");
        check(|c| c.mqtt.receive_maximum = 0, "mqtt.receive_maximum = 0 is out of bounds");
        check(|c| c.mqtt.packet_bytes_max = usize::MAX, "from \"1KiB\" to \"256MiB\"");
        check(|c| c.mqtt.connect_timeout = Duration::ZERO, "mqtt.connect_timeout = \"0s\"");
        check(|c| c.log.disk_share = 1.5, "log.disk_share = 1.5 is out of bounds");
        check(|c| c.log.segments_ahead = 0, "log.segments_ahead = 0 is out of bounds");
        let none = Retention::Age(Duration::ZERO);
        check(|c| c.streams[0].retention = none, "stream[0].retention = \"0s\" is out of bounds");
    }

    #[test]
    fn relations_of_the_log() {
        check(
            |c| c.mqtt.packet_bytes_max = 2 << 20,
            "log.batch_bytes_max = 2MiB is too small: it must hold the largest packet with its \
             headers (mqtt.packet_bytes_max = 2MiB)\n  help: raise log.batch_bytes_max to at least \
             2129KiB, or lower mqtt.packet_bytes_max",
        );
        check(
            |c| c.log.buffer_bytes = 2 << 20,
            "log.buffer_bytes = 2MiB is too small: it must hold the largest batch",
        );
        check(
            |c| c.streams = (0..20).map(|n| stream(&format!("s{n}"), &["a/#"])).collect(),
            "the largest packet (mqtt.packet_bytes_max = 1MiB) may belong to 20 streams at once",
        );
        check(
            |c| c.log.tail_cache_bytes = 1 << 20,
            "log.tail_cache_bytes = 1MiB is too small: it must hold the largest batch",
        );
        check(
            |c| c.log.read_cache_bytes = 1 << 20,
            "log.read_cache_bytes = 1MiB is too small: it must hold the largest batch",
        );
        check(
            |c| c.log.segment_bytes = 2 << 20,
            "log.segment_bytes = 2MiB is too small: a segment must hold the largest batch",
        );
        check(
            |c| c.log.segment_bytes = (64 << 20) + 512,
            "log.segment_bytes = 67109376 is no multiple of 4096",
        );
    }

    #[test]
    fn relations_of_connections() {
        check(
            |c| c.mqtt.unacknowledged_max = 100,
            "mqtt.unacknowledged_max = 100 is too small: MQTT 3.1.1 must have the window of MQTT 5 \
             (mqtt.receive_maximum = 1024)\n  help: raise mqtt.unacknowledged_max to at least 1024",
        );
        check(
            |c| c.mqtt.send_bytes_max = 16 << 10,
            "mqtt.send_bytes_max = 16KiB is too small: it must hold the acknowledgements of a whole \
             window (mqtt.unacknowledged_max = 4096)",
        );
        check(
            |c| c.mqtt.held_bytes_max = 64 << 10,
            "mqtt.held_bytes_max = 64KiB is too small: a PINGREQ behind a window",
        );
        check(
            |c| c.receive.buffer_bytes = 1 << 20,
            "mqtt.held_bytes_max = 256KiB is too small: a held connection has at least one receive \
             buffer (receive.buffer_bytes = 1MiB)",
        );
        check(
            |c| c.kafka.fetch_bytes_max = 1 << 20,
            "kafka.fetch_bytes_max = 1MiB is too small: a consumer must get the largest batch",
        );
        check(
            |c| c.kafka.send_bytes_max = 4 << 20,
            "kafka.send_bytes_max = 4MiB is too small: the largest answer must have room",
        );
    }

    #[test]
    fn shapes() {
        check(|c| c.receive.buffers = 500, "receive.buffers = 500 is no power of two");
        check(|c| c.receive.kafka_buffers = 33, "of powers of two; set 64");
        check(
            |c| c.ring.slots = 1000,
            "ring.slots = 1000 is no power of two\n  help: the rings between shards have sizes of \
             powers of two; set 1024",
        );
        check(
            |c| c.mqtt.keep_alive_max = Duration::from_millis(1500),
            "mqtt.keep_alive_max is no whole number of seconds",
        );
        check(|c| c.data_dir = "".into(), "data_dir is empty");
        let advertise = |host: &str| {
            let host = host.to_owned();
            move |c: &mut Config| c.kafka.advertise = Some(host)
        };
        check(advertise("broker:9092"), "kafka.advertise = \"broker:9092\" is no host name");
        check(advertise(""), "kafka.advertise = \"\" is no host name");
        for host in ["broker.example.org", "10.0.0.7", "fd00::1"] {
            let mut config = Config::default();
            advertise(host)(&mut config);
            assert_eq!(config.check(), Ok(()), "{host}");
        }
    }

    #[test]
    fn streams() {
        check(|c| c.streams.clear(), "there is no stream");
        check(
            |c| c.streams.push(stream("telemetry", &["a"])),
            "two streams are named \"telemetry\"",
        );
        check(|c| c.streams = vec![stream("__x", &["a"])], "the stream name \"__x\" begins with");
        check(|c| c.streams[0].topics.clear(), "the stream \"telemetry\" has no topics");
        check(
            |c| c.streams[0].retention_bytes = Some(10 << 20),
            "stream[0].retention_bytes is 10MiB, less than a segment (log.segment_bytes = 64MiB)",
        );
    }

    #[test]
    fn ports() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        check(
            |c| {
                c.kafka.listen = at("127.0.0.1:65535");
                c.shards = Some(2);
            },
            "kafka.listen = 127.0.0.1:65535 leaves too few ports for 2 shards\n  \
             help: each shard has a port of its own; choose one up to 65534",
        );
        check(
            |c| {
                c.mqtt.listen = at("0.0.0.0:9093");
                c.cores = CoreSet::List(vec![0, 1]);
            },
            "mqtt.listen = 0.0.0.0:9093 is one of the ports of kafka.listen = 127.0.0.1:9092, which \
             go up to 9093",
        );
        check(|c| c.http.listen = at("[::]:9092"), "http.listen = [::]:9092 is one of the ports");
        check(
            |c| c.http.listen = at("127.0.0.1:1883"),
            "mqtt.listen and http.listen have the same port 1883",
        );
        // Other hosts, or ports that the kernel chooses, do not collide.
        let mut config = Config::default();
        config.http.listen = at("127.0.0.2:1883");
        assert_eq!(config.check(), Ok(()));
        config.mqtt.listen.set_port(0);
        config.kafka.listen.set_port(0);
        config.http.listen = SocketAddr::from((Ipv6Addr::LOCALHOST, 0));
        assert_eq!(config.check(), Ok(()));
        // What the cores decide is checked when they are counted.
        let mut config = Config::default();
        config.http.listen.set_port(9095);
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.check_shards(3), Ok(()));
        assert!(config.check_shards(4).is_err());
    }

    #[test]
    fn rings() {
        check(
            |c| c.ring.slots = 8,
            "ring.slots = 8 is out of bounds\n  help: set it from 16 to 65536",
        );
        check(|c| c.ring.credit_bytes = 1 << 10, "set it from \"4KiB\" to \"64MiB\"");
        check(
            |c| (c.shards, c.ring.credit_bytes) = (Some(4), 4 << 20),
            "log.buffer_bytes = 16MiB is too small for 4 shards: half of it must hold what each grants \
             the 3 others (ring.credit_bytes = 4MiB each) beside the largest packet for every stream \
             that may want it (1097KiB)\n  help: raise log.buffer_bytes to at least 26770KiB, or lower \
             ring.credit_bytes to at most 2365KiB",
        );
        // Two streams may want the packet; nothing is left to grant, whatever is granted.
        check(
            |c| {
                (c.shards, c.log.buffer_bytes) = (Some(2), 4 << 20);
                c.streams = vec![stream("a", &["x/#"]), stream("b", &["x/+"])];
            },
            "log.buffer_bytes = 4MiB is too small for 2 shards: half of it must hold what each grants \
             the other (ring.credit_bytes = 64KiB) beside the largest packet for every stream that may \
             want it (2194KiB)\n  help: raise log.buffer_bytes to at least 4516KiB, or lower \
             mqtt.packet_bytes_max",
        );
        // The buffer's greatest size would not do.
        check(
            |c| (c.shards, c.ring.credit_bytes) = (Some(64), 64 << 20),
            "help: lower ring.credit_bytes to at most 112KiB",
        );
        check(
            |c| (c.shards, c.receive.buffers) = (Some(10), 32),
            "receive.buffers = 32 is too small for 10 shards: records on their way to each of the \
             others may keep a share of them\n  help: raise receive.buffers to at least 64, or start no \
             more shards than 9",
        );
        // One shard has no rings; what the cores decide is checked when they are counted.
        let mut config = Config::default();
        config.log.buffer_bytes = 3 << 20;
        config.log.batch_bytes_max = 2 << 20;
        config.ring.credit_bytes = 1 << 20;
        config.receive.buffers = 1;
        assert_eq!(config.check(), Ok(()));
        assert_eq!(config.check_shards(1), Ok(()));
        assert_eq!(config.check_shards(2).unwrap_err().len(), 2);
        for shards in 1..=64 {
            assert_eq!(Config::default().check_shards(shards), Ok(()), "{shards} shards");
        }
    }

    #[test]
    fn what_a_refusal_of_rings_advises_is_taken() {
        // The values that the texts above name are right, and one step beyond them is not.
        let holds = |shards: u32, change: &dyn Fn(&mut Config)| {
            let mut config = Config { shards: Some(shards), ..Config::default() };
            change(&mut config);
            config.check().is_ok()
        };
        let buffer = |kib: usize| {
            holds(4, &|c| (c.ring.credit_bytes, c.log.buffer_bytes) = (4 << 20, kib << 10))
        };
        assert!(buffer(26_770) && !buffer(26_769));
        let credit = |kib: usize| holds(4, &|c| c.ring.credit_bytes = kib << 10);
        assert!(credit(2_365) && !credit(2_366));
        let buffers = |shards, buffers| holds(shards, &|c| c.receive.buffers = buffers);
        assert!(buffers(10, 64) && buffers(9, 32) && !buffers(10, 32));
    }

    #[test]
    fn all_problems_are_told() {
        let mut config = Config::default();
        config.log.batch_bytes_max = 1 << 20;
        config.receive.buffers = 3;
        config.data_dir = "".into();
        assert_eq!(config.check().unwrap_err().len(), 3);
        config.shards = Some(0);
        config.partitions = Some(0);
        assert_eq!(config.check().unwrap_err().len(), 4);
    }

    #[test]
    fn warnings() {
        let warns = |change: &dyn Fn(&mut Config), expected: &str| {
            let mut config = Config::default();
            change(&mut config);
            let warnings = config.warnings();
            assert!(warnings.iter().any(|text| text.contains(expected)), "{warnings:?}");
        };
        let all = |port| SocketAddr::from(([0, 0, 0, 0], port));
        warns(&|c| c.mqtt.listen = all(1883), "mqtt.listen = 0.0.0.0:1883 can be reached");
        warns(&|c| c.http.listen = all(8080), "there is no authentication");
        warns(&|c| c.kafka.listen = all(9092), "clients are told to connect to 127.0.0.1");
        warns(&|c| (c.partitions, c.shards) = (Some(2), Some(4)), "only 2 shards will start");
        warns(&|c| c.spin = Spin::Always, "spin keeps the cores busy");
    }

    #[test]
    fn streams_of_one_message() {
        let check = |topics: &[&[&str]], expected: usize| {
            let streams: Vec<Stream> = topics.iter().map(|topics| stream("s", topics)).collect();
            assert_eq!(streams_a_message(&streams), expected, "{topics:?}");
        };
        check(&[&["#"]], 1);
        check(&[&["a/#"], &["b/#"], &["c/#"]], 1);
        check(&[&["#"], &["b/#"], &["c/#"]], 2);
        check(&[&["#"], &["a/+"], &["a/b"], &["b"]], 3);
    }
}
