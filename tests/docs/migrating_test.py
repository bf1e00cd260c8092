#!/usr/bin/env python3
"""docs/MIGRATING.md against the programs: each flag of Fathom that the page names exists, each metric is in the list of
metrics, each foreign name that common/flag_names.cc answers is on the page, and no flag that Fathom has is called missing.
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from markdown import CODE, ROOT, read  # noqa: E402
from programs import flags_of, wrong_names  # noqa: E402

PAGE = ROOT / "docs" / "MIGRATING.md"

problems = []


def report(line, text):
    problems.append(f"{PAGE.relative_to(ROOT)}:{line}: {text}")


def check_ours(line, code):
    for wrong in wrong_names(code, "fathom serve"):
        report(line, f"`{code}`: {wrong}")


def plain(flag):
    return flag.split("=")[0].replace("_", "-")


def check_row(line, row):
    """One row: foreign names, the name here, remarks."""
    foreign, here = CODE.findall(row[0]), CODE.findall(row[1])
    if not here and row[1] != "none":
        report(line, f"the second column has neither a name in code nor `none`: {row[1]}")
    for code in [*here, *(c for cell in row[2:] for c in CODE.findall(cell))]:
        check_ours(line, code)
    for name in foreign:
        if plain(name) in flags_of("fathom serve") and plain(name) not in here and name != "--port":
            same = any(h.startswith("-") for h in here) and name.count("-") == 1  # A short form.
            if not same:
                report(line, f"fathom serve has {name}, and the second column says {row[1]}")


def foreign_flags():
    """(name, ours, exact) of each row of the table in common/flag_names.cc."""
    text = (ROOT / "common/flag_names.cc").read_text()
    rows = re.findall(r'\{"(--[\w-]+)",\s*"([\w-]*)",\s*(true|false),', text)
    assert len(rows) > 10, "the table of common/flag_names.cc has another form now: change this test"
    return [(name, ours, exact == "true") for name, ours, exact in rows]


def check_metrics(blocks):
    known = {line.split()[0] for line in (ROOT / "tests/deploy/metric_names.txt").read_text().splitlines()
             if line and not line.startswith("#")}
    named = set()
    for block in blocks:
        for line, row in block.rows if block.kind == "table" else [(block.line, ["", block.text])]:
            for code in (c for cell in row[1:] for c in CODE.findall(cell)):
                for metric in re.findall(r"(?:vllm:|fathom_)\w+", code):
                    named.add(metric)
                    if metric not in known:
                        report(line, f"{metric} is not in tests/deploy/metric_names.txt")
            for metric in re.findall(r"vllm:\w+", row[0]):
                if metric in known and f"`{metric}`" not in row[1] and row[1] != "`vllm:inter_token_latency_seconds`":
                    report(line, f"the router has {metric}, and the second column says {row[1]}")
    for metric in sorted(m for m in known - named if m.startswith("vllm:")):
        report(0, f"{metric} of tests/deploy/metric_names.txt is missing")


def main():
    blocks = read(PAGE)
    rows = {}  # Foreign name -> its rows.
    for block in blocks:
        for code in block.code():
            check_ours(block.line, code)
        for line, row in block.rows[1:] if block.kind == "table" else []:
            check_row(line, row)
            for name in CODE.findall(row[0]):
                rows.setdefault(plain(name), []).append((line, row))
    for name, ours, exact in foreign_flags():
        if name not in rows:
            report(0, f"{name}, which common/flag_names.cc answers, is missing")
            continue
        for line, row in rows[name]:
            if exact and f"`{ours}`" not in row[1]:
                report(line, f"{name} is accepted as {ours} (common/flag_names.cc), and the second column says {row[1]}")
    check_metrics(blocks)
    print("\n".join(problems) or f"{len(rows)} foreign names on the page")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
