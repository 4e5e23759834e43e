#!/usr/bin/env bash
# Compares durable Tidegate with Mosquitto that keeps everything in memory, on one pinned core each,
# with the load on another core. Same load, same run, alternating; prints medians, ratios and the
# machine's own floor.
#
#   scripts/compare-mosquitto.sh                    three rounds, about five minutes
#   ROUNDS=5 DURATION=10s scripts/compare-mosquitto.sh
#
# ENGINE_CORE and LOAD_CORE (0 and 1) pin; TIDEGATE names a binary, else it is built in release;
# DATA_PARENT names a directory on the disk to be measured (the build's, by default);
# SERVE_FLAGS are added to `tidegate serve`; REPORTS keeps the JSON reports in that directory.
#
# Needs mosquitto (Debian package) and python3. Ends only what it started.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
rounds=${ROUNDS:-3} duration=${DURATION:-6s} warmup=${WARMUP:-2s}
engine_core=${ENGINE_CORE:-0} load_core=${LOAD_CORE:-1}
target=${CARGO_TARGET_DIR:-$root/target}

if [[ -z ${TIDEGATE:-} ]]; then
  cargo build --release --locked --manifest-path "$root/Cargo.toml"
  TIDEGATE=$target/release/tidegate
fi
mosquitto=$(PATH=$PATH:/usr/sbin:/usr/local/sbin command -v mosquitto) || {
  echo "mosquitto is missing: apt-get install mosquitto" >&2
  exit 1
}

mkdir -p "${DATA_PARENT:-$target}"
work=$(mktemp -d "${DATA_PARENT:-$target}/compare.XXXXXX")
reports=${REPORTS:-$work/reports}
mkdir -p "$reports"
declare -A pids=()

finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); answers "$port"; do :; done
  echo "$port"
}

# await NAME: until the process that was just started listens.
await() {
  for _ in $(seq 600); do
    if ! kill -0 "${pids[$1]}" 2>/dev/null; then break; fi
    if answers "${ports[$1]}"; then return; fi
    sleep 0.1
  done
  echo "$1 does not listen; its log:" >&2
  cat "$work/$1.log" >&2
  exit 1
}

declare -A ports=([tidegate]=$(free_port) [mosquitto]=$(free_port) [null-sink]=$(free_port))

# shellcheck disable=SC2086 # flags are words
"$TIDEGATE" serve --cores "$engine_core" --data-dir "$work/data" \
  --mqtt-listen "127.0.0.1:${ports[tidegate]}" --kafka-listen "127.0.0.1:$(free_port)" \
  --http-listen "127.0.0.1:$(free_port)" ${SERVE_FLAGS:-} >"$work/tidegate.log" 2>&1 &
pids[tidegate]=$!
await tidegate

# Nothing of its own limits it: no persistence, no bound on what is in flight or queued, no log.
cat >"$work/mosquitto.conf" <<CONF
listener ${ports[mosquitto]} 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
CONF
taskset -c "$engine_core" "$mosquitto" -c "$work/mosquitto.conf" >"$work/mosquitto.log" 2>&1 &
pids[mosquitto]=$!
await mosquitto

"$TIDEGATE" bench --null-sink "127.0.0.1:${ports[null-sink]}" --core "$engine_core" --quiet \
  >"$work/null-sink.log" 2>&1 &
pids[null-sink]=$!
await null-sink

# run ROUND SCENARIO BROKER FLAGS…
run() {
  local round=$1 scenario=$2 broker=$3
  shift 3
  echo "round $round  $scenario  $broker" >&2
  "$TIDEGATE" bench --connect "127.0.0.1:${ports[$broker]}" --pid "${pids[$broker]}" \
    --core "$load_core" --warmup "$warmup" --duration "$duration" --quiet --json "$@" \
    >"$reports/$scenario.$broker.$round.json" || echo "  (see the warnings above)" >&2
}

for round in $(seq "$rounds"); do
  "$TIDEGATE" bench --floor --data-dir "$work" --engine-core "$engine_core" \
    --core "$load_core" --duration 2s --json >"$reports/floor.$round.json"
  order=(tidegate mosquitto null-sink)
  if ((round % 2 == 0)); then order=(null-sink mosquitto tidegate); fi
  for broker in "${order[@]}"; do run "$round" 100x16 "$broker" --connections 100 --window 16; done
  for broker in "${order[@]}"; do run "$round" 1000x1 "$broker" --connections 1000 --window 1; done
  for broker in "${order[@]}"; do run "$round" 2000ps "$broker" --connections 100 --rate 2000; done
  for broker in "${order[@]}"; do run "$round" 20000ps "$broker" --connections 100 --rate 20000; done
done

python3 "$root/scripts/compare-mosquitto.py" "$reports"
