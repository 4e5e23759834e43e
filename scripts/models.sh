#!/usr/bin/env bash
# Shows that the rings between shards hold: loom tries the interleavings of every model in
# src/ring/models.rs, and weakens one memory ordering of the rings after the other to see that a model
# fails without it; then Miri runs the rings' tests and looks for undefined behaviour and data races.
#
#   scripts/models.sh [PREEMPTIONS]
#
# PREEMPTIONS bounds how often a model's threads are interrupted: each model has a bound that takes
# seconds; one more takes minutes. Miri needs a nightly toolchain with it
# (rustup toolchain install nightly --component miri,rust-src); without it that half is SKIPPED.
# MIRI=no leaves it out: it takes many minutes.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
    "") ;;
    *[!0-9]*) echo "usage: scripts/models.sh [PREEMPTIONS]" >&2; exit 2 ;;
    *) export LOOM_MAX_PREEMPTIONS=$1 ;;
esac

cargo test --locked --features loom --lib ring::models -- --nocapture

if [ "${MIRI:-yes}" = no ]; then
    echo "Miri on the rings is left out (MIRI=no)"
    exit 0
fi
if ! cargo +nightly miri --version >/dev/null 2>&1; then
    echo "SKIPPED: Miri on the rings: no nightly toolchain with miri (rustup toolchain install nightly --component miri,rust-src)"
    exit 0
fi
# Without isolation, because the soak reads its environment. Each seed is another schedule of the
# threads, and other values that a load may see.
for seed in 1 2 3; do
    echo "Miri, seed $seed:"
    MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-seed=$seed" \
        cargo +nightly miri test --locked --lib ring:: -- --skip driver::
done
