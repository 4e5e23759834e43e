"""Medians and ratios of the reports that compare-mosquitto.sh has written.

Usage: compare-mosquitto.py DIRECTORY with SCENARIO.BROKER.ROUND.json and floor.ROUND.json.
"""

import json
import pathlib
import statistics
import sys

BROKERS = ["tidegate", "mosquitto", "null-sink"]
RANKS = ["p50", "p99", "p99.9"]
SCENARIOS = {
    "100x16": "100 connections × 16 in flight",
    "1000x1": "1,000 connections × 1 in flight",
    "2000ps": "2,000/s over 100 connections, open loop",
    "20000ps": "20,000/s over 100 connections, open loop",
}


def load(folder):
    """Reports by (scenario, broker), and the floors. A run that failed has left an empty file."""
    runs, floors = {}, []
    for path in sorted(folder.glob("*.json")):
        text = path.read_text()
        if not text.strip():
            print(f"no report: {path.name}")
            continue
        name = path.name.split(".")
        if name[0] == "floor":
            floors.append(json.loads(text))
        else:
            runs.setdefault((name[0], name[1]), []).append(json.loads(text))
    return runs, floors


def values(reports, *keys):
    for report in reports:
        for key in keys:
            report = (report or {}).get(key)
        if report is not None:
            yield report


def line(name, cells, ratio=""):
    print(f"  {name:<24}" + "".join(f"{cell:>34}" for cell in cells) + f"{ratio:>9}")


def row(name, runs, scenario, keys, number="{:,.0f}", scale=1.0, ratio=True):
    """One figure of every broker: median and, in brackets, lowest and highest. Returns medians."""
    cells, medians = [], {}
    for broker in BROKERS:
        found = [v * scale for v in values(runs.get((scenario, broker), []), *keys)]
        if not found:
            cells.append("-")
            continue
        medians[broker] = statistics.median(found)
        spread = "–".join(number.format(edge(found)) for edge in (min, max))
        cells.append(f"{number.format(medians[broker])} [{spread}]")
    both = ratio and medians.get("mosquitto") and "tidegate" in medians
    line(name, cells, f"{medians['tidegate'] / medians['mosquitto']:.2f}" if both else "")
    return medians


def scenario_table(scenario, title, runs, floor):
    print(f"\n{title}")
    line("", BROKERS, "T / M")
    row("acknowledged a second", runs, scenario, ["acknowledgements_per_s"])
    for rank in RANKS:
        keys = ["latency", f"{rank}_us"]
        medians = row(f"latency {rank}", runs, scenario, keys, "{:,.1f}")
        if scenario.endswith("ps") and "tidegate" in medians and floor:
            line("", [f"{medians['tidegate'] / floor[f'sum_{rank}_us']:.2f} × floor"])
    row("CPU ns a message", runs, scenario, ["process", "cpu_ns_per_message"])
    row("resident MiB", runs, scenario, ["process", "rss_bytes"], "{:,.1f}", 2**-20)
    row("generator idle share", runs, scenario, ["generator_idle_share"], "{:.2f}", ratio=False)
    if scenario.endswith("ps"):
        keys = ["open_loop", "lag", "p99.9_us"]
        row("generator lag p99.9", runs, scenario, keys, "{:,.1f}", ratio=False)
    lost = sum(values(sum((runs.get((scenario, b), []) for b in BROKERS), []), "connections_lost"))
    if lost:
        print(f"  WARNING: {lost} connections broke")


def floor_table(floors):
    print(f"\n{'floor (median of the rounds)':<42}" + "".join(f"{rank:>10}" for rank in RANKS) + "  µs")
    for name, key in [
        ("loopback round trip, both ends sleep", "round_trip_sleeping"),
        ("loopback round trip, both ends poll", "round_trip_spinning"),
        ("loopback round trip, load polls", "round_trip"),
        ("4 KiB O_DIRECT write + fdatasync", "write_flush"),
    ]:
        ranks = [statistics.median(values(floors, key, f"{rank}_us")) for rank in RANKS]
        print(f"  {name:<40}" + "".join(f"{value:>10.1f}" for value in ranks))


def main(folder):
    runs, floors = load(pathlib.Path(folder))
    sums = [f"sum_{rank}_us" for rank in RANKS]
    floor = {key: statistics.median(values(floors, key)) for key in sums} if floors else None
    print("\nMedians [lowest–highest] of the rounds; QoS 1, 128 bytes; latencies in µs.")
    print("Tidegate: written and flushed before it acknowledges. Mosquitto: in memory, persistence")
    print("off. Null sink: acknowledges and forgets, the limit of the generator and the kernel.")
    for scenario, title in SCENARIOS.items():
        scenario_table(scenario, title, runs, floor)
    if floor:
        floor_table(floors)
        name = "floor (load polls + write + flush)"
        print(f"  {name:<40}" + "".join(f"{floor[key]:>10.1f}" for key in sums))


if __name__ == "__main__":
    main(sys.argv[1])
