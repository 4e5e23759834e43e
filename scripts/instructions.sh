#!/usr/bin/env bash
# Guards the hot paths against slowing down: counts the instructions a message takes through the
# stations (publish, decoded, appended, acknowledged; no I/O) and compares them with
# benches/instructions.txt. Counts do not depend on how busy the machine is, but on the compiler: with
# another one than the file names, differences are told and nothing fails.
#
#   scripts/instructions.sh            fails when a path takes over 5 % more than the file says
#   scripts/instructions.sh --write    writes the file: commit it with the change that explains it
#
# Needs valgrind; without it the guard is SKIPPED.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  "" | --write) mode=${1:-check} ;;
  *) echo "usage: scripts/instructions.sh [--write]" >&2; exit 2 ;;
esac
if ! command -v valgrind >/dev/null; then
  echo "SKIPPED: instruction counts of the hot paths: no valgrind"
  exit 0
fi
binary=$(cargo bench --locked --no-run --bench instructions --message-format=json |
  python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("target", {}).get("name") == "instructions" and message.get("executable"):
        print(message["executable"])')

exec python3 - "$binary" "$mode" benches/instructions.txt "$(rustc --version)" <<'PYTHON'
import re, subprocess, sys

binary, mode, path, compiler = sys.argv[1:]
FEW, MANY, LIMIT = 20, 120, 1.05

def run(case, rounds):
    command = ["valgrind", "--tool=cachegrind", "--cache-sim=no",
               "--cachegrind-out-file=/dev/null", binary, case, str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    counted = re.search(r"I +refs: +([\d,]+)", done.stderr)
    if done.returncode or not counted:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return int(counted[1].replace(",", "")), int(done.stdout)

cases = subprocess.run([binary, "list"], capture_output=True, text=True, check=True).stdout.splitlines()
counts = {}
for case in cases:
    (few, _), (many, messages) = run(case, FEW), run(case, MANY)
    counts[case] = (many - few) / ((MANY - FEW) * messages)

if mode == "--write":
    with open(path, "w") as file:
        file.write(f"# Instructions a message, by scripts/instructions.sh --write\n# {compiler}\n")
        file.writelines(f"{count:8.0f}  {case}\n" for case, count in counts.items())
    print(open(path).read(), end="")
    sys.exit()

known = {}
for line in open(path):
    if not line.startswith("#"):
        count, case = line.split(None, 1)
        known[case.strip()] = float(count)
worse = []
for case, count in counts.items():
    if case not in known:
        worse.append(f"{case} is not in {path}")
        continue
    ratio = count / known[case]
    print(f"{count:8.0f}  {ratio:5.2f} of {known[case]:.0f}  {case}")
    if ratio > LIMIT:
        worse.append(f"{case} takes {count:.0f} instructions a message, and {known[case]:.0f} stand in {path}")
    elif ratio < 1 / LIMIT:
        print(f"          faster: scripts/instructions.sh --write keeps it so")
worse += [f"{case} is in {path} and is no case any more" for case in known if case not in counts]
if worse and f"# {compiler}\n" not in open(path).read():
    print("\n".join(worse), f"counted with another compiler than the file ({compiler}): no failure", sep="\n")
elif worse:
    sys.exit("\n".join(worse) + "\nWhere that is meant: scripts/instructions.sh --write, and say why in the commit")
PYTHON
