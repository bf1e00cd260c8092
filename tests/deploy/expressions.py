#!/usr/bin/env python3
"""Checks PromQL expressions against a list of metrics: names, labels, and functions that fit the metric's type.

By hand, with build/oracles/bin/python:
    tests/deploy/expressions.py [--names FILE]       all expressions of deploy/; prints complaints, exit 1 if there are any
    tests/deploy/expressions.py --scrape URL...      prints the list of the metrics at these /metrics URLs
"""
import argparse
import json
import pathlib
import re
import sys
import urllib.request

import promql_parser
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
NAMES = pathlib.Path(__file__).parent / "metric_names.txt"
# Labels that a scrape adds to every series of its target.
TARGET_LABELS = {"namespace", "model", "job", "instance", "pod", "service", "container", "endpoint"}
OF_COUNTERS = {"rate", "irate", "increase", "resets"}
OF_GAUGES = {"delta", "idelta", "deriv", "predict_linear"}
# Grafana's variables, by a value that any panel may have.
VARIABLES = {"$__rate_interval": "1m", "$__interval": "15s", "$__range": "1h"}


class Metrics:
    """The metrics of a list of lines `name type label,label`."""

    def __init__(self, text):
        self.of = {}
        for line in text.splitlines():
            if line.strip() and not line.startswith("#"):
                name, kind, *labels = line.split()
                self.of[name] = (kind, set(labels[0].split(",")) if labels else set())

    def find(self, series):
        """(type, labels) of a series' name: a histogram has three series, whose values only grow."""
        if series == "up":
            return "gauge", set()
        if series in self.of and self.of[series][0] != "histogram":
            return self.of[series]
        base = re.sub(r"_(bucket|sum|count)$", "", series)
        if base != series and self.of.get(base, ("",))[0] == "histogram":
            return "counter", self.of[base][1] | ({"le"} if series.endswith("_bucket") else set())
        return None


def without_variables(expression):
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return re.sub(r"\$\{?\w+(:\w+)?\}?", ".*", expression)


def parts_of(node):
    if isinstance(node, promql_parser.MatrixSelector):
        return [node.vector_selector]
    parts = [getattr(node, name, None) for name in ("lhs", "rhs", "expr", "param")]
    return [p for p in [*parts, *(getattr(node, "args", None) or [])] if p is not None]


def names_of(modifier):
    """The labels of a by (), without (), on () or ignoring () clause."""
    return set(modifier.labels) if modifier is not None and getattr(modifier, "labels", None) else set()


def complaints(expression, metrics):
    """What is wrong with an expression, one line for each thing."""
    try:
        root = promql_parser.parse(without_variables(expression))
    except ValueError as error:
        return [f"cannot be parsed: {error}"]
    found = []

    def visit(node, function):
        """Returns the labels that the node's series may have; `function` is the innermost one around the node."""
        if isinstance(node, promql_parser.VectorSelector):
            known = metrics.find(node.name)
            if known is None:
                found.append(f"no metric {node.name}")
                return set()
            kind, labels = known
            for matcher in node.matchers.matchers:
                if matcher.name not in labels | TARGET_LABELS:
                    found.append(f"{node.name} has no label {matcher.name}")
            if kind == "counter" and function not in OF_COUNTERS | {"absent", "changes"}:
                found.append(f"{node.name} is a counter: use rate() or increase()")
            if kind == "gauge" and function in OF_COUNTERS:
                found.append(f"{node.name} is a gauge: {function}() is for counters")
            if kind != "gauge" and function in OF_GAUGES:
                found.append(f"{node.name} is a counter: {function}() is for gauges")
            return labels | TARGET_LABELS
        if isinstance(node, promql_parser.Call):
            function = node.func.name
        labels = set()
        for part in parts_of(node):
            if not isinstance(part, (promql_parser.NumberLiteral, promql_parser.StringLiteral)):
                labels |= visit(part, function)
        if isinstance(node, promql_parser.Call) and function == "label_replace":
            labels |= {node.args[1].val}
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            for name in sorted(names_of(node.modifier) - labels):
                found.append(f"by ({name}): no series below it has this label")
            labels &= names_of(node.modifier)
        return labels

    visit(root, None)
    return found


def dashboard_expressions(dashboard):
    """(where, expression) of every target and of every variable that asks Prometheus."""
    for panel in dashboard["panels"]:
        for inner in [panel, *panel.get("panels", [])]:
            for target in inner.get("targets", []):
                yield f"{dashboard['title']} / {inner['title']} / {target['refId']}", target["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            selector = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            yield f"{dashboard['title']} / ${variable['name']}", f"group by ({selector[2]}) ({selector[1]})"


def all_expressions():
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for path in DASHBOARDS:
        yield from dashboard_expressions(json.loads(path.read_text()))


def scraped(text):
    """Lines of a list from the text of one /metrics."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", text, re.M))
    labels = {name: set() for name in kinds}
    for name, inside in re.findall(r"^([\w:]+)(?:\{(.*)\})? \S+", text, re.M):
        base = name if name in kinds else re.sub(r"_(bucket|sum|count)$", "", name)
        if base in labels:
            labels[base] |= set(re.findall(r'(\w+)="', inside)) - {"le"}
    return [f"{name} {kind} {','.join(sorted(labels[name]))}".strip() for name, kind in sorted(kinds.items())]


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--names", type=pathlib.Path, default=NAMES)
    options.add_argument("--scrape", nargs="+", metavar="URL")
    given = options.parse_args()
    if given.scrape:
        lines = {line for url in given.scrape for line in scraped(urllib.request.urlopen(url, timeout=10).read().decode())}
        print("\n".join(sorted(lines)))
        return 0
    metrics = Metrics(given.names.read_text())
    wrong = [f"{where}: {what}" for where, expression in all_expressions() for what in complaints(expression, metrics)]
    print("\n".join(wrong) if wrong else f"{len(list(all_expressions()))} expressions, nothing to say")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
