"""Reads one partition from the beginning to the end, with confluent-kafka or kafka-python, going on
behind every error: one JSON line each, {"offset"} for a record, {"code", "at"} where an error is
reported.

After an error it seeks --step offsets further, and from there to the next record that can be read; it
so does by hand what an operator does with a consumer that stands before a damaged range.
"""

import argparse
import json
import time


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--library", choices=("confluent", "kafka-python"), required=True)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partition", type=int, required=True)
    parser.add_argument("--step", type=int, default=1, help="offsets to skip after an error")
    parser.add_argument("--timeout", type=float, default=60.0)
    return parser.parse_args()


class Confluent:
    """librdkafka's consumer: an error is a message without a record."""

    def __init__(self, options):
        import confluent_kafka

        self.eof = confluent_kafka.KafkaError._PARTITION_EOF
        self.at = lambda offset: confluent_kafka.TopicPartition(options.topic, options.partition, offset)
        self.consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": options.bootstrap,
                "group.id": "not-used",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
                "fetch.error.backoff.ms": 10,
            }
        )
        self.low, self.high = self.consumer.get_watermark_offsets(self.at(0), 10)
        self.consumer.assign([self.at(self.low)])

    def seek(self, offset):
        self.consumer.seek(self.at(offset))

    def poll(self):
        """The offsets of some records, and the code of an error."""
        message = self.consumer.poll(1.0)
        if message is None:
            return [], None
        error = message.error()
        if error is None:
            return [message.offset()], None
        return [], None if error.code() == self.eof else error.code()


class KafkaPython:
    """kafka-python's consumer: an error is an exception of poll."""

    def __init__(self, options):
        import kafka

        self.error = kafka.errors.KafkaError
        self.part = kafka.TopicPartition(options.topic, options.partition)
        self.consumer = kafka.KafkaConsumer(
            bootstrap_servers=options.bootstrap,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
        )
        self.consumer.assign([self.part])
        self.low = self.consumer.beginning_offsets([self.part])[self.part]
        self.high = self.consumer.end_offsets([self.part])[self.part]
        self.seek(self.low)

    def seek(self, offset):
        self.consumer.seek(self.part, offset)

    def poll(self):
        try:
            messages = self.consumer.poll(timeout_ms=1000).get(self.part, [])
            return [message.offset for message in messages], None
        except self.error as error:
            return [], error.errno


def main():
    options = arguments()
    consumer = Confluent(options) if options.library == "confluent" else KafkaPython(options)
    at = consumer.low
    deadline = time.monotonic() + options.timeout
    while at < consumer.high:
        if time.monotonic() > deadline:
            raise SystemExit(f"read_through: at {at} of {consumer.high} after {options.timeout} s")
        offsets, code = consumer.poll()
        for offset in offsets:
            # What was fetched before a seek may still come.
            if offset >= at:
                print(json.dumps({"offset": offset}), flush=True)
                at = offset + 1
        if code is not None:
            print(json.dumps({"code": code, "at": at}), flush=True)
            at += options.step
            consumer.seek(at)


if __name__ == "__main__":
    main()
