"""The prefix cache through real processes: a cached answer has the bits of a cold one, whatever happens meanwhile."""
import json
import os
import random
import signal
import subprocess
import threading
import unittest

from cluster import BIN, Cluster, collect, request, wait_until
import equalities_test  # Not its class, which unittest would run again.

BLOCK = 16  # Of the CPU.
PROMPTS, SEED, alone = equalities_test.PROMPTS, equalities_test.SEED, equalities_test.alone
worker_pids = equalities_test.Equalities.worker_pids


def sampled(prompt, seed, max_tokens=40):
    return request(ids=prompt, max_tokens=max_tokens, temperature=0.9, seed=seed, logprobs=3, ignore_eos=True,
                   repetition_penalty=1.1)


def cached_tokens(result):
    return result.finish.usage.cached_tokens


class Prefix(unittest.TestCase):
    def same(self, got, want, what):
        self.assertIsNone(got.error, f"{what}: {got.error}; FATHOM_SEED={SEED}")
        self.assertEqual(got.bits(), want.bits(), f"{what} differs; FATHOM_SEED={SEED}")

    def conversation(self, cluster, rng, turns=4):
        """Each turn goes through the cache and around it. Returns the cached tokens."""
        prompt, cached = list(rng.choice(PROMPTS))[:40], 0
        for turn in range(turns):
            r = sampled(prompt, rng.randrange(2**63))
            around = type(r)()
            around.CopyFrom(r)
            around.cache.enabled = False
            want = collect(cluster.client.stub.Generate(around, timeout=120))
            self.assertEqual(cached_tokens(want), 0)
            got = collect(cluster.client.stub.Generate(r, timeout=120))
            self.same(got, want, f"turn {turn}")
            self.assertEqual(cached_tokens(got), got.started.cached_tokens)
            cached += cached_tokens(got)
            prompt = prompt + got.ids + [rng.randrange(4, 4000) for _ in range(7)]
        return cached

    def test_a_cached_answer_has_the_bits_of_a_cold_one(self):
        for flags in ([], ["-tp", "2"], ["-pp", "2"]):
            with self.subTest(flags=flags), Cluster(*flags) as c:
                rng = random.Random(SEED)
                cached = sum(self.conversation(c, rng) for _ in range(3))
                # From the second turn on, all whole blocks of the turn before are found: at least 40 tokens of each.
                self.assertGreater(cached, 3 * 3 * 40)
                c.wait_idle()  # With stages, a plan that was made before the last token was known may still run.
                metrics = c.metrics()
                self.assertEqual(metrics["fathom_scheduler_prefix_cache_hit_tokens_total"], cached)
                self.assertGreater(metrics["fathom_scheduler_blocks_cached"], 0)
                self.assertEqual(metrics["fathom_scheduler_blocks_used"], 0)
                report = self.verify(c)
                self.assertEqual((report["passed"], report["total"]), (8, 8), report)
                self.assertGreater(report["cached_tokens"], 0)

    def verify(self, cluster, code=0):
        run = subprocess.run([BIN / "fathom", "verify", "--cached", "--cases", "8", "--json", "--server",
                              f"127.0.0.1:{cluster.ready['grpc_port']}"], capture_output=True, text=True, timeout=300)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return json.loads(run.stdout)

    def test_without_the_cache_verify_says_that_it_showed_nothing(self):
        with Cluster("--no-enable-prefix-caching") as c:
            r = sampled(PROMPTS[0], 1)
            self.same(*alone(c, [r, r]), "twice")
            self.assertEqual(c.metrics()["fathom_scheduler_blocks_cached"], 0)
            report = self.verify(c, code=70)
            self.assertEqual((report["cached_tokens"], report["passed"], report["failed"]), (0, 0, []))

    def test_a_worker_killed_while_sequences_share_blocks(self):
        rng = random.Random(SEED + 1)
        shared = [rng.randrange(4, 4000) for _ in range(5 * BLOCK)]
        reqs = [sampled(shared + [rng.randrange(4, 4000)], rng.randrange(2**63), max_tokens=80) for _ in range(6)]
        with Cluster("-tp", "2") as c:
            want = alone(c, reqs)
            self.assertEqual([cached_tokens(w) for w in want], [0] + [5 * BLOCK] * 5)
            killed = []

            def kill(result):
                if len(result.ids) >= 20 and not killed:
                    killed.append(os.kill(worker_pids(c)[1], signal.SIGKILL))

            results = [None] * len(reqs)
            threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, collect(
                c.client.stub.Generate(reqs[i], timeout=120), kill if i == 0 else None))) for i in range(len(reqs))]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertTrue(killed)
            for i, (got, expected) in enumerate(zip(results, want)):
                self.same(got, expected, f"request {i} over a killed worker")
            c.wait_idle()
            after = alone(c, reqs[:2])  # The new epoch began with an empty index, and has filled it again.
            for got, expected in zip(after, want):
                self.same(got, expected, "after the loss")
            self.assertEqual(cached_tokens(after[1]), 5 * BLOCK)

    def test_suspended_sequences_find_what_they_computed(self):
        rng = random.Random(SEED + 2)
        shared = [rng.randrange(4, 4000) for _ in range(3 * BLOCK)]
        reqs = [sampled(shared + [rng.randrange(4, 4000)], rng.randrange(2**63), max_tokens=60) for _ in range(12)]
        with Cluster("--no-enable-prefix-caching") as c:
            want = alone(c, reqs)
        # A pool of 20 blocks of 16.
        with Cluster("--kv-cache-memory", str(21 * 16 * 8 * 2 * 2 * 64 * 4), "--max-model-len", "256") as c:
            for i, (got, expected) in enumerate(zip(c.client.many(reqs), want)):
                self.same(got, expected, f"request {i} in a small pool")
            metrics = c.metrics()
            self.assertGreater(metrics["fathom_scheduler_preemptions_total"], 0)
            self.assertGreater(metrics["fathom_scheduler_prefix_cache_hit_tokens_total"], 0)
            c.wait_idle()

    def test_a_salt_keeps_requests_apart(self):
        with Cluster() as c:
            r = sampled(list(range(10, 60)), 5)
            first, again = alone(c, [r, r])
            r.cache.salt = "mine"
            salted, salted_again = alone(c, [r, r])
            self.assertEqual([cached_tokens(x) for x in (first, again, salted, salted_again)], [0, 48, 0, 48])
            for got in (again, salted, salted_again):
                self.same(got, first, "with and without salt")
            r.cache.salt = "x" * 257
            refused = collect(c.client.stub.Generate(r, timeout=30))
            self.assertIn("cache.salt is 257 bytes", str(refused.error))


if __name__ == "__main__":
    unittest.main(verbosity=2)
