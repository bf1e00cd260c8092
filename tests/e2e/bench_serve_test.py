"""tests/e2e/bench_serve_test.py: `fathom bench serve` against a real cluster: its report, its baseline, and latency that counts from when
a request was due."""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from cluster import BIN, SLOW, Cluster, wait_until

SMALL = ["--length-scale", "0.05", "--requests", "24", "--warmup", "1"]


class BenchServe(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.__enter__()
        cls.server = ["--server", f"127.0.0.1:{cls.cluster.ready['grpc_port']}"]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__()

    def bench(self, *args):
        done = subprocess.run([BIN / "fathom", "bench", "serve", *self.server, *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=120 * SLOW)
        return done.returncode, done.stdout, done.stderr

    def steps(self):
        return self.cluster.metrics()["fathom_scheduler_steps_total"]

    def test_report_and_baseline(self):
        with tempfile.TemporaryDirectory() as folder:
            page, base = pathlib.Path(folder) / "out.html", pathlib.Path(folder) / "base.json"
            load = [*SMALL, "--rates", "40,120", "--repeats", "2", "--json"]
            code, out, err = self.bench(*load, "--report", str(page))
            self.assertEqual(code, 0, err)
            run = json.loads(out)
            self.assertEqual(run["rates"], [40, 120])
            for level in run["levels"]:
                self.assertEqual((level["requests"], level["failed"]), (2 * run["requests_a_round"], 0))
                self.assertLessEqual(level["ttft_ms"]["median"], level["ttft_ms"]["p99"])
            html = page.read_text(encoding="utf-8")
            for word, there in (("<svg", True), ("prefers-color-scheme", True), ("Goodput", True), ("http:", False), ("https:", False), ("<script", False)):
                self.assertEqual(word in html, there, word)
            # The same load has lost against a run that was a thousand times faster, and not against one that was slower.
            for factor, want in ((1000, 1), (0.001, 0)):
                for metric in run["metrics"]:
                    metric["value"] *= factor if metric["higher_is_better"] else 1 / factor
                base.write_text(json.dumps(run), encoding="utf-8")
                code, _, err = self.bench(*load, "--baseline", str(base))
                self.assertEqual(code, want, err)
                if want:
                    self.assertIn("ttft_ms@40: ", err)
                run = json.loads(out)
            code, _, err = self.bench(*SMALL, "--rates", "40", "--repeats", "2", "--json", "--baseline", str(base))
            self.assertEqual(code, 64)
            self.assertIn("rates is [40.0,120.0] there and [40.0] here", err)

    def test_every_workload_and_every_kind_of_arrival(self):
        for workload, arrivals in (("sharegpt", "bursty"), ("long", "even"), ("prefix", "poisson"), ("agent", "poisson"), ("fixed", "even")):
            with self.subTest(workload=workload):
                scale = "0.004" if workload == "long" else "0.05"
                code, out, err = self.bench("--workload", workload, "--arrivals", arrivals, "--length-scale", scale, "--requests", "6", "--rates", "100",
                                            "--warmup", "0", "--json")
                self.assertEqual(code, 0, err)
                level = json.loads(out)["levels"][0]
                self.assertGreaterEqual(level["requests"], 6)
                self.assertEqual(level["failed"], 0, level)

    def test_latency_counts_from_when_a_request_was_due(self):
        """One session at a time while the worker stands still: the requests behind it are sent late, and their lateness is part of TTFT."""
        steps = self.steps()
        process = subprocess.Popen([BIN / "fathom", "bench", "serve", *self.server, "--workload", "fixed", "--input-len", "4", "--output-len", "4",
                                    "--requests", "60", "--rates", "20", "--arrivals", "even", "--warmup", "0", "--max-in-flight", "1", "--json"],
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        worker = self.cluster.ready["workers"][0]["pid"]
        try:
            wait_until(lambda: self.steps() > steps, "a request was computed")
            os.kill(worker, signal.SIGSTOP)
            time.sleep(0.8)  # The fault itself; a rank is lost after 2 s.
        finally:
            os.kill(worker, signal.SIGCONT)
            out, err = process.communicate(timeout=120 * SLOW)
        self.assertEqual(process.returncode, 0, err)
        level = json.loads(out)["levels"][0]
        self.assertEqual(level["failed"], 0, level)
        # About 16 of the 60 were due in these 0.8 s. A clock that started at the sending would show one slow request, the one in flight.
        self.assertGreater(level["late_ms_max"], 300)
        self.assertGreater(level["ttft_ms"]["p90"], 200)

    def test_a_rate_of_nothing_is_refused(self):
        for rate in ("0", "1e-300", "-1"):
            code, out, err = self.bench(*SMALL, "--rates", rate)
            self.assertEqual((code, out), (64, ""))
            self.assertIn(f"--rates {rate}: ", err)

    def test_sessions_that_ended_keep_no_thread(self):
        """The stacks of 400 threads have 3.2 GB of addresses, those of 4 have 32 MB."""
        done = subprocess.run(["prlimit", "--as=2500000000", BIN / "fathom", "bench", "serve", *self.server, "--workload", "fixed", "--input-len", "4",
                               "--output-len", "1", "--rates", "400", "--requests", "400", "--max-in-flight", "4", "--warmup", "0", "--json"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120 * SLOW)
        self.assertEqual(done.returncode, 0, done.stderr)
        level = json.loads(done.stdout)["levels"][0]
        self.assertEqual((level["requests"], level["failed"]), (400, 0))

    def test_deadline_of_the_goodput(self):
        code, out, _ = self.bench(*SMALL, "--rates", "60", "--slo-ttft-ms", "0.001", "--json")
        self.assertEqual(code, 0)
        level = json.loads(out)["levels"][0]
        self.assertEqual((level["goodput_per_s"], level["good_share"]), (0, 0))
        self.assertGreater(level["requests_per_s"], 0)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
