//! Devices that reconnect all the time, at any moment and anywhere: in the middle of a packet, with
//! acknowledgements unread, from a second socket while the first is open.
//!
//! Each device sends a sequence, and on each new connection it goes on with the first message that
//! is not acknowledged. TIDEGATE_RECONNECT_SEED repeats a run's choices, though not its timing.

use std::fmt::Display;
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::clients::{any_consumer, read_all, skipped_anyway};
use crate::crowd::open_files_max;
use crate::engine::{DEADLINE, Engine, Setup, poll, scratch, wait_until};
use crate::random::{Random, seed};
use crate::sequences;
use crate::wire::{CONNACK, Connect, DISCONNECT, Look, PUBACK, Packet, Publish, Version, Wire};

const DEVICES: usize = 500;
const THREADS: usize = 4;
/// Messages of each device, and what it does to its connections meanwhile.
const MESSAGES: u64 = 60;
const TROUBLES: u32 = 7;
const WINDOW: u64 = 12;

const TOPIC_ALIAS: u8 = 0x23;
const SESSION_TAKEN_OVER: u8 = 0x8e;

/// One socket of a device.
struct Link {
    wire: Wire,
    /// The first message that was sent here, and how many were from there on.
    first: u64,
    sent: u64,
    acknowledged: u64,
    /// Packet identifiers begin anywhere, so that an acknowledgement of another connection's
    /// message would not be taken for one of this one's.
    first_packet_id: u64,
    introduced: bool,
    knows_topic: bool,
    /// What the socket was not given yet.
    unsent: Vec<u8>,
}

struct Device {
    name: String,
    topic: String,
    version: Version,
    uses_alias: bool,
    acknowledged: u64,
    troubles: u32,
    live: Option<Link>,
    /// Earlier sockets that are still open: the engine is to close them.
    ghosts: Vec<Link>,
}

fn topic_of(device: impl Display) -> String {
    format!("own/{device}/state")
}

impl Link {
    fn open(port: u16, device: &Device, random: &mut Random) -> Self {
        let connect = Connect { clean: false, ..Connect::new(device.version, &device.name) };
        Self {
            wire: Wire::open(port, device.version).expect("the MQTT port accepts"),
            first: device.acknowledged,
            sent: 0,
            acknowledged: 0,
            first_packet_id: random.below(65_535),
            introduced: false,
            knows_topic: false,
            unsent: connect.bytes(),
        }
    }

    fn packet_id(&self, index: u64) -> u16 {
        ((self.first_packet_id + index) % 65_535) as u16 + 1
    }

    /// Adds the next message to what is to be sent.
    fn publish(&mut self, topic: &str, uses_alias: bool, random: &mut Random) {
        let mut payload = (self.first + self.sent).to_string().into_bytes();
        // Now and then more than a receive buffer of the engine.
        let filler = if random.below(40) == 0 { random.below(40_000) } else { random.below(100) };
        payload.resize(payload.len() + filler as usize, b'.');
        let mut message = Publish::new(topic, self.packet_id(self.sent), &payload);
        if uses_alias {
            message.properties = &[TOPIC_ALIAS, 0, 1];
            let again = std::mem::replace(&mut self.knows_topic, true) && random.below(4) > 0;
            message.topic = if again { "" } else { topic };
        }
        self.unsent.extend(message.bytes(self.wire.version));
        self.sent += 1;
    }

    /// Gives the socket what is to be sent, mostly all of it.
    fn send(&mut self, random: &mut Random) {
        let all = self.unsent.len();
        let some = if random.below(3) == 0 { random.below(all as u64 + 1) as usize } else { all };
        let rest = self.unsent.split_off(some);
        self.wire.send_unheard(&self.unsent);
        self.unsent = rest;
    }

    /// Reads what has come. Whether the connection is still there.
    fn listen(&mut self, name: &str) -> bool {
        loop {
            match self.wire.look() {
                Look::Packet(packet) => self.take(name, &packet),
                Look::Nothing => return true,
                Look::Ended => return false,
            }
        }
    }

    fn take(&mut self, name: &str, packet: &Packet) {
        match packet.kind() {
            CONNACK => {
                assert!(!self.introduced && packet.reason() == 0, "{name}: {packet:?}");
                self.introduced = true;
            }
            PUBACK => {
                assert!(self.introduced && packet.reason() == 0, "{name}: {packet:?}");
                assert!(self.acknowledged < self.sent, "{name}: {packet:?} for nothing");
                assert_eq!(packet.id(), self.packet_id(self.acknowledged), "{name}: in order");
                self.acknowledged += 1;
            }
            DISCONNECT => assert_eq!(packet.reason(), SESSION_TAKEN_OVER, "{name}"),
            _ => panic!("{name}: {packet:?}"),
        }
    }
}

impl Device {
    fn new(index: usize) -> Self {
        let version = if index.is_multiple_of(2) { Version::V5 } else { Version::V311 };
        Self {
            name: format!("device-{index}"),
            topic: topic_of(index),
            version,
            uses_alias: version == Version::V5 && index % 3 == 1,
            acknowledged: 0,
            troubles: TROUBLES,
            live: None,
            ghosts: Vec::new(),
        }
    }

    /// Reads from all its sockets. Whether anything was acknowledged.
    fn listen(&mut self) -> bool {
        let before = self.acknowledged;
        let Self { name, live, ghosts, acknowledged, .. } = self;
        let mut still_there = |link: &mut Link| {
            let there = link.listen(name);
            // Also what a ghost hears is a promise.
            *acknowledged = (*acknowledged).max(link.first + link.acknowledged);
            there
        };
        ghosts.retain_mut(&mut still_there);
        if live.as_mut().is_some_and(|link| !still_there(link)) {
            *live = None;
        }
        self.acknowledged > before
    }

    /// One step of its life. None when it has nothing more to do, else whether it got on.
    fn step(&mut self, port: u16, random: &mut Random) -> Option<bool> {
        let heard = self.listen();
        let done = self.acknowledged == MESSAGES;
        if done && self.ghosts.is_empty() {
            self.live = None;
            return None;
        }
        let Some(mut link) = self.live.take() else {
            self.live = Some(Link::open(port, self, random));
            return Some(true);
        };
        // Ghosts go on sending what they had begun.
        self.ghosts.iter_mut().filter(|_| random.below(8) == 0).for_each(|ghost| {
            let rest = std::mem::take(&mut ghost.unsent);
            ghost.wire.send_unheard(&rest);
        });
        let before = link.sent;
        for _ in 0..random.below(5) {
            let next = link.first + link.sent;
            if next < MESSAGES && next < self.acknowledged + WINDOW {
                link.publish(&self.topic, self.uses_alias, random);
            }
        }
        let got_on = heard || link.sent > before || !link.unsent.is_empty();
        link.send(random);
        if !done && self.troubles > 0 && random.below(4) == 0 {
            self.troubles -= 1;
            self.trouble(link, port, random);
        } else {
            self.live = Some(link);
        }
        Some(got_on)
    }

    /// Something happens to the connection, whatever has been sent of a packet.
    fn trouble(&mut self, mut link: Link, port: u16, random: &mut Random) {
        match random.below(6) {
            // A second socket, while the first is open.
            0..3 => {
                self.live = Some(Link::open(port, self, random));
                self.ghosts.push(link);
            }
            // The end of what it sends; it still hears.
            3 => {
                let _ = link.wire.stream.shutdown(Shutdown::Write);
                self.ghosts.push(link);
            }
            // An orderly end, where no packet has begun.
            4 if link.unsent.is_empty() => link.wire.send_unheard(&[0xe0, 0]),
            // Gone, with what has come unread or not: a reset or the end of the stream.
            _ => {}
        }
    }
}

/// Plays its part of the devices until each has all its acknowledgements and no open ghost.
fn play(port: u16, devices: &mut [Device], mut random: Random) {
    let deadline = Instant::now() + 2 * DEADLINE;
    let mut playing: Vec<&mut Device> = devices.iter_mut().collect();
    while !playing.is_empty() {
        let mut got_on = false;
        playing.retain_mut(|device| match device.step(port, &mut random) {
            Some(progress) => {
                got_on |= progress;
                true
            }
            None => false,
        });
        if !got_on {
            poll(Duration::from_millis(1), || None::<()>);
        }
        let stuck = |device: &&mut Device| {
            let (name, open) = (&device.name, device.ghosts.len());
            format!("{name}: {} acknowledged, {open} ghosts", device.acknowledged)
        };
        assert!(Instant::now() < deadline, "{:#?}", playing.iter().map(stuck).collect::<Vec<_>>());
    }
}

/// What every run has: all is in the log, in order, and nothing stays behind in the engine.
fn check(engine: &Engine, devices: &[Device], client_is_key: bool) {
    let sum = |name: &str| engine.metric(name, "");
    assert_eq!(sum("mqtt_rejects"), 0.0, "nothing that was sent is wrong");
    assert!(sum("taken_over") > DEVICES as f64 && sum("hand_offs") > DEVICES as f64);
    for gauge in ["mqtt_connections", "mqtt_connections_held", "ring_pinned_buffers"] {
        let gauge = format!("tidegate_{gauge}");
        wait_until(&format!("{gauge} to be 0"), || {
            let (_, text) = engine.get("/metrics").ok()?;
            let rows = text.lines().filter(|line| line.starts_with(&format!("{gauge}{{")));
            rows.into_iter().all(|line| line.ends_with(" 0")).then_some(())
        });
    }
    let Some(consumer) = any_consumer() else { return };
    let records = read_all(consumer, engine, "telemetry");
    for record in &records {
        let client = sequences::client_of(record);
        // Also where only an alias named it.
        let topic = topic_of(client.trim_start_matches("device-"));
        assert_eq!(record.header("mqtt.topic"), Some(&*topic), "{client}");
        assert_eq!(record.key, if client_is_key { client } else { &*topic });
    }
    let acknowledged: Vec<(String, u64)> =
        devices.iter().map(|device| (device.name.clone(), device.acknowledged)).collect();
    sequences::check(&records, &acknowledged);
    println!(
        "{} connections, {} records read of {} sent, {} crossed",
        sum("connections_accepted"),
        records.len(),
        DEVICES as u64 * MESSAGES,
        sum("ring_records_total")
    );
}

fn reconnect(config: &str, client_is_key: bool) {
    if open_files_max() < 4 * DEVICES {
        skipped_anyway("needs 2,000 open files: ulimit -n 4096");
        return;
    }
    let scratch = scratch();
    // However slow the machine, nobody is closed for a CONNECT that stands half.
    let patient = ["--shards", "2", "--mqtt-connect-timeout", "10m"];
    let setup = Setup::new(scratch.path()).config(config).argument(&patient);
    let engine = setup.start();
    let port = engine.ports.mqtt;
    let seed = seed("TIDEGATE_RECONNECT_SEED");
    println!("TIDEGATE_RECONNECT_SEED={seed}");
    let mut devices: Vec<Device> = (0..DEVICES).map(Device::new).collect();
    std::thread::scope(|scope| {
        for (part, devices) in devices.chunks_mut(DEVICES.div_ceil(THREADS)).enumerate() {
            let random = Random::new(seed ^ ((part as u64 + 1) << 40));
            scope.spawn(move || play(port, devices, random));
        }
    });
    if !client_is_key {
        wait_until("records to have crossed", || {
            (engine.metric("ring_records_total", "") > 0.0).then_some(())
        });
    }
    check(&engine, &devices, client_is_key);
    engine.stop();
}

#[test]
fn devices_that_reconnect_keep_their_order() {
    reconnect("", true);
}

#[test]
fn devices_that_reconnect_keep_the_order_of_their_topics() {
    reconnect("[[stream]]\nname = \"telemetry\"\npartition_by = \"topic\"\n", false);
}
