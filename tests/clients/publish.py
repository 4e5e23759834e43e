"""Publishes from several devices with paho-mqtt and prints what was acknowledged.

One JSON line an acknowledged message: {"device", "seq", "payload", "reason"}. QoS 0 messages are
printed when paho has sent them. The payload of message `seq` of a device is `<device>:<seq>`,
padded with dots to --size. Ends with code 1 when something stays unacknowledged.
"""

import argparse
import json
import queue
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--version", type=int, choices=(3, 5), default=5)
    parser.add_argument("--qos", type=int, choices=(0, 1), default=1)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--device-prefix", default="paho")
    parser.add_argument("--count", type=int, default=10, help="messages of each device")
    parser.add_argument("--topic", default="plant/{device}/state", help="{device} is replaced")
    parser.add_argument("--size", type=int, default=0, help="payload bytes; 0: as short as it is")
    parser.add_argument("--inflight", type=int, default=16)
    parser.add_argument("--retain", action="store_true")
    parser.add_argument("--content-type")
    parser.add_argument("--user-property", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--timeout", type=float, default=60.0)
    return parser.parse_args()


def payload_of(device, seq, size):
    return f"{device}:{seq}".ljust(size, ".")


class Device:
    """One client: publishes its sequence, collects its acknowledgements."""

    def __init__(self, name, options):
        self.name = name
        self.options = options
        self.sequences = {}
        self.acknowledged = 0
        self.refused = None
        self.answers = queue.Queue()
        self.connected = threading.Event()
        protocol = mqtt.MQTTv5 if options.version == 5 else mqtt.MQTTv311
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol)
        self.client.max_inflight_messages_set(options.inflight)
        self.client.on_connect = self.on_connect
        self.client.on_publish = self.on_publish

    def on_connect(self, _client, _userdata, _flags, reason, _properties):
        if reason.is_failure:
            self.refused = str(reason)
        self.connected.set()

    def on_publish(self, _client, _userdata, mid, reason, _properties):
        # The publishing thread learns the mid only when publish() returns: it maps, not this.
        self.answers.put((mid, reason.value if reason is not None else 0))

    def properties(self):
        if self.options.version != 5:
            return None
        properties = Properties(PacketTypes.PUBLISH)
        if self.options.content_type:
            properties.ContentType = self.options.content_type
        for pair in self.options.user_property:
            name, _, value = pair.partition("=")
            properties.UserProperty = (name, value)
        return properties

    def start(self):
        self.client.connect(self.options.host, self.options.port, keepalive=60)
        self.client.loop_start()

    def publish_all(self):
        if not self.connected.wait(self.options.timeout) or self.refused:
            return
        topic = self.options.topic.replace("{device}", self.name)
        for seq in range(self.options.count):
            payload = payload_of(self.name, seq, self.options.size)
            sent = self.client.publish(
                topic, payload, self.options.qos, self.options.retain, self.properties()
            )
            self.sequences[sent.mid] = seq

    def finish(self, deadline):
        """Prints what was acknowledged until all is, or the time is up."""
        while not self.refused and self.acknowledged < self.options.count:
            try:
                mid, reason = self.answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            seq = self.sequences[mid]
            payload = payload_of(self.name, seq, self.options.size)
            line = {"device": self.name, "seq": seq, "payload": payload, "reason": reason}
            print(json.dumps(line), flush=True)
            self.acknowledged += 1
        self.client.disconnect()
        self.client.loop_stop()
        if self.refused:
            print(f"{self.name}: refused: {self.refused}", file=sys.stderr)
        missing = self.options.count - self.acknowledged
        if missing:
            print(f"{self.name}: {missing} messages unacknowledged", file=sys.stderr)
        return missing == 0


def main():
    options = arguments()
    devices = [Device(f"{options.device_prefix}-{i}", options) for i in range(options.devices)]
    for device in devices:
        device.start()
    deadline = time.monotonic() + options.timeout
    for device in devices:
        device.publish_all()
    finished = [device.finish(deadline) for device in devices]
    return 0 if all(finished) else 1


if __name__ == "__main__":
    sys.exit(main())
