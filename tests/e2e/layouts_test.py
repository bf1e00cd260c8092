"""Every layout of tensor, pipeline and data parallelism: exact outputs, equal bits, and a rank that is killed or stopped under load.
FATHOM_LAYOUT_ROUNDS=20 does that many rounds of each, also with -tp 2 alone, and prints their figures."""
import json
import os
import random
import re
import signal
import threading
import time
import unittest

from cluster import ROOT, TINY, Cluster, collect, goldens, pb, request, wait_until
from equalities_test import SEED, alone, requests
from golden_test import run_verify

DRAFT = ROOT / "models/fathom-tiny-draft"
GOLDENS = ROOT / "tests/data/goldens"
# tp, pp, dp. The bundled model has 8 layers and 4 heads. With equal tp the bits are equal.
LAYOUTS = [(1, 2, 1), (1, 4, 1), (2, 2, 1), (2, 1, 2), (4, 1, 1)]
ROUNDS = int(os.environ.get("FATHOM_LAYOUT_ROUNDS", "1"))


def flags(tp, pp, dp):
    return ["-tp", str(tp), "-pp", str(pp), "-dp", str(dp)]


def load():
    """Requests of all kinds; the last one's prompt takes several steps and is scored."""
    long = request(ids=goldens()[17]["prompt_ids"], max_tokens=40, logprobs=2, prompt_logprobs=1, ignore_eos=True)
    return [*requests(9, max_tokens=80, seed=SEED + 9), long]


class Layouts(unittest.TestCase):
    def same(self, got, want, what):
        for i, (a, b) in enumerate(zip(got, want)):
            self.assertIsNone(a.error, f"{what} {i}: {a.error}; FATHOM_SEED={SEED}")
            self.assertEqual(a.bits(), b.bits(), f"{what} {i} differs; FATHOM_SEED={SEED}")
            self.assertEqual(a.started.fingerprint, b.started.fingerprint)
            self.assertEqual([list(p.top_logprobs) for p in a.logprobs], [list(p.top_logprobs) for p in b.logprobs])
            self.assertEqual([(p.id, p.logprob) for p in a.prompt_logprobs], [(p.id, p.logprob) for p in b.prompt_logprobs])

    def verify(self, cluster, name):
        file = GOLDENS / f"{name}.jsonl"
        run = run_verify(cluster, file)
        count = len(file.read_text(encoding="utf-8").splitlines())
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("rule cpu", run.stdout)
        self.assertIn(f"{count} of {count} exact", run.stdout)

    def test_every_layout(self):
        rng = random.Random(SEED)
        want = {}  # By tp, from one stage and one copy.
        for tp in sorted({tp for tp, _, _ in LAYOUTS}):
            with Cluster(*flags(tp, 1, 1)) as c:
                want[tp] = alone(c, load())
        for tp, pp, dp in LAYOUTS + [(2, 1, 1)] * (ROUNDS > 1):
            with self.subTest(tp=tp, pp=pp, dp=dp), Cluster(*flags(tp, pp, dp)) as c:
                self.verify(c, "fathom-tiny")
                self.same(alone(c, load()), want[tp], "alone")
                self.same(c.client.many(load() * 2), want[tp] * 2, "in a batch")
                named_s = {signal.SIGKILL: [], signal.SIGSTOP: []}
                for _ in range(ROUNDS):
                    for victim, how in zip(rng.sample(range(tp * pp * dp), 2), named_s):
                        named_s[how].append(self.disturbed(c, victim, how, want[tp]))
                c.wait_idle()
                if ROUNDS > 1:
                    print(json.dumps({"layout": f"{tp}x{pp}x{dp}", "rounds": ROUNDS, "answers": 2 * ROUNDS * len(load()),
                                      **{f"{how.name}_named_s_max": round(max(s), 2) for how, s in named_s.items()}}), flush=True)

    def test_the_small_model_in_two_stages(self):
        with Cluster("-pp", "2", model=DRAFT) as c:
            self.verify(c, "fathom-tiny-draft")

    def test_small_pool_and_short_steps_in_stages(self):
        with Cluster() as c:
            want = alone(c, load())
        # A pool of 30 blocks of 16: of 18 requests of about 110 tokens, some must be suspended and replayed.
        pool = str(31 * 16 * 4 * 2 * 2 * 64 * 4)  # The largest of 3 stages has 4 layers.
        with Cluster("-pp", "3", "--max-num-batched-tokens", "9", "--max-num-seqs", "9", "--kv-cache-memory", pool) as c:
            short = load()[:9]
            self.same(c.client.many(short * 2), want[:9] * 2, "in a small pool")
            self.assertGreater(c.metrics()["fathom_scheduler_preemptions_total"], 0)
            c.wait_idle()

    def disturbed(self, c, victim, how, want):
        """Kills or stops a worker while all requests run, and looks for the name of its rank in status and log. Returns the seconds until
        the status named it."""
        lost = c.metrics()["fathom_scheduler_groups_lost_total"]
        pid, rank = workers(c)[victim], rank_of(c, victim)
        reqs = load()
        struck = []

        def strike(result):
            if len(result.ids) >= 20 and not struck:
                struck.append(time.monotonic())
                os.kill(pid, how)

        results = [None] * len(reqs)
        threads = [threading.Thread(target=lambda i=i: results.__setitem__(i, collect(
            c.client.stub.Generate(reqs[i], timeout=240), strike if i == 0 else None))) for i in range(len(reqs))]
        for thread in threads:
            thread.start()
        wait_until(lambda: c.metrics()["fathom_scheduler_groups_lost_total"] > lost, f"the loss of rank {rank} is seen", 40)
        named = f"rank {rank}"
        wait_until(lambda: named in c.client.admin.GetStatus(pb.GetStatusRequest()).last_loss, f"the status names {named}")
        seconds = time.monotonic() - struck[0]
        if how == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        for thread in threads:
            thread.join()
        self.same(results, want, f"{how.name} of rank {rank}")
        with open(f"{c.ready['run_dir']}/scheduler.log", encoding="utf-8") as file:
            losses = [line for line in file if " lost: " in line]
        self.assertIn(f"{named} (process ", losses[-1])
        return seconds


def workers(c):
    """The pids of the workers of `fathom serve`, by their --rank."""
    pids = {}
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
                parent = int(file.read().rsplit(")", 1)[1].split()[1])
            with open(f"/proc/{pid}/cmdline", encoding="utf-8") as file:
                words = file.read().split("\0")
        except OSError:
            continue
        if parent == c.process.pid and words[0].endswith("fathom-worker"):
            pids[int(words[words.index("--rank") + 1])] = int(pid)
    return pids


def rank_of(c, worker):
    """The rank that a worker has in its group: with several groups it depends on which workers came first."""
    with open(f"{c.ready['run_dir']}/worker-{worker}.log", encoding="utf-8") as file:
        return int(re.findall(r"\brank (\d+) of \d+ \(stage ", file.read())[-1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
