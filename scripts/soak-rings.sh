#!/usr/bin/env bash
# Soaks rings, lanes, credits and doors on real threads for SECONDS (default 3600): two to four
# threads, random batches, full and empty, asleep and woken, dropped and abandoned. Checks order,
# loss, doubling, conservation of credits and that everyone is woken; ends with a summary.
# TIDEGATE_SOAK_SEED=… repeats the choices of an earlier run. --release tries the optimised code.
#
#   scripts/soak-rings.sh [SECONDS] [--release]
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=3600
profile=()
for word in "$@"; do
    case "$word" in
        --release) profile=(--release) ;;
        *[!0-9]* | "") echo "usage: scripts/soak-rings.sh [SECONDS] [--release]" >&2; exit 2 ;;
        *) seconds=$word ;;
    esac
done

export TIDEGATE_SOAK_SECONDS="$seconds"
exec cargo test --locked "${profile[@]}" --lib ring::soak -- --nocapture
