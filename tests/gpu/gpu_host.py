"""tests/gpu/gpu_host.py: helpers for the parts of tests/gpu/run: the unpacked bundle, child processes, facts about the GPU, a
served model. Uses only the standard library."""
import glob
import importlib.util
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tarfile
import threading
import time
import urllib.request

import gpu_rows

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE_BYTES_MAX = 12 << 20
SMI = "name,uuid,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit"


class PartTimeout(BaseException):
    """The time of a part is over; only the caller of the part may catch it."""


class Failed(Exception):
    pass


def library_folders():
    """The folders of cuBLASLt and NCCL, which are beside PyTorch or in the CUDA toolkit."""
    folders = []
    spec = importlib.util.find_spec("nvidia")
    for place in (spec.submodule_search_locations or []) if spec else []:
        folders += sorted(glob.glob(f"{place}/*/lib"))
    return folders + [p for p in ("/usr/local/cuda/lib64",) if os.path.isdir(p)]


def unpack(archives, work):
    work.mkdir(parents=True, exist_ok=True)
    for archive in archives:
        with tarfile.open(archive) as tar:
            # Python has filters from 3.11.4 on; Debian 12 has 3.11.2.
            tar.extractall(work, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))


class Host:
    """One run: the unpacked bundle, the log of the current part, and the results."""

    def __init__(self, work, out, options):
        self.work, self.out, self.options = work, out, options
        self.bin, self.gpu = work / "bin", work / "gpu"
        commit = work / "COMMIT"
        self.commit = commit.read_text().strip() if commit.exists() else "unknown"
        self.rows, self.checks, self.measurements, self.peers, self.clocks = [], [], [], {}, {}
        self.card = None
        self.facts = self.gpu_facts()
        self.log = None
        self.shapes = {key: gpu_rows.Shape(json.loads((ROOT / f"models/shapes/{name}.json").read_text()))
                       for key, name in gpu_rows.SHAPES.items()}
        self.env = {**os.environ, "FATHOM_BIN": str(self.bin), "FATHOM_STUBS": str(work / "stubs"), "FATHOM_SOURCE_DIR": str(ROOT),
                    "LD_LIBRARY_PATH": ":".join([*library_folders(), os.environ.get("LD_LIBRARY_PATH", "")]).strip(":")}

    @property
    def card_name(self):
        name = self.facts.get("name", "cpu").lower()
        return next((card for card in ("h200", "h100") if card in name), name.replace(" ", "-"))

    def gpu_facts(self):
        try:
            line = subprocess.run(["nvidia-smi", f"--query-gpu={SMI}", "--format=csv,noheader,nounits"], capture_output=True,
                                  text=True, timeout=30).stdout.splitlines()[0]
        except (OSError, IndexError, subprocess.TimeoutExpired):
            return {}
        return dict(zip(SMI.split(","), (word.strip() for word in line.split(","))))

    def write(self, text):
        """Writes into the log of the part."""
        if self.log is not None:
            self.log.write(text if text.endswith("\n") else text + "\n")
            self.log.flush()

    def say(self, text):
        print(text, flush=True)
        self.write(text)

    def run(self, argv, timeout, env=None, check=True):
        """Runs a child and returns its output and exit code. After `timeout` seconds it is killed with its process group; then the
        code is 124."""
        argv = [str(word) for word in argv]
        self.write("$ " + " ".join(argv))
        child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                                 env={**self.env, **(env or {})}, start_new_session=True)
        try:
            text, code = child.communicate(timeout=timeout)[0], child.returncode
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            text, code = child.communicate()[0], 124
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            child.communicate()
            raise
        self.write(text)
        if check and code != 0:
            raise Failed(f"{pathlib.Path(argv[0]).name} {' '.join(argv[1:3])}: ended with {code}: {last_lines(text)}")
        return text, code

    def row(self, name, value, command):
        unit = gpu_rows.ROWS[name][0] if name in gpu_rows.ROWS else ""
        floor = gpu_rows.floor_of(name, self.shapes, self.card)
        self.rows = [one for one in self.rows if one["id"] != name]
        self.rows.append({"id": name, "value": value, "unit": unit, "floor": floor, "peer": None, "commit": self.commit,
                          "command": command})
        self.write(f"ROW {name} {value} {unit}, floor {floor}")

    def check(self, name, passed, total, notes=()):
        """Records N passed of N; prints the failed ones."""
        self.checks.append({"id": name, "passed": passed, "total": total, "notes": list(notes)[:20]})
        self.say(f"{'ok  ' if passed == total and total > 0 else 'FAIL'} {name}: {passed} of {total}")
        for note in list(notes)[:6]:
            self.say(f"     {note[:300]}")

    def results(self):
        return {"card": self.card_name, "gpu": self.facts.get("name"), "gpu_uuid": self.facts.get("uuid"),
                "driver": self.facts.get("driver_version"), "commit": self.commit, "clocks": self.clocks,
                "limits": vars(self.card) if self.card else None, "checks": self.checks, "peers": self.peers,
                "rows": self.rows, "measurements": self.measurements}


def last_lines(text, count=3):
    return " | ".join([line.strip() for line in text.splitlines() if line.strip()][-count:])


class Clocks:
    """Lowest, median and highest clock, power and temperature of the GPU while the block runs, and whether the power limit
    reduces the clock (1) or not (0)."""

    FIELDS = ("clocks.sm", "clocks.mem", "power.draw", "temperature.gpu", "clocks_event_reasons.sw_power_cap")
    STATES = {"Active": 1.0, "Not Active": 0.0}

    def __init__(self, host, name):
        self.host, self.name = host, name

    def __enter__(self):
        try:
            self.child = subprocess.Popen(["nvidia-smi", f"--query-gpu={','.join(self.FIELDS)}", "--format=csv,noheader,nounits",
                                           "-lms", "500"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except OSError:
            self.child = None
        self.lines = []
        if self.child:
            self.reader = threading.Thread(target=lambda: self.lines.extend(self.child.stdout), daemon=True)
            self.reader.start()
        return self

    def __exit__(self, *_):
        if not self.child:
            return
        self.child.terminate()
        self.child.wait()
        self.reader.join(5)
        self.child.stdout.close()
        words = [[w.strip() for w in line.split(",")] for line in self.lines if "N/A" not in line]
        columns = list(zip(*[[self.STATES[w] if w in self.STATES else float(w) for w in row] for row in words
                             if len(row) == len(self.FIELDS)]))
        self.host.clocks[self.name] = {field: [min(c), statistics.median(c), max(c)] for field, c in zip(self.FIELDS, columns)}


class Serve:
    """`fathom serve` of the bundle, or of another folder of programs, on free ports; `with` waits until it is ready, and stops
    it."""

    def __init__(self, host, model, *args, timeout=300, folder=None):
        self.host, self.timeout = host, timeout
        self.argv = [str((folder or host.bin) / "fathom"), "serve", "--model", str(model), "--device", host.options.device]
        for port in ("http", "grpc", "scheduler", "scheduler-metrics", "worker", "worker-metrics"):
            self.argv += [f"--{port}-port", "0"]
        self.argv += ["--json", "--start-timeout-s", str(timeout), *args, *host.options.serve]

    def __enter__(self):
        self.host.write("$ " + " ".join(self.argv))
        self.lines, self.ready = [], None
        self.process = subprocess.Popen(self.argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.host.env,
                                        start_new_session=True)
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True)
        self.reader.start()
        try:
            for line in self.process.stdout:
                if (one := gpu_rows.last_json(line)) and one.get("event") == "ready":
                    self.ready = one
                    break
        except BaseException:
            self.stop()
            raise
        if self.ready is None:
            self.stop()
            raise Failed(f"fathom serve ended with {self.process.returncode}: {last_lines(''.join(self.lines))}")
        self.server = f"127.0.0.1:{self.ready['grpc_port']}"
        self.host.write(json.dumps(self.ready))
        self.drain = threading.Thread(target=lambda: [None for _ in self.process.stdout], daemon=True)
        self.drain.start()
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.stop()

    def stop(self):
        try:
            self.process.wait(60 if self.ready else 5)
        except subprocess.TimeoutExpired:
            self.process.kill()  # Its children are killed with it.
            self.process.wait()
        self.reader.join(5)
        self.host.write("".join(self.lines[-60:]))

    def bench(self, *args, timeout=600):
        """Runs `fathom bench` with this cluster; returns its JSON and the command that repeats it."""
        words = ["bench", *[str(a) for a in args]]
        text, _ = self.host.run([self.host.bin / "fathom", *words, "--server", self.server, "--json"], timeout)
        found = gpu_rows.last_json(text)
        if found is None:
            raise Failed(f"fathom bench {args[0]} printed no JSON: {last_lines(text)}")
        return found, "fathom " + " ".join(words)

    def metrics(self):
        """The metrics of worker 0."""
        port = self.ready["workers"][0]["metrics_port"]
        return gpu_rows.metrics(urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())


def wait_until(condition, seconds, what):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (value := condition()):
            return value
        time.sleep(0.05)
    raise Failed(f"after {seconds} s still not: {what}")


def python():
    return sys.executable


def plain_environment():
    """The environment for programs that bring their own CUDA libraries, which the bundle's libraries must not replace."""
    return {"LD_LIBRARY_PATH": os.environ.get("LD_LIBRARY_PATH", "")}
