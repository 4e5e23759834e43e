#!/usr/bin/env bash
# How many durable messages a second, and what does one cost? A closed loop with many in flight on
# few connections and with one in flight on many, next to the null sink: the limit of the generator
# and of the kernel's TCP. rig.sh tells what may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

engine tidegate
null_sink null-sink

run() {
  load 100x16 "$1" "$1" --connections 100 --window 16
  load 1000x1 "$1" "$1" --connections 1000 --window 1
}
each_round run null-sink tidegate

table 100x16 "100 connections × 16 in flight" null-sink tidegate
table 1000x1 "1,000 connections × 1 in flight" null-sink tidegate
page
