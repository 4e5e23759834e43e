#!/usr/bin/env bash
# What does a connection cost? For each number of connections a fresh engine: memory and CPU while
# all of them only keep alive, then CPU a message when the same rate comes over all of them, and how
# fast they are accepted.
#
#   COUNTS="100 1000 5000" RATE=20000
#
# rig.sh tells what else may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

counts=${COUNTS:-100 1000 5000} rate=${RATE:-20000}

run() {
  engine "with-$1"
  load idle "$1" "with-$1" --scenario idle --connections "$1"
  load storm "$1" "with-$1" --scenario connect-storm --connections "$1" --window 64
  load rate "$1" "with-$1" --connections "$1" --rate "$rate"
  stop "with-$1"
  rm -rf "$work/data-with-$1"
}
# shellcheck disable=SC2086 # counts are words
each_round run $counts

# shellcheck disable=SC2086
table idle "Idle connections (a message: a ping)" $counts
# shellcheck disable=SC2086
table storm "All of them connect, 64 at a time (a message: a connect)" $counts
# shellcheck disable=SC2086
table rate "$rate messages a second over so many connections" $counts
page
