//! Rules that are read again while the engine runs.
//!
//! Comes in: the wish, by signal or HTTP. Goes out: every shard runs the new rules, or none does. In
//! this order: the files are read and all of them checked; streams that are new are named in the
//! manifest, durably; every shard learns of them; then every shard takes the new rules, each between two
//! messages of its own. `shard::change` says why nothing is lost or doubled on the way. It runs on an
//! ordinary thread, one reload at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Ground, options};
use crate::config::{Config, Mistake, RuleSource, Stream};
use crate::control::{Refused, Reload, Reloaded, Wrong};
use crate::driver::data_dir;
use crate::driver::tables::{self, Watcher};
use crate::driver::ways::ChangeWay;
use crate::log::start::StreamWanted;
use crate::observe::{Registry, ShardState};
use crate::record::{CleanupPolicy, Durability, ShardId};
use crate::shard::{self, Change};
use crate::transform::rules::Plan;

/// How long a shard may take to its next turn; a disk that hangs does not keep it from that.
const SHARD_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether it has had it.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// A slot of a ring holds the number of a stream in 16 bits.
const STREAMS_MAX: usize = 1 << 16;

/// Reads rules again.
pub struct Reloader {
    registry: Arc<Registry>,
    source: RuleSource,
    running: Mutex<Running>,
}

/// What runs, as far as reloads change it.
struct Running {
    /// With every stream that was configured in this run: those of rules that are gone keep what they
    /// promise until the engine starts again.
    config: Config,
    ground: Ground,
    ways: Vec<ChangeWay>,
    /// Watches the files of the plan's tables.
    tables: Option<Watcher>,
    /// Changes that each shard was sent.
    sent: u64,
    version: u64,
}

impl Reload for Reloader {
    fn reload(&self) -> Result<Reloaded, Refused> {
        // A panic has left nothing half done that the next reload would not do again.
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.reload_once(&mut running);
        let reloads = &self.registry.reloads;
        reloads.tries.increment();
        reloads.last_failed.set(u64::from(result.is_err()));
        match &result {
            Ok(reloaded) => tracing::info!("rules are read again: {reloaded}"),
            Err(refused) => {
                reloads.failures.increment();
                for line in refused.lines() {
                    tracing::error!("{line}");
                }
                tracing::error!("rules stay as they were, version {}", running.version);
            }
        }
        result
    }
}

impl Reloader {
    /// Of an engine whose shards all accept; `ways` are by shard.
    pub fn new(
        source: RuleSource,
        config: Config,
        ground: Ground,
        registry: Arc<Registry>,
        ways: Vec<ChangeWay>,
        tables: Option<Watcher>,
    ) -> Self {
        let running = Mutex::new(Running { config, ground, ways, tables, sent: 0, version: 1 });
        Self { registry, source, running }
    }

    /// Ends what runs beside the shards.
    pub fn stop(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.tables.take().into_iter().for_each(Watcher::stop);
    }

    fn reload_once(&self, running: &mut Running) -> Result<Reloaded, Refused> {
        let (plan, config) = self.source.load().map_err(refuse)?;
        running.check(&plan, &config).map_err(refuse)?;
        let states = self.registry.shards().iter().map(|shard| shard.state());
        if let Some(state) = states.into_iter().find(|s| *s >= ShardState::Stopping) {
            return Err(Refused::Unavailable(format!("the engine is {}", state.name())));
        }
        let plan = Arc::new(plan);
        let before = Arc::clone(&running.ground.plan);
        let config = with_live_streams(config, &running.config);
        self.add_streams(running, config, &plan)?;
        running.send(|config, ground, shard| {
            Change::Streams(Box::new(shard::Streams {
                log: options::streams(config, ground),
                partition_by: options::partition_by(config, &ground.data.manifest.streams),
                cluster: options::cluster(config, ground, shard),
            }))
        })?;
        self.await_shards(running)?;
        let (dir, cores) = (&running.ground.data.path, &running.ground.layout.control);
        let tables = tables::start(dir, &plan, &self.registry, cores)
            .map_err(|cause| Refused::Unavailable(format!("mapping lookup tables: {cause}")))?;
        std::mem::replace(&mut running.tables, tables).into_iter().for_each(Watcher::stop);
        running.ground.plan = plan;
        running.version += 1;
        let version = running.version;
        running.send(|config, ground, _| {
            let (manifest, plan) = (&ground.data.manifest, &ground.plan);
            Change::Rules(Box::new(shard::Rules {
                topics: options::topics(config, manifest, plan).of_version(version),
                rules: options::rulebook(config, manifest, plan),
                version,
            }))
        })?;
        self.await_shards(running)?;
        Ok(compare(&before, &running.ground.plan, version))
    }

    /// Gives the streams that are new their ids and their cells.
    fn add_streams(
        &self,
        running: &mut Running,
        config: Config,
        plan: &Plan,
    ) -> Result<(), Refused> {
        let data = &mut running.ground.data;
        let is_new = |stream: &&Stream| data.manifest.streams.iter().all(|s| s.name != stream.name);
        let new: Vec<_> = config
            .streams
            .iter()
            .filter(is_new)
            .map(|s| StreamWanted { name: s.name.clone(), durability: s.durability })
            .collect();
        if !new.is_empty() {
            data_dir::add_streams(data, &new).map_err(|cause| {
                Refused::Unavailable(format!("new streams cannot be noted: {cause}"))
            })?;
        }
        running.config = config;
        let mut infos = options::stream_infos(&running.config, &data.manifest, plan);
        // Counters of a rule that is gone stay where they stand.
        for (info, known) in infos.iter_mut().zip(&*self.registry.streams()) {
            info.is_rule |= known.is_rule;
        }
        self.registry.set_streams(infos);
        Ok(())
    }

    /// Waits until every shard has taken what it was sent.
    fn await_shards(&self, running: &Running) -> Result<(), Refused> {
        let since = Instant::now();
        for (index, shard) in self.registry.shards().iter().enumerate() {
            while shard.changes.value() < running.sent {
                if since.elapsed() > SHARD_MAX {
                    return Err(Refused::Unavailable(format!(
                        "shard {index} has not answered for {} s; it takes what it was sent when it \
                         goes on",
                        SHARD_MAX.as_secs()
                    )));
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }
}

impl Running {
    /// Whether rules can be taken without a restart.
    fn check(&self, plan: &Plan, config: &Config) -> Result<(), Vec<Mistake>> {
        let mut wrong: Vec<_> = plan
            .rules
            .iter()
            .filter_map(|rule| {
                let is = |stream: &&Stream| *stream.name.as_str() == *rule.name;
                let new = config.streams.iter().find(is)?;
                let manifest = &self.ground.data.manifest;
                let known = manifest.streams.iter().any(|known| known.name == new.name);
                // One that earlier starts left is kept as the defaults say.
                let unnamed = Stream::default();
                let old = self.config.streams.iter().find(is).unwrap_or(&unnamed);
                let what = change_of(old, new).filter(|_| known)?;
                Some(Mistake::of(rule, format!("stream {}: {what}", rule.name)))
            })
            .collect();
        if let Err(problems) = config.check_shards(self.ground.shards) {
            wrong.extend(problems.iter().map(|problem| Mistake::of_all(problem.to_string())));
        }
        let known = &self.ground.data.manifest.streams;
        let is_new = |stream: &&Stream| known.iter().all(|known| known.name != stream.name);
        let count = known.len() + config.streams.iter().filter(is_new).count();
        if count > STREAMS_MAX {
            wrong.push(Mistake::of_all(format!("{count} streams are more than {STREAMS_MAX}")));
        }
        let needed = self.segment_bytes_for(count);
        if self.config.log.segment_bytes < needed {
            wrong.push(Mistake::of_all(format!(
                "log.segment_bytes is {}, and {needed} are needed for {count} streams",
                self.config.log.segment_bytes
            )));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// The least that segments must have with so many streams.
    fn segment_bytes_for(&self, count: usize) -> u64 {
        let mut streams = options::streams(&self.config, &self.ground);
        if let Some(last) = streams.last().copied() {
            streams.resize(count.max(streams.len()), last);
        }
        options::log(&self.config, &self.ground, ShardId(0), &streams).segment_bytes_min()
    }

    /// Sends every shard a change.
    fn send(
        &mut self,
        change: impl Fn(&Config, &Ground, ShardId) -> Change,
    ) -> Result<(), Refused> {
        let Self { config, ground, ways, sent, .. } = self;
        *sent += 1;
        let mut stuck = None;
        for (shard, way) in ways.iter_mut().enumerate() {
            if !way.send(change(config, ground, ShardId(shard as u32))) {
                stuck = Some(shard);
            }
        }
        match stuck {
            None => Ok(()),
            Some(shard) => {
                Err(Refused::Unavailable(format!("shard {shard} takes no more changes")))
            }
        }
    }
}

/// What of a stream cannot change while the engine runs, if that changes: tickets and reserved offsets
/// are what `durability` says, and cleaning keeps what `cleanup_policy` says.
fn change_of(old: &Stream, new: &Stream) -> Option<String> {
    let durability = |durability| match durability {
        Durability::Fsync => "fsync",
        Durability::Write => "write",
        Durability::Memory => "memory",
    };
    let policy = |policy| match policy {
        CleanupPolicy::Delete => "delete",
        CleanupPolicy::Compact => "compact",
    };
    let (option, from, to) = if old.durability != new.durability {
        ("durability", durability(old.durability), durability(new.durability))
    } else if old.cleanup_policy != new.cleanup_policy {
        ("cleanup_policy", policy(old.cleanup_policy), policy(new.cleanup_policy))
    } else {
        return None;
    };
    Some(format!("{option} was '{from}' and would be '{to}': that needs a restart of the engine"))
}

/// A configuration with the streams that others than its rules had in this run.
fn with_live_streams(mut config: Config, live: &Config) -> Config {
    for stream in &live.streams {
        if config.streams.iter().all(|named| named.name != stream.name) {
            config.streams.push(stream.clone());
        }
    }
    config
}

fn compare(before: &Plan, now: &Plan, version: u64) -> Reloaded {
    let place = |plan: &Plan, name: &str| plan.rules.iter().position(|rule| *rule.name == *name);
    let names = |plan: &Plan, wanted: &dyn Fn(usize, &str) -> bool| {
        let rules = plan.rules.iter().enumerate();
        rules.filter(|(i, rule)| wanted(*i, &rule.name)).map(|(_, r)| r.name.to_string()).collect()
    };
    let changed = |index: usize, name: &str| {
        place(before, name).is_some_and(|old| before.meaning(old) != now.meaning(index))
    };
    Reloaded {
        version,
        rules: now.rules.len(),
        added: names(now, &|_, name| place(before, name).is_none()),
        removed: names(before, &|_, name| place(now, name).is_none()),
        changed: names(now, &changed),
    }
}

fn refuse(wrong: Vec<Mistake>) -> Refused {
    let told = |mistake: Mistake| Wrong {
        text: mistake.to_string(),
        file: mistake.place.as_ref().map(|(file, _)| file.clone()),
        line: mistake.place.as_ref().map(|(_, at)| at.line),
        column: mistake.place.as_ref().map(|(_, at)| at.column),
        message: mistake.what,
    };
    Refused::Rules(wrong.into_iter().map(told).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::rules::plan;

    fn planned(sql: &str) -> Plan {
        plan(&[("a.sql".to_owned(), sql.to_owned())], &[]).unwrap()
    }

    #[test]
    fn a_reload_tells_what_came_went_and_changed() {
        let before = planned(
            "CREATE STREAM stays AS SELECT a FROM 'x';
             CREATE STREAM other AS SELECT a FROM 'x';
             CREATE STREAM kept WITH (retention='1d') AS SELECT a FROM 'x';
             CREATE STREAM goes AS SELECT a FROM 'x'",
        );
        // Another place, and another reader, are no change.
        let now = planned(
            "CREATE STREAM new AS SELECT a FROM stays;
             CREATE STREAM other AS SELECT b AS a FROM 'x';
             CREATE STREAM kept WITH (retention='2d') AS SELECT a FROM 'x';
             CREATE STREAM stays AS SELECT a FROM 'x'",
        );
        let mut told = compare(&before, &now, 2);
        told.changed.sort();
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(told.version, 2);
        assert_eq!(told.rules, 4);
        assert_eq!(told.added, names(&["new"]));
        assert_eq!(told.removed, names(&["goes"]));
        assert_eq!(told.changed, names(&["kept", "other"]));
    }

    #[test]
    fn what_a_stream_promises_stays() {
        let check = |change: &dyn Fn(&mut Stream), expected: Option<&str>| {
            let old = Stream::default();
            let mut new = old.clone();
            change(&mut new);
            let found = change_of(&old, &new);
            let restart = ": that needs a restart of the engine";
            assert_eq!(found, expected.map(|text| format!("{text}{restart}")));
        };
        let durability = "durability was 'fsync' and would be 'memory'";
        check(&|stream| stream.durability = Durability::Memory, Some(durability));
        let policy = "cleanup_policy was 'delete' and would be 'compact'";
        check(&|stream| stream.cleanup_policy = CleanupPolicy::Compact, Some(policy));
        check(&|stream| stream.retention_bytes = Some(1 << 30), None);
    }
}
