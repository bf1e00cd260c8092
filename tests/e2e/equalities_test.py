"""Exact equalities: tokens and the bits of their log-probabilities, through real processes."""
import json
import os
import random
import signal
import subprocess
import threading
import unittest

from cluster import BIN, Cluster, collect, goldens, pb, request, wait_until

SEED = int(os.environ.get("FATHOM_SEED", "20261124"))
PROMPTS = [g["prompt_ids"] for g in goldens() if len(g["prompt_ids"]) < 120]


def requests(count, max_tokens=40, seed=SEED):
    rng = random.Random(seed)
    out = []
    for i in range(count):
        prompt = list(rng.choice(PROMPTS))[: rng.randrange(3, 60)]
        out.append(request(ids=prompt, max_tokens=max_tokens, temperature=rng.choice([0.0, 0.7, 1.3]), seed=rng.randrange(2**63),
                           logprobs=3, ignore_eos=True, top_p=rng.choice([1.0, 0.9]), top_k=rng.choice([0, 50]),
                           repetition_penalty=rng.choice([1.0, 1.2]), frequency_penalty=rng.choice([0.0, 0.5]),
                           typical_p=rng.choice([1.0, 0.9])))
    return out


def alone(cluster, reqs):
    return [collect(cluster.client.stub.Generate(r, timeout=120)) for r in reqs]


class Equalities(unittest.TestCase):
    def same(self, got, want, what):
        for i, (a, b) in enumerate(zip(got, want)):
            self.assertIsNone(a.error, f"{what} {i}: {a.error}; FATHOM_SEED={SEED}")
            self.assertEqual(a.bits(), b.bits(), f"{what} {i} differs; FATHOM_SEED={SEED}")
            self.assertEqual([list(p.top_logprobs) for p in a.logprobs], [list(p.top_logprobs) for p in b.logprobs])

    def test_alone_is_among_31_others_and_sampled_twice(self):
        with Cluster() as c:
            reqs = requests(32)
            first = alone(c, reqs[:6])
            together = c.client.many(reqs)
            rows = {k: v for k, v in c.metrics().items() if "scheduler_batch_size" in k}
            total = next(v for k, v in rows.items() if k.endswith("_count"))
            small = next(v for k, v in rows.items() if 'le="16"' in k)
            self.assertGreater(total - small, 10, f"steps of more than 16 rows: {rows}; FATHOM_SEED={SEED}")
            self.same(together, first, "alone against 31 others")
            self.same(alone(c, reqs[:6]), first, "the same request twice")

    def test_layouts_chunks_of_7_small_pool_and_threads(self):
        reqs = requests(12)
        with Cluster() as c:
            want = alone(c, reqs)
            long = request(ids=goldens()[17]["prompt_ids"], max_tokens=16, logprobs=2, prompt_logprobs=0)
            want_long = collect(c.client.stub.Generate(long, timeout=120))
        with Cluster("--max-num-batched-tokens", "7", "--max-num-seqs", "6") as c:
            self.same(c.client.many(reqs), want, "chunks of 7")
            got = collect(c.client.stub.Generate(long, timeout=120))
            self.same([got], [want_long], "a long prompt in chunks of 7")
            self.assertEqual([(p.id, p.logprob) for p in got.prompt_logprobs], [(p.id, p.logprob) for p in want_long.prompt_logprobs])
        # A pool of 20 blocks of 16: of 12 requests of up to 100 tokens, some must be suspended and replayed.
        with Cluster("--kv-cache-memory", str(21 * 16 * 8 * 2 * 2 * 64 * 4), "--max-model-len", "256") as c:
            self.same(c.client.many(reqs), want, "suspended by a small pool")
            self.assertGreater(c.metrics()["fathom_scheduler_preemptions_total"], 0)
            c.wait_idle()
        with Cluster("--threads", "2", "--block-size", "32") as c:
            self.same(c.client.many(reqs), want, "two threads, blocks of 32")

    def test_prefilled_is_decoded(self):
        with Cluster() as c:
            for r in requests(4, max_tokens=48, seed=SEED + 1):
                answer = collect(c.client.stub.Generate(r, timeout=120))
                prompt = list(r.token_ids.ids)
                scored = collect(c.client.stub.Generate(request(ids=prompt + answer.ids, max_tokens=1, prompt_logprobs=3), timeout=120))
                self.assertIsNone(scored.error)
                tail = scored.prompt_logprobs[len(prompt) - 1:]
                self.assertEqual([(p.id, p.logprob, list(p.top_ids), list(p.top_logprobs)) for p in tail],
                                 [(p.id, p.logprob, list(p.top_ids), list(p.top_logprobs)) for p in answer.logprobs])

    def test_two_routers_at_once(self):
        reqs = requests(10, seed=SEED + 2)
        with Cluster() as c:
            second = c.add_router()
            results = {}
            threads = [threading.Thread(target=lambda n=n, cl=cl: results.__setitem__(n, cl.many(reqs))) for n, cl in
                       (("a", c.client), ("b", second))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.same(results["a"], results["b"], "through two routers")
            self.same(results["a"], alone(c, reqs), "through two routers against alone")
            second.close()

    def test_a_worker_killed_at_a_random_token(self):
        reqs = requests(8, max_tokens=120, seed=SEED + 3)
        rng = random.Random(SEED)
        with Cluster("-tp", "2") as c:
            want = alone(c, reqs)
            for round_number in range(3):
                victim = rng.randrange(2)
                at = rng.randrange(5, 100)
                status = c.metrics()
                killed = []

                def kill_at(result, at=at, victim=victim):
                    if len(result.ids) >= at and not killed:
                        killed.append(os.kill(self.worker_pids(c)[victim], signal.SIGKILL))

                results = [None] * len(reqs)
                threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, collect(
                    c.client.stub.Generate(reqs[i], timeout=120), kill_at if i == 0 else None))) for i in range(len(reqs))]
                for t in threads:
                    t.start()
                for t in threads:
                    t.join()
                self.assertTrue(killed, f"round {round_number} killed nobody")
                self.same(results, want, f"worker {victim} killed at token {at}")
                self.assertGreater(c.metrics()["fathom_scheduler_suspensions_total"], status["fathom_scheduler_suspensions_total"])
            c.wait_idle()

    @staticmethod
    def worker_pids(c, name="fathom-worker"):
        """Children of `fathom serve` of this name; workers in the order of their rank hint."""
        pids = []
        for pid in os.listdir("/proc"):
            if pid.isdigit():
                try:
                    with open(f"/proc/{pid}/stat") as f:
                        parent = int(f.read().rsplit(")", 1)[1].split()[1])
                    with open(f"/proc/{pid}/cmdline") as f:
                        program = f.read().split("\0")[0]
                except OSError:
                    continue
                if parent == c.process.pid and program.endswith(name):
                    pids.append(int(pid))
        return sorted(pids)

    def test_the_router_killed_under_a_client_that_resumes_then_the_scheduler_with_it(self):
        with Cluster() as c:
            def complete():
                return subprocess.Popen([BIN / "fathom", "complete", "--server", f"127.0.0.1:{c.ready['grpc_port']}", "--token-ids", "0,3,73,90,302",
                                         "--max-tokens", "2000", "--temperature", "0.9", "--seed", "11", "--ignore-eos", "--json"],
                                        stdout=subprocess.PIPE, text=True)

            want = json.loads(complete().communicate(timeout=120)[0])["sequences"][0]
            self.assertEqual(len(want["ids"]), 2000)
            # Without router and scheduler no process holds the record, so the client sends the request again with the same id.
            for victims in (["fathom-router"], ["fathom-router", "fathom-scheduler"]):
                disturbed = complete()
                wait_until(lambda: c.metrics()["fathom_scheduler_blocks_used"] > 10, "the answer is under way")
                for pid in [pid for name in victims for pid in self.worker_pids(c, name)]:
                    os.kill(pid, signal.SIGKILL)
                self.assertIsNone(disturbed.poll(), "the answer was over before the kill")
                got = json.loads(disturbed.communicate(timeout=120)[0])["sequences"][0]
                self.assertEqual(disturbed.returncode, 0, victims)
                self.assertEqual((got["ids"], got["text"]), (want["ids"], want["text"]), victims)
                c.wait_idle()

    def test_the_scheduler_killed(self):
        reqs = requests(4, max_tokens=150, seed=SEED + 4)
        with Cluster() as c:
            want = alone(c, reqs)
            killed = []

            def kill_at(result):
                if len(result.ids) >= 20 and not killed:
                    killed.append(os.kill(c.ready["scheduler_pid"], signal.SIGKILL))

            results = [None] * len(reqs)
            threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, collect(
                c.client.stub.Generate(reqs[i], timeout=120), kill_at if i == 0 else None))) for i in range(len(reqs))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertTrue(killed)
            self.same(results, want, "the scheduler killed")


if __name__ == "__main__":
    unittest.main(verbosity=2)
