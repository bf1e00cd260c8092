"""tests/gpu/gpu_prefix.py: the part `prefix`: a prompt that the prefix cache has gives the bits of a cold one, and its first token
sooner (prefix_hit.py), at fathom-tiny and at the 7B shape with dummy weights; and `fathom verify --cached` on both."""
import pathlib

from gpu_host import ROOT, Serve, last_lines, python
import gpu_rows

HERE = pathlib.Path(__file__).resolve().parent


def prefix(host):
    """The prefix cache: cached is cold, to the last bit, and how much sooner the first token comes."""
    cases = {"tiny": (ROOT / "models/fathom-tiny", []),
             "7b": (ROOT / f"models/shapes/{gpu_rows.SHAPES['7b']}.json", ["--load-format=dummy"])}
    for name, (model, load) in cases.items():
        words = [f"--serve={word}" for word in [*load, *host.options.serve]]
        text, code = host.run([python(), HERE / "prefix_hit.py", "--device", host.options.device, "--model", model, *words], 300, check=False)
        found = gpu_rows.last_json(text)
        if found is None:
            host.check(f"prefix {name}", 0, 1, [f"ended with {code}: {last_lines(text)}"])
            continue
        host.check(f"prefix {name}", found["passed"], found["total"], found["failed"])
        host.measurements.append({"id": f"prefix_hit_{name}", "value": found["cached_ms"], "unit": "ms", **found})
        host.say(f"prefix {name}: first token of {found['shared_tokens']} + 64 tokens after {found['cold_ms']:.2f} ms cold, "
                 f"{found['cached_ms']:.2f} ms cached: {found['ratio']:.1f} times sooner")
        with Serve(host, model, *load) as served:
            text, code = host.run([host.bin / "fathom", "verify", "--cached", "--json", "--server", served.server], 200, check=False)
        verified = gpu_rows.last_json(text) or {"passed": 0, "total": 1, "failed": [last_lines(text)]}
        host.check(f"verify --cached {name}", verified["passed"], verified["total"], [str(one) for one in verified["failed"]][:4])
