//! What the engine says when it has started: what it uses, and where to connect.

use std::net::SocketAddr;

use super::Ground;
use crate::config::{Config, Prepare, Spin};
use crate::shard::OWNED_BYTES_MAX;

/// Prints the banner to stdout.
pub fn print(config: &Config, ground: &Ground, http: SocketAddr) {
    // Where stdout is gone there is nobody to tell.
    let _ = std::io::Write::write_all(
        &mut std::io::stdout().lock(),
        text(config, ground, http).as_bytes(),
    );
}

fn text(config: &Config, ground: &Ground, http: SocketAddr) -> String {
    let manifest = &ground.data.manifest;
    let mut lines = vec![format!("tidegate {} is ready", env!("CARGO_PKG_VERSION"))];
    let mut row = |name: &str, value: String| lines.push(format!("  {name:<11} {value}"));
    let spin = match config.spin {
        Spin::Off => "sleeping when idle".to_owned(),
        Spin::For(time) => format!("polling {time:?} before sleeping"),
        Spin::Always => "always polling".to_owned(),
    };
    row("shards", format!("{} on core {}, {spin}", ground.shards, ground.layout.cores()));
    let kafka = config.kafka.listen;
    let last = kafka.port() + ground.shards as u16 - 1;
    let range = if ground.shards > 1 { format!("{kafka} to {last}") } else { kafka.to_string() };
    row("MQTT", format!("{} (3.1.1 and 5, QoS 0 and 1)", config.mqtt.listen));
    row("Kafka", format!("{range}, clients are told {}", config.kafka_host()));
    row("HTTP", format!("http://{http} (/metrics, /healthz, /readyz)"));
    row("data", data(config, ground));
    let streams: Vec<_> = config
        .streams
        .iter()
        .map(|s| format!("{} ({}, {})", s.name, s.durability.name(), s.compression.name()))
        .collect();
    row("streams", format!("{}; {} partitions each", streams.join(", "), manifest.partitions));
    for (table, now) in ground.plan.tables.all.iter().zip(&*ground.plan.tables.current()) {
        let kib = now.bytes().len().div_ceil(1024);
        row(
            "table",
            format!("{}: {} rows, {kib} KiB, of {}", table.name, now.rows(), table.path.display()),
        );
    }
    row("disk", disk(ground));
    row("memory", memory(config, ground));
    for note in &ground.notes {
        row("note", note.clone());
    }
    let mqtt = connectable(config.mqtt.listen);
    let stream = &config.streams[0].name;
    lines.push("Try:".to_owned());
    lines.push(format!(
        "  mosquitto_pub -h {} -p {} -q 1 -i device-1 -t plant/1/temp -m 21.5",
        mqtt.ip(),
        mqtt.port()
    ));
    let node = SocketAddr::new(connectable(kafka).ip(), kafka.port());
    lines.push(format!("  kcat -b {node} -C -t {stream} -o beginning -e -f '%k %h %s\\n'"));
    lines.push(String::new());
    lines.join("\n")
}

fn data(config: &Config, ground: &Ground) -> String {
    let manifest = &ground.data.manifest;
    let kept = manifest.sealed.len();
    format!(
        "{} (start {}, {kept} segment{} of earlier ones)",
        config.data_dir.display(),
        manifest.starts,
        if kept == 1 { "" } else { "s" }
    )
}

fn disk(ground: &Ground) -> String {
    let probe = &ground.disk.probe;
    let us = |ns: u64| ns / 1000;
    let how = match ground.prepare {
        Prepare::Append => "segments grow by appending",
        Prepare::Zero | Prepare::Auto => "segments are zero-filled ahead",
    };
    format!(
        "write+flush {} µs over zeros, {} µs appending: {how}; {} of {} GiB free",
        us(probe.overwrite.median),
        us(probe.append.median),
        ground.disk.free_bytes >> 30,
        ground.disk.total_bytes >> 30
    )
}

/// Bytes of a slot of a ring: the record as it is handed over, and what its sender keeps beside the
/// ring until the record is settled.
const RING_SLOT_BYTES: usize = 64 + 64;

/// What the limits of the configuration add up to.
fn memory(config: &Config, ground: &Ground) -> String {
    let log = &config.log;
    let receive = (config.receive.buffers + config.receive.kafka_buffers) as usize
        * config.receive.buffer_bytes;
    let others = ground.shards as usize - 1;
    // Each way may always take one packet more than its part of the kept memory.
    let kept =
        OWNED_BYTES_MAX.min(others * OWNED_BYTES_MAX) + others * config.mqtt.packet_bytes_max;
    let rings = others * config.ring.slots as usize * RING_SLOT_BYTES + kept;
    // Records that gather, and the commit that is being written.
    let a_shard =
        2 * log.buffer_bytes + log.tail_cache_bytes + log.read_cache_bytes + rings + receive;
    let mqtt =
        config.mqtt.held_bytes_max.max(config.mqtt.packet_bytes_max) + config.mqtt.send_bytes_max;
    format!(
        "{} MiB planned for {} shard{}; at the most {} KiB more for each of {} MQTT connections",
        (a_shard * ground.shards as usize) >> 20,
        ground.shards,
        if ground.shards == 1 { "" } else { "s" },
        mqtt >> 10,
        ground.connections_max
    )
}

/// An address that a client on this machine can connect to.
fn connectable(listen: SocketAddr) -> SocketAddr {
    match listen {
        SocketAddr::V4(address) if address.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv4Addr::LOCALHOST.into(), address.port())
        }
        SocketAddr::V6(address) if address.ip().is_unspecified() => {
            SocketAddr::new(std::net::Ipv6Addr::LOCALHOST.into(), address.port())
        }
        other => other,
    }
}
