#!/usr/bin/env bash
# What a record costs that crosses to another shard: the same load in one run, once with a topic
# that the devices' own shard owns, once with one of the other shard; then one shard against two at
# the same rate; then a shard beside a neighbour that somebody publishes to, once with a healthy disk
# and once with one that takes 20 ms more for each commit. Prints medians of the rounds.
#
#   scripts/crossing.sh                     three rounds, about five minutes
#   ROUNDS=5 DURATION=8s scripts/crossing.sh
#
# ENGINE_CORES and LOAD_CORE (0 and 1) pin: by default both shards share core 0, so that the load
# has a core of its own. TIDEGATE names a binary, else it is built in release; DATA_PARENT names a
# directory on the disk to be used (the build's, by default). Needs python3, curl, mosquitto_pub. Ends
# only what it started.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
rounds=${ROUNDS:-3} duration=${DURATION:-4s} warmup=${WARMUP:-1s}
engine_cores=${ENGINE_CORES:-0} load_core=${LOAD_CORE:-1}
target=${CARGO_TARGET_DIR:-$root/target}

if [[ -z ${TIDEGATE:-} ]]; then
  cargo build --release --locked --manifest-path "$root/Cargo.toml"
  TIDEGATE=$target/release/tidegate
fi
mkdir -p "${DATA_PARENT:-$target}"
work=$(mktemp -d "${DATA_PARENT:-$target}/crossing.XXXXXX")
declare -A pids=() ports=() https=()

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
  while port=$((20000 + RANDOM % 10000)); answers "$port" || answers $((port + 1)); do :; done
  echo "$port"
}

# start SHARDS: an engine with a stream that is partitioned by topic and one by client.
start() {
  local shards=$1 http slow=()
  # Slow for as long as the file is there.
  if ((shards > 1)); then slow=(--inject-commit-delay "1=20ms@$work/slow"); fi
  http=$(free_port)
  ports[$shards]=$(free_port)
  https[$shards]=$http
  cat >"$work/$shards.toml" <<'TOML'
[[stream]]
name = "by_topic"
topics = ["here/#", "there/#"]
partition_by = "topic"
[[stream]]
name = "by_client"
topics = ["own/#"]
TOML
  "$TIDEGATE" serve --config "$work/$shards.toml" --cores "$engine_cores" --shards "$shards" \
    --partitions 8 --data-dir "$work/data$shards" --mqtt-listen "127.0.0.1:${ports[$shards]}" \
    --kafka-listen "127.0.0.1:$(free_port)" --http-listen "127.0.0.1:$http" "${slow[@]}" \
    >"$work/$shards.log" 2>&1 &
  pids[$shards]=$!
  for _ in $(seq 300); do
    if curl -sf "http://127.0.0.1:$http/readyz" >/dev/null; then return; fi
    sleep 0.1
  done
  cat "$work/$shards.log" >&2
  exit 1
}

# A prefix with which all eight clients belong to shard 0 of 2, a topic of each shard, and a client of
# shard 1.
# shellcheck disable=SC2034 # read below as ${!which}
read -r prefix here there neighbour < <(python3 - <<'PYTHON'
from itertools import count

def murmur2(data):
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i:i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15

def shard(text):
    return (murmur2(text.encode()) & 0x7FFFFFFF) % 8 % 2

print(next(p for p in (f"c{i}-" for i in count()) if not any(shard(f"{p}{n}") for n in range(8))),
      next(t for t in (f"here/{i}" for i in count()) if shard(t) == 0),
      next(t for t in (f"there/{i}" for i in count()) if shard(t) == 1),
      next(c for c in (f"neighbour-{i}" for i in count()) if shard(c) == 1))
PYTHON
)

# run ROUND SCENARIO WHICH SHARDS FLAGS…
run() {
  local round=$1 scenario=$2 which=$3 shards=$4
  shift 4
  echo "round $round  $scenario  $which" >&2
  "$TIDEGATE" bench --connect "127.0.0.1:${ports[$shards]}" --pid "${pids[$shards]}" \
    --core "$load_core" --warmup "$warmup" --duration "$duration" --quiet --json "$@" \
    >"$work/$scenario.$which.$round.json" || echo "  (see the warnings above)" >&2
}

# Publishes 1,000 messages a second to shard 1 until it is ended.
publish_beside() {
  taskset -c "$load_core" python3 -c '
import sys, time
while True:
    sys.stdout.write("x" * 127 + "\n")
    sys.stdout.flush()
    time.sleep(0.001)' 2>/dev/null |
    taskset -c "$load_core" mosquitto_pub -p "${ports[2]}" -i "$neighbour" -q 1 -t own/neighbour -l &
  pids[beside]=$!
}

# commits: how many shard 1 of 2 has made.
commits() {
  curl -s "http://127.0.0.1:${https[2]}/metrics" |
    awk '/^tidegate_log_commits_total\{shard="1"\}/ { print $2 }'
}

start 2
start 1
eight=(--connections 8 --client-prefix "$prefix")
for round in $(seq "$rounds"); do
  order=(here there)
  if ((round % 2 == 0)); then order=(there here); fi
  for which in "${order[@]}"; do
    topic=${!which}
    run "$round" "8x64" "$which" 2 "${eight[@]}" --window 64 --topic "$topic"
    run "$round" "2000ps" "$which" 2 "${eight[@]}" --rate 2000 --topic "$topic"
    run "$round" "20000ps" "$which" 2 "${eight[@]}" --rate 20000 --topic "$topic"
  done
  order=(1 2)
  if ((round % 2 == 0)); then order=(2 1); fi
  for shards in "${order[@]}"; do
    run "$round" "20000ps-shards" "$shards" "$shards" --connections 100 --rate 20000 --topic own/x
  done
  order=(healthy slow)
  if ((round % 2 == 0)); then order=(slow healthy); fi
  for which in "${order[@]}"; do
    if [ "$which" = slow ]; then touch "$work/slow"; fi
    publish_beside
    before=$(commits)
    run "$round" "beside" "$which" 2 "${eight[@]}" --rate 2000 --topic own/x
    echo "  the neighbour made $(($(commits) - before)) commits" >&2
    kill "${pids[beside]}"
    wait "${pids[beside]}" 2>/dev/null || true
    unset 'pids[beside]'
    rm -f "$work/slow"
  done
done

python3 - "$work" <<'PYTHON'
import glob, json, statistics, sys

def values(scenario, which):
    reports = [json.load(open(p)) for p in glob.glob(f"{sys.argv[1]}/{scenario}.{which}.*.json")]
    return reports

def rate(r): return r["acknowledgements_per_s"]
def p50(r): return r["latency"]["p50_us"]
def p99(r): return r["latency"]["p99_us"]
def cpu(r): return r["process"]["cpu_ns_per_message"]

def line(title, scenario, a, b, get, unit):
    one, two = ([get(r) for r in values(scenario, w)] for w in (a, b))
    one_m, two_m = statistics.median(one), statistics.median(two)
    spread = lambda v: f"[{min(v):,.0f}–{max(v):,.0f}]"
    print(f"{title:<44} {one_m:>12,.0f} {spread(one):<20} {two_m:>12,.0f} {spread(two):<20} "
          f"{two_m / one_m:5.2f}  {unit}")

print(f"{'':<44} {'own shard':>12} {'':<20} {'other shard':>12} {'':<20} ratio")
for scenario, name in (("8x64", "8 × 64 in flight"), ("2000ps", "2,000/s"), ("20000ps", "20,000/s")):
    if scenario == "8x64":
        line(f"{name}, acknowledged", scenario, "here", "there", rate, "/s")
    else:
        line(f"{name}, p50", scenario, "here", "there", p50, "µs")
        line(f"{name}, p99", scenario, "here", "there", p99, "µs")
    line(f"{name}, CPU a message", scenario, "here", "there", cpu, "ns")
print(f"{'':<44} {'1 shard':>12} {'':<20} {'2 shards':>12}")
line("100 devices, 20,000/s, CPU a message", "20000ps-shards", "1", "2", cpu, "ns")
line("100 devices, 20,000/s, p50", "20000ps-shards", "1", "2", p50, "µs")
print(f"{'':<44} {'healthy':>12} {'':<20} {'slow':>12}")
line("beside a neighbour, 2,000/s, p50", "beside", "healthy", "slow", p50, "µs")
line("beside a neighbour, 2,000/s, p99", "beside", "healthy", "slow", p99, "µs")
line("beside a neighbour, 2,000/s, CPU a message", "beside", "healthy", "slow", cpu, "ns")
PYTHON
