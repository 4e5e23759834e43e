#!/usr/bin/env bash
# What do larger payloads cost? A closed loop at every size, and a sensor's JSON next to random
# bytes; null-sink-SIZE is the generator's own limit at that size.
#
#   SIZES="16 128 256 1024"
#
# rig.sh tells what else may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

sizes=${SIZES:-16 128 256 1024}
engine tidegate
null_sink null-sink

run() {
  local size
  for size in $sizes; do
    load "$1" "$size" "$1" --connections 100 --window 16 --payload-bytes "$size"
  done
  load "$1" json-256 "$1" --connections 100 --window 16 --payload-bytes 256 --payload json
}
each_round run null-sink tidegate

# shellcheck disable=SC2086 # sizes are words
table tidegate "Tidegate, 100 connections × 16 in flight, by payload bytes" $sizes json-256
# shellcheck disable=SC2086
table null-sink "Null sink, the same" $sizes json-256
page
