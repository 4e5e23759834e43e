//! The engine: everything that is done once, in the order in which it is done.
//!
//! Comes in: a checked configuration. The machine is asked what it grants, the data directory is
//! locked and recovered, ports are bound, shards and control plane started, the banner printed; then
//! the main thread waits for the shards to end. Errors say what, where and what to do.

mod banner;
mod inject;
mod options;
mod reload;

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::config::{Config, CoreSet, Loaded, Prepare, Problem};
use crate::driver::cleaner::{self, Order};
use crate::driver::cores::{self, Layout, Machine};
use crate::driver::data_dir::{self, DataDir};
use crate::driver::disk::{self, Disk};
use crate::driver::launch::{self, Launch};
use crate::driver::open_connections::OpenConnections;
use crate::driver::preflight;
use crate::driver::process_signals::{Asked, Signals};
use crate::driver::tables;
use crate::driver::ways::{self, ChangeWay, Stopper};
use crate::driver::{listen, storage};
use crate::log::start::{SPARE_DIR, StreamWanted, Wanted};
use crate::observe::Registry;
use crate::record::ShardId;
use crate::transform::rules::Plan;
use crate::{control, observe};
use control::{Reload as _, Reloading};
use reload::Reloader;

pub use inject::CommitDelay;

/// Descriptors that the engine needs beside its connections.
const OTHER_FILES: u64 = 512;

/// Why the engine did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Error {
    #[error(transparent)]
    Refused(#[from] preflight::Refusal),
    #[error(transparent)]
    Cores(#[from] cores::Error),
    #[error(transparent)]
    Disk(#[from] disk::DiskError),
    #[error(transparent)]
    DataDir(#[from] data_dir::Error),
    #[error("{}", problems(.0))]
    Config(Vec<Problem>),
    #[error("{what}: {cause}")]
    System { what: String, cause: std::io::Error },
    #[error(
        "log.segment_bytes is {segment_bytes}, and {needed} are needed for log.buffer_bytes and the \
         number of streams and partitions: raise the one or lower the other"
    )]
    SegmentsTooSmall { segment_bytes: u64, needed: u64 },
    #[error(
        "--inject-commit-delay names shard {shard}, and there is none\n  help: name one from 0 to {last}"
    )]
    NoShardToDelay { shard: u32, last: u32 },
    #[error("shard {shard} cannot start: {cause}")]
    Shard { shard: usize, cause: String },
}

fn problems(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Error {
    let what = what.into();
    move |cause| Error::System { what, cause }
}

/// What was found out before anything was started.
struct Ground {
    layout: Layout,
    shards: u32,
    disk: Disk,
    prepare: Prepare,
    /// An MQTT and a Kafka listener a shard.
    listeners: Vec<(OwnedFd, OwnedFd)>,
    data: DataDir,
    /// By shard, where a test asked for one.
    commit_delays: Vec<Option<storage::Delay>>,
    notes: Vec<String>,
    connections_max: u32,
    plan: Arc<Plan>,
}

/// Shards that accept.
struct Shards {
    stopper: Stopper,
    /// By shard.
    change_ways: Vec<ChangeWay>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

/// Runs the engine until it is told to stop. `delays` are for tests.
///
/// # Errors
/// [`Error`], all of them before the first message is taken.
pub fn run(loaded: Loaded, delays: &[CommitDelay]) -> Result<(), Error> {
    let Loaded { config, plan, rules, .. } = loaded;
    let base = Instant::now();
    let signals = Signals::block().map_err(system("blocking signals"))?;
    let mut ground = prepare(&config, plan, delays)?;
    let registry = Arc::new(registry(&config, &ground));
    let reloading = Reloading::default();
    let control = control::start(
        config.http.listen,
        Arc::clone(&registry),
        Arc::clone(&reloading),
        Some(ground.layout.control.clone()),
    )
    .map_err(system(format!("listening on {} (--http-listen)", config.http.listen)))?;
    let (dir, control_cores) = (&ground.data.path, ground.layout.control.clone());
    let cleaner = cleaner::start(dir, config.log.clean_bytes_per_second, control_cores)
        .map_err(system("starting a thread"))?;
    let tables = tables::start(&ground.data.path, &ground.plan, &registry, &ground.layout.control)
        .map_err(system("mapping the lookup tables in the data directory"))?;
    let Shards { stopper, change_ways, threads } =
        start_shards(&config, &mut ground, &registry, (base, cleaner.orders()))?;
    banner::print(&config, &ground, control.address());
    let reloader = Arc::new(Reloader::new(rules, config, ground, registry, change_ways, tables));
    // Nobody else sets it.
    let _ = reloading.set(Arc::clone(&reloader) as _);
    let reloads = Arc::clone(&reloader);
    std::thread::spawn(move || watch(signals, &stopper, reloads));
    for thread in threads {
        // A panic has ended the process already.
        let _ = thread.join();
    }
    cleaner.stop();
    reloader.stop();
    control.stop();
    tracing::info!("stopped: everything that was taken is committed and acknowledged");
    Ok(())
}

/// Does what signals ask for.
fn watch(signals: Signals, stopper: &Stopper, reloader: Arc<Reloader>) {
    let (ask, asked) = mpsc::sync_channel::<()>(1);
    // A thread of its own, so that no reload keeps the engine from stopping.
    std::thread::spawn(move || {
        while asked.recv().is_ok() {
            // Both ends are in the log.
            let _ = reloader.reload();
        }
    });
    let mut stopping = false;
    loop {
        match signals.wait() {
            // One that waits already will read what stands in the files then.
            Asked::Reload => drop(ask.try_send(())),
            Asked::Stop(signal) if stopping => {
                eprintln!(
                    "tidegate: ended at once by a second signal; what was acknowledged is on disk"
                );
                std::process::exit(128 + signal);
            }
            Asked::Stop(_) => {
                stopping = true;
                tracing::info!(
                    "stopping: committing and acknowledging what was taken; once more ends at once"
                );
                stopper.stop();
            }
        }
    }
}

/// Asks the machine for everything that is needed, and recovers the data directory.
fn prepare(config: &Config, plan: Plan, delays: &[CommitDelay]) -> Result<Ground, Error> {
    preflight::kernel()?;
    preflight::locked_memory()?;
    let wanted = u64::from(config.mqtt.connections_max) + u64::from(config.kafka.connections_max);
    let files = preflight::open_files(wanted, OTHER_FILES)?;
    let mut notes: Vec<String> = files.warning.into_iter().collect();

    // Cores that cannot be had are refused before anything is made.
    lay_out_for(config, None)?;
    let dir = &config.data_dir;
    disk::create(dir)?;
    let lock = data_dir::lock(dir)?;
    let (_, mut layout) = lay_out(config)?;
    notes.append(&mut layout.notes);
    let shards = layout.shards.len() as u32;
    config.check_shards(shards).map_err(Error::Config)?;
    let commit_delays = inject::commit_delays(delays, shards)?;
    notes.extend(inject::notes(&commit_delays));
    let listeners = bind(config, shards)?;
    let first = u64::from(shards) * config.log.segment_bytes;
    let disk = disk::check(dir, first)?;
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wanted = Wanted {
        shards,
        partitions: config.partitions,
        partitions_of_new: config.partitions_for(shards),
        streams: config
            .streams
            .iter()
            .map(|s| StreamWanted { name: s.name.clone(), durability: s.durability })
            .collect(),
        block: disk.alignment.log_block as usize,
        wall_ms: wall.as_millis() as i64,
    };
    let mut data = data_dir::open(dir, lock, &wanted)?;
    notes.append(&mut data.notes);
    let prepare = match (config.log.prepare, disk.probe.prepare) {
        (Prepare::Auto, disk::Prepare::Zero) => Prepare::Zero,
        (Prepare::Auto, disk::Prepare::Append) => Prepare::Append,
        (named, _) => named,
    };
    let connections_max = config.mqtt.connections_max.min(files.connections as u32);
    Ok(Ground {
        layout,
        shards,
        disk,
        prepare,
        listeners,
        data,
        commit_delays,
        notes,
        connections_max,
        plan: Arc::new(plan),
    })
}

/// Which shard runs on which core, and the machine that this was decided for. Reads the data
/// directory's manifest where there is one, as it fixes the number of partitions; changes nothing.
///
/// # Errors
/// A manifest that cannot be read, and what [`cores::plan`] refuses.
pub fn lay_out(config: &Config) -> Result<(Machine, Layout), Error> {
    let dir = &config.data_dir;
    let there = if dir.is_dir() { data_dir::read_manifest(dir)? } else { None };
    Ok(lay_out_for(config, there.map(|manifest| manifest.partitions))?)
}

fn lay_out_for(config: &Config, there: Option<u32>) -> Result<(Machine, Layout), cores::Error> {
    let wanted = cores::Wanted {
        cores: match &config.cores {
            CoreSet::Auto => None,
            CoreSet::List(cores) => Some(cores.iter().map(|core| *core as usize).collect()),
        },
        shards: config.shards,
        partitions: there.or(config.partitions),
    };
    let machine = Machine::here(&config.data_dir)?;
    let layout = cores::plan(&machine, &wanted)?;
    Ok((machine, layout))
}

/// Binds every port, each first by itself: an engine that shares its port must not be joined.
fn bind(config: &Config, shards: u32) -> Result<Vec<(OwnedFd, OwnedFd)>, Error> {
    preflight::port(config.mqtt.listen, "--mqtt-listen")?;
    preflight::port(config.http.listen, "--http-listen")?;
    let kafka = |shard: u32| {
        let port = config.kafka.listen.port() + shard as u16;
        SocketAddr::new(config.kafka.listen.ip(), port)
    };
    for shard in 0..shards {
        preflight::port(kafka(shard), "--kafka-listen")?;
    }
    (0..shards)
        .map(|shard| {
            let mqtt = config.mqtt.listen;
            let listening = system(format!("listening on {mqtt} (--mqtt-listen)"));
            let mqtt = listen::listen(mqtt, true).map_err(listening)?;
            let address = kafka(shard);
            let listening = system(format!("listening on {address} (--kafka-listen)"));
            Ok((mqtt, listen::listen(address, false).map_err(listening)?))
        })
        .collect()
}

fn registry(config: &Config, ground: &Ground) -> Registry {
    let manifest = &ground.data.manifest;
    Registry::new(observe::EngineInfo {
        version: env!("CARGO_PKG_VERSION"),
        shards: ground.shards,
        partitions: manifest.partitions,
        streams: options::stream_infos(config, manifest, &ground.plan),
        started: SystemTime::now(),
    })
}

/// Starts all shards and waits until each of them accepts.
fn start_shards(
    config: &Config,
    ground: &mut Ground,
    registry: &Registry,
    (base, orders): (Instant, mpsc::Sender<Order>),
) -> Result<Shards, Error> {
    let streams = options::streams(config, ground);
    let needed = options::log(config, ground, ShardId(0), &streams).segment_bytes_min();
    if config.log.segment_bytes < needed {
        let segment_bytes = config.log.segment_bytes;
        return Err(Error::SegmentsTooSmall { segment_bytes, needed });
    }
    let recovered = Arc::new(std::mem::take(&mut ground.data.recovered));
    let needs = Arc::new(recovered.needs(ground.shards));
    let open = Arc::new(OpenConnections::new(ground.connections_max, config.kafka.connections_max));
    let (entrances, stopper, change_ways) =
        ways::entrances(ground.shards).map_err(system("making eventfds"))?;
    let listeners = std::mem::take(&mut ground.listeners);
    let mut threads = Vec::new();
    let (tell, told) = mpsc::channel();
    for (shard, (entrance, listeners)) in entrances.into_iter().zip(listeners).enumerate() {
        let id = ShardId(shard as u32);
        let launch = Launch {
            core: ground.layout.shards[shard],
            shard: options::shard(config, ground, id, Arc::clone(&registry.shards()[shard])),
            log: options::log(config, ground, id, &streams),
            recovered: Arc::clone(&recovered),
            sockets: options::sockets(config, listeners, Arc::clone(&open)),
            storage: storage::Options {
                dir: ground.data.path.clone(),
                spare: storage::Spare {
                    dir: ground.data.path.join(SPARE_DIR),
                    shard: id.0,
                    shards: ground.shards,
                    files_max: config.log.segments_ahead as usize,
                },
                log_dir: data_dir::log_dir(
                    &ground.data.path,
                    ground.data.manifest.current.generation,
                    id.0,
                ),
                segment_bytes: config.log.segment_bytes,
                prepare: ground.prepare,
                reserve_bytes: config.log.reserve_bytes,
                cleaner: orders.clone(),
                commit_delay: ground.commit_delays[shard].clone(),
            },
            spin: config.spin,
            needs: Arc::clone(&needs),
            age_ms: ground.data.manifest.age_ms,
            base,
            log_seed: ground.data.manifest.current.seed,
            seed: uuid::Uuid::new_v4().as_u64_pair().0,
        };
        let thread = launch::start(launch, entrance, &stopper, tell.clone())
            .map_err(system("starting a thread"))?;
        threads.push(thread);
    }
    drop(tell);
    await_shards(&told, ground.shards)?;
    Ok(Shards { stopper, change_ways, threads })
}

/// Waits until every shard accepts. One that cannot start says why; those that only miss it do not.
fn await_shards(
    told: &mpsc::Receiver<(ShardId, Result<(), String>)>,
    shards: u32,
) -> Result<(), Error> {
    let failed = |shard: usize, cause: String| Error::Shard { shard, cause };
    let mut ready = vec![false; shards as usize];
    while let Some(missing) = ready.iter().position(|ready| !ready) {
        match told.recv_timeout(Duration::from_secs(300)) {
            Ok((shard, Ok(()))) => ready[shard.index()] = true,
            Ok((shard, Err(cause))) => return Err(failed(shard.index(), cause)),
            Err(_) => return Err(failed(missing, "it did not become ready".to_owned())),
        }
    }
    Ok(())
}
