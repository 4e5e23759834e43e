#!/usr/bin/env bash
# What does each step of durability cost? The same load on three streams of one engine: acknowledged
# from memory, after the write, after the flush. rig.sh tells what may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

for level in memory write fsync; do
  printf '[[stream]]\nname = "%s"\ntopics = ["%s/#"]\ndurability = "%s"\n' "$level" "$level" "$level"
done >"$work/streams.toml"
engine tidegate --config "$work/streams.toml"

run() {
  load 100x16 "$1" tidegate --connections 100 --window 16 --topic "$1/{client}"
  load 2000ps "$1" tidegate --connections 100 --rate 2000 --topic "$1/{client}"
  load 20000ps "$1" tidegate --connections 100 --rate 20000 --topic "$1/{client}"
}
each_round run memory write fsync

table 100x16 "100 connections × 16 in flight" memory write fsync
table 2000ps "2,000 messages a second" memory write fsync
table 20000ps "20,000 messages a second" memory write fsync
page
