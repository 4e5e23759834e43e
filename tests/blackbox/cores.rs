//! `tidegate cores` says what `serve` does: compared with where the kernel has pinned the threads.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::engine::{Engine, Setup, run, scratch};

/// The core of each shard as `tidegate cores --json` plans it.
fn planned(arguments: &[&str]) -> (BTreeMap<u64, u64>, Value) {
    let (code, said, error) = run(&[&["cores", "--json"], arguments].concat());
    assert_eq!(code, 0, "{error}");
    let report: Value = serde_json::from_str(&said).unwrap();
    let shards = report["shards"].as_array().unwrap().iter();
    let number = |value: &Value| value.as_u64().unwrap();
    let cores = shards.map(|shard| (number(&shard["shard"]), number(&shard["core"]))).collect();
    (cores, report)
}

/// The core that each shard's thread is pinned to.
fn pinned(engine: &Engine) -> BTreeMap<u64, u64> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", engine.process())).unwrap();
    let threads = threads.map(|thread| thread.unwrap().path());
    let shards = threads.filter_map(|thread| {
        let name = std::fs::read_to_string(thread.join("comm")).ok()?;
        let shard = name.trim().strip_prefix("shard-")?.parse().ok()?;
        let status = std::fs::read_to_string(thread.join("status")).ok()?;
        let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
        Some((shard, cores.trim().parse().expect("one core")))
    });
    shards.collect()
}

#[test]
fn shards_run_where_the_command_says() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path());
    let dir = setup.data_dir.to_str().unwrap();
    for shards in ["1", "3"] {
        let (cores, _) = planned(&["--data-dir", dir, "--shards", shards]);
        let engine = setup.clone().argument(&["--shards", shards]).start();
        assert_eq!(pinned(&engine), cores, "--shards {shards}");
        // Beside a running engine it says the same, as it takes no lock.
        assert_eq!(planned(&["--data-dir", dir, "--shards", shards]).0, cores);
        engine.stop();
    }
}

#[test]
fn the_partitions_of_the_data_directory_bound_the_shards() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path()).argument(&["--shards", "1", "--partitions", "2"]);
    let dir = setup.data_dir.to_str().unwrap();
    let (cores, _) = planned(&["--data-dir", dir, "--shards", "3"]);
    assert_eq!(cores.len(), 3, "no directory, no bound");
    assert!(!setup.data_dir.exists(), "the command makes nothing");
    setup.start().stop();
    let (cores, report) = planned(&["--data-dir", dir, "--shards", "3"]);
    assert_eq!(cores.len(), 2);
    let note = "2 partitions: only 2 of 3 shards are started";
    assert!(report["notes"].as_array().unwrap().contains(&Value::from(note)), "{report}");
}

#[test]
fn a_core_that_is_not_there_is_named() {
    let scratch = scratch();
    let dir = scratch.path().join("data");
    for command in ["cores", "serve"] {
        let dir = dir.to_str().unwrap();
        let (code, _, error) = run(&[command, "--cores", "4095", "--data-dir", dir]);
        assert_eq!(code, 1, "{error}");
        assert!(error.contains("this machine has no core 4095"), "{error}");
    }
    assert!(!dir.exists(), "a refusal leaves nothing behind");
    let (code, table, _) = run(&["cores", "--shards", "1"]);
    assert_eq!(code, 0);
    assert!(table.starts_with("tidegate serve would start 1 shard on 1 core\n"), "{table}");
}
