//! `tidegate bench` on a real engine: what it sends is answered, and its consumer reads it.

use serde_json::Value;

use crate::engine::{Setup, run, scratch};

#[test]
fn the_load_is_acknowledged_and_its_consumer_reads_every_message() {
    for compression in ["none", "lz4"] {
        let scratch = scratch();
        let stream = format!(
            "[[stream]]\nname = \"plant\"\ntopics = [\"bench/#\"]\ncompression = \"{compression}\"\n"
        );
        let engine = Setup::new(scratch.path()).config(&stream).start();
        let (mqtt, kafka) = (format!("127.0.0.1:{}", engine.ports.mqtt), engine.bootstrap());
        let mut line = vec!["bench", "--connect", &mqtt, "--connections", "5", "--rate", "500"];
        line.extend(["--warmup", "100ms", "--duration", "1s", "--drain", "60s", "--quiet"]);
        line.extend(["--consume-kafka", &kafka, "--stream", "plant", "--json"]);
        line.extend(["--payload", if compression == "lz4" { "zeros" } else { "random" }]);
        let (code, report, said) = run(&line);
        assert_eq!(code, 0, "{said}");
        let report: Value = serde_json::from_str(&report).unwrap();
        let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap();
        assert_eq!(number("/open_loop/unacknowledged"), 0);
        assert_eq!(number("/consumer/unread"), 0);
        assert!(number("/consumer/latency/count") >= number("/open_loop/intended"));
        engine.stop();
    }
}

#[test]
fn a_stream_that_is_not_there_is_said() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let (mqtt, kafka) = (format!("127.0.0.1:{}", engine.ports.mqtt), engine.bootstrap());
    let line = ["bench", "--connect", &mqtt, "--consume-kafka", &kafka, "--stream", "nothing"];
    let (code, _, said) = run(&line);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the Kafka consumer: Metadata answered"), "{said}");
    engine.stop();
}
