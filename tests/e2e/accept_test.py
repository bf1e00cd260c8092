"""tests/e2e/accept_test.py: `fathom accept` accepts a good cluster, and refuses a slow one and one with mixed versions."""
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from cluster import BIN, SLOW, TINY, Cluster, wait_until

# So far from the floor that only a fault of the cluster fails it, not a busy machine.
PATIENT = ["--floor-ms", "2000", "--first-floor-ms", "2000", "--factor", "10", "--tail-factor", "20"]
SHORT = ["--requests", "12", "--input-len", "24", "--output-len", "8", "--stress-requests", "16", "--stress-concurrency", "4"]


class Version(http.server.BaseHTTPRequestHandler):
    """A process of another build."""

    def do_GET(self):
        body = json.dumps({"version": "9.9.9", "commit": "0000000", "role": "worker"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Accept(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("-tp", "2")
        cls.cluster.__enter__()
        cls.server = ["--server", f"127.0.0.1:{cls.cluster.ready['grpc_port']}"]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__()

    def command(self, *args):
        return [str(BIN / "fathom"), "accept", *self.server, *args]

    def accept(self, *args):
        done = subprocess.run(self.command(*args), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120 * SLOW)
        return done.returncode, done.stdout, done.stderr

    def outcomes(self, out):
        return {check["name"]: check["outcome"] for check in json.loads(out)["checks"]}

    def test_a_good_cluster_is_accepted(self):
        with tempfile.TemporaryDirectory() as folder:
            code, out, err = self.accept(*PATIENT, "--input-len", "24", "--output-len", "4", "--out", folder)
            self.assertEqual(code, 0, out + err)
            self.assertIn("accepted: ", out)
            report = json.loads((pathlib.Path(folder) / "accept.json").read_text(encoding="utf-8"))
            self.assertTrue(report["accepted"])
            self.assertEqual(report["latency"]["requests"], 100)
            self.assertEqual(len(report["latency"]["first_token_ms_of_each"]), 100)
            self.assertEqual((pathlib.Path(folder) / "accept.txt").read_text(encoding="utf-8"), out)
            page = (pathlib.Path(folder) / "accept.html").read_text(encoding="utf-8")
            for word, there in (("accepted: ", True), ("<svg", True), ("prefers-color-scheme", True), ("http:", False), ("https:", False),
                                ("<script", False), ("src=", False)):
                self.assertEqual(word in page, there, word)
        checks = {check["name"]: check for check in report["checks"]}
        for name in ("greedy: twice", "greedy: alone and in a batch", "seeded sampling: twice", "seeded sampling: alone and in a batch",
                     "stress", "blocks", "stability", "gap, p99", "first token, median"):
            self.assertEqual(checks[name]["outcome"], "passed", checks[name])
        self.cluster.wait_idle()

    def test_the_floor_of_the_plan(self):
        """With --model the floor is the plan's: far below what any machine reaches with --factor 1, far above it with a huge one."""
        code, out, _ = self.accept(*SHORT, "--model", str(TINY), "--factor", "1", "--tail-factor", "1", "--read-tbs", "1000", "--matrix-tflops", "10000",
                                   "--json")
        self.assertEqual(code, 1)
        self.assertEqual(self.outcomes(out)["gap, median"], "failed")
        self.assertLess(json.loads(out)["latency"]["step_floor_ms"], 0.001)
        code, out, err = self.accept(*SHORT, "--model", str(TINY), "--factor", "100000", "--tail-factor", "1000000", "--json")
        self.assertEqual(code, 0, out + err)
        self.assertEqual(self.outcomes(out)["gap, median"], "passed")

    def test_a_worker_that_stands_still_is_refused(self):
        """Each step of the frozen worker's group takes longer; nothing is lost, so only the latency differs."""
        worker = self.cluster.ready["workers"][1]["pid"]
        # 20 first tokens and 20 gaps, so p99 is the longest one; prompts of 600 tokens, so that they take long enough to be interrupted.
        load = ["--requests", "20", "--input-len", "600", "--output-len", "2", "--stress-requests", "16", "--stress-concurrency", "4"]
        limits = ["--floor-ms", "30", "--first-floor-ms", "30", "--factor", "1000", "--tail-factor", "10"]

        def steps():
            return self.cluster.metrics()["fathom_scheduler_steps_total"]

        before = steps()
        process = subprocess.Popen(self.command(*load, *limits, "--json"), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   text=True)
        try:
            wait_until(lambda: steps() > before, "a request of the first ones is computed")
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.8)  # The fault itself: less than the silence after which a rank is lost, and more than the limit.
            os.kill(worker, signal.SIGCONT)
        finally:
            os.kill(worker, signal.SIGCONT)
            out, err = process.communicate(timeout=120 * SLOW)
        self.assertEqual(process.returncode, 1, out + err)
        outcomes = self.outcomes(out)
        self.assertIn("failed", (outcomes["gap, p99"], outcomes["first token, p99"]), out)
        for name in ("greedy: alone and in a batch", "stress", "blocks", "stability", "first requests"):
            self.assertEqual(outcomes[name], "passed", out)

    def test_another_version_is_refused(self):
        with http.server.HTTPServer(("127.0.0.1", 0), Version) as other:
            threading.Thread(target=other.serve_forever, daemon=True).start()
            code, out, _ = self.accept(*SHORT, *PATIENT, "--processes", f"127.0.0.1:{other.server_port}", "--json")
            other.shutdown()
        self.assertEqual(code, 1)
        self.assertEqual([name for name, outcome in self.outcomes(out).items() if outcome == "failed"], ["versions"])

    def test_every_process_tells_its_version(self):
        ready = self.cluster.ready
        ports = [ready["http_port"], ready["scheduler_metrics_port"], *(worker["metrics_port"] for worker in ready["workers"])]
        code, out, err = self.accept(*SHORT, *PATIENT, "--processes", ",".join(f"127.0.0.1:{port}" for port in ports), "--json")
        self.assertEqual(code, 0, out + err)
        self.assertEqual([process["role"] for process in json.loads(out)["processes"]], ["router", "scheduler", "worker", "worker"])
        self.assertEqual(self.outcomes(out)["versions"], "passed")

    def test_without_a_floor_latency_is_not_judged(self):
        code, out, err = self.accept(*SHORT)
        self.assertEqual(code, 0, out + err)
        self.assertIn("skipped  gap, p99", out)

    def test_no_cluster_and_bad_usage(self):
        with socket.create_server(("127.0.0.1", 0)) as held:
            port = held.getsockname()[1]
        done = subprocess.run([BIN / "fathom", "accept", "--server", f"127.0.0.1:{port}"], capture_output=True, text=True, timeout=60 * SLOW)
        self.assertEqual((done.returncode, done.stdout), (69, ""))
        self.assertEqual(self.accept("--requests", "0")[0], 64)
        self.assertEqual(self.accept("--model", "no/such/model")[0], 64)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
