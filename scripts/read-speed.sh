#!/usr/bin/env bash
# How fast a data directory is read: fills one with GIGABYTES, stops the engine, and then reads it
# ROUNDS times in each of three ways, alternating: `cat` of the segments, `tidegate log verify`, and a
# Kafka consumer (kcat) from the beginning, for which the engine is started again. The page cache is
# dropped before each (root; else the caches are warm, and it says so). Prints medians and how they
# stand to `cat`. Reports and asserts nothing: the figures belong to the machine.
#
#   scripts/read-speed.sh [GIGABYTES=4] [ROUNDS=5] [flags of tidegate serve …]
set -euo pipefail
cd "$(dirname "$0")/.."

exec python3 -B - "${1:-4}" "${2:-5}" "${@:3}" <<'PYTHON'
import json, os, shutil, statistics, subprocess, sys, time
from scripts.engine import Engine, drop_caches

gigabytes, rounds, flags = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
STREAM = '[[stream]]\nname = "telemetry"\ntopics = ["#"]\nretention_bytes = "1TB"\n'


def timed(arguments, out=subprocess.DEVNULL):
    begun = time.monotonic()
    done = subprocess.run(arguments, stdout=out, check=True)
    return time.monotonic() - begun, done.stdout


def fill(engine):
    engine.start()
    while (stored := sum(map(os.path.getsize, engine.segments())) / 1e9) < gigabytes:
        print(f"  filling: {stored:.1f} of {gigabytes:g} GB", file=sys.stderr)
        if engine.load(3).wait() != 0:
            raise SystemExit("read-speed: tidegate bench failed")
    engine.stop()


with Engine("read-speed", 22283, ["--partitions=8", *flags], STREAM) as engine:
    fill(engine)
    times = {"cat": [], "verify": [], "kcat": []}
    has_kcat = shutil.which("kcat") is not None
    for _ in range(rounds):
        caches = drop_caches()
        # Only what verify reads: the files as they are, one after the other.
        times["cat"].append(timed(["cat", *engine.segments()])[0])
        drop_caches()
        took, out = timed([engine.binary, "log", "verify", "--json", engine.data], subprocess.PIPE)
        report = json.loads(out)
        assert report["sound"], report
        times["verify"].append(took)
        if has_kcat:
            engine.start()
            drop_caches()
            consume = ["kcat", "-q", "-b", engine.kafka, "-C", "-t", "telemetry", "-o", "beginning", "-e", "-f", ""]
            times["kcat"].append(timed(consume)[0])
            engine.stop()

size = report["bytes"]
print(f"{size / 1e9:.2f} GB, {report['records']} records, caches {caches}, medians of {rounds} alternating rounds")
plain = statistics.median(times["cat"])
for name, taken in times.items():
    if taken:
        median = statistics.median(taken)
        print(f"  {name:<7} {median:6.2f} s  {size / median / 1e6:7.0f} MB/s  {plain / median * 100:4.0f} % of cat"
              f"   ({min(taken):.2f} to {max(taken):.2f} s)")
if not has_kcat:
    print("SKIPPED: kcat is not installed")
PYTHON
