#!/usr/bin/env python3
"""Runs the commands in the code blocks of README.md and docs/OPERATIONS.md, in their order, as a reader would who types them.

A server keeps running until the next cluster is started. The ports are those of real processes on free ports: defaults are
changed by the environment (FATHOM_GRPC_PORT=0, FATHOM_SERVER=...), ports in a command are replaced; nothing else of a command
is changed, except that optional parts in [brackets] are left out. What is not run is in NOT_RUN with the reason, what is no
command in OUTPUT; an entry of these tables that fits nothing is an error. Flags of all commands, also of those in the text,
are compared with --help.

    commands_test.py [-v]     -v: prints each command with its time
"""
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from markdown import CODE, ROOT, read  # noqa: E402
from programs import BIN, SLOW, wrong_names  # noqa: E402

PAGES = ("README.md", "docs/OPERATIONS.md")
# (how a command begins, why it is not run here)
NOT_RUN = [
    ("git clone", "this tree is the clone"),
    ("./deploy/quickstart", "it installs and builds: tests/distros runs it on each distribution"),
    ("sudo ./deploy/setup", "it installs packages as root: tests/distros"),
    ("cmake --preset release", "the build that this test runs in was made by it"),
    ("sudo cmake --install", "as root; tests/deploy/image_test.py installs the components"),
    ("fathom plan --model DIR", "DIR is the reader's; OPERATIONS has the command with a model"),
    ("fathom serve --model DIR --device cuda", "needs a GPU: tests/gpu"),
    ("fathom serve --model M -tp 2 --scheduler-host", "10.0.0.1 is an address of the reader's network"),
    ("fathom serve --model M --host 0.0.0.0", "M is the reader's; tests/e2e/keys_test.py and tls_test.py run its flags"),
    ("FATHOM_API_KEY=fk-", "the host is one of the reader's network; tests/e2e/keys_test.py"),
    ("fathom workers --model M", "needs other hosts or eight ranks; the section on scaling runs fathom workers"),
    ("fathom serve --edge ...", "needs HAProxy: tests/hostile"),
    ("fathom edge", "needs HAProxy: tests/hostile"),
    ("fathom accept", "a model of a GPU; tests/e2e/accept_test.py runs it with the floors of the CPU"),
    ("fathom bench serve", "takes minutes; tests/e2e/bench_serve_test.py runs it with few requests"),
    ("fathom explain 5f1c", "the id is one of another cluster: tests/e2e/explain_test.py"),
]
# How the first line of a block begins that is no command.
OUTPUT = ["token_costs: {prefill: 1", "group 1 (epoch 1): 2 ranks up", "group 1 rank 0 on", "812.0 prompt tokens/s"]
PROGRAMS = ("fathom", "fathom-router", "fathom-scheduler", "fathom-worker", "fathom-replay")
SERVERS = {  # Command -> its environment.
    "fathom serve": {"GRPC_PORT": "0", "HTTP_PORT": "0", "SCHEDULER_PORT": "0", "SCHEDULER_METRICS_PORT": "0", "WORKER_PORT": "0",
                     "WORKER_METRICS_PORT": "0", "DEVICE": "cpu"},
    "fathom workers": {"WORKER_PORT": "0", "WORKER_METRICS_PORT": "0", "DEVICE": "cpu"},
    "fathom-scheduler": {"PORT": "0", "METRICS_PORT": "0"},
    "fathom-worker": {"PORT": "0", "METRICS_PORT": "0", "DEVICE": "cpu"},
    "fathom-router": {"GRPC_PORT": "0", "HTTP_PORT": "0"},
}
STARTS_A_CLUSTER = ("fathom serve", "fathom-scheduler")
PORT_FLAG = re.compile(r"(--[a-z-]*port) (\d+)")
ADDRESS = re.compile(r"127\.0\.0\.1:(\d+)")


class Server:
    """A process of a cluster, in the background; `said` is its line of JSON."""

    def __init__(self, words, env, folder):
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([shutil.which(words[0], path=env["PATH"]), *words[1:]], env=env, cwd=folder,
                                        stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.said = None
        timer = threading.Timer(120 * SLOW, self.process.kill)
        timer.start()
        for line in self.process.stdout:
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("event") == "ready" or "role" in said:
                self.said = said
                break
        timer.cancel()
        if self.said is None:
            self.log.seek(0)
            raise RuntimeError(f"it ended with {self.process.wait()} and was not ready:\n{self.log.read()[-2000:]}")
        self.reader = threading.Thread(target=lambda: [None for _ in self.process.stdout])
        self.reader.start()

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(30 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.log.close()
        return code


class Reader:
    """Types the commands: knows the processes that run and the ports that they have in the place of the documented ones."""

    def __init__(self, folder):
        self.folder = folder
        self.servers, self.ports = [], {}
        self.problems = []
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("FATHOM_")}
        self.env |= {"PATH": f"{BIN}:{self.env['PATH']}", "XDG_RUNTIME_DIR": str(folder)}

    def stop(self):
        for server in reversed(self.servers):
            words = server.process.args
            code = server.end()
            if code != 0:
                self.problems.append(f"{' '.join(map(str, words))}: ended with {code} after SIGTERM")
        self.servers, self.ports = [], {}

    def with_ports(self, command, listens):
        """The command with the ports of this cluster; a port on which it shall listen becomes any free one."""
        command = ADDRESS.sub(lambda m: f"127.0.0.1:{self.ports.get(m[1], m[1])}", command)
        return PORT_FLAG.sub(r"\1 0", command) if listens else command

    def run(self, command):
        """None, or what went wrong."""
        command = re.sub(r" \[[^]]*\]", "", command).replace("build/release/bin/", "")
        name = next((s for s in SERVERS if re.match(rf"{s}(\s|$)", command)), None)
        return self.serve(name, command) if name else self.type(command)

    def serve(self, name, command):
        if name in STARTS_A_CLUSTER:
            self.stop()
        words = shlex.split(self.with_ports(command, True), comments=True)
        env = self.env | {f"FATHOM_{key}": value for key, value in SERVERS[name].items()}
        if name != "fathom serve" and "8003" in self.ports:
            env["FATHOM_SCHEDULER"] = f"127.0.0.1:{self.ports['8003']}"
        try:
            server = Server(words, env, self.folder)
        except RuntimeError as error:
            return str(error)
        self.servers.append(server)
        self.learn(command, server.said)
        return None

    def learn(self, command, said):
        """Notes for each documented port of the process which one it has."""
        documented = dict(PORT_FLAG.findall(command))
        role = said.get("role", "serve")
        if role in ("serve", "router") and "grpc_port" in said:
            self.ports[documented.get("--grpc-port", "8001")] = said["grpc_port"]
        if role == "serve" and "scheduler_port" in said:
            self.ports["8003"] = said["scheduler_port"]
            self.ports["8010"] = said["workers"][0]["port"]
        if role == "scheduler":
            self.ports["8003"] = said["port"]
        if role == "worker":
            self.ports[documented.get("--port", "8010")] = said["port"]

    def type(self, command):
        command = self.with_ports(command, False)
        env = dict(self.env)
        if "8001" in self.ports:
            env["FATHOM_SERVER"] = f"127.0.0.1:{self.ports['8001']}"
        if command.startswith("fathom profile") and "8010" in self.ports:  # Steps are what it records, so there must be some.
            env["FATHOM_WORKER"] = f"127.0.0.1:{self.ports['8010']}"
            command = f"fathom complete x --max-tokens 3000 --ignore-eos >/dev/null 2>&1 &\n{command}\ncode=$?; kill $!; exit $code"
        if command.startswith("fathom doctor"):
            env |= {f"FATHOM_{key}": value for key, value in SERVERS["fathom serve"].items()}
        deadline = time.monotonic() + 120 * SLOW
        while True:
            done = subprocess.run(["timeout", str(300 * SLOW), "bash", "-c", command], env=env, cwd=self.folder, capture_output=True, text=True)
            if done.returncode == 69 and command.startswith("fathom status") and time.monotonic() < deadline:
                continue  # "until then it says what is missing"
            return None if done.returncode == 0 else f"ended with {done.returncode}:\n{done.stdout[-500:]}{done.stderr[-1500:]}"


def commands_of(page):
    """(line, command) of each command in the code blocks of a page, and those entries of OUTPUT that it has."""
    found, outputs = [], []
    for block in read(ROOT / page):
        if block.kind != "fence":
            continue
        output = next((begin for begin in OUTPUT if block.text.startswith(begin)), None)
        if output:
            outputs.append(output)
            continue
        lines = block.text.splitlines()
        if lines[0].startswith("$ "):  # One command and its output.
            found.append((block.line + 1, lines[0][2:]))
        else:
            found += [(block.line + 1 + i, text) for i, text in enumerate(lines) if text.strip() and not text.startswith("#")]
    return found, outputs


def main():
    verbose = "-v" in sys.argv
    problems, used, ran = [], set(), 0
    with tempfile.TemporaryDirectory(prefix="fathom-docs-") as folder:
        for entry in ("models", "deploy", "tests"):
            (pathlib.Path(folder) / entry).symlink_to(ROOT / entry)
        reader = Reader(pathlib.Path(folder))
        try:
            for page in PAGES:
                found, outputs = commands_of(page)
                used |= set(outputs)
                for line, command in found:
                    plain = command.replace("build/release/bin/", "")
                    problems += [f"{page}:{line}: {wrong}" for wrong in wrong_names(plain)]
                    skip = next((begin for begin, _ in NOT_RUN if plain.startswith(begin)), None)
                    if skip:
                        used.add(skip)
                        continue
                    if not plain.startswith(PROGRAMS):
                        problems.append(f"{page}:{line}: neither a command of ours nor in NOT_RUN or OUTPUT of this test: {command}")
                        continue
                    begin = time.monotonic()
                    wrong = reader.run(command)
                    ran += 1
                    if verbose:
                        print(f"{time.monotonic() - begin:6.2f} s  {command}", flush=True)
                    if wrong:
                        problems.append(f"{page}:{line}: {command}\n    {wrong}")
                for block in read(ROOT / page):
                    for number, text in [(n, " ".join(cells)) for n, cells in block.rows] or [(block.line, block.text)]:
                        if block.kind != "fence":
                            problems += [f"{page}:{number}: `{code}`: {wrong}" for code in CODE.findall(text) for wrong in wrong_names(code)]
        finally:
            reader.stop()
        problems += reader.problems
    problems += [f"tests/docs/commands_test.py: no command begins with: {begin}" for begin in
                 {*(begin for begin, _ in NOT_RUN), *OUTPUT} - used]
    print("\n".join(problems) or f"{ran} commands ran")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
