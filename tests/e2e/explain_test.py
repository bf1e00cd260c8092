"""`fathom explain` and Explain against real clusters: a request behind a full batch, a preempted one, one that runs, one that failed."""
import itertools
import json
import os
import signal
import subprocess
import unittest

import grpc

from cluster import BIN, Cluster, collect, pb, request, wait_until

PARTS = ["transport", "earlier", "queue", "prefill", "decode", "suspended", "replay"]


class Explain(unittest.TestCase):
    def explain(self, c, request_id, *args, code=0):
        run = subprocess.run([BIN / "fathom", "explain", request_id, "--server", f"127.0.0.1:{c.ready['grpc_port']}", *args],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, code, run.stderr)
        return run.stderr if code else run.stdout

    def known(self, c, request_id):
        """The JSON of `fathom explain`; its parts add up to the whole."""
        answer = json.loads(self.explain(c, request_id, "--json"))
        self.assertTrue(answer["scheduler_known"], answer)
        self.assertEqual(sorted(answer["parts_us"]), sorted(PARTS))
        self.assertEqual(sum(answer["parts_us"].values()), answer["whole_us"], answer)
        self.assertGreaterEqual(min(answer["parts_us"].values()), 0, answer)
        self.assertEqual(sum(answer["queue_behind_us"].values()), answer["parts_us"]["queue"], answer)
        return answer

    def test_a_request_behind_a_full_batch_says_so(self):
        with Cluster("--max-num-seqs", "1") as c:
            stub = c.client.stub
            first = stub.Generate(request(ids=[0, 3, 73], max_tokens=4000, ignore_eos=True, request_id="first"), timeout=300)
            self.assertEqual(next(first).started.request_id, "first")
            while next(first).WhichOneof("event") != "tokens":
                pass
            second = stub.Generate(request(ids=[0, 3, 74], max_tokens=3, ignore_eos=True, request_id="second"), timeout=300)
            started = next(second)
            self.assertEqual(started.started.request_id, "second")

            running = self.known(c, "first")
            self.assertEqual((running["outcome"], running["phase"]), ("RUNNING", "decode"))
            self.assertGreater(running["completion_tokens"], 0)
            waits = self.known(c, "second")
            self.assertEqual((waits["outcome"], waits["phase"]), ("RUNNING", "queued"))
            self.assertEqual(waits["stays"], [])
            self.assertIn("behind slots: all were taken (--max-num-seqs)", self.explain(c, "second"))

            first.cancel()
            result = collect(itertools.chain([started], second))
            self.assertIsNone(result.error)
            ended = self.known(c, "second")
            self.assertEqual(ended["outcome"], "LENGTH")
            self.assertEqual(ended["completion_tokens"], 3)
            self.assertGreater(ended["parts_us"]["queue"], 0)
            self.assertGreaterEqual(ended["queue_behind_us"]["slots"], ended["queue_behind_us"]["other"])
            self.assertEqual(ended["parts_us"]["queue"], result.finish.timings.queue_us)
            self.assertEqual([stay["end"] for stay in ended["stays"]], ["finished"])
            self.assertEqual([chunk["tokens"] for chunk in ended["chunks"]], [3])
            wait_until(lambda: self.known(c, "first")["outcome"] == "CANCELLED", "the first client has left")
            self.assertEqual(self.known(c, "first")["stays"][0]["end"], "client_left")
            self.check_unknown_and_refused(c)

    def check_unknown_and_refused(self, c):
        error = self.explain(c, "nobody", code=64)
        self.assertRegex(error, r"request nobody is not known.* last [12] requests that ended in this router .*at most 10000")
        with self.assertRaises(grpc.RpcError) as caught:
            c.client.stub.Explain(pb.ExplainRequest(request_id="nobody"), timeout=20)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        self.assertEqual(c.generate(ids=[0, 3], max_tokens=1, top_p=7, request_id="bad").error.code(), grpc.StatusCode.INVALID_ARGUMENT)
        refused = json.loads(self.explain(c, "bad", "--json"))
        self.assertEqual((refused["outcome"], refused["reason"]), ("INVALID_ARGUMENT", "OUT_OF_RANGE"))
        self.assertIn("sampling.top_p", refused["message"])
        self.assertIn("it did not get to a scheduler", self.explain(c, "bad"))
        stopped = c.generate(text="In the beginning", max_tokens=60, ignore_eos=True, strings=["e"], request_id="stopped")
        self.assertEqual(stopped.finish.WhichOneof("stop"), "stop_string")
        wait_until(lambda: json.loads(self.explain(c, "stopped", "--json"))["scheduler_known"], "the scheduler has answered the Close")
        self.assertEqual(self.known(c, "stopped")["outcome"], "STOP_STRING")

    def test_a_preempted_request_says_so(self):
        with Cluster("--kv-cache-memory", str(21 * 16 * 8 * 2 * 2 * 64 * 4), "--max-model-len", "256") as c:
            requests = [request(ids=[0, 3, 73 + i], max_tokens=120, ignore_eos=True, request_id=f"r{i}") for i in range(6)]
            for result in c.client.many(requests):
                self.assertIsNone(result.error)
            answers = [self.known(c, r.request_id) for r in requests]
            preempted = [a for a in answers if a["preemptions"] > 0]
            self.assertTrue(preempted, answers)
            self.assertEqual(sum(a["preemptions"] for a in answers), c.metrics()["fathom_scheduler_preemptions_total"])
            for answer in preempted:
                self.assertIn("preempted", [stay["end"] for stay in answer["stays"]])
                self.assertGreater(answer["parts_us"]["suspended"], 0)
                self.assertGreater(answer["parts_us"]["replay"], 0)
                self.assertGreater(answer["suspended_behind_us"]["blocks"], 0)
            self.assertIn("preempted: no KV block was free", self.explain(c, preempted[0]["request_id"]))

    def test_a_lost_group_is_told_by_every_router(self):
        with Cluster() as c:
            stream = c.client.stub.Generate(request(ids=[0, 3, 73], max_tokens=2000, ignore_eos=True, request_id="r"), timeout=300)
            tokens = 0
            while tokens < 20:
                tokens += len(next(stream).tokens.ids)
            subprocess.run(["kill", "-9", str(c.ready["workers"][0]["pid"])], check=True)
            wait_until(lambda: self.known(c, "r")["stays_total"] == 2, "the request has a slot again")
            self.assertEqual(self.known(c, "r")["stays"][0]["end"], "group_lost")
            self.assertGreater(self.known(c, "r")["suspended_behind_us"]["no_group"], 0)
            second = c.add_router()  # The scheduler knows the requests of all routers.
            by_second = second.stub.Explain(pb.ExplainRequest(request_id="r"), timeout=20)
            self.assertEqual((by_second.outcome, by_second.stays_total), ("RUNNING", 2))
            second.close()
            stream.cancel()


    def test_the_time_under_an_earlier_scheduler_is_a_part(self):
        with Cluster() as c:
            stream = c.client.stub.Generate(request(ids=[0, 3, 73], max_tokens=400, ignore_eos=True, request_id="r"), timeout=300)
            while not next(stream).tokens.ids:
                pass
            os.kill(c.ready["scheduler_pid"], signal.SIGKILL)
            self.assertEqual([m.finish.position for m in stream if m.WhichOneof("event") == "finish"], [400])
            answer = self.known(c, "r")
            self.assertGreater(answer["parts_us"]["earlier"], 0)
            self.assertGreater(answer["parts_us"]["replay"], 0)
            self.assertGreaterEqual(answer["submits"], 2)
            self.assertIn("or a new scheduler leads", self.explain(c, "r"))


class Tool(unittest.TestCase):
    def test_the_tools_print_the_id_of_a_request(self):
        with Cluster() as c:
            server = ["--server", f"127.0.0.1:{c.ready['grpc_port']}"]
            run = subprocess.run([BIN / "fathom", "complete", "The", "--max-tokens", "3", *server], capture_output=True, text=True, check=True)
            self.assertRegex(run.stderr, r"(?m)^request [0-9a-f]{16,}$")
            request_id = run.stderr.split()[1]
            text = subprocess.run([BIN / "fathom", "explain", request_id, *server], capture_output=True, text=True, check=True).stdout
            self.assertIn(f"request {request_id}: ", text)
            failed = subprocess.run([BIN / "fathom", "complete", "x" * 40000, *server], capture_output=True, text=True, check=False)
            self.assertEqual(failed.returncode, 64)
            self.assertRegex(failed.stderr, r"(?m)^request [0-9a-f]{16,}$")


if __name__ == "__main__":
    unittest.main(verbosity=2)
