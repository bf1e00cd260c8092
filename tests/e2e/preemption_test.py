"""Preemption on real clusters: sequences whose KV goes to the swap space or is computed again give the tokens and the bits of an
undisturbed run, also with -tp 2, stages, killed workers and a pool that one request fills; `priority` says who is preempted; and a
request that ends every worker that computes it fails by name, alone."""
import os
import signal
import threading
import time
import unittest

import equalities_test
from cluster import SLOW, Cluster, collect, pb, request, wait_until
from equalities_test import SEED, alone, requests

BLOCK_BYTES = 16 * 8 * 2 * 2 * 64 * 4  # fathom-tiny: tokens, layers, keys and values, KV heads, head_dim, bytes.
SMALL = ("--kv-cache-memory", str(21 * BLOCK_BYTES), "--max-model-len", "256")  # 20 blocks.
SPACE = ("--swap-space", str(60 * BLOCK_BYTES) + "B")


def worker_pids(c):
    return equalities_test.Equalities.worker_pids(c)


class Preemption(unittest.TestCase):
    same = equalities_test.Equalities.same

    @classmethod
    def setUpClass(cls):
        cls.reqs = requests(12, max_tokens=60)
        with Cluster() as c:
            cls.want = alone(c, cls.reqs)

    def swapped(self, c, want=None):
        """Requests that cannot all fit at a time; every one is exact, and some came back from the swap space."""
        self.same(c.client.many(self.reqs), want or self.want, f"swapped with {c.args}")
        metrics = c.metrics()
        self.assertGreater(metrics["fathom_scheduler_swaps_total"], 0)
        self.assertGreater(metrics["fathom_scheduler_swapped_in_blocks_total"], 0)
        c.wait_idle()
        self.assertEqual(c.metrics()["fathom_scheduler_swap_blocks_used"], 0)

    def test_swapped_sequences_are_exact(self):
        for layout in ((), ("-tp", "2"), ("-pp", "2")):
            ranks = 2 if layout else 1
            # A rank of two has half of the bytes of a block.
            small = ("--kv-cache-memory", str(21 * BLOCK_BYTES // ranks), "--max-model-len", "256")
            space = ("--swap-space", str(60 * BLOCK_BYTES // ranks) + "B")
            # What the prefix cache finds again needs no swap space, so it is on and off in turn. Two ranks have bits of their own.
            cache = "--enable-prefix-caching" if "-pp" in layout else "--no-enable-prefix-caching"
            with self.subTest(layout=layout), Cluster(*small, *space, *layout, cache) as c:
                self.assertEqual(c.metrics()["fathom_scheduler_swap_blocks"], 59)
                self.swapped(c, alone(c, self.reqs) if "-tp" in layout else None)

    def test_workers_killed_while_sequences_are_swapped(self):
        with Cluster(*SMALL, *SPACE, "--no-enable-prefix-caching") as c:
            for _ in range(3):
                before = c.metrics()["fathom_scheduler_swaps_total"]
                results = []
                together = threading.Thread(target=lambda: results.extend(c.client.many(self.reqs)))
                together.start()
                wait_until(lambda: c.metrics()["fathom_scheduler_swaps_total"] > before, "a sequence is swapped out")
                os.kill(worker_pids(c)[0], signal.SIGKILL)
                together.join()
                self.same(results, self.want, "a worker killed while sequences were swapped")
            c.wait_idle()

    def test_a_pool_of_the_least_size(self):
        # The longest request (59 + 60 - 1 tokens) takes 8 blocks of 16, and the pool has 8.
        with Cluster("--kv-cache-memory", str(9 * BLOCK_BYTES), "--max-model-len", "128", *SPACE, "--no-enable-prefix-caching") as c:
            self.swapped(c)

    def test_the_largest_priority_is_preempted_first(self):
        # Six sequences of up to 5 blocks in 20; the urgent ones came last.
        with Cluster(*SMALL) as c:
            ids = [0, 3, 73, 90]
            stub = c.client.stub
            streams = [stub.Generate(request(ids=ids, max_tokens=70, ignore_eos=True, request_id=f"r{i}", priority=5 if i < 3 else -5,
                                             seed=i, temperature=1.0), timeout=120 * SLOW) for i in range(6)]
            results = [None] * 6
            threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, collect(streams[i]))) for i in range(6)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            self.assertEqual([r.error for r in results], [None] * 6)
            self.assertGreater(c.metrics()["fathom_scheduler_preemptions_total"], 0)
            explained = [stub.Explain(pb.ExplainRequest(request_id=f"r{i}"), timeout=20) for i in range(6)]
            ends = [[stay.end for stay in one.stays] for one in explained]
            self.assertEqual([end for stays in ends[3:] for end in stays if end == "preempted"], [], ends)
            self.assertIn("preempted", [end for stays in ends[:3] for end in stays], ends)
            # The same request with another priority is the same request.
            again = collect(stub.Generate(request(ids=ids, max_tokens=70, ignore_eos=True, request_id="r0", priority=1, seed=0,
                                                  temperature=1.0), timeout=60))
            self.assertEqual(again.ids, results[0].ids)
            refused = c.generate(ids=ids, max_tokens=1, priority=2_000_000)
            self.assertIn("priority is 2000000", refused.error.details())


class Poison(unittest.TestCase):
    same = equalities_test.Equalities.same

    def test_a_request_that_ends_its_workers_fails_alone(self):
        reqs = requests(6, max_tokens=150, seed=SEED + 9)
        deadly = request(ids=[2 + i % 4000 for i in range(3900)], max_tokens=5, request_id="deadly")
        # The prompt is one chunk, whose step takes long enough to be hit.
        with Cluster("--max-num-batched-tokens", "4096") as c:
            want = alone(c, reqs)
            over = threading.Event()
            kills = []

            def assassin():
                """Kills the worker whenever it computes the prompt of the deadly request."""
                while not over.is_set():
                    try:
                        phase = c.client.stub.Explain(pb.ExplainRequest(request_id="deadly"), timeout=10).phase
                    except Exception:  # Not known yet.
                        phase = ""
                    pids = worker_pids(c)
                    if phase in ("prefill", "replay") and pids:
                        kills.append(os.kill(pids[0], signal.SIGKILL))
                        wait_until(lambda: worker_pids(c)[:1] not in ([], pids[:1]) or over.is_set(), "the worker is started again")
                    time.sleep(0.002)

            killer = threading.Thread(target=assassin)
            killer.start()
            try:
                results = c.client.many([*reqs, deadly])
            finally:
                over.set()
                killer.join()
            self.same(results[:-1], want, "beside a deadly request")
            error = results[-1].error
            self.assertIsNotNone(error)
            self.assertIn("request deadly: 3 groups of workers were lost", error.details())
            self.assertEqual(len(kills), 3)
            self.assertEqual(c.metrics()["fathom_scheduler_requests_poisoned_total"], 1)
            # The cluster goes on.
            self.same(c.client.many(reqs), want, "after a deadly request")


if __name__ == "__main__":
    unittest.main(verbosity=2)
