#!/usr/bin/env python3
"""A rank of a group of GPUs is killed, and one is stopped, while 32 streams run: no token and no bit of a log-probability changes, and
the scheduler names the rank. Prints one line for each round and a JSON object at the end. Needs grpcio and FATHOM_STUBS."""
import argparse
import json
import os
import pathlib
import random
import signal
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from cluster import Cluster, collect, pb, wait_until  # noqa: E402
from equalities import SEED, Checks, requests, vocabulary  # noqa: E402
from layouts_test import rank_of, workers  # noqa: E402

TIMEOUT_S = 300


def strike(cluster, asked, victim, how):
    """The answers, the seconds until the loss was seen, and what is wrong with the name of the rank."""
    lost = cluster.metrics()["fathom_scheduler_groups_lost_total"]
    pid, rank = workers(cluster)[victim], rank_of(cluster, victim)
    struck = threading.Event()

    def at_ten(result):
        if len(result.ids) >= 10 and not struck.is_set():
            struck.set()

    answers = [None] * len(asked)
    threads = [threading.Thread(target=lambda i=i: answers.__setitem__(i, collect(
        cluster.client.stub.Generate(asked[i], timeout=TIMEOUT_S), at_ten if i == 0 else None))) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    struck.wait(60)
    os.kill(pid, how)
    begin = time.monotonic()
    wait_until(lambda: cluster.metrics()["fathom_scheduler_groups_lost_total"] > lost, f"the loss of rank {rank} is seen", 60)
    seconds = time.monotonic() - begin
    named = None
    try:
        wait_until(lambda: f"rank {rank}" in cluster.client.admin.GetStatus(pb.GetStatusRequest()).last_loss, f"rank {rank} is named", 10)
    except AssertionError as failure:
        named = f"{failure}: {cluster.client.admin.GetStatus(pb.GetStatusRequest()).last_loss}"
    loss = cluster.client.admin.GetStatus(pb.GetStatusRequest()).last_loss
    print(f"{how.name} of rank {rank}: {loss}")
    if named is None and "last heard: " not in loss:
        named = f"without its place: {loss}"
    if how == signal.SIGSTOP:
        os.kill(pid, signal.SIGCONT)
    for thread in threads:
        thread.join()
    return answers, seconds, named


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", default=str(ROOT / "models/fathom-tiny"))
    p.add_argument("--serve", action="append", default=[], help="a word for fathom serve")
    p.add_argument("--kills", type=int, default=5)
    p.add_argument("--stages-of", type=int, metavar="TP", help="compare the answers with those of one stage of so many ranks")
    p.add_argument("--shared", action="store_true", help="the workers share one GPU, with --stages-of too")
    options = p.parse_args()
    checks, rng = Checks(), random.Random(SEED + 7)
    asked = requests(vocabulary(options.model), 32, 120, 100)
    one_stage = None
    if options.stages_of:
        with Cluster("-tp", str(options.stages_of), *(["--allow-shared-device"] if options.shared else []), model=options.model,
                     device="cuda") as c:
            one_stage = c.client.many(asked, timeout=TIMEOUT_S)
    with Cluster(*options.serve, model=options.model, device="cuda") as c:
        want = c.client.many(asked, timeout=TIMEOUT_S)
        if one_stage:
            checks.same("the answers of one stage", want, one_stage)
        ranks = len(workers(c))
        for i, how in enumerate([signal.SIGKILL] * options.kills + [signal.SIGSTOP]):
            answers, seconds, named = strike(c, asked, rng.randrange(ranks), how)
            checks.same(f"{how.name} {i} under 32 streams, seen after {seconds:.2f} s", answers, want)
            checks.add(f"{how.name} {i}: the rank is named", [named])
    print(json.dumps({"passed": checks.total - len(checks.failed), "total": checks.total, "failed": checks.failed, "seed": SEED}))
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
