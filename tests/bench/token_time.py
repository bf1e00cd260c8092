#!/usr/bin/env python3
"""The parts of the time of a token: one stream, from the processes' metrics and their CPU time.

    python3 tests/bench/token_time.py [-tp N]       (standard library only; uses build/release)
Prints a row for each part, in microseconds per token: means over 10 answers of 300 tokens.
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "build/release/bin"
ANSWERS, TOKENS = 10, 300


def cpu_us(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def metrics(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return {m.group(1): float(m.group(2)) for m in re.finditer(r"^(\w+) (\S+)$", text, re.M)}


def main():
    tp = sys.argv[2] if len(sys.argv) == 3 and sys.argv[1] == "-tp" else "1"
    serve = subprocess.Popen([BIN / "fathom", "serve", "--model", ROOT / "models/fathom-tiny", "-tp", tp, "--threads", "1", "--http-port", "0", "--grpc-port",
                              "0", "--scheduler-port", "0", "--metrics-port", "0", "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    ready = json.loads(next(line for line in serve.stdout if '"ready"' in line))
    pids = {"router": ready["router_pid"], "scheduler": ready["scheduler_pid"], "worker rank 0": ready["workers"][0]["pid"]}

    def bench():
        out = subprocess.run([BIN / "fathom", "bench", "latency", "--server", f"127.0.0.1:{ready['grpc_port']}", "--input-len", "32", "--output-len",
                              str(TOKENS), "--requests", str(ANSWERS), "--json"], capture_output=True, text=True, check=True).stdout
        return json.loads(out.strip().splitlines()[-1])

    bench()
    before, cpu = metrics(ready["workers"][0]["metrics_port"]), {k: cpu_us(p) for k, p in pids.items()}
    result = bench()
    after, spent = metrics(ready["workers"][0]["metrics_port"]), {k: cpu_us(p) - cpu[k] for k, p in pids.items()}
    serve.terminate()
    serve.wait()
    steps = after["fathom_worker_steps_total"] - before["fathom_worker_steps_total"]

    def per_step(name):
        return 1e6 * (after[name] - before[name]) / steps

    compute = per_step("fathom_worker_step_compute_seconds_sum")
    collective = per_step("fathom_worker_collective_seconds_total")
    print(f"-tp {tp}, {ANSWERS} answers of {TOKENS} tokens, us per token")
    for name, value in (("client: mean gap between tokens", 1e3 * result["itl_ms"]["mean"]), ("client: median gap", 1e3 * result["itl_ms"]["median"]),
                        ("worker: forward pass and sampler, without collectives", compute - collective), ("worker: collectives", collective),
                        ("worker: deltas, result", per_step("fathom_worker_step_seconds_sum") - compute),
                        ("worker: writing the result", per_step("fathom_worker_result_write_seconds_total")),
                        ("worker: waiting for the plan and reading it", per_step("fathom_worker_plan_read_seconds_total"))):
        print(f"{value:8.1f}  {name}")
    for name, value in spent.items():
        print(f"{value / (ANSWERS * TOKENS):8.1f}  CPU of {name}")


if __name__ == "__main__":
    main()
