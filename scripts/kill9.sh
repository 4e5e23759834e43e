#!/usr/bin/env bash
# Kills the engine N times (default 20) at random moments under load and checks that nothing that
# was acknowledged is lost. TIDEGATE_KILL9_SEED=… repeats the choices of an earlier run.
# --release tries the optimised binary. Everything stays on the disk until the end: about 3 MB a kill.
#
#   scripts/kill9.sh [N] [--release]
set -euo pipefail
cd "$(dirname "$0")/.."

rounds=20
profile=()
for word in "$@"; do
    case "$word" in
        --release) profile=(--release) ;;
        *[!0-9]* | "") echo "usage: scripts/kill9.sh [N] [--release]" >&2; exit 2 ;;
        *) rounds=$word ;;
    esac
done

# A full disk holds publishers back; the run would go on and show little.
place="${CARGO_TARGET_DIR:-target}"
mkdir -p "$place"
needed=$((rounds * 4 + 2048))
free=$(($(df --output=avail -k "$place" | tail -n 1) / 1024))
if [ "$free" -lt "$needed" ]; then
    echo "kill9.sh: $rounds kills may take $needed MiB, and $free are free in $place." >&2
    echo "  Make room, kill fewer times, or name another place with CARGO_TARGET_DIR." >&2
    exit 1
fi

TIDEGATE_PYTHON="$(scripts/clients.sh)"
export TIDEGATE_PYTHON TIDEGATE_KILL9_ROUNDS="$rounds" TIDEGATE_REQUIRE_CLIENTS=1
exec cargo test "${profile[@]}" --test kill9 -- --nocapture nothing_acknowledged_is_lost
