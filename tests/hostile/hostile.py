"""tests/hostile/hostile.py: runs the attacks of attacks.py against a real cluster while a well-behaved client uses it.

The client's answers must be equal to those of a quiet cluster, to the last bit. No process may end. Memory, threads and descriptors
stay within bounds and return to their old values. Prints one line for each attack, and all figures as one line of JSON.
"""
import argparse
import json
import os
import pathlib
import random
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
sys.path.insert(0, str(HERE))
from cluster import Client, Cluster, request, wait_until  # noqa: E402

import attacks  # noqa: E402
import grpc  # noqa: E402

PROMPT = [0, 3, 5, 8, 13, 21]
ANSWER_TOKENS = 48
# The router cuts a flood when it comes (rpc/read_gate.h), but 20 connections may each have 1,280 calls that gRPC has not reported.
RSS_GROWTH_MAX_MIB = 600
RSS_GROWTH_MAX_BEHIND_EDGE_MIB = 100
THREADS_GROWTH_MAX = 64


class Checked:
    """A client that repeats the same request, half of the time on a new connection.

    It sends a request again if the connection ended before the answer began. gRPC's own retries are off: they have neither pause nor
    limit, and a router that is short of memory closes idle connections. grpcio 1.85 then allocated 500 MB a second.
    """

    def __init__(self, port):
        self.port = port
        self.answers, self.again, self.slowest, self.wrong = 0, 0, 0.0, []
        self.client = Client(port, retries=False)
        self.want = self.ask(self.client).bits()
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def ask(self, client):
        end = time.monotonic() + 60
        while True:
            result = client.generate(ids=PROMPT, max_tokens=ANSWER_TOKENS, temperature=1.0, seed=7, logprobs=1, ignore_eos=True)
            if result.started or not result.error or result.error.code() != grpc.StatusCode.UNAVAILABLE or time.monotonic() > end:
                break
            self.again += 1
            time.sleep(0.05)
        assert result.error is None, result.error
        return result

    def run(self):
        while not self.stop.is_set():
            fresh = self.answers % 2 == 1
            client = Client(self.port, retries=False) if fresh else self.client
            began = time.monotonic()
            try:
                if self.ask(client).bits() != self.want:
                    self.wrong.append("another answer")
            except AssertionError as error:
                self.wrong.append(str(error)[:300])
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.answers += 1
            if fresh:
                client.close()

    def take(self):
        taken = (self.answers, self.again, self.slowest, self.wrong)
        self.answers, self.again, self.slowest, self.wrong = 0, 0, 0.0, []
        return taken

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.client.close()


class Watch:
    """Peaks of a process' memory, threads and descriptors."""

    def __init__(self, pid):
        self.pid = pid
        self.start = attacks.process_facts(pid)
        self.peak = dict(self.start)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stop.wait(0.02):
            for name, value in attacks.process_facts(self.pid).items():
                self.peak[name] = max(self.peak[name], value)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()
        self.end = attacks.process_facts(self.pid)


def attack(one, target, seconds, rng, pid, checked, growth_max):
    """Runs one attack and returns its figures. Afterwards a new connection must be answered, and memory must be returned."""
    checked.take()
    with Watch(pid) as watch:
        counts = one(target, seconds, rng)
    answers, again, slowest, wrong = checked.take()
    fresh = Client(target.grpc_port, retries=False)
    try:
        wait_until(lambda: fresh.generate(ids=PROMPT, max_tokens=1, temperature=0.0).error is None, "a new connection is answered", 30)
    finally:
        fresh.close()
    figures = {"attack": one.__name__, "seconds": round(seconds, 1), **counts, "answers": answers, "again": again, "wrong": len(wrong),
               "slowest_s": round(slowest, 2), "rss_before_mib": round(watch.start["rss"]), "rss_peak_mib": round(watch.peak["rss"]),
               "rss_after_mib": round(attacks.process_facts(pid)["rss"]), "threads_peak": watch.peak["threads"],
               "descriptors_peak": watch.peak["descriptors"], "cpu_s": round(watch.end["cpu"] - watch.start["cpu"], 1)}
    problems = [f"{one.__name__}: {w}" for w in wrong[:3]]
    if watch.peak["rss"] - watch.start["rss"] > growth_max:
        problems.append(f"{one.__name__}: memory grew from {watch.start['rss']:.0f} to {watch.peak['rss']:.0f} MiB")
    if watch.peak["threads"] - watch.start["threads"] > THREADS_GROWTH_MAX:
        problems.append(f"{one.__name__}: threads grew from {watch.start['threads']} to {watch.peak['threads']}")
    return figures, problems


def run(seconds, seed, only=None, say=print, cluster_args=()):
    """All attacks in a random order, `seconds` in total; returns (figures, problems)."""
    rng = random.Random(seed)
    say(f"seed {seed}")
    chosen = [a for a in attacks.ALL if only is None or a.__name__ == only]
    all_figures, problems = [], []
    growth_max = RSS_GROWTH_MAX_BEHIND_EDGE_MIB if "--edge" in cluster_args else RSS_GROWTH_MAX_MIB
    with Cluster(*cluster_args) as cluster:
        target = attacks.Target("127.0.0.1", cluster.ready["grpc_port"], cluster.ready["http_port"])
        target.message = request(ids=PROMPT, max_tokens=2000, ignore_eos=True).SerializeToString()
        pid = cluster.ready["router_pid"]
        attacks.gzip_bomb()
        with Checked(target.grpc_port) as checked:
            end = time.monotonic() + seconds
            each = min(20.0, seconds / len(chosen))
            order = []
            while time.monotonic() < end or not all_figures:
                order = order or rng.sample(chosen, len(chosen))
                figures, wrong = attack(order.pop(), target, each, rng, pid, checked, growth_max)
                problems += wrong
                all_figures.append(figures)
                say("  ".join(f"{k} {v}" for k, v in figures.items()))
                assert os.path.exists(f"/proc/{pid}"), "the router ended"
            checked.take()
            wait_until(lambda: checked.answers > 0, "the client is answered after the last attack", 60)
            problems += [f"after the last attack: {w}" for w in checked.take()[-1]]
        say(f"at the end: {attacks.process_facts(pid)}")
        problems += [line.strip() for line in cluster.log if " ended with " in line]
    return all_figures, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FATHOM_SEED", "1")))
    parser.add_argument("--only", choices=[a.__name__ for a in attacks.ALL])
    parser.add_argument("--edge", action="store_true", help="through HAProxy (fathom serve --edge)")
    args = parser.parse_args()
    figures, problems = run(args.minutes * 60, args.seed, args.only, cluster_args=("--edge",) if args.edge else ())
    print(json.dumps(figures))
    for problem in problems:
        print(f"FAILED {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
