"""tests/gpu/gpu_guided.py: the part `guided`: guided answers follow their grammars and depend on no other answer (guided.py), at
fathom-tiny; and what a grammar costs in each step at the 7B shape with dummy weights (tests/bench/guided_cost.py)."""
import pathlib

from gpu_host import ROOT, last_lines, python
import gpu_rows

HERE = pathlib.Path(__file__).resolve().parent


def guided(host):
    """Guided output: grammars are followed, and the time between tokens at batches of 1 and 64, guided and free."""
    words = [f"--serve={word}" for word in host.options.serve]
    text, code = host.run([python(), HERE / "guided.py", "--device", host.options.device, *words], 300, check=False)
    found = gpu_rows.last_json(text)
    if found is None:
        host.check("guided tiny", 0, 1, [f"ended with {code}: {last_lines(text)}"])
    else:
        host.check("guided tiny", found["passed"], found["total"], found["failed"])
    text, code = host.run([python(), ROOT / "tests/bench/guided_cost.py", "--device", host.options.device, "--shape",
                           ROOT / f"models/shapes/{gpu_rows.SHAPES['7b']}.json", "--batches", "1", "64", *words], 280, check=False)
    cost = gpu_rows.last_json(text)
    if cost is None:
        host.check("guided cost 7b", 0, 1, [f"ended with {code}: {last_lines(text)}"])
        return
    for batch, ways in cost["batches"].items():
        host.measurements.append({"program": "guided_cost.py", "id": f"guided_cost_7b_{batch}", "value": 100 * ways["cost"], "unit": "%", **ways})
        host.say(f"guided 7b, batch {batch}: {ways['free_ms']:.3f} ms between tokens free, {ways['guided_ms']:.3f} ms guided")
