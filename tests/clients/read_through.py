"""Reads one partition from the beginning to the end, by librdkafka or kafka-python, going on behind
every error: one JSON line each, {"offset"} for a record, {"error", "at"} where one is reported.

After an error it seeks one offset further, and from there to the next record that can be read; it so
does by hand what an operator does with a consumer that stands before a damaged range.
"""

import argparse
import json
import time

import confluent_kafka
from confluent_kafka import TopicPartition

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--bootstrap", required=True)
parser.add_argument("--topic", required=True)
parser.add_argument("--partition", type=int, required=True)
parser.add_argument("--step", type=int, default=1, help="offsets to skip after an error")
parser.add_argument("--timeout", type=float, default=60.0)
options = parser.parse_args()

consumer = confluent_kafka.Consumer(
    {
        "bootstrap.servers": options.bootstrap,
        "group.id": "not-used",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
        "fetch.error.backoff.ms": 10,
    }
)
low, high = consumer.get_watermark_offsets(TopicPartition(options.topic, options.partition), 10)
deadline = time.monotonic() + options.timeout
at = low
consumer.assign([TopicPartition(options.topic, options.partition, at)])
while at < high:
    if time.monotonic() > deadline:
        raise SystemExit(f"read_through: at {at} of {high} after {options.timeout} s")
    message = consumer.poll(1.0)
    if message is None:
        continue
    error = message.error()
    if error is None:
        if message.offset() >= at:
            print(json.dumps({"offset": message.offset()}), flush=True)
            at = message.offset() + 1
    elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
        at = max(at, message.offset())
    else:
        print(json.dumps({"error": error.name(), "code": error.code(), "at": at}), flush=True)
        at += options.step
        consumer.assign([TopicPartition(options.topic, options.partition, at)])
consumer.close()
