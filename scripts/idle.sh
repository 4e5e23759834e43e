#!/usr/bin/env bash
# How much CPU an idle engine uses: starts the release binary with its defaults, opens connections
# that say CONNECT and then nothing, and reports the processor time of the whole process in percent
# of one core. Reports and asserts nothing: the figure belongs to the machine.
#
#   scripts/idle.sh [CONNECTIONS=1000] [SECONDS=20] [flags of tidegate serve …]
set -euo pipefail
cd "$(dirname "$0")/.."

connections=${1:-1000}
seconds=${2:-20}
shift $(($# < 2 ? $# : 2))

ulimit -n 8192 2>/dev/null || true
cargo build --release --quiet
binary="$(realpath "${CARGO_TARGET_DIR:-target}")/release/tidegate"
place="$(mktemp -d "$(dirname "$binary")/idle.XXXXXX")"

exec python3 - "$binary" "$place" "$connections" "$seconds" "$@" <<'PYTHON'
import os, shutil, socket, struct, subprocess, sys, time, urllib.request

binary, place, connections, seconds, *flags = sys.argv[1:]
connections, seconds = int(connections), float(seconds)
MQTT, KAFKA, HTTP = 21983, 29192, 28180

listen = [f"--{name}-listen=127.0.0.1:{port}" for name, port in (("mqtt", MQTT), ("kafka", KAFKA), ("http", HTTP))]
log = open(os.path.join(place, "engine.log"), "w+")
engine = subprocess.Popen([binary, "serve", *listen, *flags], cwd=place, stdout=log, stderr=log)


def processor_seconds():
    fields = open(f"/proc/{engine.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def switches():
    total = 0
    for task in os.listdir(f"/proc/{engine.pid}/task"):
        status = open(f"/proc/{engine.pid}/task/{task}/status").read()
        total += sum(int(l.split()[1]) for l in status.splitlines() if "ctxt_switches" in l)
    return total


def measure(what):
    cpu, woken, begun = processor_seconds(), switches(), time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begun
    share = (processor_seconds() - cpu) / elapsed * 100
    print(f"{what}: {share:.2f} % of a core, {(switches() - woken) / elapsed:.0f} context switches a second, over {elapsed:.0f} s")


try:
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{HTTP}/readyz", timeout=2)
            break
        except OSError:
            if engine.poll() is not None:
                log.seek(0)
                raise SystemExit(f"idle: the engine ended with {engine.returncode}:\n{log.read()}")
            time.sleep(0.2)
    else:
        raise SystemExit("idle: the engine is not ready after a minute")
    measure("no connection")
    held = []
    for i in range(connections):
        name = f"idle-{i}".encode()
        body = b"\0\4MQTT\4\2" + struct.pack("!H", 3600) + struct.pack("!H", len(name)) + name
        held.append(socket.create_connection(("127.0.0.1", MQTT)))
        held[-1].sendall(bytes([0x10, len(body)]) + body)
    for one in held:
        answer = one.recv(4)
        if answer != b"\x20\2\0\0":
            raise SystemExit(f"idle: CONNECT was answered with {answer!r}")
    measure(f"{connections} idle connections")
    with open(f"/proc/{engine.pid}/status") as status:
        print(next(line for line in status if line.startswith("VmRSS")).strip())
finally:
    engine.terminate()
    try:
        engine.wait(30)
    except subprocess.TimeoutExpired:
        engine.kill()
    shutil.rmtree(place)
PYTHON
