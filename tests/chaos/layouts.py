"""tests/chaos/layouts.py: clusters whose single processes can be identified and killed: under `fathom serve`, and started by hand.

`roles()` maps a role to its living process: "scheduler", "worker-0", "worker-1", "router-0", "router-1". A process that
dies is restarted: a child of `fathom serve` by serve, all others by `keep()`.
"""
import json
import os
import pathlib
import random
import signal
import subprocess
import tempfile
import threading
import time

from cluster import BIN, SLOW, TINY, Client, Cluster, pb, wait_until


def kv_bytes(pp):
    """About 200 blocks of 16 tokens for the layers of a stage: too few for all streams, so some are suspended and replayed."""
    return str(200 * 16 * 8 * 2 * 2 * 64 * 4 // pp)


def start_time(pid):
    """The start time, which together with the pid identifies a process; None: it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else int(fields[19])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Hand:
    """One process started by this program, on ports that it keeps, and started again when it dies."""

    def __init__(self, program, args, ports):
        self.program, self.args, self.ports = program, args, dict.fromkeys(ports, 0)
        self.process = None
        self.restart_at = 0.0
        self.start()

    def start(self):
        flags = [word for name, port in self.ports.items() for word in (f"--{name.replace('_', '-')}", str(port))]
        self.process = subprocess.Popen([BIN / self.program, *self.args, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.reader = threading.Thread(target=self._read, args=(self.process,), daemon=True)
        self.reader.start()

    def _read(self, process):
        for line in process.stdout:
            if '"role"' in line:
                said = json.loads(line)
                self.ports = {name: said.get(name, port) for name, port in self.ports.items()}
        process.stdout.close()

    def wait_for_ports(self):
        wait_until(lambda: all(self.ports.values()), f"{self.program} listens", 30)

    def keep(self, rng):
        """Restarts the process some time after it died."""
        if self.process.poll() is None:
            return
        if not self.restart_at:
            self.restart_at = time.monotonic() + rng.choice([0, 0.1, 0.5]) * rng.random()
        elif time.monotonic() >= self.restart_at:
            self.restart_at = 0.0
            self.start()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.reader.join()


class Layout:
    def __init__(self, shape):
        self.shape = shape  # tp, pp, dp.
        self.workers = [f"worker-{i}" for i in range(shape[0] * shape[1] * shape[2])]
        self.seen = {}  # (pid, start time) to role, for every process that ever existed.

    def note(self):
        """Records the living processes and returns their number by role."""
        roles = self.roles()
        for role, pid in roles.items():
            born = start_time(pid)
            if born is not None:
                self.seen[pid, born] = role
        return roles

    def wait_ready(self):
        clients = [Client(port) for port in self.router_ports()]
        for client in clients:
            def ready(client=client):
                try:
                    return client.admin.GetStatus(pb.GetStatusRequest(), timeout=2).ready
                except Exception:  # Not up yet.
                    return False
            wait_until(ready, "the cluster is ready", 60)
            client.close()

    def log(self):
        return []

    def outlivers(self):
        return [f"{role} (pid {pid})" for (pid, born), role in self.seen.items() if start_time(pid) == born]


class Served(Layout):
    """`fathom serve`, and a second router by hand."""

    name, option = "under fathom serve", "serve"

    def __init__(self, seed, shape):
        super().__init__(shape)
        self.rng = random.Random(f"served {seed}")
        tp, pp, dp = map(str, shape)
        self.cluster = Cluster("-tp", tp, "-pp", pp, "-dp", dp, "--kv-cache-memory", kv_bytes(shape[1])).__enter__()
        self.second = Hand("fathom-router", ["--model", str(TINY), "--scheduler", f"127.0.0.1:{self.cluster.ready['scheduler_port']}"],
                           ["grpc_port", "http_port"])
        self.second.wait_for_ports()

    def router_ports(self):
        return [self.cluster.ready["grpc_port"], self.second.ports["grpc_port"]]

    def metrics(self):
        return self.cluster.metrics()

    def log(self):
        return self.cluster.log

    def roles(self):
        roles = {"serve": self.cluster.process.pid}
        if self.second.process.poll() is None:
            roles["router-1"] = self.second.process.pid
        serve = self.cluster.process.pid
        try:
            children = pathlib.Path(f"/proc/{serve}/task/{serve}/children").read_text().split()
        except OSError:
            children = []
        for pid in map(int, children):
            try:
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            program = os.path.basename(words[0].decode())
            if program == "fathom-worker" and b"--rank" in words:
                roles["worker-" + words[words.index(b"--rank") + 1].decode()] = pid
            elif program in ("fathom-router", "fathom-scheduler"):
                roles[{"fathom-router": "router-0"}.get(program, "scheduler")] = pid
        return roles

    def keep(self):
        self.second.keep(self.rng)

    def close(self):
        self.second.stop()
        self.cluster.__exit__()


class ByHand(Layout):
    """A scheduler, the workers and two routers, each started by this program, in any order."""

    name, option = "by hand", "hand"

    def __init__(self, seed, shape):
        super().__init__(shape)
        self.rng = random.Random(f"by hand {seed}")
        self.folder = tempfile.TemporaryDirectory(prefix="fathom-chaos-")
        self.hands = {"scheduler": Hand("fathom-scheduler", ["--term-file", f"{self.folder.name}/term"], ["port", "metrics_port"])}
        self.hands["scheduler"].wait_for_ports()
        inside = ["--model", str(TINY), "--scheduler", f"127.0.0.1:{self.hands['scheduler'].ports['port']}"]
        tp, pp, _ = map(str, shape)
        for i, role in enumerate(self.workers):
            self.hands[role] = Hand("fathom-worker", [*inside, "-tp", tp, "-pp", pp, "--rank", str(i), "--local-workers", str(len(self.workers)),
                                                      "--device", "cpu", "--kv-cache-memory", kv_bytes(shape[1])], ["port", "metrics_port"])
        for i in range(2):
            self.hands[f"router-{i}"] = Hand("fathom-router", inside, ["grpc_port", "http_port"])
        for hand in self.hands.values():
            hand.wait_for_ports()

    def router_ports(self):
        return [self.hands[f"router-{i}"].ports["grpc_port"] for i in range(2)]

    def metrics(self):
        view = type("View", (), {"ready": {"scheduler_metrics_port": self.hands["scheduler"].ports["metrics_port"], "http_port": 0,
                                           "workers": [{"metrics_port": 0}]}})
        return Cluster.metrics(view)

    def roles(self):
        return {role: hand.process.pid for role, hand in self.hands.items() if hand.process.poll() is None}

    def keep(self):
        for hand in self.hands.values():
            hand.keep(self.rng)

    def close(self):
        for role in ("router-0", "router-1", *self.workers, "scheduler"):
            self.hands[role].stop()
        self.folder.cleanup()


def send(pid, what):
    """Returns False if the process has already ended."""
    try:
        os.kill(pid, what)
    except ProcessLookupError:
        return False
    return True


KILL, STOP, CONT = signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT
