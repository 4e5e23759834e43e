#!/usr/bin/env bash
# Shows that the simulator finds bugs: the engine is built with bugs on purpose (src/mutation.rs), one
# on at a time, and each must be found within the number of seeds that tests/simulator/mutations.rs
# states. Takes a minute to build, and seconds to run.
#
#   scripts/mutations.sh
set -euo pipefail
cd "$(dirname "$0")/.."
exec cargo test --locked --release --features mutations --test simulator -- --mutations
