# shellcheck shell=bash
# The rig of the scripts beside it, which source it: a release build, a folder on the disk to be
# measured, servers on one core and the load on another, rounds whose order alternates, a table of
# medians. Every script understands:
#
#   SHORT=1                  one round of a second each: does it run?
#   ROUNDS, DURATION, WARMUP (3, 6s, 2s)
#   ENGINE_CORE, LOAD_CORE   (0, 1) where servers and load are pinned; several as 0,2
#   TIDEGATE=FILE            a binary; else it is built in release
#   DATA_PARENT=DIR          a directory on the disk to be measured (the build's, by default)
#   SERVE_FLAGS=...          are added to `tidegate serve`
#   REPORTS=DIR              keeps the JSON reports there
#   HTML=FILE                writes a page of them, too
#
# Ends only what it started, by process id.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
rounds=${ROUNDS:-3} duration=${DURATION:-6s} warmup=${WARMUP:-2s} floor_part=1s
if [[ -n ${SHORT:-} ]]; then
  rounds=${ROUNDS:-1} duration=${DURATION:-1s} warmup=${WARMUP:-300ms} floor_part=200ms
fi
engine_core=${ENGINE_CORE:-0} load_core=${LOAD_CORE:-1}
target=${CARGO_TARGET_DIR:-$root/target}
ulimit -n "$(ulimit -Hn)" 2>/dev/null || true

if [[ -z ${TIDEGATE:-} ]]; then
  cargo build --release --locked --manifest-path "$root/Cargo.toml"
  TIDEGATE=$target/release/tidegate
fi
mkdir -p "${DATA_PARENT:-$target}"
work=$(mktemp -d "${DATA_PARENT:-$target}/bench.XXXXXX")
reports=${REPORTS:-$work/reports}
mkdir -p "$reports"
declare -A pids=() ports=() http_ports=() kafka_ports=()

# stop NAME…: ends servers that were started here, and waits for it.
stop() {
  local name
  for name in "$@"; do
    [[ -n ${pids[$name]:-} ]] || continue
    kill "${pids[$name]}" 2>/dev/null || true
    wait "${pids[$name]}" 2>/dev/null || true
    unset "pids[$name]"
  done
}
finish() {
  stop "${!pids[@]}"
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# A port of which the next one is free, too.
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); answers "$port" || answers $((port + 1)); do :; done
  echo "$port"
}

# start NAME PORT COMMAND…: runs a server that listens on PORT, and waits until it does.
start() {
  local name=$1
  ports[$name]=$2
  shift 2
  "$@" >"$work/$name.log" 2>&1 &
  pids[$name]=$!
  for _ in $(seq 600); do
    if ! kill -0 "${pids[$name]}" 2>/dev/null; then break; fi
    if answers "${ports[$name]}"; then return; fi
    sleep 0.1
  done
  echo "$name does not listen; its log:" >&2
  cat "$work/$name.log" >&2
  exit 1
}

# engine NAME [FLAGS…]: a Tidegate on the engine's core with a data directory of its own.
engine() {
  local name=$1 port
  shift
  port=$(free_port)
  http_ports[$name]=$(free_port)
  kafka_ports[$name]=$(free_port)
  # shellcheck disable=SC2086 # flags are words
  start "$name" "$port" "$TIDEGATE" serve --cores "$engine_core" --data-dir "$work/data-$name" \
    --mqtt-listen "127.0.0.1:$port" --kafka-listen "127.0.0.1:${kafka_ports[$name]}" \
    --http-listen "127.0.0.1:${http_ports[$name]}" "$@" ${SERVE_FLAGS:-}
}

# null_sink NAME: a server that acknowledges and does nothing else.
null_sink() {
  local port
  port=$(free_port)
  start "$1" "$port" "$TIDEGATE" bench --null-sink "127.0.0.1:$port" --core "${engine_core%%,*}" --quiet
}

# load SCENARIO NAME SERVER FLAGS…: one run on SERVER, reported as NAME in this round of SCENARIO.
load() {
  local scenario=$1 name=$2 server=$3
  shift 3
  echo "round $round of $rounds  $scenario  $name" >&2
  mkdir -p "$reports/$scenario"
  "$TIDEGATE" bench --connect "127.0.0.1:${ports[$server]}" --pid "${pids[$server]}" \
    --core "$load_core" --engine-core "${engine_core%%,*}" --warmup "$warmup" \
    --duration "$duration" --floor-data "$work" --floor-part "$floor_part" --quiet --json "$@" \
    >"$reports/$scenario/$name.$round.json" || echo "  (not to be trusted: see above)" >&2
}

# each_round COMMAND NAMES…: calls COMMAND for every name in every round, from the last name to the
# first in every other round.
each_round() {
  local command=$1 name order
  shift
  for round in $(seq "$rounds"); do
    order=("$@")
    if ((round % 2 == 0)); then mapfile -t order < <(printf '%s\n' "$@" | tac); fi
    for name in "${order[@]}"; do "$command" "$name"; done
  done
}

# table SCENARIO TITLE NAMES… [-- FLAGS…]: medians of the rounds of these names, in this order; the
# flags go to `tidegate bench report`.
table() {
  local scenario=$1 title=$2 file files=()
  shift 2
  while (($# > 0)) && [[ $1 != -- ]]; do
    for file in "$reports/$scenario/$1."*.json; do
      # A run that failed has left an empty file.
      if [[ -s $file ]]; then files+=("$file"); fi
    done
    shift
  done
  if (($# > 0)); then shift; fi
  printf '\n%s\n' "$title"
  if ((${#files[@]} == 0)); then
    echo "  no run of it ended with a report"
    return
  fi
  "$TIDEGATE" bench report "${files[@]}" "$@"
}

# page: all reports as one HTML page, where HTML asks for it.
page() {
  if [[ -n ${HTML:-} ]]; then
    find "$reports" -name '*.json' -size +0 -print0 | sort -z |
      xargs -0 "$TIDEGATE" bench report --html "$HTML"
    echo "$HTML"
  fi
}
