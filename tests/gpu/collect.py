#!/usr/bin/env python3
"""Merges the results.json of several runs into docs/performance/<card>.json, or their sanitizer's outcomes into sanitizer.json.

  tests/gpu/collect.py OUT.json RESULTS.json...
  tests/gpu/collect.py --sanitizer OUT.json RESULTS.json...
"""
import collections
import json
import pathlib
import sys

from gpu_rows import merge, table
from gpu_sanitizer import merge_outcomes

FIELDS = ("id", "value", "unit", "floor", "peer", "commit", "command")


def collected(runs):
    cards = {run["card"] for run in runs}
    if len(cards) != 1:
        raise SystemExit(f"collect.py: the runs are of several cards: {sorted(cards)}")
    return {"card": cards.pop(), "rows": [{field: row.get(field) for field in FIELDS} for row in merge(runs)]}


def collect_outcomes(out, runs):
    kept = json.loads(out.read_text())["tests"] if out.exists() else []
    tests = merge_outcomes(kept, runs)
    lines = ",\n  ".join(json.dumps(one) for one in tests)
    out.write_text(f'{{"tests": [\n  {lines}\n]}}\n')
    counts = collections.Counter((one["tool"], one["outcome"]) for one in tests)
    print("\n".join(f"{tool:<12}{outcome:<28}{count:>4}" for (tool, outcome), count in sorted(counts.items())))


def main():
    outcomes = sys.argv[1:2] == ["--sanitizer"]
    if outcomes:
        del sys.argv[1]
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    out = pathlib.Path(sys.argv[1])
    runs = [json.loads(pathlib.Path(name).read_text()) for name in sys.argv[2:]]
    if outcomes:
        return collect_outcomes(out, runs)
    if out.exists():
        runs.insert(0, json.loads(out.read_text()))
    result = collected(runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n  ".join(json.dumps(row) for row in result["rows"])
    out.write_text(f'{{"card": {json.dumps(result["card"])}, "rows": [\n  {rows}\n]}}\n')
    print(table(result["rows"]))


if __name__ == "__main__":
    main()
