"""Names by the shard that owns them, of two shards with eight partitions.

Prints a client prefix with which clients 0 to 7 belong to shard 0, a topic of shard 0, one of shard
1, and a client of shard 1.
"""

from itertools import count


def murmur2(data):
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        h = (h * m & mask) ^ ((k ^ k >> 24) * m & mask)
    if data[whole:]:
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def shard(text):
    return (murmur2(text.encode()) & 0x7FFFFFFF) % 8 % 2


print(
    next(p for p in (f"c{i}-" for i in count()) if not any(shard(f"{p}{n}") for n in range(8))),
    next(t for t in (f"here/{i}" for i in count()) if shard(t) == 0),
    next(t for t in (f"there/{i}" for i in count()) if shard(t) == 1),
    next(c for c in (f"neighbour-{i}" for i in count()) if shard(c) == 1),
)
