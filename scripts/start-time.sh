#!/usr/bin/env bash
# How long an engine takes from its start to being ready, after `kill -9` and with cold caches: fills
# a data directory with GIGABYTES of 10 streams of 8 partitions, kills the engine under load, drops
# the page cache (root; else the caches are warm, and it says so), starts it and waits for /readyz;
# ROUNDS times. Beside it the bytes of the directory, and how long `cat` takes for as many bytes as
# the start has read. Reports and asserts nothing: the figures belong to the machine.
#
#   scripts/start-time.sh [GIGABYTES=10] [ROUNDS=3] [flags of tidegate serve …]
set -euo pipefail
cd "$(dirname "$0")/.."

exec python3 -B - "${1:-10}" "${2:-3}" "${@:3}" <<'PYTHON'
import os, statistics, sys, time
from scripts.engine import Engine, drop_caches

gigabytes, rounds, flags = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
STREAMS, CONNECTIONS = 10, 100

streams = ""
for stream in range(STREAMS):
    topics = ", ".join(f'"bench/bench-{c}"' for c in range(stream, CONNECTIONS, STREAMS))
    streams += f'[[stream]]\nname = "s{stream}"\ntopics = [{topics}]\nretention_bytes = "1TB"\n'


def stored(engine):
    total = 0
    for folder, _, names in os.walk(engine.data):
        total += sum(os.path.getsize(os.path.join(folder, name)) for name in names)
    return total / 1e9


def read_bytes(pid):
    lines = open(f"/proc/{pid}/io").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


def killed_and_started(engine):
    """Seconds from its start to being ready, after it was killed under load."""
    publishers = engine.load(30)
    time.sleep(2)
    engine.kill()
    publishers.kill()
    publishers.wait()
    caches = drop_caches()
    took = engine.start()
    read = read_bytes(engine.process.pid) / 1e6
    print(f"{stored(engine):.1f} GB, caches {caches}: ready after {took * 1e3:.0f} ms, {read:.0f} MB read", flush=True)
    return took


with Engine("start-time", 22183, ["--partitions=8", *flags], streams) as engine:
    print(f"empty directory: ready after {engine.start() * 1e3:.0f} ms", flush=True)
    while (held := stored(engine)) < gigabytes:
        print(f"  filling: {held:.1f} of {gigabytes:g} GB", file=sys.stderr, flush=True)
        engine.load(5).wait()
    times = [killed_and_started(engine) for _ in range(rounds)]
    print(f"median of {rounds}: {statistics.median(times) * 1e3:.0f} ms")
PYTHON
