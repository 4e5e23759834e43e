//! All that the control thread may know: what was started, and the cells of every shard.
//!
//! Built once before the shards start. Only streams come later, with rules that are read again; their
//! names stand behind a lock that no shard ever takes.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use super::{Counter, Gauge, ShardMetrics, TableMetrics};
use crate::record::{Durability, StreamName};

/// What a shard is doing, in the order of a life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ShardState {
    /// Opens its log, recovers, waits for the others.
    Starting = 0,
    /// Accepts and commits.
    Serving = 1,
    /// Serves consumers but cannot commit: no space for another segment.
    DiskFull = 2,
    /// Accepts no more, commits what it has.
    Stopping = 3,
    /// Cannot go on; the process is about to end.
    Failed = 4,
}

impl ShardState {
    pub(super) fn from_cell(cell: u64) -> Self {
        match cell {
            0 => Self::Starting,
            1 => Self::Serving,
            2 => Self::DiskFull,
            3 => Self::Stopping,
            _ => Self::Failed,
        }
    }

    /// The state in words, for the answers of the health endpoints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::DiskFull => "disk full",
            Self::Stopping => "stopping",
            Self::Failed => "failed",
        }
    }
}

/// A stream as metrics name it.
#[derive(Debug, Clone)]
pub struct StreamInfo {
    /// The stream's name.
    pub name: StreamName,
    /// What an acknowledgement of it promises.
    pub durability: Durability,
    /// A rule makes it.
    pub is_rule: bool,
}

/// What was started.
#[derive(Debug, Clone)]
pub struct EngineInfo {
    /// Version of the program.
    pub version: &'static str,
    /// Number of shards.
    pub shards: u32,
    /// Partitions of every stream.
    pub partitions: u32,
    /// The streams of the start, by `StreamId::index`; [`Registry::streams`] has those that came
    /// since.
    pub streams: Vec<StreamInfo>,
    /// When the process began to start.
    pub started: SystemTime,
}

/// The engine as the control thread sees it. Shared by `Arc`; every shard clones its own cells.
#[derive(Debug)]
pub struct Registry {
    info: EngineInfo,
    shards: Box<[Arc<ShardMetrics>]>,
    streams: RwLock<Vec<StreamInfo>>,
    tables: RwLock<Vec<(String, Arc<TableMetrics>)>>,
    /// What reading the rules again came to.
    pub reloads: Reloads,
}

/// What reading the rules again came to. One thread at a time reloads.
#[derive(Debug, Default)]
pub struct Reloads {
    /// How often they were read again.
    pub tries: Counter,
    /// How often the old ones stayed.
    pub failures: Counter,
    /// Whether the old ones stayed the last time: 0 or 1.
    pub last_failed: Gauge,
}

impl Registry {
    /// Makes the cells of every shard.
    pub fn new(info: EngineInfo) -> Self {
        let owned = |shard| (info.partitions + info.shards - 1 - shard) / info.shards;
        let cells =
            |shard| ShardMetrics::new(info.shards, info.streams.len(), owned(shard) as usize);
        let shards = (0..info.shards).map(|shard| Arc::new(cells(shard))).collect();
        let streams = RwLock::new(info.streams.clone());
        Self { info, shards, streams, tables: RwLock::default(), reloads: Reloads::default() }
    }

    /// The streams by `StreamId::index`.
    pub fn streams(&self) -> RwLockReadGuard<'_, Vec<StreamInfo>> {
        // Nothing that holds the lock can panic half way.
        self.streams.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams are these now: as many as before at the least, in their order. Every shard has
    /// their cells when this returns.
    pub fn set_streams(&self, streams: Vec<StreamInfo>) {
        self.shards.iter().for_each(|shard| shard.grow(streams.len()));
        *self.streams.write().unwrap_or_else(PoisonError::into_inner) = streams;
    }

    /// What was started.
    pub fn info(&self) -> &EngineInfo {
        &self.info
    }

    /// By `ShardId::index`; the shard takes a clone of its own along.
    pub fn shards(&self) -> &[Arc<ShardMetrics>] {
        &self.shards
    }

    /// The lookup tables of the rules that run, with their names; the thread that watches their files
    /// writes the cells.
    pub fn tables(&self) -> RwLockReadGuard<'_, Vec<(String, Arc<TableMetrics>)>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lookup tables are these now. One of a name that there was keeps its cells.
    pub fn set_tables<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Arc<TableMetrics>> {
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        let known = std::mem::take(&mut *tables);
        for name in names {
            let cells = known.iter().find(|(known, _)| known == name);
            let cells = cells.map(|(_, cells)| Arc::clone(cells)).unwrap_or_default();
            tables.push((name.to_owned(), cells));
        }
        tables.iter().map(|(_, cells)| Arc::clone(cells)).collect()
    }

    /// Whether every shard accepts connections; else which one does not, and why.
    pub fn readiness(&self) -> Result<(), String> {
        self.first(|state| !matches!(state, ShardState::Serving | ShardState::DiskFull))
    }

    /// Whether the process commits, or is on its way there; else which shard cannot, and why.
    ///
    /// A shard that starts or stops is healthy: a supervisor that restarted the process during a
    /// long recovery would make it begin anew for ever. Whether it serves is `readiness`.
    pub fn health(&self) -> Result<(), String> {
        self.first(|state| matches!(state, ShardState::DiskFull | ShardState::Failed))
    }

    fn first(&self, wrong: impl Fn(ShardState) -> bool) -> Result<(), String> {
        let mut states = self.shards.iter().map(|shard| shard.state()).enumerate();
        match states.find(|(_, state)| wrong(*state)) {
            Some((shard, state)) => Err(format!("shard {shard}: {}", state.name())),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(shards: u32, partitions: u32) -> Registry {
        let name = StreamName::try_from("telemetry".to_owned()).unwrap();
        let streams = vec![StreamInfo { name, durability: Durability::Fsync, is_rule: false }];
        let started = SystemTime::UNIX_EPOCH;
        Registry::new(EngineInfo { version: "0", shards, partitions, streams, started })
    }

    #[test]
    fn every_shard_has_cells_for_the_partitions_that_it_owns() {
        let registry = registry(3, 8);
        let rows = |shard: usize| registry.shards()[shard].streams[0].partitions().count();
        assert_eq!((rows(0), rows(1), rows(2)), (3, 3, 2));
    }

    #[test]
    fn streams_that_come_later_have_cells() {
        let registry = registry(2, 8);
        let mut streams = registry.streams().clone();
        streams.extend([streams[0].clone(), streams[0].clone()]);
        registry.set_streams(streams);
        assert_eq!(registry.streams().len(), 3);
        for shard in registry.shards() {
            assert_eq!(shard.streams[2].partitions().count(), 4);
        }
    }

    #[test]
    fn health_and_readiness_name_the_first_shard_that_lacks_it() {
        let check = |states: [ShardState; 2], health: &str, readiness: &str| {
            let registry = registry(2, 8);
            registry.shards().iter().zip(states).for_each(|(shard, state)| shard.enter(state));
            let text = |verdict: Result<(), String>| verdict.err().unwrap_or_default();
            assert_eq!(text(registry.health()), health, "{states:?}");
            assert_eq!(text(registry.readiness()), readiness, "{states:?}");
        };
        use ShardState::{DiskFull, Failed, Serving, Starting, Stopping};
        check([Serving, Serving], "", "");
        check([Serving, Starting], "", "shard 1: starting");
        check([DiskFull, Serving], "shard 0: disk full", "");
        check([Serving, Stopping], "", "shard 1: stopping");
        check([Serving, Failed], "shard 1: failed", "shard 1: failed");
    }
}
