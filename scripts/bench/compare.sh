#!/usr/bin/env bash
# How does durable Tidegate stand next to other brokers? The same load in one go, alternating, each
# broker on one pinned core, the load on another; prints what each one's acknowledgement promises,
# medians, and ratios to Mosquitto and to the null sink (the limit of the generator and of the
# kernel's TCP).
#
#   PEERS="mosquitto nanomq emqx nats kafka redpanda"   those of them that are in PATH take part
#
# Mosquitto is installed from the distribution where it is missing. Kafka and Redpanda speak no MQTT:
# Kafka's own kafka-producer-perf-test.sh loads them at 2,000 messages a second with one connection,
# so only their latencies are comparable, and those with care. rig.sh tells what else may be set.
# shellcheck source-path=SCRIPTDIR source=rig.sh
source "$(dirname "$0")/rig.sh"
PATH=$PATH:/usr/sbin:/usr/local/sbin
pinned=(taskset -c "$engine_core")
declare -A promises=()

has() { command -v "$1" >/dev/null; }

# Nothing of its own limits it: no persistence, no bound on what is in flight or queued, no log.
peer_mosquitto() {
  has mosquitto || apt-get install -q -y --no-install-recommends mosquitto >&2 ||
    sudo apt-get install -q -y --no-install-recommends mosquitto >&2 || return 1
  local port
  port=$(free_port)
  promises[mosquitto]="taken into memory, persistence off"
  cat >"$work/mosquitto.conf" <<CONF
listener $port 127.0.0.1
allow_anonymous true
persistence false
max_inflight_messages 0
max_queued_messages 0
set_tcp_nodelay true
log_type error
CONF
  start mosquitto "$port" "${pinned[@]}" mosquitto -c "$work/mosquitto.conf"
}

peer_nanomq() {
  has nanomq || return 1
  local port
  port=$(free_port)
  promises[nanomq]="taken into memory"
  printf 'listeners.tcp { bind = "127.0.0.1:%s" }\nlog { to = [console], level = error }\n' "$port" \
    >"$work/nanomq.conf"
  start nanomq "$port" "${pinned[@]}" nanomq start --conf "$work/nanomq.conf"
}

peer_emqx() {
  has emqx || return 1
  local port
  port=$(free_port)
  promises[emqx]="taken into memory, durable sessions off"
  start emqx "$port" env EMQX_NODE__DATA_DIR="$work/emqx" EMQX_LOG__CONSOLE__LEVEL=error \
    EMQX_LISTENERS__TCP__DEFAULT__BIND="127.0.0.1:$port" EMQX_LISTENERS__SSL__DEFAULT__ENABLE=false \
    EMQX_LISTENERS__WS__DEFAULT__ENABLE=false EMQX_LISTENERS__WSS__DEFAULT__ENABLE=false \
    "${pinned[@]}" emqx foreground
}

# Its MQTT keeps QoS 1 messages in JetStream; before 2.10 it cannot be told to flush each.
peer_nats() {
  has nats-server || return 1
  local port sync="sync_interval: always"
  port=$(free_port)
  nats_conf() {
    cat <<CONF
listen: 127.0.0.1:$((port + 1))
server_name: compare
jetstream { store_dir: "$work/nats", $1 }
mqtt { listen: 127.0.0.1:$port }
CONF
  }
  nats_conf "$sync" >"$work/nats.conf"
  promises[nats]="JetStream's file store, flushed before (sync_interval: always)"
  if ! nats-server -t -c "$work/nats.conf" >/dev/null 2>&1; then
    nats_conf "" >"$work/nats.conf"
    promises[nats]="JetStream's file store, written, flushed every two minutes"
  fi
  start nats "$port" "${pinned[@]}" nats-server -c "$work/nats.conf"
}

peer_kafka() {
  has kafka-server-start.sh && has kafka-storage.sh && has kafka-producer-perf-test.sh || return 1
  local port
  port=$(free_port)
  promises[kafka]="written and flushed before (flush.messages=1), one replica"
  cat >"$work/kafka.properties" <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$work/kafka
log.flush.interval.messages=1
num.partitions=8
offsets.topic.replication.factor=1
CONF
  kafka-storage.sh format -t AAAAAAAAQACAAAAAAAAAAQ -c "$work/kafka.properties" >"$work/kafka-format.log" 2>&1 &&
    start kafka "$port" "${pinned[@]}" kafka-server-start.sh "$work/kafka.properties"
}

peer_redpanda() {
  has redpanda && has kafka-producer-perf-test.sh || return 1
  local port
  port=$(free_port)
  promises[redpanda]="written and flushed before (its default), one replica"
  cat >"$work/redpanda.yaml" <<CONF
redpanda:
  data_directory: $work/redpanda
  node_id: 0
  empty_seed_starts_cluster: true
  seed_servers: []
  rpc_server: {address: 127.0.0.1, port: $((port + 1))}
  kafka_api: [{address: 127.0.0.1, port: $port}]
  admin: [{address: 127.0.0.1, port: $(free_port)}]
CONF
  start redpanda "$port" redpanda --redpanda-cfg "$work/redpanda.yaml" --default-log-level=error \
    --smp 1 --cpuset "${engine_core%%,*}" --memory 1G
}

engine tidegate
promises[tidegate]="written and flushed before"
null_sink null-sink
promises[null-sink]="nothing"
mqtt=(null-sink) kafka=()
for peer in ${PEERS:-mosquitto nanomq emqx nats kafka redpanda}; do
  if "peer_$peer"; then
    case $peer in kafka | redpanda) kafka+=("$peer") ;; *) mqtt+=("$peer") ;; esac
  else
    echo "$peer does not take part: not in PATH" >&2
  fi
done
mqtt+=(tidegate)

run() {
  load 100x16 "$1" "$1" --connections 100 --window 16
  load 1000x1 "$1" "$1" --connections 1000 --window 1
  load 2000ps "$1" "$1" --connections 100 --rate 2000
  load 20000ps "$1" "$1" --connections 100 --rate 20000
}
each_round run "${mqtt[@]}"

printf '\nQoS 1, 128 bytes. What an acknowledgement promises:\n'
for name in "${mqtt[@]}" "${kafka[@]}"; do printf '  %-12s %s\n' "$name" "${promises[$name]}"; done
flags=(--against null-sink --against mosquitto)
table 100x16 "100 connections × 16 in flight" "${mqtt[@]}" -- "${flags[@]}"
table 1000x1 "1,000 connections × 1 in flight" "${mqtt[@]}" -- "${flags[@]}"
table 2000ps "2,000 messages a second over 100 connections" "${mqtt[@]}" -- "${flags[@]}"
table 20000ps "20,000 messages a second over 100 connections" "${mqtt[@]}" -- "${flags[@]}"

records=20000
if [[ -n ${SHORT:-} ]]; then records=2000; fi
for name in "${kafka[@]}"; do
  printf '\n%s by its own generator, 2,000 messages a second over one connection, acks=all\n' "$name"
  taskset -c "$load_core" kafka-producer-perf-test.sh --topic bench --num-records "$records" \
    --record-size 128 --throughput 2000 \
    --producer-props "bootstrap.servers=127.0.0.1:${ports[$name]}" acks=all linger.ms=0 2>/dev/null | tail -n 1
done
page
