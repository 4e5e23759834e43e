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

gigabytes=${1:-4}
rounds=${2:-5}
shift $(($# < 2 ? $# : 2))

cargo build --release --quiet --locked
binary="$(realpath "${CARGO_TARGET_DIR:-target}")/release/tidegate"
place="$(mktemp -d "$(dirname "$binary")/read.XXXXXX")"

exec python3 - "$binary" "$place" "$gigabytes" "$rounds" "$@" <<'PYTHON'
import glob, json, os, shutil, signal, statistics, subprocess, sys, time, urllib.request

binary, place, gigabytes, rounds, *flags = sys.argv[1:]
gigabytes, rounds = float(gigabytes), int(rounds)
MQTT, KAFKA, HTTP = 22283, 29492, 28480
data = os.path.join(place, "tidegate-data")
open(os.path.join(place, "tidegate.toml"), "w").write(
    '[[stream]]\nname = "telemetry"\ntopics = ["#"]\nretention_bytes = "1TB"\n')
listen = [f"--{name}-listen=127.0.0.1:{port}" for name, port in (("mqtt", MQTT), ("kafka", KAFKA), ("http", HTTP))]
command = [binary, "serve", "--config=tidegate.toml", "--partitions=8", *listen, *flags]
log = open(os.path.join(place, "engine.log"), "w+")
engine = None


def start():
    global engine
    engine = subprocess.Popen(command, cwd=place, stdout=log, stderr=log)
    while True:
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/readyz", timeout=2)
        except OSError:
            if engine.poll() is not None:
                log.seek(0)
                raise SystemExit(f"read-speed: the engine ended with {engine.returncode}:\n{log.read()}")
            time.sleep(0.005)


def stop():
    engine.send_signal(signal.SIGTERM)
    engine.wait()


def segments():
    return sorted(glob.glob(os.path.join(data, "g*/s*/*.log")))


def cold():
    subprocess.run(["sync"], check=True)
    try:
        open("/proc/sys/vm/drop_caches", "w").write("3")
        return "cold"
    except OSError:
        return "warm (not root)"


def timed(arguments):
    begun = time.monotonic()
    done = subprocess.run(arguments, stdout=subprocess.PIPE if "log" in arguments else subprocess.DEVNULL, check=True)
    return time.monotonic() - begun, done.stdout


try:
    start()
    while sum(map(os.path.getsize, segments())) < gigabytes * 1e9:
        subprocess.run(
            [binary, "bench", f"--connect=127.0.0.1:{MQTT}", "--connections=100", "--window=16",
             "--payload-bytes=1024", "--warmup=0s", "--duration=3s", "--quiet"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        print(f"  filling: {sum(map(os.path.getsize, segments())) / 1e9:.1f} of {gigabytes:g} GB", file=sys.stderr)
    stop()
    times = {"cat": [], "verify": [], "kcat": []}
    has_kcat = shutil.which("kcat") is not None
    caches = ""
    for _ in range(rounds):
        caches = cold()
        # Only what verify reads: the files as they are, one after the other.
        times["cat"].append(timed(["cat", *segments()])[0])
        cold()
        took, out = timed([binary, "log", "verify", "--json", data])
        report = json.loads(out)
        assert report["sound"], report
        times["verify"].append(took)
        if has_kcat:
            start()
            cold()
            times["kcat"].append(timed(
                ["kcat", "-q", "-b", f"127.0.0.1:{KAFKA}", "-C", "-t", "telemetry", "-o", "beginning", "-e", "-f", ""])[0])
            stop()
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
finally:
    if engine is not None and engine.poll() is None:
        engine.kill()
        engine.wait()
    log.close()
    shutil.rmtree(place, ignore_errors=True)
PYTHON
