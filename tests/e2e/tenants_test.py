"""Shares and limits of tenants (--tenant-limits) with real processes: the router's requests are of tenant "default"."""
import itertools
import json
import pathlib
import subprocess
import tempfile
import time
import unittest
import urllib.request

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from cluster import BIN, Cluster, collect, request, wait_until


def details(error):
    """Reason and retry delay in seconds of a refusal."""
    reason, delay = "", 0.0
    for detail in rpc_status.from_call(error).details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            delay = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    return reason, delay


class Tenants(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = pathlib.Path(folder.name) / "tenants.yaml"

    def metric(self, c, name):
        page = urllib.request.urlopen(f"http://127.0.0.1:{c.ready['scheduler_metrics_port']}/metrics", timeout=20).read().decode()
        for line in page.splitlines():
            if line.startswith(name + " "):
                return float(line.split()[-1])
        return None

    def begin(self, c, request_id, max_tokens=4000):
        """Sends a request and returns its stream and its first event, which says that it was accepted."""
        stream = c.client.stub.Generate(request(ids=[0, 3, 73], max_tokens=max_tokens, ignore_eos=True, request_id=request_id), timeout=300)
        return stream, next(stream)

    def refused(self, c, request_id):
        with self.assertRaises(grpc.RpcError) as caught:
            self.begin(c, request_id)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
        return caught.exception

    def test_a_tenant_runs_and_queues_as_much_as_it_may_and_the_file_is_read_again(self):
        self.file.write_text("tenants:\n  default: {running_max: 1, queued_max: 1}\n")
        with Cluster("--max-num-seqs", "4", "--tenant-limits", str(self.file)) as c:
            first, event = self.begin(c, "first")
            while event.WhichOneof("event") != "tokens":
                event = next(first)
            second, started = self.begin(c, "second", max_tokens=3)
            error = self.refused(c, "third")
            self.assertRegex(error.details(), r"request third: 1 requests of tenant 'default' wait .*the limit queued_max is 1")
            reason, delay = details(error)
            self.assertEqual(reason, "TENANT_QUEUE_FULL")
            self.assertGreaterEqual(delay, 0.05)
            # Three slots are free: what the second one waits for is its tenant's limit.
            waits = json.loads(subprocess.run([BIN / "fathom", "explain", "second", "--json", "--server", f"127.0.0.1:{c.ready['grpc_port']}"],
                                              capture_output=True, text=True, check=True).stdout)
            self.assertEqual(waits["phase"], "queued")
            self.assertGreater(waits["queue_behind_us"]["tenant_running"], 0)
            self.assertGreater(waits["queue_behind_us"]["tenant_running"], waits["parts_us"]["queue"] // 2)
            for name in ('requests_waiting_by_reason{reason="tenant_running"}', 'requests_refused_by_limit_total{limit="tenant_requests"}'):
                wait_until(lambda name=name: self.metric(c, "fathom_scheduler_" + name) == 1, name)

            # A mistake in the file changes nothing; the mended file lets the second one run beside the first.
            self.file.write_text("tenants:\n  default: {running_max: many}\n")
            log = pathlib.Path(c.ready["run_dir"]) / "scheduler.log"
            wait_until(lambda: "tenants.default.running_max: 'many' is not a whole number" in log.read_text(), "the log names the mistake")
            self.assertEqual(self.metric(c, 'fathom_scheduler_requests_waiting_by_reason{reason="tenant_running"}'), 1)
            self.file.write_text("tenants:\n  default: {running_max: 2, queued_max: 1}\n")
            result = collect(itertools.chain([started], second))
            self.assertIsNone(result.error)
            self.assertEqual(len(result.ids), 3)

            # Who obeys the delay under the same id is admitted.
            time.sleep(delay)
            third = c.generate(ids=[0, 3, 75], max_tokens=2, ignore_eos=True, request_id="third")
            self.assertIsNone(third.error)
            first.cancel()

    def test_tokens_per_minute(self):
        self.file.write_text("defaults: {tokens_per_minute: 600}\n")
        with Cluster("--tenant-limits", str(self.file)) as c:
            # Prompt and max_tokens count: the bucket of 600 tokens has a debt of about 23 tokens then.
            stream, started = self.begin(c, "first", max_tokens=620)
            reason, delay = details(self.refused(c, "second"))
            self.assertEqual(reason, "TENANT_RATE_LIMIT")
            self.assertLess(delay, 10)
            self.assertIsNone(collect(itertools.chain([started], stream)).error)
            time.sleep(delay)
            self.assertIsNone(c.generate(ids=[0, 3, 75], max_tokens=2, ignore_eos=True, request_id="second").error)

    def test_a_mistake_in_the_file_ends_the_start(self):
        self.file.write_text("defaults: {wieght: 2}\n")
        run = subprocess.run([BIN / "fathom-scheduler", "--port", "0", "--metrics-port", "0", "--tenant-limits", str(self.file)],
                             capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(run.returncode, 64, run.stderr)
        self.assertIn("tenants.yaml:1: defaults.wieght: unknown key; known are weight, running_max", run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
