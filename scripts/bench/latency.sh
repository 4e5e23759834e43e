#!/usr/bin/env bash
# How long does an acknowledgement take at a rate that the engine can keep? An open loop at fixed
# rates: latencies count from when each message was meant to be sent. The floor stands beside each.
#
#   RATES="2000 20000 100000" CONNECTIONS=1000
#
# rig.sh tells what else may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

rates=${RATES:-2000 20000 100000}
engine tidegate
null_sink null-sink

run() {
  for rate in $rates; do
    load "$rate" "$1" "$1" --connections "${CONNECTIONS:-1000}" --rate "$rate"
  done
}
each_round run null-sink tidegate

for rate in $rates; do
  table "$rate" "$rate messages a second over ${CONNECTIONS:-1000} connections" null-sink tidegate
done
page
