#!/usr/bin/env python3
"""Reads a Tidegate data directory by docs/format.md alone, and prints its records as JSON lines.

An independent reader, to show that the description is enough: it shares no code with the engine and
needs nothing but Python. It is slow, and writes nothing. What `tidegate log dump --json` prints of a
record it prints the same; partition by partition, by offset, without what retention let go of.

    scripts/read_log.py DIR [STREAM]

Damage and torn tails are told on stderr. Exit codes: 0 sound, 1 damaged, 2 no data directory.
"""

import fcntl
import json
import os
import re
import struct
import sys

SECTOR = 512
CRC_TABLE = []
for number in range(256):
    for _ in range(8):
        number = number >> 1 ^ (0x82F63B78 if number & 1 else 0)
    CRC_TABLE.append(number)


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def padded(size, to):
    return -(-size // to) * to


class Reader:
    def __init__(self, directory):
        self.directory = directory
        self.damaged = False
        self.manifest = self.read_manifest()
        # (stream, partition) to the log start offset, and to runs: (from, to, order, batches).
        self.starts = {(row["stream"], row["partition"]): row["start"] for row in self.manifest["offsets"]}
        self.runs = {}

    def tell(self, path, at, what, is_damage=True):
        self.damaged |= is_damage
        print(f"{path}, byte {at}: {what}", file=sys.stderr)

    def read(self, path):
        with open(os.path.join(self.directory, path), "rb") as file:
            return file.read()

    # Manifest, and which segments there are

    def read_manifest(self):
        text = self.read("manifest.json")
        body, _, crc = text.rstrip(b"\n").rpartition(b"\ncrc32c ")
        if not body or int(crc, 16) != crc32c(body):
            raise SystemExit("manifest.json: its CRC does not hold")
        manifest = json.loads(body)
        if manifest["format"] != 2 or manifest["features"] != 0:
            raise SystemExit(f"format {manifest['format']}, features {manifest['features']}: not known here")
        return manifest

    def segments_of(self, generation, log):
        """(moved, number) of the segments in a log's directory."""
        try:
            names = os.listdir(os.path.join(self.directory, f"g{generation:06}/s{log:04}"))
        except FileNotFoundError:
            return []
        found = (re.fullmatch(r"(?:(m)(\d{9,})|(\d{10,}))\.log", name) for name in names)
        return sorted((bool(m[1]), int(m[2] or m[3])) for m in found if m)

    def read_all(self):
        chains = {}
        for sealed in self.manifest["sealed"]:
            key = sealed["generation"], sealed["log"], sealed["moved"], sealed["sequence"]
            path = segment_path(*key)
            chain = chains.setdefault(key[:2], [])
            if not os.path.exists(os.path.join(self.directory, path)):
                if chain and not sealed["moved"]:
                    self.tell(path, 0, "its file is missing")
                continue
            if not sealed["moved"]:
                chain.append(key)
            self.read_sealed(key, path, sealed["identity"], sealed["end"])
        generation, seed = self.manifest["current"]["generation"], int(self.manifest["current"]["seed"], 16)
        for log in range(self.manifest["current"]["shards"]):
            self.read_starts(f"g{generation:06}/s{log:04}/starts")
            keys = [(generation, log, *rest) for rest in self.segments_of(generation, log)]
            for key in keys:
                if key[2]:
                    self.read_sealed(key, segment_path(*key), identity(seed, *key), None)
            self.read_chain([key for key in keys if not key[2]], seed)

    def read_starts(self, path):
        if not os.path.exists(os.path.join(self.directory, path)):
            return
        data = self.read(path)
        if data[:4] != b"TGL1" or crc32c(data[8:]) != u32(data, 4) or len(data) != 16 + 16 * u32(data, 8):
            return
        for stream, partition, start in struct.iter_unpack("<IIQ", data[16:]):
            self.raise_start(stream, partition, start)

    def raise_start(self, stream, partition, start):
        place = stream, partition
        self.starts[place] = max(self.starts.get(place, 0), start)

    # Segments

    def read_sealed(self, key, path, number, end):
        data = self.read(path)
        end = len(data) if end is None else end
        header = read_header(data, key, number)
        if header is None:
            self.tell(path, 0, "its header does not hold, or is another segment's")
        reached = self.walk(key, path, number, header, data[:end], followed=True)
        if reached is not None and reached < end:
            self.tell(path, reached, "it ends before its end")

    def read_chain(self, keys, seed):
        datas = {key: self.read(segment_path(*key)) for key in keys}
        headers = {key: read_header(datas[key], key, identity(seed, *key)) for key in keys}
        last = None
        for place, key in enumerate(keys):
            path, header = segment_path(*key), headers[key]
            followed = any(headers[later] for later in keys[place + 1:])
            if header is None and not followed and not any(datas[key][:SECTOR]):
                continue
            if header is None and followed:
                self.tell(path, 0, "its header does not hold, or is another segment's")
            if header and last and key[3] != last[0] + 1:
                self.tell(segment_path(*key[:3], last[0] + 1), 0, "its file is missing")
            elif header and last and last[2] not in (None, header["previous_crc"]):
                self.tell(segment_path(*key[:3], last[0]), last[1], "its end is missing")
            for stream, partition, start, _, _ in header["rows"] if header else []:
                self.raise_start(stream, partition, start)
            reached = self.walk(key, path, identity(seed, *key), header, datas[key], followed)
            last = key[3], reached, self.last_crc

    def walk(self, key, path, number, header, data, followed):
        """Takes the frames of a segment; returns where they end, None where there are none."""
        self.last_crc = None
        if header is None:
            at = next((at for at in range(0, len(data), SECTOR)
                       if (frame := read_frame(data, at)) and frame["identity"] == number), None)
            if at is None:
                return None
            base, block, crc = read_frame(data, at)["position"] - at, SECTOR, None
            if not followed and not proves(data, number, base, 0, base):
                self.tell(path, 0, "a torn tail, which was never acknowledged", is_damage=False)
                return None
        else:
            base, block, at, crc = header["base"], header["block"], header["bytes"], header["crc"]
        segment = {}
        while True:
            frame = frame_at(data, at, number, base)
            if frame and crc in (None, frame["previous_crc"]):
                self.take(key, path, at, frame, segment)
                crc, at = frame["crc"], at + padded(frame["bytes"], block)
                continue
            behind = next((later for later in range(padded(at, SECTOR), len(data), SECTOR)
                           if frame_at(data, later, number, base)), None)
            if behind is None or not (followed or proves(data, number, base, at, base + at)):
                break
            self.tell(path, at, "a frame does not hold")
            at, crc = behind, None
        self.last_crc = crc
        if not followed and is_torn(data[at:], number):
            self.tell(path, at, "a torn tail, which was never acknowledged", is_damage=False)
        return at

    def take(self, key, path, at, frame, segment):
        for kind, stream, partition, place, contents in frame["entries"]:
            runs = self.runs.setdefault((stream, partition), [])
            order = key[2], key[0], key[3]
            if kind == 0:
                batch = read_batch(contents)
                if batch is None:
                    self.tell(path, at + place, "a record batch does not hold")
                    continue
                run = segment.get((stream, partition))
                if run is None or not key[2] and run["to"] != batch["from"]:
                    run = {"from": batch["from"], "to": batch["to"], "order": order, "batches": []}
                    runs.append(run)
                    segment[stream, partition] = run
                run["batches"].append(batch)
                if not key[2]:
                    run["to"] = batch["to"]
            elif kind == 2:
                first, behind, _ = struct.unpack("<QQQ", contents)
                run = {"from": first, "to": behind, "order": order, "batches": []}
                runs.append(run)
                segment[stream, partition] = run
            elif kind != 1:
                self.tell(path, at + place, f"an entry of kind {kind}")

    # Partitions

    def records(self, stream, partition):
        """The batches of a partition by offset; damage between them is told."""
        place = stream, partition
        kept = []
        for run in sorted(self.runs.get(place, []), key=lambda run: (*run["order"], run["from"])):
            if run["order"][0]:
                kept = [other for other in kept if not (run["from"] <= other["from"] and other["to"] <= run["to"])]
            kept.append(run)
        kept.sort(key=lambda run: run["from"])
        start = self.starts.get(place, 0)
        ranges = [(run["from"], run["to"]) for run in kept]
        for known in ("gaps", "lost"):
            ranges += [(r["from"], r["to"]) for r in self.manifest[known]
                       if (r["stream"], r["partition"]) == place]
        at = start
        for first, behind in sorted(ranges):
            if first > at:
                name = self.manifest["streams"][stream]["name"]
                self.tell(f"{name}-{partition}", at, f"offsets {at} to {first - 1} are lost")
            at = max(at, behind)
        for run in kept:
            for batch in run["batches"]:
                for record in batch["records"]:
                    if record["offset"] >= start:
                        yield record


def u32(data, at):
    return struct.unpack_from("<I", data, at)[0]


def u64(data, at):
    return struct.unpack_from("<Q", data, at)[0]


def segment_path(generation, log, moved, number):
    name = f"m{number:09}" if moved else f"{number:010}"
    return f"g{generation:06}/s{log:04}/{name}.log"


def identity(seed, generation, log, moved, number):
    return seed ^ log << 48 ^ moved << 47 ^ number * 0x9E3779B97F4A7C15 % 2**64 ^ generation


def read_header(data, key, number):
    if len(data) < 64 or data[:4] != (b"TGM1" if key[2] else b"TGS1"):
        return None
    crc, size, block, own, _, generation, log, sequence, base, previous, rows = struct.unpack_from(
        "<IIIQQIIQQII", data, 4)
    if size != 64 + 32 * rows or size > len(data) or crc32c(data[8:size]) != crc:
        return None
    if (generation, log, sequence, own) != (key[0], key[1], key[3], number):
        return None
    table = list(struct.iter_unpack("<IIQQQ", data[64:size]))
    return {"crc": crc, "bytes": padded(size, block), "block": block, "base": base,
            "previous_crc": previous, "rows": table}


def read_frame(data, at):
    """The frame at a place, whole and unharmed, wherever it belongs."""
    if data[at:at + 4] != b"TGF1" or at + 64 > len(data):
        return None
    crc, previous, size, own, position, durable, _, _, count, _ = struct.unpack_from("<IIIQQQqQII", data, at + 4)
    if size < 64 or at + size > len(data) or crc32c(data[at + 8:at + size]) != crc:
        return None
    return {"crc": crc, "previous_crc": previous, "bytes": size, "identity": own, "position": position,
            "durable": durable, "entries": read_entries(data[at:at + size], count)}


def read_entries(frame, count):
    at, entries = 64, []
    for _ in range(count):
        kind, stream, partition, size = struct.unpack_from("<IIII", frame, at)
        entries.append((kind, stream, partition, at + 16, frame[at + 16:at + 16 + size]))
        at = padded(at + 16 + size, 8)
    return entries


def frame_at(data, at, number, base):
    frame = read_frame(data, at)
    return frame if frame and frame["identity"] == number and frame["position"] == base + at else None


def proves(data, number, base, at, position):
    """Whether a frame from a place on says that the log was durable beyond a position."""
    places = range(padded(at, SECTOR), len(data), SECTOR)
    return any((frame := frame_at(data, place, number, base)) and frame["durable"] > position for place in places)


def is_torn(rest, number):
    """Whether something of a segment was written behind its last frame; a file that was used before
    holds frames of other identities there."""
    fronts = (rest[at:at + 24] for at in range(0, len(rest), SECTOR))
    found = {u64(front, 16) for front in fronts if front[:4] == b"TGF1" and len(front) == 24}
    return number in found or (any(rest) and not found)


# Kafka's record batch and record, version 2

def read_batch(data):
    if len(data) < 61:
        return None
    base, length, _, magic, crc, attributes, last, first_time, _, _, _, _, count = struct.unpack_from(
        ">qiibIhiqqqhii", data)
    if magic != 2 or length + 12 != len(data) or crc32c(data[21:]) != crc:
        return None
    payload = data[61:]
    if attributes & 7 == 3:
        payload = lz4_frame(payload)
    elif attributes & 7:
        return None
    records, at = [], 0
    for _ in range(count):
        size, at = varint(payload, at)
        records.append(read_record(payload[at:at + size], base, first_time))
        at += size
    return {"from": base, "to": base + last + 1, "records": records}


def varint(data, at):
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number >> 1 ^ -(number & 1), at


def sized(data, at):
    size, at = varint(data, at)
    return (None, at) if size < 0 else (data[at:at + size], at + size)


def read_record(data, base, first_time):
    time, at = varint(data, 1)
    offset, at = varint(data, at)
    key, at = sized(data, at)
    value, at = sized(data, at)
    count, at = varint(data, at)
    headers = []
    for _ in range(count):
        name, at = sized(data, at)
        held, at = sized(data, at)
        headers.append([printable(name), printable(held or b"")])
    return {"offset": base + offset, "timestamp": first_time + time, "key": printable(key),
            "value": printable(value), "headers": headers}


def lz4_frame(data):
    """An LZ4 frame of independent blocks; its own checksums are left alone, as the batch has a CRC."""
    flags = data[4]
    at = 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    out = bytearray()
    while (size := u32(data, at)) != 0:
        at += 4
        block = data[at:at + (size & 0x7FFFFFFF)]
        out += block if size >> 31 else lz4_block(block)
        at += len(block) + (4 if flags & 16 else 0)
    return bytes(out)


def lz4_block(data):
    out, at = bytearray(), 0

    def length(short):
        nonlocal at
        if short == 15:
            while True:
                byte = data[at]
                at += 1
                short += byte
                if byte != 255:
                    break
        return short

    while at < len(data):
        token = data[at]
        at += 1
        literals = length(token >> 4)
        out += data[at:at + literals]
        at += literals
        if at >= len(data):
            break
        distance = data[at] | data[at + 1] << 8
        at += 2
        for _ in range(length(token & 15) + 4):
            out.append(out[-distance])
    return bytes(out)


def printable(data):
    if data is None:
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return {"hex": data.hex()}


def main():
    if len(sys.argv) not in (2, 3):
        print(__doc__, file=sys.stderr)
        return 2
    directory = sys.argv[1]
    if not os.path.exists(os.path.join(directory, "manifest.json")):
        print(f"{directory} holds no Tidegate data", file=sys.stderr)
        return 2
    with open(os.path.join(directory, "lock"), "a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{directory} is in use", file=sys.stderr)
            return 2
        reader = Reader(directory)
        reader.read_all()
        for stream, named in enumerate(reader.manifest["streams"]):
            if len(sys.argv) == 3 and named["name"] != sys.argv[2]:
                continue
            for partition in range(reader.manifest["partitions"]):
                for record in reader.records(stream, partition):
                    line = {"stream": named["name"], "partition": partition, **record}
                    print(json.dumps(line, ensure_ascii=False, separators=(",", ":")))
    return 1 if reader.damaged else 0


if __name__ == "__main__":
    sys.exit(main())
