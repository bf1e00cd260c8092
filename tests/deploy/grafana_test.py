"""deploy/grafana: the dashboards are current, follow Grafana's published model, and ask for metrics that exist.

The model is the classes of grafana-foundation-sdk, which Grafana generates from the schemas of its version 11.6: a field
that they do not have is lost when they read a dashboard and write it again.
"""
import json
import pathlib
import sys
import tempfile
import unittest

import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

import expressions
from prometheus_test import promtool

FOLDER = expressions.ROOT / "deploy/grafana"
sys.path.insert(0, str(FOLDER))
import generate  # noqa: E402

PANELS = {"row", "stat", "timeseries", "heatmap"}
UNITS = {"short", "s", "bytes", "percentunit", "reqps", "ops"}  # Ids of Grafana's list of units.
plugins.register_default_plugins()


def dashboards():
    return {path.name: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def lost(given, kept, path=""):
    """The paths of fields that the model does not have."""
    if isinstance(given, dict) and isinstance(kept, dict):
        gone = [f"{path}.{key}" for key, value in given.items() if key not in kept and value is not None]
        return gone + [line for key in given if key in kept for line in lost(given[key], kept[key], f"{path}.{key}")]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [line for i, value in enumerate(given) for line in lost(value, kept[i], f"{path}[{i}]")]
    return [] if given == kept else [f"{path}: {given} became {kept}"]


def overlaps(panels):
    taken = {}
    for panel in panels:
        at = panel["gridPos"]
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            if cell in taken:
                yield f"{panel['title']} lies over {taken[cell]}"
                break
            taken[cell] = panel["title"]


class Grafana(unittest.TestCase):
    def test_files_are_current(self):
        made = generate.files()
        self.assertEqual(sorted(made), sorted(dashboards()))
        for name, text in made.items():
            self.assertEqual((FOLDER / name).read_text(), text, f"{name} is old: run python3 deploy/grafana/generate.py")

    def test_published_model(self):
        for name, given in dashboards().items():
            kept = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(given)))
            self.assertEqual(lost(given, kept), [], name)

    def test_the_model_notices_unknown_fields(self):
        given = next(iter(dashboards().values()))
        given["panels"][1]["discription"] = given["panels"][1]["targets"][0]["expression"] = "x"
        kept = json.loads(JSONEncoder().encode(Dashboard.from_json(given)))
        self.assertEqual(lost(given, kept), [".panels[1].discription", ".panels[1].targets[0].expression"])

    def test_dashboards(self):
        uids = [d["uid"] for d in dashboards().values()]
        self.assertEqual(len(set(uids)), len(uids))
        for name, board in dashboards().items():
            with self.subTest(name):
                self.assertGreaterEqual(board["schemaVersion"], 36)
                self.assertLessEqual(len(board["uid"]), 40)  # Grafana's limit.
                self.assertNotIn("id", board)  # Grafana gives it at the import.
                self.assertEqual([v["name"] for v in board["templating"]["list"]], ["datasource", "namespace", "model"])
                self.assertEqual(list(overlaps(board["panels"])), [])
                ids = [panel["id"] for panel in board["panels"]]
                self.assertEqual(len(set(ids)), len(ids))

    def test_panels(self):
        for name, board in dashboards().items():
            for panel in board["panels"]:
                with self.subTest(f"{name}: {panel['title']}"):
                    self.assertIn(panel["type"], PANELS)
                    at = panel["gridPos"]
                    self.assertTrue(0 <= at["x"] and at["x"] + at["w"] <= 24 and at["w"] > 0 and at["h"] > 0, at)
                    if panel["type"] == "row":
                        continue
                    self.assertEqual(panel["datasource"], {"type": "prometheus", "uid": "${datasource}"})
                    self.assertRegex(panel["description"], r"\bIf .*\.$")  # What to do when the curve looks wrong.
                    unit = panel["fieldConfig"]["defaults"]["unit"]
                    self.assertTrue(unit in UNITS or unit.startswith("suffix:"), unit)
                    refs = [t["refId"] for t in panel["targets"]]
                    self.assertTrue(refs and len(set(refs)) == len(refs), refs)
                    for target in panel["targets"]:
                        self.assertIn('model=~"$model"', target["expr"])
                        of_counters = "rate(" in target["expr"] or "increase(" in target["expr"]
                        self.assertEqual("[$__rate_interval]" in target["expr"], of_counters, target["expr"])

    def test_expressions_use_metrics_that_exist(self):
        metrics = expressions.Metrics(expressions.NAMES.read_text())
        for name, board in dashboards().items():
            for where, expression in expressions.dashboard_expressions(board):
                self.assertEqual(expressions.complaints(expression, metrics), [], f"{name}: {where}: {expression}")

    def test_prometheus_parses_every_expression(self):
        rules = [{"record": f"e{i}", "expr": expressions.without_variables(expression)} for i, (_, expression) in enumerate(
            pair for board in dashboards().values() for pair in expressions.dashboard_expressions(board))]
        self.assertGreater(len(rules), 100)
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "rules.yaml"
            file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": rules}]}))
            said = promtool("check", "rules", file)
        self.assertIn(f"{len(rules)} rules found", said.stdout, said.stdout + said.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
