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

gigabytes=${1:-10}
rounds=${2:-3}
shift $(($# < 2 ? $# : 2))

cargo build --release --quiet --locked
binary="$(realpath "${CARGO_TARGET_DIR:-target}")/release/tidegate"
place="$(mktemp -d "$(dirname "$binary")/start.XXXXXX")"

exec python3 - "$binary" "$place" "$gigabytes" "$rounds" "$@" <<'PYTHON'
import os, shutil, statistics, subprocess, sys, time, urllib.request

binary, place, gigabytes, rounds, *flags = sys.argv[1:]
gigabytes, rounds = float(gigabytes), int(rounds)
MQTT, KAFKA, HTTP = 22183, 29392, 28380
STREAMS, CONNECTIONS = 10, 100

streams = ""
for stream in range(STREAMS):
    topics = ", ".join(f'"bench/bench-{c}"' for c in range(stream, CONNECTIONS, STREAMS))
    streams += f'[[stream]]\nname = "s{stream}"\ntopics = [{topics}]\nretention_bytes = "1TB"\n'
open(os.path.join(place, "tidegate.toml"), "w").write(streams)
listen = [f"--{name}-listen=127.0.0.1:{port}" for name, port in (("mqtt", MQTT), ("kafka", KAFKA), ("http", HTTP))]
command = [binary, "serve", "--config=tidegate.toml", "--partitions=8", *listen, *flags]
log = open(os.path.join(place, "engine.log"), "w+")


def start():
    begun = time.monotonic()
    engine = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/readyz", timeout=2)
            return engine, time.monotonic() - begun
        except OSError:
            if engine.poll() is not None:
                log.seek(0)
                raise SystemExit(f"start-time: the engine ended with {engine.returncode}:\n{log.read()}")
            time.sleep(0.005)


def stored():
    total = 0
    for folder, _, names in os.walk(os.path.join(place, "tidegate-data")):
        total += sum(os.path.getsize(os.path.join(folder, name)) for name in names)
    return total / 1e9


def load(seconds):
    return subprocess.Popen(
        [binary, "bench", f"--connect=127.0.0.1:{MQTT}", f"--connections={CONNECTIONS}", "--window=16",
         "--payload-bytes=1024", "--warmup=0s", f"--duration={seconds}s", "--quiet"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def read_bytes(pid):
    lines = open(f"/proc/{pid}/io").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))


engine = None
try:
    engine, first = start()
    print(f"empty directory: ready after {first * 1e3:.0f} ms", flush=True)
    while stored() < gigabytes:
        load(5).wait()
        print(f"  filling: {stored():.1f} of {gigabytes:g} GB", file=sys.stderr, flush=True)
    times = []
    for _ in range(rounds):
        publishers = load(30)
        time.sleep(2)
        engine.kill()
        engine.wait()
        publishers.kill()
        publishers.wait()
        subprocess.run(["sync"], check=True)
        try:
            open("/proc/sys/vm/drop_caches", "w").write("3")
            caches = "cold"
        except OSError:
            caches = "warm (not root)"
        engine, took = start()
        times.append(took)
        read = read_bytes(engine.pid) / 1e6
        print(f"{stored():.1f} GB, caches {caches}: ready after {took * 1e3:.0f} ms, {read:.0f} MB read", flush=True)
    print(f"median of {rounds}: {statistics.median(times) * 1e3:.0f} ms")
finally:
    if engine is not None and engine.poll() is None:
        engine.kill()
        engine.wait()
    log.close()
    shutil.rmtree(place, ignore_errors=True)
PYTHON
