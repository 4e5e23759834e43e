//! The fault cases of the credits, each alone.

use tidegate::observe::HoldCause;
use tidegate::record::{Compression, Durability, PartitionBy};
use tidegate::shard::OWNED_BYTES_MAX;

use crate::devices::{Size, Wish};
use crate::memory;
use crate::packets::Contents;
use crate::setup::{Place, Setup, Stream};
use crate::world::World;

const DEVICES: usize = 24;

fn stream(filter: &'static str, by: PartitionBy, durability: Durability) -> Stream {
    Stream { filter, by, durability, compression: Compression::None, by_rule: false }
}

/// Devices whose connections belong to a shard.
fn devices_of(world: &World, shard: usize) -> Vec<usize> {
    let by_client = |client_id: &str| {
        let streams = vec![stream("#", PartitionBy::Client, Durability::Fsync)];
        let setup = Setup { streams, ..world.setup.clone() };
        setup.owner(setup.places(client_id, "any")[0])
    };
    let devices = world.devices.iter().enumerate();
    devices.filter(|(_, d)| by_client(&d.client_id) == shard).map(|(index, _)| index).collect()
}

/// A message for a stream by topic whose partition belongs to `shard`; `variant` tells topics apart.
fn wish(setup: &Setup, shard: usize, variant: usize, size: Size) -> Wish {
    let by_topic = Setup {
        streams: vec![stream("#", PartitionBy::Topic, Durability::Fsync)],
        ..setup.clone()
    };
    let topics = (0..).map(|n| format!("a/x/{n}"));
    let mut topics = topics.filter(|topic| {
        let places: Vec<Place> = by_topic.places("", topic);
        by_topic.owner(places[0]) == shard
    });
    let topic = topics.nth(variant).expect("there are topics for every shard");
    Wish { contents: Contents { topic, qos: 1, ..Contents::default() }, size, alias: None }
}

/// Connects devices to their own shards.
fn connect(world: &mut World, devices: &[usize], shard: usize) {
    devices.iter().for_each(|&device| world.connect(device, shard, false));
    world.settle();
}

/// Each of two shards has more for the other than the ring, the credits and the log hold, and
/// neither takes anything before the other is full, too.
#[test]
fn both_directions_full_at_once() {
    for credit_bytes in [300, 1_000, 10_000] {
        let setup = Setup { ring_slots: 4, credit_bytes, ..Setup::default() };
        let mut world = World::new(&setup, DEVICES, 1);
        let devices = [devices_of(&world, 0), devices_of(&world, 1)];
        for (shard, devices) in devices.iter().enumerate() {
            connect(&mut world, devices, shard);
        }
        for (shard, devices) in devices.iter().enumerate() {
            for &device in devices {
                let wish = wish(&setup, 1 - shard, device % 3, Size::Bytes(200));
                (0..20).for_each(|_| world.publish(device, &wish));
            }
            // As far as it comes alone.
            world.settle_without(&[1 - shard]);
        }
        for shard in 0..2 {
            let holds = &world.nodes[shard].metrics.mqtt.holds;
            assert!(holds.value(HoldCause::Ring) > 0, "{}", world.describe());
            assert!(world.nodes[shard].metrics.mqtt.held.value() > 0);
        }
        world.settle();
        world.stop();
    }
}

/// Rings, credits and logs are full of what one version of the rules has made, and messages wait that
/// it has looked at; then the shards take other rules, one after the other.
#[test]
fn rules_change_while_records_are_on_their_way() {
    for seed in 0..8 {
        let streams = [
            stream("#", PartitionBy::Topic, Durability::Fsync),
            stream("a/#", PartitionBy::Client, Durability::Write),
            stream("+/x/#", PartitionBy::None, Durability::Fsync),
        ];
        let streams = streams.map(|stream| Stream { by_rule: true, ..stream }).to_vec();
        let setup = Setup { streams, ring_slots: 8, credit_bytes: 300, ..Setup::default() };
        let mut world = World::new(&setup, DEVICES, seed);
        let devices = [devices_of(&world, 0), devices_of(&world, 1)];
        for (shard, devices) in devices.iter().enumerate() {
            connect(&mut world, devices, shard);
        }
        for round in 0..4 {
            for (shard, devices) in devices.iter().enumerate() {
                for &device in devices {
                    let wish = wish(&setup, 1 - shard, device % 3, Size::Bytes(200));
                    // No more than a device may have in flight.
                    (0..4).for_each(|_| world.publish(device, &wish));
                }
                world.settle_without(&[1 - shard]);
            }
            let ledger = &world.ledger;
            assert!(ledger.acknowledged < ledger.messages.len(), "records are on their way");
            world.reload(round % 2);
            world.settle_without(&[round % 2]);
            world.reload(1 - round % 2);
        }
        world.settle();
        assert!(world.holds(HoldCause::Ring) > 0);
        assert_eq!(world.ledger.acknowledged, world.ledger.messages.len());
        world.stop();
    }
}

/// Messages that several streams want, some here and some there, when there is only just room for
/// one, from all shards to all others.
#[test]
fn messages_for_several_shards_and_streams_at_once() {
    let streams = vec![
        stream("#", PartitionBy::Topic, Durability::Fsync),
        stream("#", PartitionBy::Client, Durability::Write),
        stream("a/#", PartitionBy::Topic, Durability::Memory),
        stream("+/x/#", PartitionBy::None, Durability::Fsync),
    ];
    let setup = Setup { shards: 4, streams, ring_slots: 2, credit_bytes: 300, ..Setup::default() };
    for seed in 0..5 {
        let mut world = World::new(&setup, DEVICES, seed);
        for (round, size) in
            [Size::Sixteenths(16), Size::Bytes(5), Size::Sixteenths(9)].iter().enumerate()
        {
            for device in 0..DEVICES {
                for shard in 0..4 {
                    world.publish(device, &wish(&setup, shard, round, *size));
                }
            }
            if round == 1 {
                world.settle_without(&[seed as usize % 4]);
            }
        }
        world.settle();
        assert!(world.holds(HoldCause::Ring) > 0 && world.holds(HoldCause::LogBuffer) > 0);
        assert_eq!(world.ledger.acknowledged, 3 * DEVICES * 4);
        world.stop();
    }
}

/// Devices that have something for a shard that does not turn wait; all others go on, also those on
/// the same shard that have something for a third one. When it turns, everybody has what he wants.
#[test]
fn a_peer_that_does_not_turn_stops_only_those_who_want_it() {
    let setup = Setup { shards: 3, receive_maximum: 100, ..Setup::default() };
    let mut world = World::new(&setup, DEVICES, 3);
    let devices = devices_of(&world, 0);
    let (stuck, well) = devices.split_at(devices.len() / 2);
    connect(&mut world, &devices, 0);
    for _ in 0..30 {
        for &device in stuck {
            world.publish(device, &wish(&setup, 2, 0, Size::Bytes(150)));
        }
    }
    world.settle_without(&[2]);
    assert_eq!(world.ledger.acknowledged, 0);
    assert_eq!(world.nodes[0].metrics.mqtt.held.value(), stuck.len() as u64);
    for _ in 0..50 {
        for &device in well {
            for shard in 0..2 {
                world.publish(device, &wish(&setup, shard, 1, Size::Bytes(150)));
            }
            world.ping(device);
        }
        stuck.iter().for_each(|&device| world.ping(device));
        world.settle_without(&[2]);
    }
    assert_eq!(world.ledger.acknowledged, 50 * 2 * well.len());
    assert!(world.nodes[0].sockets.buffers().1 <= setup.pinned_buffers_max() / 2);
    world.settle();
    assert_eq!(world.ledger.acknowledged, 50 * 2 * well.len() + 30 * stuck.len());
    world.stop();
}

/// While another shard does not turn, what waits for it takes a bounded part of the memory, however
/// large the packets are and however many devices send them.
#[test]
fn what_waits_takes_bounded_memory() {
    let setup = Setup {
        packet_bytes_max: 300_000,
        credit_bytes: 16 << 20,
        ring_slots: 256,
        receive_factor: 64,
        receive_bytes: 20_000,
        held_bytes_max: 40_000,
        ..Setup::default()
    };
    let mut world = World::new(&setup, DEVICES, 5);
    let devices = devices_of(&world, 0);
    connect(&mut world, &devices, 0);
    for round in 0..12 {
        for &device in &devices {
            // In a receive buffer, or assembled.
            let size = if round % 2 == 0 { Size::Bytes(500) } else { Size::Sixteenths(15) };
            world.publish(device, &wish(&setup, 1, 0, size));
        }
    }
    let held = memory::most_held(|| world.settle_without(&[1]));
    // A connection: a packet that is not whole, and what is read beyond it; buffers grow by doubling.
    let connection = 2 * (setup.packet_bytes_max + setup.held_bytes_max + setup.receive_bytes);
    let bound = OWNED_BYTES_MAX + devices.len() * connection + (1 << 20);
    println!("{held} bytes, at most {bound}");
    assert!(held > OWNED_BYTES_MAX / 2, "{held} bytes: nothing waits");
    assert!(held <= bound, "{held} bytes, at most {bound}");
    assert_eq!(world.nodes[0].metrics.mqtt.held.value(), devices.len() as u64);
    world.settle();
    world.stop();
}

/// Credit that is granted for a message that is gone goes back, also where nobody but the sender
/// knows that it is gone.
#[test]
fn credit_for_a_message_that_is_gone_goes_back() {
    let setup = Setup { credit_bytes: 300, ..Setup::default() };
    // The receiver sees the want, and the sender takes it back before it can see the grant: after
    // some step or other of the two.
    for steps in 0..16 {
        let mut world = World::new(&setup, DEVICES, 7);
        let device = devices_of(&world, 0)[0];
        connect(&mut world, &[device], 0);
        world.publish(device, &wish(&setup, 1, 0, Size::Sixteenths(16)));
        world.settle_without(&[1]);
        assert_eq!(world.nodes[0].metrics.ring.ways[1].waits.value(), 1);
        for _ in 0..steps {
            world.step(1);
        }
        // It takes over from itself, and sends nothing.
        world.connect(device, 0, false);
        world.settle_without(&[1]);
        world.settle();
    }
}

/// The disk of one shard is full: those who want it wait, and a stop does not. What was acknowledged
/// is there all the same, and the other shard lets go of what it sent there.
#[test]
fn a_stop_with_a_full_disk_ends() {
    for full in [vec![0], vec![1], vec![0, 1]] {
        let setup = Setup { segment_factor: 1, receive_maximum: 1_000, ..Setup::default() };
        let mut world = World::new(&setup, DEVICES, 9);
        full.iter().for_each(|&shard| world.nodes[shard].storage.full = true);
        for round in 0..40 {
            for device in 0..DEVICES {
                world.publish(device, &wish(&setup, round % 2, device, Size::Bytes(300)));
            }
            world.settle_without(&[]);
        }
        assert!(world.holds(HoldCause::DiskFull) > 0);
        assert!(world.ledger.acknowledged < world.ledger.messages.len());
        world.stop();
        let gave_up = world.nodes.iter().filter(|node| node.gave_up).map(|node| node.index);
        assert!(gave_up.eq(full.iter().copied()), "who gave up");
    }
}

/// When the disk has room again, everybody goes on.
#[test]
fn a_full_disk_that_has_room_again() {
    let setup = Setup { segment_factor: 1, receive_maximum: 1_000, ..Setup::default() };
    let mut world = World::new(&setup, DEVICES, 11);
    world.nodes[1].storage.full = true;
    for round in 0..40 {
        for device in 0..DEVICES {
            world.publish(device, &wish(&setup, round % 2, device, Size::Bytes(300)));
        }
    }
    world.settle_without(&[]);
    assert!(world.holds(HoldCause::DiskFull) > 0);
    world.nodes[1].storage.full = false;
    world.nodes[1].awake = true;
    world.settle();
    assert_eq!(world.ledger.acknowledged, 40 * DEVICES);
}
