#!/usr/bin/env python3
"""What a grammar costs in each step: the time between two tokens of guided and of free answers, in turns, with dummy weights.
    guided_cost.py [--device cpu|cuda] [--shape FILE] [--vocab N] [--tokenizer DIR] [--batches 1 64] [--tokens N] [--rounds N]
The model is the bundled one with a padded vocabulary, or --shape (models/shapes); --tokenizer is a folder with tokenizer.json (default:
the bundled model's). The grammar is a long list of JSON values: its masks are of all kinds, and it does not end before max_tokens.
Prints a line for each batch and, as JSON, the medians and what guided answers cost."""
import argparse
import json
import pathlib
import statistics
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import ROOT, TINY, Cluster, collect, request  # noqa: E402

RULES = r'''root ::= "[" value ("," ws value){2000} "]"
value ::= "{" ws string ":" ws value ("," ws string ":" ws value)* "}" | string | number | "true" | "false" | "null" | "[" value ("," value)* "]"
string ::= "\"" char{0,40} "\""
char ::= [^"\\\x00-\x1f] | "\\" ["\\/bfnrt]
number ::= "-"? [1-9] [0-9]{0,12} ("." [0-9]{1,6})?
ws ::= " "?
'''


def asked(i, tokens, guided):
    r = request(ids=[3 + i % 50, 9, 27, 81, 5], max_tokens=tokens, temperature=1.0, seed=i, ignore_eos=not guided)
    if guided:
        r.guided.grammar = RULES
    return r


def gaps(cluster, batch, tokens, guided):
    """The times between two tokens of all streams, in ms, without those of the first ten tokens."""
    found = [[] for _ in range(batch)]
    errors = []

    def one(i):
        times = []
        result = collect(cluster.client.stub.Generate(asked(i, tokens, guided), timeout=600), lambda _: times.append(time.monotonic()))
        if result.error is not None or len(result.ids) != tokens:
            errors.append(f"stream {i}: {len(result.ids)} tokens, {result.error}")
        found[i] = [1e3 * (b - a) for a, b in zip(times[10:], times[11:])]

    threads = [threading.Thread(target=one, args=(i,)) for i in range(batch)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors[:3]
    return [gap for stream in found for gap in stream]


def model_folder(options, folder):
    """A folder with the shape's config.json, with the vocabulary's size, and the tokenizer's files."""
    source = pathlib.Path(options.shape) if options.shape else TINY / "config.json"
    config = json.loads(source.read_text())
    if options.vocab:
        config["vocab_size"] = options.vocab
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        file = pathlib.Path(options.tokenizer) / name
        if file.exists():
            (folder / name).symlink_to(file.resolve())
    return folder, config["vocab_size"]


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu")
    p.add_argument("--shape", help="a file of models/shapes; default: the bundled model's shape")
    p.add_argument("--vocab", type=int, default=0, help="0: the shape's")
    p.add_argument("--tokenizer", default=str(TINY))
    p.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    p.add_argument("--tokens", type=int, default=200)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--serve", action="append", default=[], help="a word for fathom serve")
    options = p.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder, vocab = model_folder(options, pathlib.Path(scratch))
        out = {"vocab": vocab, "device": options.device, "batches": {}}
        with Cluster("--load-format", "dummy", *options.serve, model=folder, device=options.device) as c:
            for guided in (True, False):
                gaps(c, 1, 40, guided)  # Compiles the grammar and warms the kernels.
            for batch in options.batches:
                ways = {True: [], False: []}
                for _ in range(options.rounds):
                    for guided in (False, True):
                        ways[guided].append(statistics.mean(gaps(c, batch, options.tokens, guided)))
                free, guided = (statistics.median(ways[way]) for way in (False, True))
                out["batches"][batch] = {"free_ms": free, "guided_ms": guided, "cost": guided / free - 1}
                print(f"batch {batch}: {free:.3f} ms between tokens free, {guided:.3f} ms guided: {100 * (guided / free - 1):+.1f} %", flush=True)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
