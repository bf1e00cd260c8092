#!/usr/bin/env python3
"""Guided output on a device: every answer follows its grammar, and has the same tokens alone, among others, with n = 2 and beside answers
without a grammar. Prints one line for each check and a JSON object at the end. Needs grpcio and FATHOM_STUBS."""
import argparse
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import TINY, Cluster, collect, collect_several, pb, request  # noqa: E402
from equalities import TIMEOUT_S, Checks, difference  # noqa: E402

REGEXES = [r"[A-Z][a-z]{2,6} [0-9]{1,3}", r"(ab|cd){3,9};", r"\{\"name\": \"[a-z]{1,8}\", \"size\": [0-9]{1,4}\}", r"[0-9]{4}-[0-9]{2}-[0-9]{2}"]


def asked(i, n=1):
    r = request(text=f"Item {i}:", max_tokens=80, temperature=[0.0, 0.8, 1.3][i % 3], seed=i, logprobs=2, n=n,
                frequency_penalty=0.5 if i % 4 == 0 else 0.0, top_p=0.9 if i % 5 == 0 else 1.0)
    r.guided.regex = REGEXES[i % len(REGEXES)]
    return r


def follows(result, i):
    if result.error is not None:
        return f"request {i}: {result.error.details()}"
    if result.finish.reason != pb.FINISH_REASON_STOP or not re.fullmatch(REGEXES[i % len(REGEXES)], result.text):
        return f"request {i}: {result.text!r} does not follow {REGEXES[i % len(REGEXES)]}"
    return None


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="cuda")
    p.add_argument("--model", default=str(TINY))
    p.add_argument("--serve", action="append", default=[], help="a word for fathom serve")
    p.add_argument("--count", type=int, default=48)
    options = p.parse_args()
    checks = Checks()
    with Cluster(*options.serve, model=options.model, device=options.device) as c:
        alone = [collect(c.client.stub.Generate(asked(i), timeout=TIMEOUT_S)) for i in range(options.count)]
        checks.add("answers follow their grammars", [follows(result, i) for i, result in enumerate(alone)])
        free = [request(ids=[3, 9, 27], max_tokens=120, temperature=0.9, seed=i, logprobs=2, ignore_eos=True) for i in range(8)]
        free_alone = [collect(c.client.stub.Generate(r, timeout=TIMEOUT_S)) for r in free]
        together = c.client.many([asked(i) for i in range(options.count)] + free)
        checks.add("alone and together", [difference(a, b, f"request {i}") for i, (a, b) in enumerate(zip(alone + free_alone, together))])
        several = [collect_several(c.client.stub.Generate(asked(i, n=2), timeout=TIMEOUT_S), 2) for i in range(6)]
        checks.add("n = 2", [difference(pair[0], alone[i], f"request {i}") or follows(pair[1], i) for i, pair in enumerate(several)])
    print(json.dumps({"passed": checks.total - len(checks.failed), "total": checks.total, "failed": checks.failed}))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
