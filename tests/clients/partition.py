"""Prints the partition of each key by kafka-python's murmur2, as its default partitioner takes it.

Keys are lines on stdin; the answer is one number a line.
"""

import argparse
import sys

from kafka.partitioner.default import murmur2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, required=True)
    options = parser.parse_args()
    for line in sys.stdin.buffer:
        print((murmur2(line.rstrip(b"\n")) & 0x7FFFFFFF) % options.partitions)


if __name__ == "__main__":
    main()
