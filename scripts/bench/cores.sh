#!/usr/bin/env bash
# What do two shards cost and bring, against one? The same loads on an engine of one shard and on one
# of two, and what a record costs that crosses to the other shard (a topic that the devices' own
# shard owns against one of the other). With SLOW=1 also: a shard beside a neighbour whose disk takes
# 20 ms more for each commit.
#
# By default both shards share core 0, so that the load has a core of its own: this shows the cost of
# sharding, not its gain. ENGINE_CORE=0,1 LOAD_CORE=2,3 shows the gain where there are as many cores.
# Needs python3; SLOW=1 mosquitto_pub. rig.sh tells what else may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

cat >"$work/streams.toml" <<'TOML'
[[stream]]
name = "by_topic"
topics = ["here/#", "there/#"]
partition_by = "topic"
[[stream]]
name = "by_client"
topics = ["own/#"]
TOML
# shellcheck disable=SC2034 # read as ${!which}
read -r prefix here there neighbour < <(python3 "$root/scripts/bench/placing.py")
eight=(--connections 8 --client-prefix "$prefix")

# The delay lasts while the file is there.
engine 2-shards --config "$work/streams.toml" --partitions 8 --shards 2 \
  --inject-commit-delay "1=20ms@$work/slow"
engine 1-shard --config "$work/streams.toml" --partitions 8 --shards 1

shards() {
  load 100x16 "$1" "$1" --connections 100 --window 16 --topic "own/{client}"
  load 20000ps "$1" "$1" --connections 100 --rate 20000 --topic "own/{client}"
}
crossing() {
  load 8x64 "$1" 2-shards "${eight[@]}" --window 64 --topic "${!1}"
  load 2000ps "$1" 2-shards "${eight[@]}" --rate 2000 --topic "${!1}"
  load 20000ps "$1" 2-shards "${eight[@]}" --rate 20000 --topic "${!1}"
}
# Publishes to shard 1 as fast as it is acknowledged, but no faster than 1,000 messages a second.
beside() {
  mkfifo "$work/lines"
  python3 -c '
import sys, time
while True:
    sys.stdout.write("x" * 127 + "\n")
    sys.stdout.flush()
    time.sleep(0.001)' >"$work/lines" 2>/dev/null &
  pids["lines"]=$!
  mosquitto_pub -p "${ports[2-shards]}" -i "$neighbour" -q 1 -t own/neighbour -l <"$work/lines" &
  pids["publisher"]=$!
  if [[ $1 == slow ]]; then touch "$work/slow"; fi
  load neighbour "$1" 2-shards "${eight[@]}" --rate 2000 --topic own/x
  rm -f "$work/slow" "$work/lines"
  stop publisher lines
}

each_round shards 1-shard 2-shards
each_round crossing here there
if [[ -n ${SLOW:-} ]]; then each_round beside healthy slow; fi

table 100x16 "100 connections × 16 in flight, one shard and two" 1-shard 2-shards
table 20000ps "20,000 messages a second, one shard and two" 1-shard 2-shards
table 8x64 "8 devices × 64 in flight, records of their own shard and of the other" here there
table 2000ps "2,000 messages a second, the same" here there
table 20000ps "20,000 messages a second, the same" here there
if [[ -n ${SLOW:-} ]]; then
  table neighbour "2,000 messages a second beside a neighbour with a healthy disk and a slow one" healthy slow
fi
page
