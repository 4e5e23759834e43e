#!/usr/bin/env bash
# The simulator on all cores: scripts/simulate.sh [SEEDS [more arguments]], by default 4000 seeds.
# One seed to the letter: scripts/simulate.sh 1 --from SEED, or with every step
# `cargo test --release --test simulator -- --seed SEED --trace`.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds="${1:-4000}"
shift || true
cargo test --locked --release --test simulator -- --seeds "$seeds" "$@"
