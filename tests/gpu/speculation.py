#!/usr/bin/env python3
"""Speculative decoding through real processes: answers with drafts equal those without, tokens and the bits of log-probabilities, one
after the other, many at once, and under a kill -9 of the worker. Prints one line for each check and a JSON object at the end."""
import argparse
import json
import os
import pathlib
import random
import signal
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import equalities  # noqa: E402
from equalities import Checks, Cluster, collect, one, request, SEED, TIMEOUT_S  # noqa: E402

NGRAM = ("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 3}')


def requests(vocab, count, max_tokens):
    """Prompts that repeat themselves, greedy and sampled, a quarter of them with penalties."""
    rng = random.Random(SEED + 5)
    made = []
    for _ in range(count):
        part = [rng.randrange(vocab) for _ in range(rng.randrange(3, 30))]
        made.append(request(ids=part * rng.randrange(1, 5), max_tokens=max_tokens, temperature=rng.choice([0.0, 0.0, 0.7]),
                            seed=rng.randrange(2**63), logprobs=2, ignore_eos=True, top_k=rng.choice([0, 4]),
                            repetition_penalty=rng.choice([1.0, 1.0, 1.0, 1.2])))
    return made


def worker_pids(cluster):
    """The workers of `fathom serve`."""
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
            program = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0]
        except OSError:
            continue
        if parent == cluster.process.pid and program.endswith("fathom-worker"):
            pids.append(int(pid))
    return sorted(pids)


def killed(cluster, asked):
    """The answers of all requests at once; the worker is killed when the first of them has 20 tokens."""
    done, results = [], [None] * len(asked)

    def kill(result):
        if len(result.ids) >= 20 and not done:
            done.append(os.kill(worker_pids(cluster)[0], signal.SIGKILL))

    def run(i):
        results[i] = collect(cluster.client.stub.Generate(asked[i], timeout=TIMEOUT_S), kill if i == 0 else None)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, bool(done)


def run(options):
    checks = Checks()
    asked = requests(equalities.vocabulary(options.model), 24, options.max_tokens)

    def cluster(*args):
        return Cluster(*args, *options.serve, model=options.model, device=options.device)

    with cluster() as c:
        want = c.client.many(asked, timeout=TIMEOUT_S)
        checks.same("plain decoding twice", [one(c, r) for r in asked[:4]], want)
    kinds = [("ngram", NGRAM)]
    if options.draft:
        kinds.append(("a draft model", ("--speculative-model", options.draft, "--num-speculative-tokens", "3")))
    for name, flags in kinds:
        with cluster(*flags) as c:
            alone = [one(c, r) for r in asked[:8]]
            checks.same(f"{name}, alone", alone, want)
            checks.same(f"{name}, many at once", c.client.many(asked, timeout=TIMEOUT_S), want)
            drafted = sum(r.finish.usage.drafted_tokens for r in alone if r.finish)
            kept = sum(r.finish.usage.accepted_draft_tokens for r in alone if r.finish)
            # The texts of dummy weights repeat nothing, so the lookup finds nothing.
            due = drafted > 0 or "--serve=--load-format=dummy" in sys.argv[1:]
            checks.add(f"{name}: {kept} of {drafted} drafts kept", [None if due else "nothing was drafted"])
            results, was_killed = killed(c, asked[:8])
            checks.add(f"{name}: the worker was killed", [None if was_killed else "no worker was killed"])
            checks.same(f"{name}, kill -9 of the worker", results, want)
    return checks


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="cuda")
    p.add_argument("--model", default=str(pathlib.Path(__file__).resolve().parents[2] / "models/fathom-tiny"))
    p.add_argument("--draft", help="folder or shape of a draft model")
    p.add_argument("--serve", action="append", default=[], help="a word for fathom serve")
    p.add_argument("--max-tokens", type=int, default=80)
    options = p.parse_args()
    checks = run(options)
    print(json.dumps({"passed": checks.total - len(checks.failed), "total": checks.total, "failed": checks.failed, "seed": SEED}))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
