#!/usr/bin/env python3
"""Exact equalities of tokens and of the bits of their log-probabilities, through real processes. The answer of a request is the same
alone and among 63 others, the second time, in one chunk and in many, prefilled and decoded, and after another start; sequence i of a
request for several is the same for every number above i. Prints one line for each check and a JSON object at the end. Needs grpcio and FATHOM_STUBS."""
import argparse
import json
import os
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import Cluster, collect, collect_several, pb, request  # noqa: E402

SEED = int(os.environ.get("FATHOM_SEED", "20261125"))
TIMEOUT_S = 300


def vocabulary(model):
    path = pathlib.Path(model)
    return json.loads((path / "config.json" if path.is_dir() else path).read_text())["vocab_size"]


def requests(vocab, count, longest, max_tokens):
    """Prompts of all lengths, a few of them with a common beginning; greedy and sampled with filters and penalties."""
    rng = random.Random(SEED)
    common = [rng.randrange(vocab) for _ in range(80)]
    made = []
    for i in range(count):
        ids = [rng.randrange(vocab) for _ in range(rng.randrange(2, longest))]
        if i % 5 == 0:
            ids = common + ids
        made.append(request(ids=ids, max_tokens=max_tokens, temperature=rng.choice([0.0, 0.7, 1.3]), seed=rng.randrange(2**63),
                            logprobs=3, ignore_eos=True, top_p=rng.choice([1.0, 0.9]), top_k=rng.choice([0, 50]),
                            repetition_penalty=rng.choice([1.0, 1.2]), frequency_penalty=rng.choice([0.0, 0.5]),
                            typical_p=rng.choice([1.0, 0.9])))
    return made


def one(cluster, r):
    return collect(cluster.client.stub.Generate(r, timeout=TIMEOUT_S))


def several(cluster, r, sequences):
    """The answers of `sequences` sequences of the request."""
    more = pb.GenerateRequest()
    more.CopyFrom(r)
    more.sampling.n = sequences
    return collect_several(cluster.client.stub.Generate(more, timeout=TIMEOUT_S), sequences)


def logprobs(points):
    """The ids and floats of the answer: equal floats of one sign have equal bits, and NaN equals nothing."""
    return [(p.id, p.logprob, list(p.top_ids), list(p.top_logprobs)) for p in points]


def difference(a, b, what):
    """The difference between two answers, or None."""
    for result in (a, b):
        if result.error is not None:
            return f"{what}: {result.error.code()}: {result.error.details()}"
    if a.ids != b.ids:
        at = next((i for i, (x, y) in enumerate(zip(a.ids, b.ids)) if x != y), min(len(a.ids), len(b.ids)))
        return f"{what}: token {at} differs: {a.ids[at:at + 3]} against {b.ids[at:at + 3]}"
    x, y = logprobs(a.logprobs), logprobs(b.logprobs)
    if x != y:
        at = next((i for i, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
        return f"{what}: log-probability {at} of {len(x)} differs: {x[at:at + 1]} against {y[at:at + 1]}"
    if logprobs(a.prompt_logprobs) != logprobs(b.prompt_logprobs):
        return f"{what}: log-probabilities of the prompt differ"
    return None


class Checks:
    def __init__(self):
        self.total, self.failed = 0, []

    def add(self, name, differences):
        self.total += 1
        found = [d for d in differences if d]
        print(f"{'FAIL' if found else 'ok  '} {name}" + (f": {len(found)} of {len(differences)}: {found[0]}" if found else
                                                         f": {len(differences)} compared"), flush=True)
        if found:
            self.failed.append(f"{name}: {len(found)} of {len(differences)}: {found[0]}")

    def same(self, name, got, want):
        self.add(name, [difference(a, b, f"request {i}") for i, (a, b) in enumerate(zip(got, want))])


def prefilled_is_decoded(cluster, asked, answers):
    """Scores the ids of each answer as a prompt: the log-probabilities equal those of the generation."""
    found = []
    for i, (r, answer) in enumerate(zip(asked, answers)):
        prompt = list(r.token_ids.ids)
        scored = one(cluster, request(ids=prompt + answer.ids, max_tokens=1, prompt_logprobs=3))
        if scored.error is not None or answer.error is not None:
            found.append(f"request {i}: {(scored.error or answer.error).details()}")
            continue
        got, want = logprobs(scored.prompt_logprobs[len(prompt) - 1:]), logprobs(answer.logprobs)
        at = next((k for k, (p, q) in enumerate(zip(got, want)) if p != q), None)
        if len(got) != len(want) or at is not None:
            found.append(f"request {i}: position {at} of {len(want)} after a prompt of {len(prompt)}: "
                         f"{got[at or 0][:2]} against {want[at or 0][:2]}")
        else:
            found.append(None)
    return found


def run(options):
    checks = Checks()
    vocab = vocabulary(options.model)
    asked = requests(vocab, 64, options.longest, options.max_tokens)
    rng = random.Random(SEED + 1)
    long = [request(ids=[rng.randrange(vocab) for _ in range(n)], max_tokens=8, logprobs=2, prompt_logprobs=0)
            for n in (options.longest * 2, options.longest * 5)]

    def cluster(*args):
        return Cluster(*args, *options.serve, model=options.model, device=options.device)

    with cluster() as c:
        alone = [one(c, r) for r in asked[:8]]
        together = c.client.many(asked, timeout=TIMEOUT_S)
        checks.same("alone is among 63 others", together[:8], alone)
        checks.same("the same request twice", [one(c, r) for r in asked[:8]], alone)
        sampled = [r for r in asked[:8] if r.sampling.temperature > 0][:3]
        of_five = [several(c, r, 5) for r in sampled]
        checks.same("sequence 0 of 5 is that of 1", [answers[0] for answers in of_five], [one(c, r) for r in sampled])
        checks.same("sequences 0 to 2 of 5 are those of 3", [a for answers in of_five for a in answers[:3]],
                    [a for r in sampled for a in several(c, r, 3)])
        checks.add("the sequences of a request differ", [None if len({tuple(a.ids) for a in answers}) == 5 else f"request {i}: equal ids"
                                                         for i, answers in enumerate(of_five)])
        checks.add("prefilled is decoded", prefilled_is_decoded(c, asked[:8], alone))
        long_alone = [one(c, r) for r in long]
    with cluster("--max-num-batched-tokens", str(options.chunk), "--max-num-seqs", str(options.chunk)) as c:
        checks.same(f"one chunk is many (of {options.chunk})", [one(c, r) for r in long], long_alone)
        checks.same("many small chunks together, another start", c.client.many(asked, timeout=TIMEOUT_S), together)
    return checks


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="cuda")
    p.add_argument("--model", default=str(pathlib.Path(__file__).resolve().parents[2] / "models/fathom-tiny"))
    p.add_argument("--serve", action="append", default=[], help="a word for fathom serve")
    p.add_argument("--longest", type=int, default=120, help="tokens of a prompt, less one")
    p.add_argument("--max-tokens", type=int, default=48)
    p.add_argument("--chunk", type=int, default=32)
    options = p.parse_args()
    checks = run(options)
    print(json.dumps({"passed": checks.total - len(checks.failed), "total": checks.total, "failed": checks.failed, "seed": SEED}))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
