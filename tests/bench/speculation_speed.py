#!/usr/bin/env python3
"""Tokens per second of one stream, plain and with speculative decoding, on the same machine in turns:
    speculation_speed.py [--device cpu] [--model DIR] [--serve WORD ...] [--rounds N]
The prompts repeat themselves, as a document that is edited does. Every answer with drafts is compared with the plain one. Prints a line
for each way and, as JSON, the medians and their ratios to plain decoding."""
import argparse
import json
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import ROOT, TINY, Cluster, collect, goldens, request  # noqa: E402

WAYS = {
    "plain": (),
    "ngram": ("--speculative-method", "ngram", "--num-speculative-tokens", "6"),
    "draft": ("--speculative-model", str(ROOT / "models/fathom-tiny-draft"), "--num-speculative-tokens", "4"),
}


def asked(tokens):
    """Greedy and sampled continuations of texts that repeat a part of theirs."""
    parts = [list(g["prompt_ids"])[:24] for g in goldens()[:4]]
    return [request(ids=part * 8, max_tokens=tokens, temperature=0.0 if i % 2 == 0 else 0.3, seed=i, ignore_eos=True)
            for i, part in enumerate(parts)]


def measure(cluster, requests):
    """(answers, tokens per second after the first token, drafts kept, drafts checked)"""
    answers, seconds, tokens = [], 0.0, 0
    for r in requests:
        first = []
        answer = collect(cluster.client.stub.Generate(r, timeout=600), lambda _, first=first: first or first.append(time.monotonic()))
        assert answer.error is None, answer.error
        seconds += time.monotonic() - first[0]
        tokens += len(answer.ids) - 1
        answers.append(answer.ids)
    return answers, tokens / seconds


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu")
    p.add_argument("--model", default=str(TINY))
    p.add_argument("--serve", action="append", default=[], help="a word for every fathom serve")
    p.add_argument("--ways", nargs="*", default=["plain", "ngram", "draft"], choices=list(WAYS))
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--tokens", type=int, default=400)
    options = p.parse_args()
    requests, speeds, want = asked(options.tokens), {way: [] for way in options.ways}, None
    for _ in range(options.rounds):
        for way in options.ways:
            with Cluster(*WAYS[way], *options.serve, model=options.model, device=options.device) as c:
                measure(c, requests)
                answers, speed = measure(c, requests)
                metrics = c.metrics()
            want = want or answers
            assert answers == want, f"{way}: other tokens than plain decoding"
            speeds[way].append(speed)
            kept, checked = (metrics[f"fathom_scheduler_{name}_tokens_total"] for name in ("accepted_draft", "draft"))
            print(f"{way}: {speed:.1f} tokens/s, {kept:.0f} of {checked:.0f} drafts kept", flush=True)
    medians = {way: statistics.median(values) for way, values in speeds.items()}
    print(json.dumps({"tokens_per_s": medians, "ratios": {way: medians[way] / medians["plain"] for way in medians if "plain" in medians}}))


if __name__ == "__main__":
    main()
