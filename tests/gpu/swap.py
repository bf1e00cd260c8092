#!/usr/bin/env python3
"""Preemption at the shape of a model, with dummy weights: sequences whose KV goes to the swap space in the host's memory, or is
computed again, give the tokens and bits of an undisturbed run. Prints for each length of prompt how long a preempted sequence took
from its slot to its next token (the replay) by either way, and a JSON object at the end. Needs grpcio and FATHOM_STUBS."""
import argparse
import json
import pathlib
import random
import statistics
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import Cluster, collect, pb, request  # noqa: E402
from equalities import SEED, TIMEOUT_S, Checks, one, vocabulary  # noqa: E402


def requests(vocab, length, count, max_tokens):
    """Prompts of `length` tokens, half of them sampled, that have nothing in common."""
    rng = random.Random(SEED + length)
    return [request(ids=[rng.randrange(vocab) for _ in range(length)], max_tokens=max_tokens, temperature=(i % 2) * 0.8,
                    seed=rng.randrange(2**63), logprobs=1, ignore_eos=True, request_id=f"swap-{length}-{i}") for i in range(count)]


def replays(cluster, asked):
    """(microseconds of replay, stays that ended by preemption) of each request that was preempted."""
    found = []
    for r in asked:
        told = cluster.client.stub.Explain(pb.ExplainRequest(request_id=r.request_id), timeout=30)
        stays = sum(stay.end == "preempted" for stay in told.stays)
        if stays:
            found.append((next(part.us for part in told.parts if part.name == "replay"), stays))
    return found


def run(options):
    checks, times = Checks(), {}
    vocab = vocabulary(options.model)
    block_bytes = options.token_bytes * options.block_tokens
    pool = ["--kv-cache-memory", str((options.pool_tokens // options.block_tokens + 1) * block_bytes),
            "--max-num-seqs", "256", "--max-model-len", str(options.context)]
    # So many sequences fit when they are admitted, and not when they end.
    asked = {length: requests(vocab, length, max(2, options.pool_tokens // (length + 32)), options.max_tokens)
             for length in options.lengths}

    def cluster(*args):
        return Cluster(*args, *options.serve, model=options.model, device=options.device)

    with cluster("--max-num-seqs", "256", "--max-model-len", str(options.context)) as c:
        want = {length: c.client.many(rs, timeout=TIMEOUT_S) for length, rs in asked.items()}
    for way, space in (("again", "0"), ("swap", options.swap_space)):
        with cluster(*pool, "--swap-space", space) as c:
            for length, rs in asked.items():
                before = c.metrics()
                checks.same(f"{way}: {len(rs)} of {length} tokens", c.client.many(rs, timeout=TIMEOUT_S), want[length])
                after = c.metrics()
                count = {name: after[f"fathom_scheduler_{name}"] - before[f"fathom_scheduler_{name}"]
                         for name in ("preemptions_total", "swaps_total", "swapped_in_blocks_total", "replayed_tokens_total")}
                found = replays(c, rs)
                each = [us / stays for us, stays in found]
                row = times.setdefault(str(length), {})
                row[way] = {"preempted": len(found), "replay_ms": statistics.median(each) / 1000 if each else None, **count}
                print(f"  {way:<5} {length:>6} tokens: {row[way]}", flush=True)
                checks.add(f"{way} {length}: sequences were preempted{' and swapped' if way == 'swap' else ''}",
                           [None if count["preemptions_total"] > 0 and (way == "again" or count["swapped_in_blocks_total"] > 0)
                            else f"counts {count}"])
            c.wait_idle()
            used = c.metrics()["fathom_scheduler_swap_blocks_used"]
            checks.add(f"{way}: the swap space is empty again", [None if used == 0 else f"{used} blocks"])
    return checks, times


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="cuda")
    p.add_argument("--model", default=str(pathlib.Path(__file__).resolve().parents[2] / "models/fathom-tiny"))
    p.add_argument("--serve", action="append", default=[], help="a word for fathom serve")
    p.add_argument("--lengths", type=lambda text: [int(n) for n in text.split(",")], default=[64, 256, 1024, 3840])
    p.add_argument("--max-tokens", type=int, default=200)
    p.add_argument("--context", type=int, default=4096)
    p.add_argument("--pool-tokens", type=int, default=15872)
    p.add_argument("--block-tokens", type=int, default=64)
    p.add_argument("--token-bytes", type=int, required=True, help="KV bytes of a token on a rank")
    p.add_argument("--swap-space", default="16G")
    options = p.parse_args()
    checks, times = run(options)
    print(json.dumps({"passed": checks.total - len(checks.failed), "total": checks.total, "failed": checks.failed, "seed": SEED,
                      "replay": times}))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
