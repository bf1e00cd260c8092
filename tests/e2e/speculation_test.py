"""Speculative decoding through real processes: the tokens and log-probabilities are those of plain decoding, also after a kill."""
import os
import random
import signal
import threading
import unittest

import equalities_test
from cluster import ROOT, Cluster, collect, goldens, request
from equalities_test import SEED, alone

NGRAM = ("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 3}')

DRAFT = ("--speculative-model", str(ROOT / "models/fathom-tiny-draft"), "--num-speculative-tokens", "3")


def requests(count, max_tokens, seed):
    """Greedy and sampled; half of them with penalties. Repetitive prompts, so that drafts are proposed and often kept."""
    rng = random.Random(seed)
    out = []
    for i in range(count):
        part = list(rng.choice(goldens())["prompt_ids"])[: rng.randrange(4, 20)]
        penalty = rng.choice([1.0, 1.0, 1.2])
        out.append(request(ids=part * rng.randrange(1, 4), max_tokens=max_tokens, temperature=rng.choice([0.0, 0.0, 0.6]),
                           seed=rng.randrange(2**63), logprobs=2, ignore_eos=rng.random() < 0.8, top_k=rng.choice([0, 4]),
                           repetition_penalty=penalty, presence_penalty=rng.choice([0.0, 0.4]),
                           logit_bias={5: 1.5} if rng.random() < 0.3 else {}, min_tokens=rng.choice([0, 12])))
    return out


class Speculation(unittest.TestCase):
    same = equalities_test.Equalities.same
    worker_pids = staticmethod(equalities_test.Equalities.worker_pids)

    def test_ngram_gives_the_answers_of_plain_decoding(self):
        reqs = requests(12, 90, SEED + 20)
        with Cluster() as c:
            want = alone(c, reqs)
            self.assertFalse(any(r.finish.usage.drafted_tokens for r in want))
        with Cluster(*NGRAM) as c:
            got = alone(c, reqs)
            self.same(got, want, "ngram alone")
            self.same(c.client.many(reqs), want, "ngram, all at once")
            drafted = sum(r.finish.usage.drafted_tokens for r in got)
            kept = sum(r.finish.usage.accepted_draft_tokens for r in got)
            self.assertGreater(kept, 10, f"{kept} of {drafted} drafts; FATHOM_SEED={SEED}")
            self.assertGreater(drafted, kept)
            c.wait_idle()
            of_router = c.metrics("router")
            of_worker, of_scheduler = c.metrics("worker"), c.metrics()
            for metric in ("draft_tokens_total", "accepted_draft_tokens_total"):
                value = of_scheduler[f"fathom_scheduler_{metric}"]
                self.assertGreater(value, 0)
                self.assertEqual(of_worker[f"fathom_worker_{metric}"], value, metric)
                self.assertEqual(of_router[f"fathom_router_{metric}"], value, metric)
            self.assertTrue(any(k.startswith("vllm:spec_decode_num_accepted_tokens") for k in of_router))

    def test_ngram_with_two_ranks_small_steps_and_a_small_pool(self):
        reqs = requests(10, 60, SEED + 21)
        with Cluster("-tp", "2") as c:
            want = alone(c, reqs)
        with Cluster("-tp", "2", *NGRAM, "--max-num-batched-tokens", "9", "--max-num-seqs", "5") as c:
            self.same(c.client.many(reqs), want, "two ranks, steps of 9")
            self.assertGreater(c.metrics()["fathom_scheduler_accepted_draft_tokens_total"], 0)
        with Cluster("-tp", "2", *NGRAM, "--kv-cache-memory", str(21 * 16 * 8 * 2 * 64 * 4), "--max-model-len", "256") as c:
            self.same(c.client.many(reqs), want, "a small pool")
            self.assertGreater(c.metrics()["fathom_scheduler_preemptions_total"], 0)
            c.wait_idle()

    def test_a_draft_model_gives_the_answers_of_plain_decoding(self):
        reqs = requests(10, 60, SEED + 23)
        with Cluster() as c:
            want = alone(c, reqs)
        for more in ((), ("-tp", "2", "--max-num-batched-tokens", "11", "--max-num-seqs", "6")):
            with Cluster(*DRAFT, *more) as c:
                got = c.client.many(reqs)
                if not more:
                    self.same(got, want, "a draft model")
                    self.same(alone(c, reqs), want, "a draft model, alone")
                kept = c.metrics()["fathom_scheduler_accepted_draft_tokens_total"]
                self.assertGreater(kept, 10, f"FATHOM_SEED={SEED}")
                c.wait_idle()
            if more:
                with Cluster(*more) as c:
                    self.same(got, c.client.many(reqs), "a draft model on two ranks")

    def test_a_worker_killed_while_it_speculates(self):
        reqs = requests(6, 120, SEED + 22)
        rng = random.Random(SEED)
        with Cluster("-tp", "2") as c:
            want = alone(c, reqs)
        with Cluster("-tp", "2", *NGRAM) as c:
            for round_number in range(2):
                victim, at = rng.randrange(2), rng.randrange(5, 80)
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
            self.assertGreater(c.metrics()["fathom_scheduler_suspensions_total"], 0)
            c.wait_idle()


if __name__ == "__main__":
    unittest.main(verbosity=2)
