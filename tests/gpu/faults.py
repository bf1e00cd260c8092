#!/usr/bin/env python3
"""A row fault affects no other row. A token whose values overflow is computed among others. Its request fails with a reason that says
what to do, the tokens and log-probability bits of the other requests do not change, and no other request reads its values in the KV
cache. Prints one line for each check and a JSON object at the end. Needs grpcio and FATHOM_STUBS."""
import argparse
import json
import pathlib
import shutil
import struct
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[0] / "tools"), str(HERE.parents[0] / "e2e")]
from cluster import Cluster, request  # noqa: E402
from equalities import Checks, one, requests, vocabulary  # noqa: E402
from rewrite_model import read_safetensors, write_safetensors  # noqa: E402

BAD_TOKEN = 7


def bfloat16(value):
    return struct.pack("<f", value)[2:]  # The upper half of a float.


def poisoned(model, folder, weight):
    """A copy of the model in which one neuron of layer 0 is active for the bad token alone, and then adds more than the type can
    represent. Element 0 of the bad token's embedding is 64, and of every other embedding -64. The neuron's gate and up use this
    element alone, and all of its weights in the down product are `weight`."""
    shutil.copytree(model, folder)
    for path in folder.glob("*.safetensors"):
        tensors = {name: (dtype, shape, bytearray(data)) for name, (dtype, shape, data) in read_safetensors(path).items()}

        def put(name, row, column, value):
            if name in tensors:
                at = 2 * (row * tensors[name][1][-1] + column)
                tensors[name][2][at:at + 2] = bfloat16(value)

        mlp, norm = "model.layers.0.mlp.", "model.layers.0.post_attention_layernorm.weight"
        for token in range(vocabulary(model)):
            put("model.embed_tokens.weight", token, 0, 64.0 if token == BAD_TOKEN else -64.0)
        put(norm, 0, 0, 1.0)
        for column in range(tensors.get(mlp + "gate_proj.weight", (0, [0, 0], b""))[1][1]):
            put(mlp + "gate_proj.weight", 0, column, 0.0 if column else 20.0)
        for column in range(tensors.get(mlp + "up_proj.weight", (0, [0, 0], b""))[1][1]):
            put(mlp + "up_proj.weight", 0, column, 0.0 if column else 1.0)
        for row in range(tensors.get(mlp + "down_proj.weight", (0, [0, 0], b""))[1][0]):
            put(mlp + "down_proj.weight", row, 0, weight)
        path.write_bytes(b"")
        write_safetensors(path, {name: (dtype, shape, bytes(data)) for name, (dtype, shape, data) in tensors.items()})
    return folder


def clean(asked):
    """Requests without the bad token."""
    return [r for r in asked if BAD_TOKEN not in r.token_ids.ids]


def bad_request():
    return request(ids=[1, 5, BAD_TOKEN, 9], max_tokens=8, ignore_eos=True)


def fails_with(result, *words):
    if result.error is None:
        return f"answered {result.ids[:4]}"
    text = result.error.details()
    missing = [word for word in words if word not in text]
    return f"'{text}' does not say {missing}" if missing else None


def neighbours(cluster, checks, asked, want, words):
    """Runs the bad request among the others, twice, because the second run gets the KV blocks of the first one."""
    for turn in ("once", "again"):
        together = cluster.client.many([*asked[:10], bad_request(), *asked[10:], bad_request()], timeout=300)
        checks.add(f"the bad rows fail ({turn})", [fails_with(together[10], *words), fails_with(together[-1], *words)])
        checks.same(f"their neighbours' bits stay ({turn})", together[:10] + together[11:-1], want)


def run(options):
    checks = Checks()
    asked = clean(requests(vocabulary(options.model), 40, 100, 24))

    with tempfile.TemporaryDirectory() as scratch:
        model = poisoned(options.model, pathlib.Path(scratch) / "huge", 3e38)

        def cluster(*args, folder=model):
            return Cluster(*args, model=folder, device=options.device)

        with cluster() as c:
            want = [one(c, r) for r in asked]
            neighbours(c, checks, asked, want, ["NON_FINITE_LOGITS" if options.device == "cpu" else "--diagnose-numerics"])
        with cluster("--diagnose-numerics") as c:
            checks.add("the layer and the op are named", [fails_with(one(c, bad_request()), "layer 0", "the down product")])
            checks.same("diagnosing changes no bit", [one(c, r) for r in asked[:8]], want[:8])
        with cluster("--enforce-eager") as c:
            checks.same("a graph changes no bit", [one(c, r) for r in asked], want)
        large = poisoned(options.model, pathlib.Path(scratch) / "large", 60000.0)
        with cluster("--dtype", "half", folder=large) as c:
            checks.add("an overflow of half says so", [fails_with(one(c, bad_request()), "half", "--dtype bfloat16")])
            checks.add("the others answer in half", [None if one(c, r).error is None else "failed" for r in asked[:4]])
    return checks


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--device", default="cuda")
    p.add_argument("--model", default=str(HERE.parents[1] / "models/fathom-tiny"))
    checks = run(p.parse_args())
    print(json.dumps({"passed": checks.total - len(checks.failed), "total": checks.total, "failed": checks.failed}))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
