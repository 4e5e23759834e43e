#!/usr/bin/env bash
# Does what README's quick start says, on an empty directory with the release binary: starts the
# engine, runs the two lines that it prints for copying (mosquitto_pub and kcat; README must show
# the same), stops it with SIGTERM, starts it again and reads again. Prints what it sees; ends with
# a code other than 0 when something is not there.
#
# The defaults are what is tried: ports 1883, 9092 + shard and 8080, ./tidegate-data. Where someone
# else listens on one of them, other ports are named and the script says so.
set -euo pipefail
cd "$(dirname "$0")/.."
top=$PWD

fail() {
    echo "smoke: $*" >&2
    [ -f "${log:-}" ] && sed 's/^/  engine: /' "$log" >&2
    exit 1
}

for tool in mosquitto_pub kcat python3; do
    command -v "$tool" >/dev/null || fail "$tool not found: apt-get install mosquitto-clients kcat python3"
done

cargo build --release --quiet
binary="$(realpath "${CARGO_TARGET_DIR:-target}")/release/tidegate"

# A new, empty directory beside the build: the system's temporary directory may be a tmpfs, which
# refuses O_DIRECT.
place="$(mktemp -d "$(dirname "$binary")/smoke.XXXXXX")"
log="$place/engine.log"
engine=""
finish() {
    if [ -n "$engine" ] && kill -0 "$engine" 2>/dev/null; then
        kill -KILL "$engine"
        wait "$engine" 2>/dev/null || true
    fi
    rm -rf "$place"
}
trap finish EXIT

# As the engine looks: connections of an earlier run that linger do not count.
is_free() {
    python3 - "$1" <<'PYTHON' 2>/dev/null
import socket, sys
probe = socket.socket()
probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
probe.bind(("127.0.0.1", int(sys.argv[1])))
PYTHON
}

mqtt=1883 kafka=9092 http=8080
flags=()
for port in 1883 9092 9093 8080; do
    if ! is_free "$port"; then
        mqtt=21883 kafka=29092 http=28080
        echo "smoke: port $port is taken, so this run uses $mqtt, $kafka and $http"
        flags=(--mqtt-listen "127.0.0.1:$mqtt" --kafka-listen "127.0.0.1:$kafka" --http-listen "127.0.0.1:$http")
        break
    fi
done

ready() {
    python3 - "$http" <<'PYTHON' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{sys.argv[1]}/readyz", timeout=2)
PYTHON
}

cd "$place"
"$binary" serve "${flags[@]}" >"$log" 2>&1 &
engine=$!
for ((tries = 0; ; tries++)); do
    ready && break
    kill -0 "$engine" 2>/dev/null || fail "the engine ended before it was ready"
    [ "$tries" -lt 300 ] || fail "the engine is not ready after a minute"
    sleep 0.2
done
echo "\$ tidegate serve ${flags[*]}"
cat "$log"

# The lines to copy, as the engine prints them.
publish="$(grep -m 1 -o 'mosquitto_pub .*' "$log")" || fail "the engine prints no line for mosquitto_pub"
consume="$(grep -m 1 -o 'kcat .*' "$log")" || fail "the engine prints no line for kcat"
if [ ${#flags[@]} = 0 ]; then
    for line in "cargo run --release -- serve" "$publish" "$consume"; do
        grep -qF -- "$line" "$top/README.md" || fail "README's quick start does not have: $line"
    done
fi

echo "\$ $publish"
bash -c "$publish" || fail "mosquitto_pub failed"
echo "\$ $consume"
read_back="$(timeout 60 bash -c "$consume" 2>"$place/kcat.log")" || fail "kcat failed: $(cat "$place/kcat.log")"
echo "$read_back"
payload="${publish##*-m }"
case "$read_back" in
    *mqtt.topic=*"$payload"*) ;;
    *) fail "kcat did not read the message back" ;;
esac

kill -TERM "$engine"
code=0
wait "$engine" || code=$?
engine=""
[ "$code" = 0 ] || fail "after SIGTERM the engine left with code $code"

# What was acknowledged is there after a restart.
"$binary" serve "${flags[@]}" >>"$log" 2>&1 &
engine=$!
for ((tries = 0; ; tries++)); do
    ready && break
    kill -0 "$engine" 2>/dev/null || fail "the engine does not start again"
    [ "$tries" -lt 300 ] || fail "the engine is not ready again after a minute"
    sleep 0.2
done
again="$(timeout 60 bash -c "$consume" 2>/dev/null)" || fail "kcat failed after the restart"
[ "$again" = "$read_back" ] || fail "after a restart kcat reads: $again"
kill -TERM "$engine"
wait "$engine" || fail "the second engine did not end cleanly"
engine=""
cd "$top"
echo "smoke: started, published, read back, stopped, restarted and read again"
