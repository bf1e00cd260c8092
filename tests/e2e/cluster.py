"""tests/e2e/cluster.py: starts real clusters on free ports and uses them through grpcio, an independent client.

    with Cluster("-tp", "2") as c:
        result = c.generate(ids=[0, 3, 5], max_tokens=8)
"""
import dataclasses
import hashlib
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("FATHOM_BIN", ROOT / "build/release/bin"))
TINY = ROOT / "models/fathom-tiny"
# Sanitized builds are up to this many times slower; time limits are multiplied by it.
SLOW = float(os.environ.get("FATHOM_TEST_SLOWDOWN", "1"))


def _stubs():
    """Generates the Python stubs once for each state of the protos and imports them; FATHOM_STUBS is a folder that already has them."""
    if "FATHOM_STUBS" in os.environ:
        sys.path.insert(0, os.environ["FATHOM_STUBS"])
        return
    protos = [ROOT / "proto/inference.proto", ROOT / "proto/google/rpc/status.proto", ROOT / "proto/google/rpc/error_details.proto"]
    digest = hashlib.sha256(b"".join(p.read_bytes() for p in protos)).hexdigest()[:16]
    out = ROOT / "build/oracles/gen" / digest
    if not (out / "done").exists():
        from grpc_tools import protoc
        out.mkdir(parents=True, exist_ok=True)
        include = pathlib.Path(__import__("grpc_tools").__file__).parent / "_proto"
        code = protoc.main(["protoc", f"-I{ROOT / 'proto'}", f"-I{include}", f"--python_out={out}", f"--grpc_python_out={out}",
                            str(protos[0])])
        assert code == 0, "protoc failed"
        (out / "done").touch()
    sys.path.insert(0, str(out))


_stubs()
import grpc  # noqa: E402
import inference_pb2 as pb  # noqa: E402
import inference_pb2_grpc as pb_grpc  # noqa: E402


@dataclasses.dataclass
class Result:
    """One whole answer of one sequence."""
    started: object = None
    ids: list = dataclasses.field(default_factory=list)
    text: str = ""
    reasoning: str = ""
    logprobs: list = dataclasses.field(default_factory=list)
    prompt_logprobs: list = dataclasses.field(default_factory=list)
    finish: object = None
    error: object = None  # grpc.RpcError.

    def bits(self):
        """The values that must be equal to the last bit: tokens and the bits of their log-probabilities."""
        return (tuple(self.ids), self.text, self.reasoning, tuple((p.id, p.logprob) for p in self.logprobs))


def collect(stream, on_tokens=None):
    """Reads a stream to its end and checks that positions have no gaps and events have the right order."""
    result = Result()
    try:
        for message in stream:
            event = message.WhichOneof("event")
            if event == "started":
                assert result.started is None, "Started twice"
                result.started = message.started
            elif event == "tokens":
                assert result.started is not None and result.finish is None
                assert message.tokens.position == len(result.ids), (message.tokens.position, len(result.ids))
                result.ids += message.tokens.ids
                result.text += message.tokens.text
                result.reasoning += message.tokens.reasoning
                result.logprobs += message.tokens.logprobs
                if on_tokens:
                    on_tokens(result)
            elif event == "prompt_logprobs":
                assert message.prompt_logprobs.start == 1 + len(result.prompt_logprobs)
                result.prompt_logprobs += message.prompt_logprobs.logprobs
            elif event == "finish":
                assert result.finish is None
                result.finish = message.finish
    except grpc.RpcError as error:
        result.error = error
    return result


def collect_several(stream, sequences, on_tokens=None):
    """Like collect, for a request of several sequences: a Result for each. An error is that of all."""
    results = [Result() for _ in range(sequences)]
    try:
        for message in stream:
            event = message.WhichOneof("event")
            if event == "started":
                for result in results:
                    assert result.started is None, "Started twice"
                    result.started = message.started
            elif event == "tokens":
                result = results[message.tokens.sequence]
                assert result.started is not None and result.finish is None
                assert message.tokens.position == len(result.ids), (message.tokens.position, len(result.ids))
                result.ids += message.tokens.ids
                result.text += message.tokens.text
                result.reasoning += message.tokens.reasoning
                result.logprobs += message.tokens.logprobs
                if on_tokens:
                    on_tokens(results)
            elif event == "prompt_logprobs":
                assert message.prompt_logprobs.start == 1 + len(results[0].prompt_logprobs)
                results[0].prompt_logprobs += message.prompt_logprobs.logprobs
            elif event == "finish":
                result = results[message.finish.sequence]
                assert result.finish is None, "Finish twice"
                result.finish = message.finish
    except grpc.RpcError as error:
        for result in results:
            result.error = error
    return results


def request(ids=None, text=None, max_tokens=None, temperature=0.0, logprobs=None, ignore_eos=False, **kw):
    """A GenerateRequest; keywords beyond the common ones are fields of sampling, stop, output or the request itself."""
    r = pb.GenerateRequest()
    if text is not None:
        r.text = text
    elif ids is not None:
        r.token_ids.ids.extend(ids)
    if temperature is not None:
        r.sampling.temperature = temperature
    if max_tokens is not None:
        r.stop.max_tokens = max_tokens
    if logprobs is not None:
        r.output.logprobs = logprobs
    r.stop.ignore_eos = ignore_eos
    for name, value in kw.items():
        for part in (r.sampling, r.stop, r.output, r):
            if name in part.DESCRIPTOR.fields_by_name:
                field = part.DESCRIPTOR.fields_by_name[name]
                if field.message_type and field.message_type.GetOptions().map_entry:
                    getattr(part, name).update(value)
                elif isinstance(value, (list, tuple)):
                    getattr(part, name).extend(value)
                else:
                    setattr(part, name, value)
                break
        else:
            raise AttributeError(name)
    return r


class Client:
    """Stubs on one router. `retries`: gRPC sends a call again if the connection ended before the router saw it."""

    def __init__(self, port, retries=True):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", int(retries))])
        self.stub = pb_grpc.InferenceStub(self.channel)
        self.admin = pb_grpc.AdminStub(self.channel)

    def generate(self, timeout=60, **kw):
        return collect(self.stub.Generate(request(**kw), timeout=timeout * SLOW))

    def many(self, requests, timeout=120):
        """Sends all requests at once; returns their results in order."""
        results = [None] * len(requests)

        def one(i):
            results[i] = collect(self.stub.Generate(requests[i], timeout=timeout * SLOW))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(requests))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        return results

    def close(self):
        self.channel.close()


class Cluster:
    """`fathom serve` on free ports; `with` stops it and checks its exit code."""

    def __init__(self, *args, model=TINY, expect_exit=0, device="cpu", wrap=()):
        self.args = ["serve", "--model", str(model), "--device", device, "--http-port", "0", "--grpc-port", "0", "--scheduler-port", "0",
                     "--scheduler-metrics-port", "0", "--worker-port", "0", "--worker-metrics-port", "0", "--json", *args]
        self.expect_exit = expect_exit
        # A program that starts `fathom serve`, e.g. prlimit(1) with lower limits. Code of ours between fork and exec would run
        # beside gRPC's threads, which now and then ends the child.
        self.wrap = wrap

    def __enter__(self):
        self.log = []
        self.process = subprocess.Popen([*self.wrap, BIN / "fathom", *self.args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.readers = [threading.Thread(target=lambda: self.log.extend(self.process.stderr))]
        self.readers[0].start()
        for line in self.process.stdout:
            if line.startswith("{") and json.loads(line).get("event") == "ready":
                self.ready = json.loads(line)
                break
        else:
            self.close()
            raise RuntimeError(f"fathom serve ended with {self.process.returncode}:\n" + "".join(self.log))
        self.readers.append(threading.Thread(target=lambda: [None for _ in self.process.stdout]))
        self.readers[1].start()
        self.client = Client(self.ready["grpc_port"])
        self.generate = self.client.generate
        self.extra = []
        return self

    def __exit__(self, *_):
        self.client.close()
        for process in self.extra:
            process.terminate()
            process.wait(20 * SLOW)
            process.stdout.close()
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(40 * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.close()
        assert code == self.expect_exit, f"fathom serve ended with {code}:\n" + "".join(self.log[-50:])

    def close(self):
        self.process.wait()
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()

    def add_router(self):
        """Starts a second router on the same scheduler and returns its Client."""
        process = subprocess.Popen([BIN / "fathom-router", "--model", self.args[2], "--scheduler", f"127.0.0.1:{self.ready['scheduler_port']}",
                                    "--grpc-port", "0", "--http-port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.extra.append(process)
        for line in process.stdout:
            if '"role"' in line:
                client = Client(json.loads(line)["grpc_port"])
                wait_until(lambda: client.admin.GetStatus(pb.GetStatusRequest()).ready, "the second router is ready")
                return client
        raise RuntimeError("the second router did not start")

    def metrics(self, role="scheduler"):
        """{name with labels: value} of a process' /metrics."""
        port = {"scheduler": self.ready["scheduler_metrics_port"], "router": self.ready["http_port"],
                "worker": self.ready["workers"][0]["metrics_port"]}[role]
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
        return {m.group(1): float(m.group(2)) for m in re.finditer(r"^(\S+(?:\{.*?\})?) (\S+)$", text, re.M) if not m.group(0).startswith("#")}

    def children(self, program):
        """The pids of the processes of this program that `fathom serve` started."""
        pids = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                parent = int(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[1])
                name = pathlib.Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").split("\0")[0]
            except OSError:
                continue
            if parent == self.process.pid and name.endswith(program):
                pids.append(int(pid))
        return sorted(pids)

    def wait_idle(self):
        """Waits until every KV block is free again."""
        wait_until(lambda: self.metrics()["fathom_scheduler_blocks_used"] == 0 and self.metrics()["fathom_scheduler_requests_running"] == 0,
                   "all blocks are free")


def post(port, path, body, **headers):
    """A response of http.client, whose connection is its attribute `link`."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=120 * SLOW)
    link.request("POST", path, json.dumps(body), {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}})
    response = link.getresponse()
    response.link = link
    return response


def wait_until(condition, what, seconds=20):
    """Waits for a state, with a limit. The test checks the state, never the time."""
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(f"after {seconds * SLOW} s still not: {what}")


def goldens(name="fathom-tiny"):
    with open(ROOT / f"tests/data/goldens/{name}.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]
