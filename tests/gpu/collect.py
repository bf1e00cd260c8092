#!/usr/bin/env python3
"""Merges the results.json of several runs into docs/performance/<card>.json: tests/gpu/collect.py OUT.json RESULTS.json..."""
import json
import pathlib
import sys

from gpu_rows import merge, table

FIELDS = ("id", "value", "unit", "floor", "peer", "commit", "command")


def collected(runs):
    cards = {run["card"] for run in runs}
    if len(cards) != 1:
        raise SystemExit(f"collect.py: the runs are of several cards: {sorted(cards)}")
    return {"card": cards.pop(), "rows": [{field: row.get(field) for field in FIELDS} for row in merge(runs)]}


def main():
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    out = pathlib.Path(sys.argv[1])
    runs = [json.loads(pathlib.Path(name).read_text()) for name in sys.argv[2:]]
    if out.exists():
        runs.insert(0, json.loads(out.read_text()))
    result = collected(runs)
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = ",\n  ".join(json.dumps(row) for row in result["rows"])
    out.write_text(f'{{"card": {json.dumps(result["card"])}, "rows": [\n  {rows}\n]}}\n')
    print(table(result["rows"]))


if __name__ == "__main__":
    main()
