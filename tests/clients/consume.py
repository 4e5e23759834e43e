"""Reads a topic with confluent-kafka or kafka-python: every partition, assigned by hand, no group.

One JSON line a record: {"partition", "offset", "timestamp", "key", "headers", "value"}; key and
value in hexadecimal (null stays null), headers as [name, hexadecimal value] in their order.

Without --follow it reads from the beginning (or from what --from says) to the end offsets that it
saw at its start. With --follow N it prints {"ready": true} when it stands at the end of every partition, and then the
next N records. With --time MS it reads nothing and prints, for each partition, the offset that
ListOffsets gives for the timestamp: {"partition", "offset"}; -1 where there is none. It gives up
when nothing comes for --timeout seconds.
"""

import argparse
import json
import sys
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=("confluent", "kafka-python"), required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", default="telemetry")
    parser.add_argument("--follow", type=int, default=0, metavar="N")
    parser.add_argument("--from", type=json.loads, default={}, metavar="JSON", dest="begin",
                        help='where partitions are read from, {"PARTITION": OFFSET, …}')
    parser.add_argument("--time", type=int, metavar="MS")
    parser.add_argument("--timeout", type=float, default=60.0)
    return parser.parse_args()


def show(line):
    print(json.dumps(line), flush=True)


def record(partition, offset, timestamp, key, headers, value):
    return {
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp,
        "key": None if key is None else key.hex(),
        "headers": [[name, None if held is None else held.hex()] for name, held in headers or ()],
        "value": None if value is None else value.hex(),
    }


class Confluent:
    """librdkafka's consumer."""

    def __init__(self, options):
        import confluent_kafka

        self.module = confluent_kafka
        self.topic = options.topic
        self.timeout = options.timeout
        self.consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": options.bootstrap,
                "group.id": "not-used",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.wait.max.ms": 500,
                "fetch.message.max.bytes": 2 * 1024 * 1024,
            }
        )
        found = self.consumer.list_topics(self.topic, timeout=self.timeout).topics[self.topic]
        if found.error is not None:
            raise SystemExit(f"topic {self.topic}: {found.error}")
        self.partitions = sorted(found.partitions)

    def part(self, partition, offset):
        return self.module.TopicPartition(self.topic, partition, offset)

    def bounds(self):
        """(start, end) of each partition."""
        bounds = {}
        for partition in self.partitions:
            where = self.part(partition, 0)
            bounds[partition] = self.consumer.get_watermark_offsets(where, timeout=self.timeout)
        return bounds

    def assign(self, offsets):
        self.consumer.assign([self.part(p, offset) for p, offset in offsets.items()])

    def poll(self):
        """Records that came within a moment, and the partitions whose end was reached."""
        records, ended = [], set()
        for message in self.consumer.consume(1000, timeout=0.1):
            error = message.error()
            if error is None:
                records.append(
                    record(
                        message.partition(),
                        message.offset(),
                        message.timestamp()[1],
                        message.key(),
                        message.headers(),
                        message.value() if message.value() is not None else b"",
                    )
                )
            elif error.code() == self.module.KafkaError._PARTITION_EOF:
                ended.add(message.partition())
            else:
                raise SystemExit(f"partition {message.partition()}: {error}")
        return records, ended

    def offsets_at(self, time_ms):
        asked = [self.part(partition, time_ms) for partition in self.partitions]
        answer = self.consumer.offsets_for_times(asked, timeout=self.timeout)
        # librdkafka says OFFSET_END (-1) for "nothing that late".
        return {found.partition: max(found.offset, -1) for found in answer}


class KafkaPython:
    """kafka-python's consumer."""

    def __init__(self, options):
        import kafka

        self.module = kafka
        self.topic = options.topic
        self.consumer = kafka.KafkaConsumer(
            bootstrap_servers=options.bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=2 * 1024 * 1024,
        )
        deadline = time.monotonic() + options.timeout
        self.partitions = sorted(self.consumer.partitions_for_topic(self.topic) or ())
        while not self.partitions and time.monotonic() < deadline:
            self.partitions = sorted(self.consumer.partitions_for_topic(self.topic) or ())
        if not self.partitions:
            raise SystemExit(f"topic {self.topic}: unknown")

    def part(self, partition):
        return self.module.TopicPartition(self.topic, partition)

    def bounds(self):
        parts = [self.part(partition) for partition in self.partitions]
        starts = self.consumer.beginning_offsets(parts)
        ends = self.consumer.end_offsets(parts)
        return {part.partition: (starts[part], ends[part]) for part in parts}

    def assign(self, offsets):
        self.consumer.assign([self.part(partition) for partition in offsets])
        for partition, offset in offsets.items():
            self.consumer.seek(self.part(partition), offset)

    def poll(self):
        records = []
        for part, messages in self.consumer.poll(timeout_ms=100).items():
            for message in messages:
                records.append(
                    record(
                        part.partition,
                        message.offset,
                        message.timestamp,
                        message.key,
                        message.headers,
                        message.value,
                    )
                )
        positions = {p: self.consumer.position(self.part(p)) for p in self.assigned()}
        ends = self.consumer.end_offsets([self.part(p) for p in positions]) if not records else {}
        ended = {part.partition for part, end in ends.items() if positions[part.partition] >= end}
        return records, ended

    def assigned(self):
        return [part.partition for part in self.consumer.assignment()]

    def offsets_at(self, time_ms):
        asked = {self.part(partition): time_ms for partition in self.partitions}
        answer = self.consumer.offsets_for_times(asked)
        return {part.partition: -1 if found is None else found.offset for part, found in answer.items()}


def read(consumer, begin, timeout):
    bounds = consumer.bounds()
    starts = {p: max(start, begin.get(str(p), start)) for p, (start, _) in bounds.items()}
    wanted = {p: end for p, (_, end) in bounds.items() if end > starts[p]}
    if not wanted:
        return 0
    consumer.assign({p: starts[p] for p in wanted})
    deadline = time.monotonic() + timeout
    while wanted:
        if time.monotonic() > deadline:
            print(f"not read to the end in time: {wanted}", file=sys.stderr)
            return 1
        records, ended = consumer.poll()
        if records:
            deadline = time.monotonic() + timeout
        for line in records:
            partition = line["partition"]
            if line["offset"] < bounds[partition][1]:
                show(line)
            if line["offset"] + 1 >= wanted.get(partition, line["offset"] + 2):
                del wanted[partition]
        # The last offsets below the end may hold no record (reserved, never given).
        for partition in ended:
            wanted.pop(partition, None)
    return 0


def follow(consumer, count, timeout):
    bounds = consumer.bounds()
    deadline = time.monotonic() + timeout
    consumer.assign({p: end for p, (_, end) in bounds.items()})
    unseen = set(bounds)
    ready = False
    while count > 0:
        if time.monotonic() > deadline:
            print(f"{count} records did not come", file=sys.stderr)
            return 1
        records, ended = consumer.poll()
        unseen -= ended
        for line in records:
            show(line)
            count -= 1
        if not unseen and not ready:
            ready = True
            show({"ready": True})
    return 0


def main():
    options = arguments()
    kind = Confluent if options.library == "confluent" else KafkaPython
    consumer = kind(options)
    if options.time is not None:
        for partition, offset in sorted(consumer.offsets_at(options.time).items()):
            show({"partition": partition, "offset": offset})
        return 0
    if options.follow:
        return follow(consumer, options.follow, options.timeout)
    return read(consumer, options.begin, options.timeout)


if __name__ == "__main__":
    sys.exit(main())
