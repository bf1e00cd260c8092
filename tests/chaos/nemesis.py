"""tests/chaos/nemesis.py: kills and stops processes by a seed while clients check every token (run by tests/chaos/run).

First every request of a pool runs undisturbed. Then streams run them again and again on two kinds of cluster while processes are killed
(SIGKILL) and stopped (SIGSTOP, SIGCONT). Each answer must equal the undisturbed one in tokens, bits of log-probabilities, text and end;
afterwards no KV block, shared memory, descriptor or process may be left over. Otherwise the exit code is not 0.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import statistics
import sys
import threading
import time

from ledger import make_pool  # First: it makes cluster.py importable.
from client import Client, Crowd
from cluster import SLOW, wait_until
from layouts import CONT, KILL, STOP, ByHand, Served, descriptors, send

ROUTERS = ["router-0", "router-1"]
OVERLAPPING = "any of these within 2 s after another"


class Tokens:
    """The times at which tokens came, by stream; pauses are computed from them."""

    def __init__(self):
        self.times = collections.defaultdict(list)
        self.over = set()
        self.lock = threading.Lock()

    def __call__(self, execution, _new):
        with self.lock:
            self.times[execution].append(time.monotonic())

    def ended(self, execution):
        with self.lock:
            self.over.add(execution)

    def recovered(self, since):
        """Whether every stream that had begun by then has new tokens or has ended."""
        with self.lock:
            return all(t[0] > since or t[-1] > since for execution, t in self.times.items() if execution not in self.over)

    def pauses(self, begin, end):
        """For each stream that had begun by `begin` and continued: its longest time without a token that overlaps [begin, end)."""
        with self.lock:
            times = [list(t) for t in self.times.values() if t[0] < begin < t[-1]]
        return [max((b - a for a, b in zip(t, t[1:]) if b > begin and a < end), default=0.0) for t in times]


class Nemesis:
    """Kills or stops processes of a layout, one fault after the other."""

    def __init__(self, layout, tokens, rng):
        self.layout, self.tokens, self.rng = layout, tokens, rng
        self.victims = ["scheduler", *layout.workers, *ROUTERS]
        self.done = []  # (kind, begin, end)
        self.stopped = {}

    def pid_of(self, role, seconds=15.0):
        """Waits for the process of the role, so that the next fault hits its start; None: it did not come back."""
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            pid = self.layout.note().get(role)
            if pid is not None and pid not in self.stopped:
                return pid
            self.layout.keep()
            time.sleep(0.005)
        return None

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while True:
            self.layout.note()
            self.layout.keep()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.02))

    def kill(self, role):
        pid = self.pid_of(role)
        return pid is not None and send(pid, KILL)

    def stop(self, role, seconds):
        pid = self.pid_of(role)
        if pid is None or not send(pid, STOP):
            return
        self.stopped[pid] = role
        self.wait(seconds)
        self.go_on()

    def go_on(self):
        for pid in list(self.stopped):
            send(pid, CONT)
            del self.stopped[pid]

    # ---- The faults

    def kill_one(self):
        role = self.rng.choice(self.victims)
        self.kill(role)
        return f"kill -9 {role.split('-')[0]}"

    def kill_two(self):
        first, second = self.rng.sample(self.victims, 2)
        self.kill(first)
        self.kill(second)
        names = sorted(role.split("-")[0] for role in (first, second))
        return "two at once: " + " and ".join(names)

    def kill_both_owners(self):
        """Kills the scheduler and every router, so no process holds the records any more."""
        for role in ("scheduler", *ROUTERS):
            self.kill(role)
        return "scheduler and all routers at once"

    def stop_one(self):
        role = self.rng.choice(self.victims)
        seconds = self.rng.choice([0.2, 1.0, 3.0]) * (0.5 + self.rng.random())
        self.stop(role, seconds)
        return f"SIGSTOP {role.split('-')[0]} {'below' if seconds < 1.5 else 'above'} 1.5 s"

    def kill_at_start(self):
        role = self.rng.choice(self.victims)
        self.kill(role)
        for _ in range(self.rng.randrange(1, 3)):
            if self.pid_of(role) is None:
                break
            self.wait(self.rng.random() * 0.3)
            self.kill(role)
        return f"again at its start: {role.split('-')[0]}"

    def kill_while_forming(self):
        self.kill(self.rng.choice([*self.layout.workers, "scheduler"]))
        self.wait(self.rng.random() * 0.5)
        self.kill(self.rng.choice(self.victims))
        return "another while the group forms again"

    def wait_recovered(self):
        since = time.monotonic()
        while not self.tokens.recovered(since) and time.monotonic() < since + 20 * SLOW:
            self.wait(0.02)

    def one_round(self):
        """A single fault, with tokens for every stream before and after it; or a fault that may fall into the pause after the last one."""
        alone = self.rng.random() < 0.6
        if alone:
            self.wait_recovered()
        begin = time.monotonic()
        kind = self.rng.choices([self.kill_one, self.kill_two, self.kill_both_owners, self.stop_one, self.kill_at_start, self.kill_while_forming],
                                [6, 3, 1, 4, 2, 2])[0]()
        if alone:
            self.wait_recovered()
        else:
            kind = OVERLAPPING
            self.wait(self.rng.uniform(0.1, 2.0))
        self.done.append((kind, begin, time.monotonic()))
        return kind


def shared_memory():
    return {name for name in os.listdir("/dev/shm") if name.startswith("fathom-")}


def mapped_shared_memory():
    mapped = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
        except OSError:
            continue
        mapped |= {line.split("/dev/shm/")[1].split()[0] for line in maps.splitlines() if "/dev/shm/" in line}
    return mapped


class Run:
    def __init__(self, options):
        self.options = options
        self.pool = make_pool(options.seed, options.requests, options.tokens)
        self.faults = []
        self.rows = collections.defaultdict(list)  # Kind to pauses.
        self.actions = collections.Counter()
        self.counts = collections.Counter()

    def say(self, text):
        print(f"[{time.monotonic() - self.begin:6.1f} s] {text}", flush=True)

    def undisturbed(self):
        """The expected answers: each request runs alone on its stream."""
        layout = Served(self.options.seed, self.options.shape)
        try:
            layout.wait_ready()
            client = Client(layout.router_ports(), lambda *_: None)
            rng = random.Random(0)
            lock = threading.Lock()
            left = list(self.pool)

            def loop():
                while True:
                    with lock:
                        if not left:
                            return
                        work = left.pop()
                    leaves, work.leaves = work.leaves, []
                    work.want = client.run(work, f"undisturbed-{work.number}", rng)
                    work.leaves = leaves

            threads = [threading.Thread(target=loop) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            client.close()
        finally:
            layout.close()
        lengths = [len(work.want.ids) for work in self.pool]
        kinds = collections.Counter(word for work in self.pool for word in work.kind.replace(",", "").split())
        self.say(f"undisturbed: {len(self.pool)} answers of {min(lengths)} to {max(lengths)} tokens; {dict(kinds)}")

    def disturbed(self, make, seconds, part):
        before = shared_memory()
        layout = make(self.options.seed, self.options.shape)
        layout.wait_ready()
        layout.note()
        serve = layout.roles().get("serve")
        serve_descriptors = descriptors(serve) if serve else 0
        tokens = Tokens()
        client = Client(layout.router_ports(), tokens)
        crowd = Crowd(client, tokens.ended, self.pool, self.options.streams, self.options.seed, f"chaos{part}")
        nemesis = Nemesis(layout, tokens, random.Random(f"nemesis {self.options.seed} {part}"))
        crowd.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (crowd.faults and self.options.first):
            since = time.monotonic()
            kind = nemesis.one_round()
            if self.options.verbose:
                with tokens.lock:
                    came = sum(t >= since for times in tokens.times.values() for t in times)
                pauses = sorted(tokens.pauses(since, time.monotonic()))
                self.say(f"{kind}: {came} messages with tokens in {time.monotonic() - since:.1f} s; pauses up to {pauses[-1:]}")
        nemesis.go_on()
        keeper = threading.Thread(target=crowd.stop)
        keeper.start()
        while keeper.is_alive():
            nemesis.wait(0.1)
        self.faults += crowd.faults
        for kind, begin, until in nemesis.done:
            self.actions[kind] += 1
            self.rows[kind] += tokens.pauses(begin, until)
        self.leaks(layout, client, serve, serve_descriptors)
        self.counts += client.counts
        client.close()
        layout.note()
        layout.close()
        if self.options.verbose:
            print("".join(layout.log()), flush=True)
        self.faults += [f"{layout.name}: {who} outlives its cluster" for who in layout.outlivers()]
        time.sleep(1)
        self.faults += [f"{layout.name}: /dev/shm/{name} is left" for name in sorted(shared_memory() - before - mapped_shared_memory())]
        self.say(f"{layout.name}: {len(nemesis.done)} blows, {client.counts['answers']} answers, {len(layout.seen)} processes, "
                 f"{len(crowd.faults)} faults")

    def leaks(self, layout, client, serve, serve_descriptors):
        """Checks that the cluster is complete and idle again and holds no resource that it did not hold before."""
        try:
            layout.wait_ready()
            wait_until(lambda: layout.metrics()["fathom_scheduler_blocks_used"] == 0, "all KV blocks are free", 30)
        except AssertionError as error:
            self.faults.append(f"{layout.name}: {error}")
            return
        rng = random.Random(0)

        def quiet():
            """Runs a few requests, then counts the descriptors of each process when nothing runs."""
            for work in sorted(self.pool, key=lambda work: len(work.want.ids))[:4]:
                client.run(work, f"quiet-{time.monotonic_ns()}", rng)
            counts = {}
            for _ in range(10):
                time.sleep(0.1)
                for role, pid in layout.roles().items():
                    counts[role] = min(counts.get(role, 1 << 30), descriptors(pid))
            return counts

        first, second = quiet(), quiet()
        grown = {role: (first[role], count) for role, count in second.items() if count > first.get(role, count)}
        if grown:
            self.faults.append(f"{layout.name}: descriptors grow between quiet rounds: {grown}")
        if serve and descriptors(serve) > serve_descriptors:
            self.faults.append(f"{layout.name}: serve has {descriptors(serve)} descriptors, {serve_descriptors} at its start")

    def report(self):
        blows = sum(self.actions.values())
        print(f"\nseed {self.options.seed}: {blows} blows, {self.counts['answers']} answers of {self.counts['tokens']} tokens in "
              f"{self.counts['streams']} streams; {self.counts['left and resumed']} left and resumed, "
              f"{self.counts['streams gone on elsewhere']} gone on elsewhere, {self.counts['asked again from the start']} asked again")
        print("| what was done | times | streams | pause, median | 90 % | longest |\n|---|---|---|---|---|---|")
        for kind in sorted(self.actions):
            pauses = sorted(self.rows[kind])
            if not pauses:
                print(f"| {kind} | {self.actions[kind]} | 0 | | | |")
                continue
            print(f"| {kind} | {self.actions[kind]} | {len(pauses)} | {statistics.median(pauses):.2f} s | "
                  f"{pauses[int(len(pauses) * 0.9)]:.2f} s | {pauses[-1]:.2f} s |")
        print("what calls ended with:", json.dumps({k: v for k, v in sorted(self.counts.items()) if k[0].isupper()}))
        for fault in self.faults[:50]:
            print("FAULT", fault)
        print(f"{len(self.faults)} faults; repeat with --seed {self.options.seed}")

    def run(self):
        self.begin = time.monotonic()
        self.undisturbed()
        layouts = [make for make in (Served, ByHand) if self.options.layout in ("both", make.option)]
        seconds = self.options.minutes * 60 / len(layouts)
        for part, make in enumerate(layouts):
            self.disturbed(make, seconds, part)
        self.report()
        return 1 if self.faults else 0


def shape_of(text):
    tp, pp, dp = map(int, text.split("x"))
    return tp, pp, dp


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[1])
    parser.add_argument("--minutes", type=float, default=0.5, help="how long processes are killed and stopped, in all (default 0.5)")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FATHOM_SEED", "20261129")))
    parser.add_argument("--streams", type=int, default=24, help="streams at once (default 24)")
    parser.add_argument("--requests", type=int, default=48, help="different requests (default 48)")
    parser.add_argument("--tokens", type=int, default=300, help="tokens of the longest answer (default 300)")
    parser.add_argument("--layout", choices=["both", "serve", "hand"], default="both", help="which kind of cluster (default both)")
    parser.add_argument("--shape", type=shape_of, default=(2, 1, 1), metavar="TPxPPxDP", help="ranks, stages and copies, e.g. 2x2x1 (default 2x1x1)")
    parser.add_argument("--verbose", action="store_true", help="a line for each blow, and what fathom serve said")
    parser.add_argument("--first", action="store_true", help="end with the first fault")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    return Run(options).run()


if __name__ == "__main__":
    sys.exit(main())
