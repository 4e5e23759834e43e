#!/usr/bin/env bash
# The simulator on all cores: scripts/simulate.sh [SEEDS [more arguments]], by default 4000 seeds.
# One seed to the letter: scripts/simulate.sh 1 --from SEED, or with every step
# `cargo test --release --test simulator -- --seed SEED --trace`.
set -euo pipefail
cd "$(dirname "$0")/.."

seeds="${1:-4000}"
shift || true
# The build of scripts/mutations.sh, with no bug on: one build for both.
exec cargo test --locked --release --features mutations --test simulator -- --seeds "$seeds" "$@"
