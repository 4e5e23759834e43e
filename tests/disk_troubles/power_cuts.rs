//! The power is cut while devices publish, at any moment of an engine's life: what was acknowledged
//! at `fsync` is there afterwards, each device's sequence is in order, nothing is taken for damage
//! that is none, and no offset that a consumer has seen means anything else later, at `write` either.
//!
//! Between two cuts the engine is killed now and then: what the next one finds and keeps is not
//! flushed yet.
//!
//! TIDEGATE_POWER_CUTS sets the number of cuts (50 and 25), TIDEGATE_POWER_CUTS_SEED repeats a run's
//! choices; when a request of the engine comes is not among them.

use std::collections::HashSet;
use std::io::Write;
use std::time::{Duration, Instant};

use crate::clients::{Consumer, Record, has, read_all};
use crate::engine::{Engine, Setup, poll, scratch, wait_until};
use crate::faulty_disk::FaultyDisk;
use crate::publishers::{BUDGET, Device, Progress, while_publishing};
use crate::random::{Random, number, seed};
use crate::sequences;

/// Half of them publish to the stream that is flushed, half to the other.
const DEVICES: usize = 12;

/// Small limits: segments are begun, filled and sealed all along.
const LIMITS: &str = r##"
[mqtt]
packet_bytes_max = "16KiB"

[log]
segment_bytes = "1MiB"
segments_ahead = 1
buffer_bytes = "256KiB"
batch_bytes_max = "96KiB"
reserve_bytes = 0

[ring]
credit_bytes = "16KiB"
"##;

/// Requests of a start that change something, and some more.
const REQUESTS_OF_A_START: u64 = 400;
/// Requests of some commits.
const REQUESTS_UNDER_LOAD: u64 = 600;

fn streams(more: &str) -> String {
    format!(
        "{LIMITS}\n\
         [[stream]]\nname = \"flushed\"\ntopics = [\"flushed/#\"]\npartition_by = \"topic\"\n{more}\n\
         [[stream]]\nname = \"written\"\ntopics = [\"written/#\"]\ndurability = \"write\"\n{more}\n"
    )
}

fn devices() -> Vec<Device> {
    let prefix = |i| if i < DEVICES / 2 { "flushed" } else { "written" };
    (0..DEVICES).map(|i| Device::of_crowd(i, prefix(i))).collect()
}

/// An engine on a disk whose power is cut now and again.
struct Ordeal {
    disk: FaultyDisk,
    setup: Setup,
    random: Random,
    /// `zero` or `append`; where there is none each start has another.
    prepare: Option<&'static str>,
    /// Whether retention leaves everything.
    keeps_all: bool,
    /// What consumers have read so far, of the stream that is flushed and of the other.
    flushed: Vec<Record>,
    written: Vec<Record>,
}

impl Ordeal {
    fn new(disk: FaultyDisk, config: &str, random: Random) -> Self {
        let setup = disk.setup(config);
        let (flushed, written) = (Vec::new(), Vec::new());
        Self { disk, setup, random, prepare: None, keeps_all: true, flushed, written }
    }

    /// Reads everything; it fits what was read before.
    fn look(&mut self, engine: &Engine) {
        let flushed = read_all(Consumer::Kcat, engine, "flushed");
        match self.keeps_all {
            true => sequences::check_kept(&self.flushed, &flushed),
            false => sequences::check_unchanged(&self.flushed, &flushed),
        }
        self.flushed = flushed;
        let written = read_all(Consumer::Kcat, engine, "written");
        sequences::check_offsets(&written);
        sequences::check_unchanged(&self.written, &written);
        // What was lost since stays seen: its offset must not come back as something else.
        self.written.extend(written);
        self.written.sort_by_key(|record| (record.partition, record.offset));
        self.written.dedup();
    }

    /// One life of the engine, and how it ended.
    fn live(&mut self, round: u64, progress: &Progress) -> String {
        let shards = ["1", "2", "3"][self.random.below(3) as usize];
        let prepare = ["zero", "append"][self.random.below(2) as usize];
        let prepare = self.prepare.unwrap_or(prepare);
        let setup = self.setup.clone().argument(&["--shards", shards, "--log-prepare", prepare]);
        let young = round > 1 && self.random.below(3) == 0;
        let requests =
            self.random.below(if young { REQUESTS_OF_A_START } else { REQUESTS_UNDER_LOAD });
        if young {
            self.disk.cut_after(requests);
        }
        let mut engine = setup.spawn();
        if !young {
            engine.await_ready();
            if round.is_multiple_of(5) {
                self.look(&engine);
                // Meanwhile the devices have sent all they may.
                progress.next_round();
            }
            self.disk.cut_after(requests);
        }
        let before = progress.acknowledged();
        let came = poll(Duration::from_secs(5), || self.disk.is_off().then_some(())).is_some();
        self.disk.cut();
        let acknowledged = progress.acknowledged() - before;
        engine.kill();
        progress.next_round();
        self.disk.power_on();
        let moment = match (came, young) {
            (true, true) => "in its start or soon after",
            (true, false) => "under load",
            (false, _) => "when nothing was left to do",
        };
        format!("{moment}, {acknowledged} acknowledged, {shards} shards, {prepare}")
    }

    /// A life that ends without a cut: the next start finds what was not flushed, and a later cut
    /// may take it.
    fn live_and_be_killed(&mut self, progress: &Progress) {
        let engine = self.setup.start();
        let target = progress.acknowledged() + self.random.below(DEVICES as u64 * BUDGET / 2);
        poll(Duration::from_secs(5), || (progress.acknowledged() >= target).then_some(()));
        engine.kill();
        progress.next_round();
    }

    fn cut(&mut self, cuts: u64, progress: &Progress) {
        for round in 1..=cuts {
            if self.random.below(3) == 0 {
                self.live_and_be_killed(progress);
            }
            let begun = Instant::now();
            let end = self.live(round, progress);
            let took = begun.elapsed();
            let _ = writeln!(std::io::stderr(), "cut {round} of {cuts}: {end}, {took:.1?}");
        }
    }

    /// The last start, of an engine that then ends cleanly: a cut is no damage.
    fn end(&mut self) -> String {
        let engine = self.setup.start();
        self.look(&engine);
        assert_eq!(engine.metric("partition_fenced_offsets", ""), 0.0);
        let said = engine.said();
        let damage = said.lines().find(|line| line.contains("damage"));
        assert_eq!(damage, None, "nothing was damaged");
        engine.stop();
        said
    }
}

/// The disk, the seed and the number of cuts, unless the test is skipped.
fn begin(scratch: &std::path::Path, cuts: u64) -> Option<(FaultyDisk, Random, u64)> {
    if !has("kcat") {
        return None;
    }
    let seed = seed("TIDEGATE_POWER_CUTS_SEED");
    let _ = writeln!(std::io::stderr(), "TIDEGATE_POWER_CUTS_SEED={seed}");
    let mut random = Random::new(seed);
    let disk = FaultyDisk::mount_or_skip(scratch, random.below(u64::MAX))?;
    Some((disk, random, number("TIDEGATE_POWER_CUTS").unwrap_or(cuts)))
}

fn sum(acknowledged: &[(String, u64)]) -> u64 {
    acknowledged.iter().map(|(_, count)| count).sum()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_power_is_cut() {
    let scratch = scratch();
    let Some((disk, random, cuts)) = begin(scratch.path(), 50) else { return };
    let mut ordeal = Ordeal::new(disk, &streams("retention = \"forever\""), random);

    let acknowledged = while_publishing(ordeal.setup.ports.mqtt, &devices(), |progress| {
        ordeal.cut(cuts, progress);
    });

    ordeal.end();
    let (promised, others) = acknowledged.split_at(DEVICES / 2);
    sequences::check(&ordeal.flushed, promised);
    let (promised, others) = (sum(promised), sum(others));
    assert!(promised.min(others) > cuts * 10, "{promised} and {others} acknowledged: no work done");
    let names = |record: &Record| (record.key.clone(), sequences::number_of(record));
    let found: HashSet<_> = ordeal.written.iter().map(names).collect();
    let lost = others - others.min(found.len() as u64);
    let _ = writeln!(
        std::io::stderr(),
        "{cuts} power cuts, {promised} acknowledged at fsync, {} found, none lost, all in order; \
         {others} acknowledged at write, {lost} lost, no offset given twice",
        ordeal.flushed.len(),
    );
    // What was not promised is lost now and then: the cuts are real.
    assert!(lost > 0 || cuts < 25, "no cut took anything of what was not flushed");
}

#[test]
fn segments_that_are_used_again_lose_nothing_when_the_power_is_cut() {
    let scratch = scratch();
    let Some((disk, random, cuts)) = begin(scratch.path(), 25) else { return };
    let mut ordeal = Ordeal::new(disk, &streams("retention_bytes = \"1MiB\""), random);
    // Only segments that were filled with zeros are used again.
    (ordeal.prepare, ordeal.keeps_all) = (Some("zero"), false);

    let acknowledged = while_publishing(ordeal.setup.ports.mqtt, &devices(), |progress| {
        ordeal.cut(cuts, progress);
        // So that retention has something of every device to leave.
        let all = progress.acknowledged() + DEVICES as u64 * BUDGET;
        let engine = ordeal.setup.start();
        wait_until("all messages to be acknowledged", || {
            (progress.acknowledged() >= all).then_some(())
        });
        engine.kill();
    });

    let said = ordeal.end();
    let promised = &acknowledged[..DEVICES / 2];
    sequences::check_rest(&ordeal.flushed, promised);
    let again = said.lines().filter(|line| line.contains("is used again")).count();
    let _ = writeln!(
        std::io::stderr(),
        "{cuts} power cuts, {again} segments used again, {} acknowledged at fsync, none lost of \
         what retention left ({} records), all in order",
        sum(promised),
        ordeal.flushed.len(),
    );
    assert!(again > 0 || cuts < 25, "no segment was used again");
}
