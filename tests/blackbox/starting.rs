//! Refusals at start, each one clear message with a remedy, and the commands that start nothing.

use std::net::TcpListener;
use std::path::Path;

use crate::clients::skipped_anyway;
use crate::engine::{Setup, run, scratch, wait_until};
use crate::wire::{Publish, Version, Wire};

/// The engine refuses with one message that names all of `words`.
fn refuses(setup: &Setup, words: &[&str]) {
    let (code, said) = setup.refused();
    assert_ne!(code, 0);
    for word in words {
        assert!(said.to_lowercase().contains(word), "the refusal does not say `{word}`:\n{said}");
    }
    assert!(said.lines().count() <= 20, "one clear message, not a flood:\n{said}");
}

#[test]
fn a_data_directory_has_one_engine() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path());
    let engine = setup.start();
    let second = Setup { ports: crate::engine::Ports::free(), ..setup };
    refuses(&second, &["data"]);
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "first");
    assert_eq!(wire.publish_acknowledged(&Publish::new("t", 1, b"x")), 0);
    // The lock goes with the process, however it ends.
    let setup = engine.kill();
    setup.start().stop();
}

#[test]
fn without_a_word_the_data_goes_where_one_stands() {
    let scratch = scratch();
    let setup = Setup { folder: Some(scratch.path().to_owned()), ..Setup::new(scratch.path()) };
    let engine = setup.start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V311, "device");
    assert_eq!(wire.publish_acknowledged(&Publish::new("t", 1, b"x")), 0);
    assert!(scratch.path().join("tidegate-data").is_dir());
    engine.stop().start().stop();
}

#[test]
fn a_data_directory_of_another_version_is_refused() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path()).start().stop();
    let manifest = setup.data_dir.join("manifest.json");
    let text = std::fs::read_to_string(&manifest).unwrap();
    // As other versions would have written it, checksum and all.
    let (json, _) = text.rsplit_once("\ncrc32c ").expect("a manifest ends with its checksum");
    let changes = [
        ("\"format\": 2,", "\"format\": 999,", "format 999"),
        ("\"features\": 0,", "\"features\": 64,", "features 0x40"),
        ("\"format\": 2,", "\"format\": 1,", "format 1"),
    ];
    for (here, there, named) in changes {
        let other = json.replacen(here, there, 1);
        assert_ne!(json, other, "the manifest names its format and features:\n{text}");
        let checksum = crc32c::crc32c(other.as_bytes());
        std::fs::write(&manifest, format!("{other}\ncrc32c {checksum:08x}\n")).unwrap();
        refuses(&setup, &["version", named]);
    }
    // Nothing was touched: with the right version it is the old directory again.
    std::fs::write(&manifest, text).unwrap();
    setup.start().stop();
}

#[test]
fn a_taken_port_is_named() {
    let (first, other) = (scratch(), scratch());
    let setup = Setup::new(first.path());
    for port in [setup.ports.mqtt, setup.ports.kafka, setup.ports.http] {
        let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
        refuses(&setup, &[&port.to_string()]);
    }
    // An engine listens with SO_REUSEPORT; a second one must not slip in beside it.
    let engine = setup.start();
    let second = Setup { data_dir: other.path().join("data"), ..setup };
    refuses(&second, &["127.0.0.1", "port"]);
    engine.stop();
}

#[test]
fn a_tmpfs_is_refused() {
    let shared_memory = Path::new("/dev/shm");
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.contains(" /dev/shm tmpfs ")) {
        skipped_anyway("/dev/shm is no tmpfs here");
        return;
    }
    let in_memory = tempfile::Builder::new().prefix("tidegate-").tempdir_in(shared_memory).unwrap();
    let setup = Setup::new(in_memory.path());
    refuses(&setup, &["o_direct", "--data-dir"]);
}

#[test]
fn a_low_file_limit_is_refused() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path()).after("ulimit -n 40");
    refuses(&setup, &["ulimit"]);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_refused() {
    let scratch = scratch();
    let file = scratch.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let setup = Setup { data_dir: file.join("data"), ..Setup::new(scratch.path()) };
    let (code, said, error) = run(&[
        "serve",
        "--data-dir",
        setup.data_dir.to_str().unwrap(),
        "--mqtt-listen",
        &format!("127.0.0.1:{}", setup.ports.mqtt),
        "--kafka-listen",
        &format!("127.0.0.1:{}", setup.ports.kafka),
        "--http-listen",
        &format!("127.0.0.1:{}", setup.ports.http),
    ]);
    assert_ne!(code, 0);
    assert!(error.contains("file"), "{said}{error}");
}

#[test]
fn the_start_says_what_it_uses_and_how_to_connect() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    // It is ready a moment before it has said so.
    let said =
        wait_until("the banner", || Some(engine.said()).filter(|said| said.contains("kcat")));
    for port in [engine.ports.mqtt, engine.ports.kafka, engine.ports.http] {
        assert!(said.contains(&port.to_string()), "port {port}:\n{said}");
    }
    for word in ["mosquitto_pub", "kcat", "partitions", "memory", "fsync"] {
        assert!(said.contains(word), "the start does not say `{word}`:\n{said}");
    }
    assert_eq!(engine.get("/healthz").unwrap().0, 200);
    assert_eq!(engine.get("/readyz").unwrap().0, 200);
    let (status, metrics) = engine.get("/metrics").unwrap();
    assert_eq!(status, 200);
    assert!(metrics.lines().any(|line| line.starts_with("# TYPE tidegate_")), "{metrics}");
    engine.stop();
}

#[test]
fn a_test_may_slow_the_commits_of_a_shard() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path()).argument(&["--shards", "2"]);
    let beyond = setup.clone().argument(&["--inject-commit-delay", "2=50ms"]);
    refuses(&beyond, &["--inject-commit-delay", "shard 2", "from 0 to 1"]);

    let engine = setup.argument(&["--inject-commit-delay", "1=300ms"]).start();
    let said = engine.said();
    let note =
        "note        shard 1 waits 300ms before each commit (--inject-commit-delay, for tests)";
    assert!(said.contains(note), "{said}");
    // Of so many clients each shard owns some.
    for device in 0..8 {
        let id = format!("device {device}");
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V311, &id);
        assert_eq!(wire.publish_acknowledged(&Publish::new("t", 1, b"x")), 0);
    }
    let commits = |part: &str, shard: u32| {
        let name = format!("tidegate_station_duration_seconds_{part}");
        engine.metric(&name, &format!("shard=\"{shard}\",station=\"commit\""))
    };
    assert!(commits("count", 0) >= 1.0 && commits("count", 1) >= 1.0, "each shard has clients");
    // From a message's arrival to its durability lies the whole delay.
    let (sum, count) = (commits("sum", 1), commits("count", 1));
    assert!(sum >= 0.29 * count, "{count} commits of shard 1 took {sum} s in all");
    engine.stop();
}

#[test]
fn sigint_is_a_clean_end_too() {
    let scratch = scratch();
    let mut engine = Setup::new(scratch.path()).start();
    engine.signal("INT");
    assert_eq!(engine.await_exit().code(), Some(0), "{}", engine.said());
}

#[test]
fn help_check_and_config_need_no_engine() {
    let (code, said, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for command in ["serve", "check", "config", "cores"] {
        assert!(said.contains(command), "{said}");
    }
    let (code, said, _) = run(&["serve", "--help"]);
    assert_eq!(code, 0);
    for flag in ["--data-dir", "--mqtt-listen", "--kafka-listen", "--http-listen", "--cores"] {
        assert!(said.contains(flag), "{said}");
    }
    assert_eq!(run(&["check"]).0, 0);

    // What `config` prints is a configuration that `check` takes.
    let (code, printed, _) = run(&["config"]);
    assert_eq!(code, 0);
    let scratch = scratch();
    let file = scratch.path().join("tidegate.toml");
    std::fs::write(&file, &printed).unwrap();
    let path = file.to_str().unwrap();
    let (code, said, error) = run(&["check", "--config", path]);
    assert_eq!(code, 0, "{said}{error}");
}

#[test]
fn an_unknown_key_is_shown_with_the_nearest_known() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path());
    let text = "[mqtt]\npacket_bytes_maxx = 65536\n";
    let setup = setup.config(text);
    let path = setup.config.clone().unwrap();
    for command in ["check", "serve"] {
        let (code, _, said) = run(&[command, "--config", path.to_str().unwrap()]);
        assert_eq!(code, 2, "{said}");
        assert!(said.contains("packet_bytes_maxx"), "{said}");
        assert!(
            said.contains("packet_bytes_max`")
                || said.contains("packet_bytes_max?")
                || said.matches("packet_bytes_max").count() >= 2,
            "no nearest key: {said}"
        );
        assert!(said.contains(":2:1") || said.contains("line 2"), "no line and column: {said}");
    }
}

#[test]
fn an_address_for_everyone_is_warned_about() {
    let scratch = scratch();
    let setup = Setup::new(scratch.path());
    let everyone = format!("0.0.0.0:{}", setup.ports.mqtt);
    let (code, said, error) = run(&["check", "--mqtt-listen", &everyone]);
    assert_eq!(code, 0, "{error}");
    let both = format!("{said}{error}").to_lowercase();
    assert!(both.contains("warning") && both.contains("authentication"), "{both}");
}
