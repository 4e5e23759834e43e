#!/usr/bin/env bash
# What do rules cost the whole path? The same feed (a sensor's JSON) into a stream as it is, and
# through 1, 10 and 100 filters on its topic (`SELECT * … WHERE temp > …`) of which 0 %, 50 % and 100 %
# of the messages pass; a message is acknowledged when every record that it became is durable. Where
# nothing passes nothing is written. rig.sh tells what may be set, and RULES="1 10 100".
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

counts=${RULES:-1 10 100}
# Between 20 and 21, evenly, is the temperature of the feed.
declare -A above=([0]=30 [50]=20.495 [100]=0)
printf '[[stream]]\nname = "as-is"\ntopics = ["as-is/#"]\n' >"$work/streams.toml"
names=(as-is)
for count in $counts; do
  for passes in 0 50 100; do
    name=rules-$count-$passes%
    names+=("$name")
    for number in $(seq "$count"); do
      echo "CREATE STREAM r${count}_p${passes}_$number AS SELECT * FROM '$name/#'" \
        "WHERE temp > ${above[$passes]};"
    done
  done
done >"$work/rules.sql"
engine tidegate --config "$work/streams.toml" --rules "$work/rules.sql"

run() {
  load 100x16 "$1" tidegate --connections 100 --window 16 --topic "$1/{client}" --payload json \
    --payload-bytes 256
  load 20000ps "$1" tidegate --connections 100 --rate 20000 --topic "$1/{client}" --payload json \
    --payload-bytes 256
}
each_round run "${names[@]}"

table 100x16 "JSON, 256 bytes, 100 connections × 16 in flight" "${names[@]}" -- --against as-is
table 20000ps "JSON, 256 bytes, 20,000 messages a second" "${names[@]}" -- --against as-is
page
