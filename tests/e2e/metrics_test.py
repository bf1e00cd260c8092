"""A real Prometheus scrapes a real cluster under load: every metric of the list is there with its type and labels, the counts
are those that the clients counted themselves, and every expression of the dashboards and alerts can be asked."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

import grpc

from cluster import Cluster, ROOT, SLOW, collect, request, wait_until

sys.path.insert(0, str(ROOT / "tests/deploy"))
import expressions  # noqa: E402

MODEL = "fathom-tiny"
# How long the load is repeated; 0: once. tests/run --long takes some minutes.
MINUTES = float(os.environ.get("FATHOM_METRICS_MINUTES", "0"))
# What a cluster on CPUs has not, or this build not yet.
ABSENT = {"fathom_worker_gpu_memory_usage_bytes"}


class Prometheus:
    """A Prometheus server over the processes of one cluster, with the alert rules of deploy/."""

    def __init__(self, targets):
        self.targets = targets

    def __enter__(self):
        said = subprocess.run([ROOT / "deploy/prometheus/fetch-tools"], capture_output=True, text=True)
        assert said.returncode == 0, said.stderr
        self.folder = pathlib.Path(tempfile.mkdtemp())
        shutil.copy(ROOT / "deploy/prometheus/alerts.yaml", self.folder)
        jobs = [{"job_name": f"fathom-{role}", "static_configs": [{"targets": [f"127.0.0.1:{p}" for p in ports], "labels": {"model": MODEL}}]}
                for role, ports in self.targets.items()]
        (self.folder / "prometheus.yaml").write_text(json.dumps({
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"], "scrape_configs": jobs}))
        self.log = open(self.folder / "log", "w+")
        self.process = subprocess.Popen([ROOT / said.stdout.strip() / "prometheus", f"--config.file={self.folder / 'prometheus.yaml'}",
                                         f"--storage.tsdb.path={self.folder / 'data'}", "--web.listen-address=127.0.0.1:0",
                                         "--log.format=json"], stdout=self.log, stderr=self.log)
        self.port = None
        wait_until(self.find_port, "Prometheus listens")
        wait_until(self.is_ready, "Prometheus is ready")
        return self

    def find_port(self):
        said = (self.folder / "log").read_text()
        assert self.process.poll() is None, said
        found = re.search(r'"address":"127\.0\.0\.1:([1-9]\d*)"', said)
        self.port = found and int(found[1])
        return self.port

    def is_ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5).status == 200
        except OSError:
            return False

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(20 * SLOW)
        self.log.close()
        shutil.rmtree(self.folder)

    def get(self, path, **query):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None

    def query(self, expression):
        return self.get("query", query=expression)["result"]

    def value(self, expression):
        """The sum over all series; None: there are none."""
        found = self.query(expression)
        return sum(float(series["value"][1]) for series in found) if found else None


class Counts:
    """What the clients saw."""

    def __init__(self):
        self.outcomes, self.tokens, self.prompt_tokens, self.finished, self.refused = {}, 0, 0, 0, 0

    def add(self, outcome, result=None):
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1
        if result is not None:
            assert result.error is None, result.error
            self.tokens += len(result.ids)
            self.prompt_tokens += result.finish.usage.prompt_tokens
            self.finished += 1


def load(client, counts):
    """Requests of every kind: long and short ones at once, more than there are slots; a stop token; refused ones; one whose client leaves."""
    batch = [request(ids=[0, 3 + i, 5], max_tokens=80 + i, ignore_eos=True, seed=i) for i in range(24)]
    for result in client.many(batch):
        counts.add("LENGTH", result)
    first = client.generate(ids=[0, 3, 5], max_tokens=8, ignore_eos=True)
    counts.add("LENGTH", first)
    counts.add("STOP_TOKEN", client.generate(ids=[0, 3, 5], max_tokens=8, ignore_eos=True, token_ids=[first.ids[3]]))
    for _ in range(3):
        refused = client.generate(ids=[0, 3, 5], max_tokens=8, temperature=-1.0)
        assert refused.error.code() == grpc.StatusCode.INVALID_ARGUMENT, refused
        counts.refused += 1
    stream = client.stub.Generate(request(ids=[0, 3, 5], max_tokens=2000, ignore_eos=True))
    next(stream), next(stream)
    stream.cancel()
    counts.add("CANCELLED")


class MetricsTest(unittest.TestCase):
    def test_prometheus_sees_what_the_clients_saw(self):
        counts = Counts()
        with Cluster("-tp", "2", "--max-num-seqs", "4") as c:
            ports = {"router": [c.ready["http_port"]], "scheduler": [c.ready["scheduler_metrics_port"]],
                     "worker": [w["metrics_port"] for w in c.ready["workers"]]}
            with Prometheus(ports) as prometheus:
                wait_until(lambda: prometheus.value("up") == 4, "all processes are scraped")
                end = time.monotonic() + MINUTES * 60
                load(c.client, counts)
                while time.monotonic() < end:
                    load(c.client, counts)
                c.wait_idle()
                self.check_health(ports)
                self.check_counts(prometheus, c, counts)
                self.check_movement(prometheus)
                self.check_names(prometheus)
                self.check_expressions(prometheus)
                self.check_failover(prometheus, c)

    def check_health(self, ports):
        for role, of_role in ports.items():
            for port in of_role:
                for path in ("/health/live", "/health/ready", "/health/progress", "/health", "/livez"):
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                        self.assertEqual(list(json.load(answer).values()), [True], f"{role}{path}")
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/version", timeout=10) as answer:
                    self.assertEqual(json.load(answer)["role"], role)

    def check_counts(self, prometheus, c, counts):
        left = counts.outcomes["CANCELLED"]
        expected = {
            "fathom_router_refused_total{code='INVALID_ARGUMENT'}": counts.refused,
            "fathom_router_prompt_tokens_total": counts.prompt_tokens,
            "fathom_router_request_seconds_count": counts.finished,
            "fathom_router_request_queue_seconds_count": counts.finished,
            "fathom_router_request_generation_tokens_sum": counts.tokens,
            "fathom_router_request_prompt_tokens_sum": counts.prompt_tokens,
            "fathom_router_first_token_seconds_count": counts.finished + left,  # And those whose client left.
            "fathom_scheduler_requests_finished_total": counts.finished,
            "vllm:e2e_request_latency_seconds_count": counts.finished,
            "vllm:request_generation_tokens_sum": counts.tokens,
            "vllm:prompt_tokens_total": counts.prompt_tokens,
            "vllm:request_success_total{finished_reason='length'}": counts.outcomes["LENGTH"],
            "vllm:request_success_total{finished_reason='stop'}": counts.outcomes["STOP_TOKEN"],
            "vllm:request_success_total{finished_reason='abort'}": left,
            "vllm:request_success_total{finished_reason='error'}": 0,
            f"vllm:num_requests_running{{model_name='{MODEL}',engine='0'}}": 0,
        }
        for outcome, number in counts.outcomes.items():
            expected[f"fathom_router_requests_total{{outcome='{outcome}'}}"] = number
        for expression, number in expected.items():
            wait_until(lambda e=expression, n=number: prometheus.value(e) == n, f"{expression} is {number}: {prometheus.value(expression)}", 10)
        # Tokens that came for the cancelled stream are counted too, in router and scheduler.
        self.assertGreaterEqual(prometheus.value("fathom_router_tokens_total"), counts.tokens + 1)
        page = c.metrics("router")
        for own, alias in (("fathom_router_first_token_seconds", "vllm:time_to_first_token_seconds"),
                           ("fathom_router_token_gap_seconds", "vllm:inter_token_latency_seconds"),
                           ("fathom_router_time_per_output_token_seconds", "vllm:request_time_per_output_token_seconds"),
                           ("fathom_router_request_decode_seconds", "vllm:request_decode_time_seconds")):
            labels = f'{{engine="0",model_name="{MODEL}"}}'
            for part in ("_count", "_sum"):
                self.assertEqual(page[own + part], page[alias + part + labels])
        parts = sum(page[f"fathom_router_request_{part}_seconds_sum"] for part in ("queue", "prefill", "decode"))
        self.assertLessEqual(parts, page["fathom_router_request_seconds_sum"])

    def check_movement(self, prometheus):
        """Gauges that are back at their idle values moved while there was load."""
        self.assertGreater(prometheus.value("max_over_time(fathom_scheduler_requests_waiting[5m])"), 0)
        self.assertGreater(prometheus.value("max_over_time(fathom_scheduler_requests_waiting_by_reason{reason='slots'}[5m])"), 0)
        self.assertEqual(prometheus.value("max_over_time(fathom_scheduler_requests_running[5m])"), 4)
        self.assertGreater(prometheus.value("max_over_time(fathom_scheduler_kv_cache_usage_ratio[5m])"), 0)
        self.assertGreater(prometheus.value("max_over_time(vllm:num_requests_waiting[5m])"), 0)
        self.assertEqual(prometheus.value("fathom_scheduler_batch_size_bucket{le='4'} - ignoring(le) fathom_scheduler_batch_size_count"), 0)
        self.assertGreater(prometheus.value("fathom_scheduler_batch_size_count - ignoring(le) fathom_scheduler_batch_size_bucket{le='2'}"), 0)
        # Each rank tells its times, and waits for the other one.
        self.assertEqual(len(prometheus.query("fathom_scheduler_rank_step_seconds > 0")), 2)
        self.assertEqual(len(prometheus.query("fathom_scheduler_rank_collective_seconds_total > 0")), 2)
        self.assertEqual(prometheus.query("sort(fathom_worker_rank)")[-1]["value"][1], "1")
        self.assertEqual(prometheus.value("fathom_scheduler_leads"), 1)
        wait_until(lambda: prometheus.value("fathom_scheduler_kv_cache_usage_ratio") == 0, "no block is in use")

    def check_names(self, prometheus):
        """The list against which the expressions of deploy/ are checked is the truth, and nothing is missing in it."""
        kinds = {name: found[0]["type"] for name, found in prometheus.get("metadata").items()}
        listed = expressions.Metrics(expressions.NAMES.read_text()).of
        missing = sorted(set(listed) - ABSENT - set(kinds))
        self.assertEqual(missing, [])
        self.assertEqual({n: k for n, (k, _) in listed.items() if n not in ABSENT and kinds[n] != k}, {})
        for name, (kind, labels) in listed.items():
            if name in ABSENT:
                continue
            series = prometheus.query(name + ("_count" if kind == "histogram" else ""))
            got = {label for one in series for label in one["metric"]} - expressions.TARGET_LABELS - {"__name__"}
            if series:
                self.assertEqual(got, labels, name)
        unlisted = sorted(name for name in kinds if name.startswith(("fathom_", "vllm:")) and name not in listed)
        self.assertEqual(unlisted, [], "add them to tests/deploy/metric_names.txt")

    def check_expressions(self, prometheus):
        empty, asked = [], 0
        alerts = {rule["name"] for group in prometheus.get("rules")["groups"] for rule in group["rules"]}
        for where, expression in expressions.all_expressions():
            found = prometheus.query(expressions.without_variables(expression))
            asked += 1
            if not found and where not in alerts:
                empty.append(where)
        # A panel is empty only where nothing of its kind happened; an alert that is quiet has no series.
        print(f"{asked} expressions; without data: {empty}")
        self.assertEqual([where for where in empty if where not in QUIET], [])

    def check_failover(self, prometheus, c):
        """A rank is killed under load: the loss, the sessions that continue and their replayed tokens are counted."""
        before = prometheus.value("fathom_scheduler_replayed_tokens_total")
        counts, results = [0] * 4, [None] * 4

        def take(i):
            def count(result):
                counts[i] = len(result.ids)
            stream = c.client.stub.Generate(request(ids=[0, 3, 5], max_tokens=400, ignore_eos=True))
            results[i] = collect(stream, count)

        threads = [threading.Thread(target=take, args=(i,)) for i in range(4)]
        for t in threads:
            t.start()
        wait_until(lambda: min(counts) >= 3, "each stream has three tokens")
        os.kill(c.ready["workers"][1]["pid"], signal.SIGKILL)
        for t in threads:
            t.join()
        self.assertEqual([(r.error, len(r.ids)) for r in results], [(None, 400)] * 4)
        wait_until(lambda: prometheus.value("fathom_scheduler_groups_lost_total") == 1, "the loss is counted")
        wait_until(lambda: prometheus.value("fathom_scheduler_failovers_total") == 4, "4 sessions continued")
        wait_until(lambda: prometheus.value("fathom_scheduler_replayed_tokens_total") - before >= 4 * 3, "their tokens were computed again")


class LogsTest(unittest.TestCase):
    """What the processes log of requests; --verbose brings their lines to stderr of `fathom serve`."""

    def lines(self, *flags):
        with Cluster("--verbose", *flags) as c:
            done = c.generate(text="the quick brown fox", max_tokens=8, ignore_eos=True)
            c.generate(ids=[0, 3, 5], max_tokens=8, temperature=-1.0)
            wait_until(lambda: c.metrics("router")["fathom_router_request_seconds_count"] == 1, "the request is counted")
            if "--log-interval" in flags:
                wait_until(lambda: any("generated tokens/s" in line for line in c.log), "the summary is logged")
        return done.started.request_id, [line for line in c.log if "quick brown" in line], c.log

    def test_nothing_of_a_request_by_default(self):
        request_id, prompts, log = self.lines()
        self.assertEqual(prompts, [])
        self.assertFalse([line for line in log if request_id in line])

    def test_what_was_asked_for(self):
        request_id, prompts, log = self.lines("--log-requests", "prompts", "--log-format", "json", "--log-interval", "1")
        of_request = [json.loads(line[line.index("{"):]) for line in log if f'"request_id":"{request_id}"' in line]
        self.assertEqual([line["msg"].split()[0] for line in of_request], ["prompt", "ended"], of_request)
        self.assertEqual(len(prompts), 1)
        self.assertRegex(of_request[1]["msg"], r"^ended LENGTH after [\d.]+ s: \d+ prompt tokens, \d+ of them cached, 8 generated; first token")


# Panels without data on one idle CPU cluster in which nothing failed.
QUIET = {"Fathom / Failures / Requests that failed / A", "Fathom / Failures / Requests that failed / B",
         "Fathom / Ranks / GPU memory by arena / A"}

if __name__ == "__main__":
    unittest.main()
