//! What depends on the number of shards: their ports, and the room that their rings take.
//!
//! The configuration alone does not always know that number: these relations are checked once with
//! what it knows, and once more by the engine when it has counted the cores.

use std::net::{IpAddr, SocketAddr};

use super::super::section::Section;
use super::super::{Config, Problem};
use super::{bare, streams_a_message};

/// What is granted ahead and the largest packet take one part in so many of the log's buffer at the
/// most; the rest is for what the shard's own connections send.
const GRANTED_PART: usize = 2;
/// Receive buffers that there must be for each ring, as records on their way pin them.
const BUFFERS_A_RING: u32 = 4;

impl Config {
    /// Checks what depends on the number of shards. The engine calls it again when it has counted
    /// the cores.
    pub fn check_shards(&self, shards: u32) -> Result<(), Vec<Problem>> {
        let mut problems = self.ports(shards);
        problems.extend(self.slots(shards));
        problems.extend(self.credit(shards));
        problems.extend(self.pinned(shards));
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn ports(&self, shards: u32) -> Vec<Problem> {
        let mut problems = Vec::new();
        let (mqtt, kafka, http) = (self.mqtt.listen, self.kafka.listen, self.http.listen);
        let last = u32::from(kafka.port()).saturating_add(shards.saturating_sub(1));
        if kafka.port() != 0 && last > u32::from(u16::MAX) {
            problems.push(Problem::of(
                &["kafka.listen", "shards", "cores"],
                format!("kafka.listen = {kafka} leaves too few ports for {shards} shards"),
                format!(
                    "each shard has a port of its own; choose one up to {}",
                    65_536_u32.saturating_sub(shards)
                ),
            ));
        }
        for (key, other) in [("mqtt.listen", mqtt), ("http.listen", http)] {
            let within = (u32::from(kafka.port())..=last).contains(&u32::from(other.port()));
            if kafka.port() != 0 && within && same_host(kafka, other) {
                problems.push(Problem::of(
                    &[key, "kafka.listen", "shards", "cores"],
                    format!(
                        "{key} = {other} is one of the ports of kafka.listen = {kafka}, \
                         which go up to {last}"
                    ),
                    "each shard has a Kafka port of its own; move one of the two".to_owned(),
                ));
            }
        }
        if mqtt.port() != 0 && mqtt.port() == http.port() && same_host(mqtt, http) {
            problems.push(Problem::of(
                &["http.listen", "mqtt.listen"],
                format!("mqtt.listen and http.listen have the same port {}", mqtt.port()),
                "give one of them another port".to_owned(),
            ));
        }
        problems
    }

    /// A message takes all its slots or none.
    fn slots(&self, shards: u32) -> Option<Problem> {
        let (slots, streams) = (self.ring.slots, streams_a_message(&self.streams));
        if shards < 2 || slots as usize >= streams {
            return None;
        }
        Some(Problem::of(
            &["ring.slots", "stream"],
            format!("ring.slots = {slots} is too small: a message may belong to {streams} streams"),
            format!("raise ring.slots to at least {}", streams.next_power_of_two()),
        ))
    }

    /// What is granted ahead to all other shards, and the largest packet, fit half of the log's
    /// buffer: else granting could leave nothing for a shard's own connections.
    fn credit(&self, shards: u32) -> Option<Problem> {
        let others = shards.checked_sub(1).filter(|others| *others > 0)? as usize;
        let (buffer, credit) = (self.log.buffer_bytes, self.ring.credit_bytes);
        let packet = streams_a_message(&self.streams) * self.record_bytes_max();
        let needed = GRANTED_PART * (others * credit + packet);
        if needed <= buffer {
            return None;
        }
        let mut remedies = Vec::new();
        let mut raised = self.log.clone();
        raised.buffer_bytes = needed.next_multiple_of(1 << 10);
        if raised.within_bounds("buffer_bytes") {
            remedies
                .push(format!("raise log.buffer_bytes to at least {}", bare(raised.buffer_bytes)));
        }
        let mut lowered = self.ring.clone();
        let most = (buffer / GRANTED_PART).saturating_sub(packet) / others;
        lowered.credit_bytes = most - most % 1024;
        if lowered.within_bounds("credit_bytes") {
            let most = bare(lowered.credit_bytes);
            remedies.push(format!("lower ring.credit_bytes to at most {most}"));
        } else {
            remedies.push("lower mqtt.packet_bytes_max".to_owned());
        }
        let (whom, each) = match others {
            1 => ("other".to_owned(), ""),
            _ => (format!("{others} others"), " each"),
        };
        Some(Problem::of(
            &["log.buffer_bytes", "ring.credit_bytes", "mqtt.packet_bytes_max", "shards", "cores"],
            format!(
                "log.buffer_bytes = {} is too small for {shards} shards: half of it must hold what \
                 each grants the {whom} (ring.credit_bytes = {}{each}) beside the largest packet for \
                 every stream that may want it ({})",
                bare(buffer),
                bare(credit),
                bare(packet.next_multiple_of(1 << 10))
            ),
            remedies.join(", or "),
        ))
    }

    /// Records on their way to another shard refer to receive buffers; each way has its share.
    fn pinned(&self, shards: u32) -> Option<Problem> {
        let others = shards.checked_sub(1).filter(|others| *others > 0)?;
        let buffers = self.receive.buffers;
        if others <= buffers / BUFFERS_A_RING {
            return None;
        }
        let whom = if others == 1 { "to the other" } else { "to each of the others" };
        Some(Problem::of(
            &["receive.buffers", "shards", "cores"],
            format!(
                "receive.buffers = {buffers} is too small for {shards} shards: records on their way \
                 {whom} may keep a share of them"
            ),
            format!(
                "raise receive.buffers to at least {}, or start no more shards than {}",
                (BUFFERS_A_RING * others).next_power_of_two(),
                buffers / BUFFERS_A_RING + 1
            ),
        ))
    }
}

/// Whether two listeners at the same port would meet. `[::]` takes the IPv4 addresses too.
fn same_host(a: SocketAddr, b: SocketAddr) -> bool {
    let takes = |all: IpAddr, one: IpAddr| match all {
        IpAddr::V4(ip) => ip.is_unspecified() && one.is_ipv4(),
        IpAddr::V6(ip) => ip.is_unspecified(),
    };
    a.ip() == b.ip() || takes(a.ip(), b.ip()) || takes(b.ip(), a.ip())
}
