#!/usr/bin/env bash
# How long from a device to a Kafka consumer? An open loop at fixed rates with a consumer that reads
# along, next to the same load without one. On two cores the consumer shares the engine's core or the
# load's: CONSUMER_CORE names a third where there is one (the engine's by default, because the load
# never sleeps).
#
#   RATES="2000 20000" CONNECTIONS=100
#
# rig.sh tells what else may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

rates=${RATES:-2000 20000}
engine tidegate

run() {
  local rate flags=()
  if [[ $1 == consumer ]]; then
    flags=(--consume-kafka "127.0.0.1:${kafka_ports[tidegate]}" --stream telemetry
      --consumer-core "${CONSUMER_CORE:-$engine_core}")
  fi
  for rate in $rates; do
    load "$rate" "$1" tidegate --connections "${CONNECTIONS:-100}" --rate "$rate" "${flags[@]}"
  done
}
each_round run alone consumer

for rate in $rates; do
  table "$rate" "$rate messages a second, alone and with a Kafka consumer" alone consumer
done
page
