"""Requests for several sequences (n > 1) through real processes: the tokens of each sequence, ends, stop strings, resumes, and kills of
every process."""
import json
import os
import signal
import subprocess
import threading
import time
import unittest

from cluster import BIN, Cluster, collect, collect_several, grpc, pb, request, wait_until

IDS = [0, 3, 73, 90, 302]


def ask(n, **kw):
    fields = {"ids": IDS, "temperature": 0.9, "seed": 11, "max_tokens": 40, "ignore_eos": True, "logprobs": 2}
    return request(n=n, **{**fields, **kw})


class Several(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster()
        cls.cluster.__enter__()
        cls.stub = cls.cluster.client.stub

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()

    def run_one(self, n, stub=None, on_tokens=None, **kw):
        results = collect_several((stub or self.stub).Generate(ask(n, **kw), timeout=200), n, on_tokens)
        for result in results:
            self.assertIsNone(result.error)
            self.assertIsNotNone(result.finish)
        return results

    def same(self, got, want, what=""):
        self.assertEqual([r.bits() for r in got], [r.bits() for r in want], what)

    def complete(self, *args, n=3, code=0, cluster=None):
        server = f"127.0.0.1:{(cluster or self.cluster).ready['grpc_port']}"
        run = subprocess.run([BIN / "fathom", "complete", "--server", server, "-n", str(n), *args], capture_output=True, text=True, check=False,
                             timeout=200)
        self.assertEqual(run.returncode, code, run.stderr)
        return run.stderr if code else run.stdout

    def test_sequence_i_is_the_same_for_every_n_above_i(self):
        want = self.run_one(6)
        self.assertEqual(len({tuple(r.ids) for r in want}), 6)
        for n in (1, 2, 5):
            self.same(self.run_one(n), want[:n], f"n = {n}")
        # More sequences than slots, in a cluster whose pool is too small for all of them at once.
        with Cluster("--max-num-seqs", "4", "--kv-cache-memory", str(9 * 16 * 8 * 2 * 2 * 64 * 4), "--max-model-len", "64") as c:
            got = self.run_one(6, stub=c.client.stub)
            self.same(got, want, "4 slots")
            self.assertGreater(c.metrics()["fathom_scheduler_preemptions_total"], 0)
            c.wait_idle()
        with Cluster("-pp", "2") as c:
            self.same(self.run_one(6, stub=c.client.stub), want, "-pp 2")
        with Cluster("-tp", "2") as c:  # Tensor parallelism adds in another order, so its bits are its own.
            own = self.run_one(6, stub=c.client.stub)
            self.same(self.run_one(2, stub=c.client.stub), own[:2], "-tp 2")

    def test_usage_counts_the_prompt_once_and_every_token(self):
        before = self.cluster.metrics("router")
        results = self.run_one(3)
        for i, result in enumerate(results):
            self.assertEqual(result.finish.sequence, i)
            self.assertEqual((result.finish.usage.prompt_tokens, result.finish.usage.completion_tokens), (len(IDS), 40))
        self.assertEqual(results[0].started.sampling.n, 3)
        wait_until(lambda: self.cluster.metrics("router")["fathom_router_request_seconds_count"] > before["fathom_router_request_seconds_count"],
                   "the request is counted")
        after = self.cluster.metrics("router")
        grown = {name: after[name] - before.get(name, 0) for name in after}
        self.assertEqual(grown["fathom_router_request_seconds_count"], 1)
        self.assertEqual(grown["fathom_router_prompt_tokens_total"], len(IDS))
        self.assertEqual(grown["fathom_router_request_generation_tokens_sum"], 120)
        self.assertEqual(grown["fathom_router_tokens_total"], 120)
        self.assertEqual(grown['fathom_router_requests_total{outcome="LENGTH"}'], 1)

    def test_without_randomness_all_sequences_are_equal(self):
        results = self.run_one(3, temperature=0.0)
        self.assertEqual(len({r.bits() for r in results}), 1)

    def test_prompt_logprobs_come_once(self):
        several = self.run_one(3, prompt_logprobs=1)
        alone = collect(self.stub.Generate(ask(1, prompt_logprobs=1), timeout=60))
        self.assertEqual([(p.id, p.logprob) for p in several[0].prompt_logprobs], [(p.id, p.logprob) for p in alone.prompt_logprobs])
        self.assertEqual(len(alone.prompt_logprobs), len(IDS) - 1)

    def test_a_stop_string_ends_one_sequence(self):
        free = self.run_one(3)
        stop = next(w for w in free[1].text.split() if len(w) > 2 and all(w not in r.text for r in (free[0], free[2])))
        results = self.run_one(3, strings=[stop])
        for i in (0, 2):
            self.assertEqual(results[i].bits(), free[i].bits())
            self.assertEqual(results[i].finish.reason, pb.FINISH_REASON_LENGTH)
        self.assertEqual(results[1].finish.stop_string, stop)
        self.assertEqual(results[1].text, free[1].text[: free[1].text.index(stop)])
        self.assertEqual(results[1].ids, free[1].ids[: len(results[1].ids)])
        self.cluster.wait_idle()

    def test_a_hang_up_frees_all_and_a_resume_goes_on_with_each(self):
        want = self.run_one(2, max_tokens=1500)
        stream = self.stub.Generate(ask(2, max_tokens=1500, request_id="resumed"), timeout=200)
        got = [[], []]
        for message in stream:
            if message.WhichOneof("event") == "tokens":
                got[message.tokens.sequence] += message.tokens.ids
                if min(len(ids) for ids in got) >= 10:
                    break
        stream.cancel()
        self.cluster.wait_idle()
        have = [len(got[0]), 3]
        rest = [[], []]
        for message in self.stub.Resume(pb.ResumeRequest(request_id="resumed", next_positions=have), timeout=200):
            if message.WhichOneof("event") == "tokens":
                rest[message.tokens.sequence] += message.tokens.ids
        for i in range(2):
            self.assertEqual(list(want[i].ids), got[i][: have[i]] + rest[i])
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.stub.Resume(pb.ResumeRequest(request_id="resumed", next_positions=[0, 0, 0]), timeout=60))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
        self.assertIn("next_positions", caught.exception.details())

    def test_a_slow_reader_gets_every_token_of_every_sequence(self):
        want = self.run_one(3, max_tokens=300)

        def wait(results):
            if sum(len(r.ids) for r in results) < 60:
                time.sleep(0.05)

        self.same(self.run_one(3, on_tokens=wait, max_tokens=300), want)

    def test_the_command_line_prints_each_answer_whole(self):
        args = ("The sun", "--max-tokens", "12", "--seed", "5", "--temperature", "0.9")
        answers = json.loads(self.complete(*args, "--json"))["sequences"]
        self.assertEqual(len(answers), 3)
        text = "".join(f"[{i}]\n{a['text']}" + ("" if a["text"].endswith("\n") else "\n") for i, a in enumerate(answers))
        self.assertEqual(self.complete(*args), text)
        self.assertEqual(self.complete(*args, n=1), text[4: text.index("[1]")])
        self.assertIn("-n", self.complete(*args, n=129, code=64))

    def test_explain_tells_of_the_whole_request(self):
        self.run_one(3, request_id="explained")
        server = f"127.0.0.1:{self.cluster.ready['grpc_port']}"
        run = subprocess.run([BIN / "fathom", "explain", "explained", "--server", server, "--json"], capture_output=True, text=True, check=True)
        report = json.loads(run.stdout)
        self.assertEqual((report["sequences"], report["prompt_tokens"], report["completion_tokens"]), (3, len(IDS), 120))
        self.assertEqual(sum(report["parts_us"].values()), report["whole_us"])

    def test_impossible_numbers_are_refused_by_name(self):
        for n in (0, -1, 129):
            with self.assertRaises(grpc.RpcError) as caught:
                list(self.stub.Generate(ask(n), timeout=10))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)
            self.assertIn("sampling.n", caught.exception.details())


class Kills(unittest.TestCase):
    def test_worker_scheduler_and_router_killed(self):
        with Cluster() as c:
            want = collect_several(c.client.stub.Generate(ask(3, max_tokens=300), timeout=200), 3)
            self.assertEqual([len(r.ids) for r in want], [300] * 3)
            for victim in ("fathom-worker", "fathom-scheduler"):
                killed = []

                def kill(results, victim=victim, killed=killed):
                    if len(results[2].ids) >= 20 and not killed:
                        killed += c.children(victim)
                        for pid in killed:
                            os.kill(pid, signal.SIGKILL)

                got = collect_several(c.client.stub.Generate(ask(3, max_tokens=300), timeout=200), 3, kill)
                self.assertTrue(killed, victim)
                self.assertIsNone(got[0].error, victim)
                self.assertEqual([r.bits() for r in got], [r.bits() for r in want], victim)
            c.wait_idle()

            # The client library goes on where each of its sequences is.
            tool = [BIN / "fathom", "complete", "--server", f"127.0.0.1:{c.ready['grpc_port']}", "--token-ids", ",".join(map(str, IDS)), "-n", "3",
                    "--max-tokens", "1500", "--temperature", "0.9", "--seed", "11", "--ignore-eos", "--json"]
            whole = json.loads(subprocess.run(tool, capture_output=True, text=True, check=True, timeout=200).stdout)["sequences"]
            with subprocess.Popen(tool, stdout=subprocess.PIPE, text=True) as disturbed:
                wait_until(lambda: c.metrics()["fathom_scheduler_blocks_used"] > 10, "the answer is under way")
                for pid in c.children("fathom-router"):
                    os.kill(pid, signal.SIGKILL)
                self.assertIsNone(disturbed.poll(), "the answer was over before the kill")
                answer = json.loads(disturbed.communicate(timeout=200)[0])
            self.assertGreater(answer["attempts"], 1)
            self.assertEqual([s["ids"] for s in answer["sequences"]], [s["ids"] for s in whole])
            self.assertEqual([s["text"] for s in answer["sequences"]], [s["text"] for s in whole])

    def test_a_sequence_that_ended_is_not_computed_again(self):
        with Cluster() as c:
            free = collect_several(c.client.stub.Generate(ask(2, max_tokens=400), timeout=200), 2)
            stop = next(w for w in free[1].text[:200].split() if len(w) > 2 and w not in free[0].text)
            killed = []

            def kill(results):
                if results[1].finish is not None and len(results[0].ids) >= 150 and not killed:
                    killed.append(os.kill(c.ready["scheduler_pid"], signal.SIGKILL))

            got = collect_several(c.client.stub.Generate(ask(2, max_tokens=400, strings=[stop]), timeout=200), 2, kill)
            self.assertTrue(killed)
            self.assertIsNone(got[0].error)
            self.assertEqual(got[0].bits(), free[0].bits())
            self.assertEqual(got[1].finish.stop_string, stop)
            # The new leader computed only the tokens that were missing of the first sequence.
            self.assertLess(c.metrics()["fathom_scheduler_generation_tokens_total"], 400)
            c.wait_idle()


if __name__ == "__main__":
    unittest.main(verbosity=2)
