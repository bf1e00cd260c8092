"""deploy/prometheus: rules are valid, alerts do what tests/deploy/alerts_test.yaml says and have runbooks."""
import pathlib
import re
import subprocess
import unittest

import yaml

import expressions

ROOT = pathlib.Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/prometheus"
CASES = ROOT / "tests/deploy/alerts_test.yaml"
ALERTS = ["FathomRankHung", "FathomNoLeader", "FathomQueueGrowing", "FathomKvCacheFull", "FathomErrorRate",
          "FathomSlowFirstToken", "FathomStraggler", "FathomRestartLoop"]


def promtool(*args):
    said = subprocess.run([FOLDER / "fetch-tools"], capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    return subprocess.run([ROOT / said.stdout.strip() / "promtool", *map(str, args)], capture_output=True, text=True)


def rules():
    return [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]


def anchor(heading):
    """The anchor that GitHub and GitLab make of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


class Prometheus(unittest.TestCase):
    def test_configurations_and_rules_are_valid(self):
        said = promtool("check", "config", FOLDER / "prometheus.yaml")  # It reads the rule files too.
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
        self.assertIn(f"{len(ALERTS)} rules found", said.stdout)

    def test_alerts_fire_and_stay_quiet(self):
        said = promtool("test", "rules", CASES)
        self.assertEqual(said.returncode, 0, said.stdout + said.stderr)

    def test_each_alert_has_both_cases(self):
        names = [case["name"] for case in yaml.safe_load(CASES.read_text())["tests"]]
        for alert in ALERTS:
            for what in (f"{alert} fires:", f"{alert} is quiet:"):
                self.assertTrue(any(name.startswith(what) for name in names), f"no case \"{what} ...\" in {CASES.name}")

    def test_each_alert_has_a_runbook(self):
        self.assertEqual([rule["alert"] for rule in rules()], ALERTS)
        page = (ROOT / "docs/OPERATIONS.md").read_text()
        sections = {anchor(m[1]): m[2] for m in re.finditer(r"^###? (.+)\n((?:(?!##).*\n)*)", page, re.M)}
        for rule in rules():
            self.assertIn(rule["labels"]["severity"], ("critical", "warning"))
            self.assertEqual(set(rule["annotations"]), {"summary", "description", "runbook_url"})
            name = f"alert-{rule['alert'].lower()}"
            self.assertEqual(rule["annotations"]["runbook_url"], f"docs/OPERATIONS.md#{name}")
            for part in ("**Means**", "**Look at**", "**Do**"):
                self.assertIn(part, sections.get(name, ""), f"the runbook of {rule['alert']}")

    def test_expressions_use_metrics_that_exist(self):
        metrics = expressions.Metrics(expressions.NAMES.read_text())
        for rule in rules():
            self.assertEqual(expressions.complaints(rule["expr"], metrics), [], rule["alert"])

    def test_wrong_expressions_are_found(self):
        metrics = expressions.Metrics("a_total counter code\nb gauge\nc_seconds histogram\n")
        for expression, says in (
                ("rate(d_total[1m])", "no metric d_total"), ("a_total", "use rate"), ("rate(b[1m])", "is a gauge"),
                ("deriv(a_total[1m])", "is for gauges"), ("b{code=\"x\"}", "no label code"), ("sum(", "cannot be parsed"),
                ("sum by (le) (b)", "has this label"), ("c_seconds", "no metric c_seconds"),
                ("rate(b_bucket[1m])", "no metric")):
            self.assertIn(says, " ".join(expressions.complaints(expression, metrics)), expression)
        for expression in ('sum by (code) (rate(a_total{model="$model"}[$__rate_interval]))', "deriv(b[5m])",
                           "histogram_quantile(0.9, sum by (le) (rate(c_seconds_bucket[1m])))"):
            self.assertEqual(expressions.complaints(expression, metrics), [], expression)

    def test_names_of_a_scrape(self):
        text = ("# HELP a_total x\n# TYPE a_total counter\na_total{code=\"1\"} 3\n# TYPE c_seconds histogram\n"
                "c_seconds_bucket{le=\"1\"} 2\nc_seconds_sum 2\nc_seconds_count 2\n# TYPE b gauge\nb 1\n")
        self.assertEqual(expressions.scraped(text), ["a_total counter code", "b gauge", "c_seconds histogram"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
