#!/usr/bin/env bash
# Fetches Kafka's own tools (Apache Kafka's jars, by Maven) into target/kafka-tools; quick when they
# are there already. The last line on stdout is the directory, for TIDEGATE_KAFKA_TOOLS, with which
# `cargo test --test log_tool` lets Kafka read what `tidegate log export` writes. With FILES, segments
# that were exported, it runs DumpLogSegments over them instead. Needs java, and mvn for the fetching.
#
#   scripts/kafka-tools.sh [FILE…]
set -euo pipefail

jars="$(realpath "$(dirname "$0")/..")/target/kafka-tools"
jars="${TIDEGATE_KAFKA_TOOLS:-$jars}"
wanted="$(dirname "$0")/../tests/clients/kafka-tools.xml"

command -v java >/dev/null || { echo "kafka-tools.sh: java is not installed" >&2; exit 1; }
if ! compgen -G "$jars/kafka_*.jar" >/dev/null; then
    command -v mvn >/dev/null || { echo "kafka-tools.sh: mvn is not installed" >&2; exit 1; }
    # Aside and renamed: what was fetched by half is nothing.
    rm -rf "$jars.new"
    mvn --quiet --batch-mode --file "$wanted" dependency:copy-dependencies -DoutputDirectory="$jars.new" >&2
    mv "$jars.new" "$jars"
fi
if [ $# = 0 ]; then
    echo "$jars"
    exit 0
fi
files="$(IFS=,; echo "$*")"
exec java -cp "$jars/*" kafka.tools.DumpLogSegments --deep-iteration --print-data-log --files "$files"
