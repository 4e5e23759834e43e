#!/usr/bin/env bash
# What does LZ4 cost and save? The same load on a stream without compression and on one with LZ4,
# with a sensor's JSON and with bytes that do not compress; bytes on disk come from `tidegate log
# stat` after the engine has ended. rig.sh tells what may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"

for compression in none lz4; do
  printf '[[stream]]\nname = "%s"\ntopics = ["%s/#"]\ncompression = "%s"\n' \
    "$compression" "$compression" "$compression"
done >"$work/streams.toml"
engine tidegate --config "$work/streams.toml"

run() {
  local payload
  for payload in json random; do
    load "$payload-100x16" "$1" tidegate --connections 100 --window 16 --topic "$1/{client}" \
      --payload "$payload" --payload-bytes 256
    load "$payload-20000ps" "$1" tidegate --connections 100 --rate 20000 --topic "$1/{client}" \
      --payload "$payload" --payload-bytes 256
  done
}
each_round run none lz4

for payload in json random; do
  table "$payload-100x16" "$payload, 256 bytes, 100 connections × 16 in flight" none lz4
  table "$payload-20000ps" "$payload, 256 bytes, 20,000 messages a second" none lz4
done
stop tidegate
printf '\nBytes on disk\n'
"$TIDEGATE" log stat "$work/data-tidegate"
page
