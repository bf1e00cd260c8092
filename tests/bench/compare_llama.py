#!/usr/bin/env python3
"""Compares Fathom's CPU worker and whole cluster with llama.cpp, in one run on one machine, in alternating blocks.

    python3 -m venv build/oracles/llama && build/oracles/llama/bin/pip install llama-cpp-python gguf safetensors numpy
    build/oracles/llama/bin/python tests/bench/compare_llama.py [--pairs 40] [--json build/compare.json]
Only one program computes at a time. Prints medians and the median of the pairs' ratios (peer / ours: above 1, ours is faster).
"""
import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/fathom-tiny"
BUILD = ROOT / "build/release"


class Stepper:
    """A program that times blocks of decode steps on request."""

    def __init__(self, *argv):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout.readline().strip() == "ready", argv

    def block(self, rows, steps):
        self.process.stdin.write(f"{rows} {steps}\n")
        self.process.stdin.flush()
        return statistics.median(json.loads(self.process.stdout.readline()))

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Cluster:
    """`fathom serve`; block() is one run of `fathom bench latency`."""

    def __init__(self, *args):
        self.process = subprocess.Popen([BUILD / "bin/fathom", "serve", "--model", MODEL, "--http-port", "0", "--grpc-port", "0", "--scheduler-port", "0",
                                         "--scheduler-metrics-port", "0", "--worker-port", "0", "--worker-metrics-port", "0", "--json", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.ready = json.loads(next(line for line in self.process.stdout if '"ready"' in line))

    def bench(self, streams, tokens):
        out = subprocess.run([BUILD / "bin/fathom", "bench", "latency" if streams == 1 else "throughput", "--server", f"127.0.0.1:{self.ready['grpc_port']}",
                              "--requests", str(streams), "--concurrency", str(streams), "--input-len", "32", "--output-len", str(tokens), "--json"],
                             capture_output=True, text=True, check=True).stdout
        return json.loads(out.strip().splitlines()[-1])

    def worker_median_us(self):
        port = self.ready["workers"][0]["metrics_port"]
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
        return 1e6 * float(re.search(r"^fathom_worker_step_median_seconds (\S+)", text, re.M).group(1))

    def close(self):
        self.process.terminate()
        self.process.wait()


def peers(threads):
    out = ROOT / "build/gguf"
    script = pathlib.Path(__file__).parent / "llama_peer.py"
    return {kind: Stepper(sys.executable, script, MODEL, out, kind, str(threads)) for kind in ("bf16", "f32")}


def compare_steps(rows, threads, pairs, steps):
    ours = Stepper(BUILD / "tests/worker_step_bench", MODEL, str(threads))
    theirs = peers(threads)
    mine, other = [], {k: [] for k in theirs}
    ours.block(rows, steps)
    for _ in range(pairs):
        mine.append(ours.block(rows, steps))
        for kind, peer in theirs.items():
            other[kind].append(peer.block(rows, steps))
    ours.close()
    row = {"what": f"step, {rows} rows, {threads} threads", "fathom_us": statistics.median(mine)}
    for kind, peer in theirs.items():
        peer.close()
        row[f"llama_{kind}_us"] = statistics.median(other[kind])
        row[f"ratio_{kind}"] = statistics.median(t / m for t, m in zip(other[kind], mine))
    return row


def compare_streams(streams, threads, pairs, tokens):
    cluster = Cluster("--threads", str(threads))
    theirs = peers(threads)
    mine, other = [], {k: [] for k in theirs}
    cluster.bench(streams, tokens)
    for _ in range(pairs):
        result = cluster.bench(streams, tokens)
        mine.append(1e3 / result["tpot_ms"]["median"] * streams)
        for kind, peer in theirs.items():
            other[kind].append(1e6 / peer.block(streams, tokens) * streams)
    cluster.close()
    row = {"what": f"end to end, {streams} streams, {threads} threads", "fathom_tps": statistics.median(mine)}
    for kind, peer in theirs.items():
        peer.close()
        row[f"llama_{kind}_tps"] = statistics.median(other[kind])
        row[f"ratio_{kind}"] = statistics.median(m / t for t, m in zip(other[kind], mine))
    return row


def added(tp, runs):
    """Time that router, scheduler and gRPC add to a token: the client's median gap less the worker's median step."""
    cluster = Cluster("-tp", str(tp), "--threads", "1")
    cluster.bench(1, 200)
    gaps, steps = [], []
    for _ in range(runs):
        gaps.append(1e3 * cluster.bench(1, 300)["itl_ms"]["median"])
        steps.append(cluster.worker_median_us())
    cluster.close()
    return {"what": f"added to a token, -tp {tp}", "gap_us": statistics.median(gaps), "worker_us": statistics.median(steps),
            "added_us": statistics.median(g - s for g, s in zip(gaps, steps))}


def isa():
    flags = set(re.search(r"^flags\s*:(.*)$", pathlib.Path("/proc/cpuinfo").read_text(), re.M).group(1).split())
    return " ".join(f for f in ("avx2", "fma", "f16c", "avx512f", "avx512_bf16", "amx_bf16") if f in flags)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = [{"what": "machine", "isa": isa()}]
    print(rows[0], flush=True)
    for job in (lambda: compare_steps(1, 1, args.pairs, 100), lambda: compare_steps(1, 2, args.pairs, 100), lambda: compare_steps(16, 1, args.pairs // 2, 50),
                lambda: compare_steps(16, 2, args.pairs // 2, 50), lambda: added(1, 10), lambda: added(2, 10), lambda: compare_streams(1, 1, args.pairs // 2, 200),
                lambda: compare_streams(16, 1, args.pairs // 4, 100), lambda: compare_streams(16, 2, args.pairs // 4, 100)):
        rows.append(job())
        print({k: round(v, 3) if isinstance(v, float) else v for k, v in rows[-1].items()}, flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
