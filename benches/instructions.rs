//! The stations' hot paths, so many rounds of them, for a tool that counts instructions.
//!
//! Not a benchmark by itself: `scripts/instructions.sh` runs `instructions CASE ROUNDS` under
//! valgrind with two numbers of rounds, and the difference is what the rounds cost. Prints how many
//! messages a round has. One shard without I/O, driven by the harness of tests/allocations.

#[path = "../tests/allocations/harness.rs"]
#[allow(dead_code)] // the tests ask it for more
mod harness;

use std::process::ExitCode;

use harness::{PARTITIONS, Rig, Setup, fetch, properties, publish};
use tidegate::record::{Compression, Durability, partition_of};
use tidegate::shard::{ConnId, Protocol};

/// Rounds until buffers have grown.
const WARM_UP: usize = 20;
const PAYLOAD: &[u8] = br#"{"ts":1700000000000,"site":"plant-7","line":3,"temperature":21.53,"humidity":41.2,"battery":0.87,"ok":true,"sequence":104729}  "#;

/// What a round does.
struct Case {
    name: &'static str,
    devices: usize,
    messages: usize,
    version: u8,
    qos: u8,
    compression: Compression,
    /// Somebody reads what is committed.
    consumer: bool,
}

const PLAIN: Case = Case {
    name: "publish, groups of 16",
    devices: 16,
    messages: 16,
    version: 4,
    qos: 1,
    compression: Compression::None,
    consumer: false,
};

const CASES: [Case; 6] = [
    PLAIN,
    Case { name: "publish, one by one", devices: 256, messages: 1, ..PLAIN },
    Case { name: "publish, QoS 0", qos: 0, ..PLAIN },
    Case { name: "publish, MQTT 5 with properties", version: 5, ..PLAIN },
    Case { name: "publish, LZ4", compression: Compression::Lz4, ..PLAIN },
    Case { name: "publish and fetch", devices: 1, messages: 256, consumer: true, ..PLAIN },
];

/// One shard with its devices and what they send in a round.
struct Bed {
    rig: Rig,
    bursts: Vec<(ConnId, Vec<u8>)>,
    consumer: Option<(ConnId, u32)>,
}

impl Bed {
    fn new(case: &Case) -> Self {
        let streams = vec![("#", Durability::Fsync, case.compression)];
        // No segment ends meanwhile: what that costs has a test of its own.
        let mut rig = Rig::new(&Setup { streams, segment_bytes: 1 << 30, ..Setup::default() });
        let properties = properties(1);
        let properties = (case.version == 5).then_some(properties.as_slice());
        let bursts = (0..case.devices)
            .map(|i| {
                let id = rig.connect(case.version, &device(i));
                let topic = format!("plant/{i}/line/3/temperature");
                (id, publish(&topic, case.qos, properties, PAYLOAD).repeat(case.messages))
            })
            .collect();
        let consumer = case.consumer.then(|| {
            (rig.accept(Protocol::Kafka), partition_of(device(0).as_bytes(), PARTITIONS).0)
        });
        Self { rig, bursts, consumer }
    }

    fn round(&mut self) {
        let Self { rig, bursts, consumer } = self;
        if let Some((id, partition)) = *consumer {
            let request = fetch(partition, rig.end(0, partition), 1 << 20);
            rig.receive(id, &request, usize::MAX);
        }
        for (id, burst) in bursts {
            rig.receive(*id, burst, 16 << 10);
        }
        rig.settle();
    }
}

fn device(number: usize) -> String {
    format!("device-{number}")
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => println!("scripts/instructions.sh counts what the hot paths cost"),
        ["list"] => CASES.iter().for_each(|case| println!("{}", case.name)),
        [name, rounds] => {
            let case = CASES.iter().find(|case| case.name == name);
            let (Some(case), Ok(rounds)) = (case, rounds.parse::<usize>()) else {
                eprintln!("no such case, or no number of rounds: {name}, {rounds}");
                return ExitCode::from(2);
            };
            let mut bed = Bed::new(case);
            (0..WARM_UP + rounds).for_each(|_| bed.round());
            let messages = case.devices * case.messages;
            assert_eq!(bed.rig.messages().0, ((WARM_UP + rounds) * messages) as u64);
            println!("{messages}");
        }
        _ => {
            eprintln!("usage: instructions [list | CASE ROUNDS]");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}
