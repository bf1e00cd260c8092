#!/usr/bin/env python3
"""A hit in the prefix cache against a cold prompt: the first token of a prompt of 2,048 shared tokens and 64 of its own, computed and
found, and the bits of both answers. Prints one line for each check and a JSON object with the medians at the end. Needs grpcio and
FATHOM_STUBS."""
import argparse
import json
import pathlib
import random
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import Cluster, collect, request  # noqa: E402
from equalities import SEED, TIMEOUT_S, Checks, difference, vocabulary  # noqa: E402


def asked(ids, seed, cached):
    r = request(ids=ids, max_tokens=16, temperature=0.8, seed=seed, logprobs=3, ignore_eos=True)
    r.cache.enabled = cached
    return r


def timed(cluster, r):
    """The answer, and the time to its first token in ms."""
    first = []
    start = time.monotonic()
    answer = collect(cluster.client.stub.Generate(r, timeout=TIMEOUT_S),
                     lambda result: first.append(time.monotonic()) if result.ids and not first else None)
    return answer, 1e3 * (first[0] - start) if first else float("nan")


def run(options):
    checks, rng = Checks(), random.Random(SEED)
    vocab = vocabulary(options.model)
    shared = [rng.randrange(vocab) for _ in range(options.shared)]
    differences, hits, cold_ms, cached_ms = [], [], [], []
    with Cluster(*options.serve, model=options.model, device=options.device) as c:
        timed(c, asked(shared[:128], 1, False))  # Warms the kernels of prompts and decode steps.
        timed(c, asked(shared + [1] * 64, 1, False))
        timed(c, asked(shared + [2] * 64, 1, True))  # Leaves the shared tokens in the cache.
        timed(c, asked(shared + [3] * 64, 1, True))
        for i in range(options.rounds):
            ids, seed = shared + [rng.randrange(vocab) for _ in range(64)], rng.randrange(2**63)
            cold, ms = timed(c, asked(ids, seed, False))
            cold_ms.append(ms)
            cached, ms = timed(c, asked(ids, seed, True))
            cached_ms.append(ms)
            differences.append(difference(cached, cold, f"request {i}"))
            if cached.error is None and cold.error is None:
                found = (cached.finish.usage.cached_tokens, cold.finish.usage.cached_tokens)
                hits.append(None if found == (options.shared, 0) else f"request {i}: {found[0]} and {found[1]} tokens cached")
        checks.add("cached is cold", differences)
        checks.add(f"{options.shared} tokens are found", hits)
    return checks, statistics.median(cold_ms), statistics.median(cached_ms)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="cuda")
    p.add_argument("--model", default=str(pathlib.Path(__file__).resolve().parents[2] / "models/fathom-tiny"))
    p.add_argument("--serve", action="append", default=[], help="a word for fathom serve")
    p.add_argument("--shared", type=int, default=2048, help="tokens; a multiple of the block size")
    p.add_argument("--rounds", type=int, default=9)
    options = p.parse_args()
    checks, cold, cached = run(options)
    print(json.dumps({"passed": checks.total - len(checks.failed), "total": checks.total, "failed": checks.failed, "seed": SEED,
                      "shared_tokens": options.shared, "cold_ms": round(cold, 3), "cached_ms": round(cached, 3),
                      "ratio": round(cold / cached, 2)}))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
