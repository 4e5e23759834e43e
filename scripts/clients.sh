#!/usr/bin/env bash
# Makes the Python environment of the black-box tests under target/clients: paho-mqtt,
# confluent-kafka and kafka-python. Quick when it is there already. The last line on stdout is the
# path of a Python that has them.
set -euo pipefail
cd "$(dirname "$0")/.."

environment="${CARGO_TARGET_DIR:-target}/clients"
wanted=tests/clients/requirements.txt

has_clients() { "$1" -c 'import paho.mqtt, confluent_kafka, kafka, lz4.frame' 2>/dev/null; }

for python in "${TIDEGATE_PYTHON:-}" "$environment/bin/python"; do
    if [ -n "$python" ] && [ -x "$python" ] && has_clients "$python"; then
        echo "$python"
        exit 0
    fi
done

if python3 -m venv "$environment" >&2 && "$environment/bin/python" -m pip install --quiet -r "$wanted" >&2; then
    echo "$environment/bin/python"
elif has_clients python3; then
    # No way to install, but the system's Python has them all.
    command -v python3
else
    echo "clients.sh: no Python with paho-mqtt, confluent-kafka and kafka-python." >&2
    echo "  Install python3-venv and let pip reach a package index, or set TIDEGATE_PYTHON to a Python that has them." >&2
    exit 1
fi
