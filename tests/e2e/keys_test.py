"""API keys with real processes: every route and method asks for a key, keys change while the router runs, and tenants see nothing
of each other."""
import http.client
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
import unittest

import grpc
import openai
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from cluster import BIN, ROOT, SLOW, TINY, Cluster, collect, pb, pb_grpc, request, wait_until

HAPROXY = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin")
# What needs no key: liveness, readiness, and the page, which says nothing of the cluster.
OPEN = {"/", "/health", "/health/live", "/health/progress", "/health/ready", "/livez", "/grpc.health.v1.Health/Check"}


def new_key(file, *args):
    return subprocess.run([BIN / "fathom", "keys", "new", "--file", file, *args], capture_output=True, text=True, check=True).stdout.strip()


def headers(key):
    return {"Authorization": "Bearer " + key} if key else {}


def metadata(key):
    return [("authorization", "Bearer " + key)] if key else []


def reason_of(error):
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


class Keys(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.file = pathlib.Path(cls.folder.name) / "keys"
        cls.a = new_key(cls.file, "--tenant", "a")
        cls.b = new_key(cls.file, "--tenant", "b")
        cls.admin = new_key(cls.file, "--tenant", "ops", "--permissions", "admin")
        cls.scraper = new_key(cls.file, "--tenant", "prometheus", "--permissions", "metrics")
        cls.expired = new_key(cls.file, "--tenant", "a", "--permissions", "infer,metrics,admin", "--expires", "2100-01-01")
        cls.file.write_text(cls.file.read_text().replace("2100-01-01", "2020-01-01"))
        cls.text = cls.file.read_text()
        cls.cluster = Cluster("--api-keys", str(cls.file)).__enter__()
        cls.port = cls.cluster.ready["http_port"]
        cls.channel = cls.cluster.client.channel
        cls.stub = cls.cluster.client.stub

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()
        cls.folder.cleanup()

    def ask(self, method, path, key=None, body=None, **more):
        """Status, headers and body of an answer."""
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        content = {"Content-Type": "application/json"} if body is not None else {}
        link.request(method, path, body, {**headers(key), **content, **more})
        response = link.getresponse()
        text = response.read().decode()
        link.close()
        return response.status, response.headers, text

    def bad_keys(self):
        """Keys that open nothing. The last one has the right id and a wrong secret."""
        wrong = self.a[:-1] + ("0" if self.a[-1] != "0" else "1")
        return [None, "", "any", "fk-", self.a[:-1], self.a + "0", self.a.upper(), self.expired, wrong]

    # ---- The table of routes

    def test_every_route_of_http_asks_for_a_key(self):
        _, _, page = self.ask("GET", "/nothing", self.a)
        paths = json.loads(page)["error"]["message"].split("this port has ")[1].split(", ")
        self.assertIn("/v1/completions", paths)
        self.assertTrue(OPEN & set(paths))
        for path in [*paths, "/nothing", "/v1", "/v1/models/other"]:
            for key in self.bad_keys():
                for method, body in (("GET", None), ("POST", "{}"), ("HEAD", None), ("DELETE", None)):
                    status, head, text = self.ask(method, path, key, body)
                    if path in OPEN and method in ("GET", "HEAD"):
                        self.assertIn(status, (200, 503), (method, path, key))
                        continue
                    self.assertEqual(status, 401, (method, path, key, text))
                    self.assertEqual(head["WWW-Authenticate"], "Bearer")
                    self.assertNotIn(self.a, text)
            # A key that is valid, but is not for this route.
            foreign = self.scraper if path != "/metrics" else self.a
            for method, body in (("GET", None), ("POST", "{}")):
                status, _, text = self.ask(method, path, foreign, body)
                self.assertIn(status, (200, 403, 404, 405, 503), (method, path, text))
                if path.startswith(("/v1/", "/tokenize", "/detokenize", "/metrics", "/cluster/")):
                    self.assertNotEqual(status, 200, (method, path))

    def test_other_spellings_of_a_path_open_nothing(self):
        for path in ("//v1/models", "/V1/models", "/%76%31/models", "/v1/models/", "/v1/../metrics", "/v1/..;/metrics", "/metrics/", "/metrics?x=1",
                     "/./metrics", "/health/live/../../metrics", "/health%2flive/../metrics", "/health/live/"):
            status, _, _ = self.ask("GET", path)
            self.assertEqual(status, 401, path)

    def test_every_method_of_grpc_asks_for_a_key(self):
        methods = self.methods()
        self.assertIn("/fathom.v1.Inference/Generate", methods)
        self.assertIn("/fathom.v1.Admin/GetStatus", methods)
        for method in [*methods, "/fathom.v1.Inference/New", "/a/b"]:
            for key in self.bad_keys():
                code = self.call(method, key)
                if method in OPEN:
                    self.assertEqual(code, grpc.StatusCode.OK, method)
                else:
                    self.assertEqual(code, grpc.StatusCode.UNAUTHENTICATED, (method, key))
            if method.startswith("/fathom.v1.Inference/") and method in methods:
                self.assertEqual(self.call(method, self.scraper), grpc.StatusCode.PERMISSION_DENIED, method)
        self.assertEqual(self.call("/fathom.v1.Admin/GetStatus", self.a), grpc.StatusCode.PERMISSION_DENIED)
        self.assertEqual(self.call("/fathom.v1.Admin/GetStatus", self.admin), grpc.StatusCode.OK)
        self.assertEqual(self.call("/fathom.v1.Inference/GetModel", self.a), grpc.StatusCode.OK)
        self.assertEqual(self.call("/fathom.v1.Inference/New", self.a), grpc.StatusCode.UNIMPLEMENTED)

    def methods(self):
        """The paths of all methods, by reflection."""
        from google.protobuf import descriptor_pb2
        stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)

        def reflect(**ask):
            return next(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**ask)]), metadata=metadata(self.a)))

        paths = []
        for service in reflect(list_services="*").list_services_response.service:
            for raw in reflect(file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                paths += [f"/{service.name}/{m.name}" for s in file.service if f"{file.package}.{s.name}" == service.name for m in s.method]
        return paths

    def call(self, method, key):
        send = self.channel.unary_unary(method, request_serializer=None, response_deserializer=None)
        try:
            send(b"", metadata=metadata(key), timeout=60 * SLOW)
            return grpc.StatusCode.OK
        except grpc.RpcError as error:
            return error.code()

    # ---- Clients

    def test_a_client_of_openai_sends_its_key(self):
        base = f"http://127.0.0.1:{self.port}"
        models = openai.OpenAI(base_url=base + "/v1", api_key=self.a, max_retries=0).models.list()
        self.assertEqual(models.data[0].id, TINY.name)
        with self.assertRaises(openai.AuthenticationError) as caught:
            openai.OpenAI(base_url=base + "/v1", api_key="any", max_retries=0).models.list()
        self.assertEqual(caught.exception.code, "invalid_api_key")
        with self.assertRaises(openai.PermissionDeniedError):
            openai.OpenAI(base_url=base + "/v1", api_key=self.scraper, max_retries=0).models.list()
        status, _, _ = self.ask("GET", "/v1/models", **{"x-api-key": self.a})
        self.assertEqual(status, 200)
        status, _, _ = self.ask("GET", "/v1/models", **{"x-api-key": "any"})
        self.assertEqual(status, 401)

    def test_the_tools_send_their_keys(self):
        def tool(*args, key=None):
            environment = {k: v for k, v in os.environ.items() if k != "FATHOM_API_KEY"}
            if key:
                environment["FATHOM_API_KEY"] = key
            return subprocess.run([BIN / "fathom", *args, "--server", f"127.0.0.1:{self.cluster.ready['grpc_port']}"], env=environment,
                                  capture_output=True, text=True, timeout=60 * SLOW, check=False)
        refused = tool("status")
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn("asks for an API key", refused.stderr)
        self.assertEqual(tool("status", key=self.admin).returncode, 0)
        said = tool("complete", "--token-ids", "0,3,5", "--max-tokens", "4", "--api-key", self.a)
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertIn("permission admin", tool("status", key=self.a).stderr)

    def test_metrics_have_a_permission_of_their_own(self):
        self.assertEqual(self.ask("GET", "/metrics", self.scraper)[0], 200)
        status, _, text = self.ask("GET", "/metrics", self.a)
        self.assertEqual(status, 403)
        self.assertIn("permission metrics", text)
        self.assertEqual(json.loads(text)["error"]["type"], "permission_error")

    @unittest.skipUnless(HAPROXY, "haproxy is not installed")
    def test_keys_go_through_haproxy_with_tls(self):
        folder = pathlib.Path(self.folder.name)
        subprocess.run([BIN / "fathom", "certs", "--dir", folder / "certs"], capture_output=True, check=True)
        pem = folder / "edge.pem"
        pem.write_text((folder / "certs/server.crt").read_text() + (folder / "certs/server.key").read_text())
        ports = []
        for _ in range(2):  # HAProxy cannot say which free port it took.
            with socket.create_server(("127.0.0.1", 0)) as free:
                ports.append(free.getsockname()[1])
        environment = {**os.environ, "FATHOM_EDGE_GRPC": f"127.0.0.1:{ports[0]}", "FATHOM_EDGE_HTTP": f"127.0.0.1:{ports[1]}",
                       "FATHOM_EDGE_PEM": str(pem), "FATHOM_ROUTER_GRPC": f"127.0.0.1:{self.cluster.ready['grpc_port']}",
                       "FATHOM_ROUTER_HTTP": f"127.0.0.1:{self.port}"}
        edge = subprocess.Popen([HAPROXY, "-db", "-f", ROOT / "deploy/haproxy-tls.cfg"], env=environment, stderr=subprocess.PIPE, text=True)
        try:
            roots = folder / "certs/ca.crt"
            credentials = grpc.ssl_channel_credentials(roots.read_bytes())
            with grpc.secure_channel(f"localhost:{ports[0]}", credentials) as channel:
                stub = pb_grpc.InferenceStub(channel)
                asked = request(ids=[0, 3, 5], max_tokens=4, ignore_eos=True)
                whole = collect(stub.Generate(asked, metadata=metadata(self.a), wait_for_ready=True, timeout=60 * SLOW))
                self.assertEqual(len(whole.ids), 4, whole.error)
                self.assertEqual(reason_of(collect(stub.Generate(asked, timeout=60 * SLOW)).error), "MISSING_API_KEY")
            context = ssl.create_default_context(cafile=roots)
            body = json.dumps({"model": TINY.name, "prompt": [0, 3, 5], "max_tokens": 4, "stream": True})
            for path, key, status in (("/v1/completions", self.a, 200), ("/v1/completions", None, 401), ("/metrics", self.scraper, 404)):
                link = http.client.HTTPSConnection("localhost", ports[1], context=context, timeout=60 * SLOW)
                link.request("POST" if path.startswith("/v1") else "GET", path, body, {**headers(key), "Content-Type": "application/json"})
                answer = link.getresponse()
                self.assertEqual(answer.status, status, path)
                if status == 200:
                    self.assertTrue(answer.read().endswith(b"data: [DONE]\n\n"))
                link.close()
        finally:
            edge.terminate()
            edge.communicate(timeout=20 * SLOW)

    # ---- Tenants

    def test_a_tenant_cannot_resume_or_explain_what_is_anothers(self):
        whole = collect(self.stub.Generate(request(ids=[0, 3, 5], max_tokens=4, ignore_eos=True, request_id="mine"), metadata=metadata(self.a)))
        self.assertEqual(len(whole.ids), 4)
        again = collect(self.stub.Resume(pb.ResumeRequest(request_id="mine", next_positions=[0]), metadata=metadata(self.a)))
        self.assertEqual(again.ids, whole.ids)
        self.assertEqual(self.stub.Explain(pb.ExplainRequest(request_id="mine"), metadata=metadata(self.a)).request_id, "mine")
        errors = []  # Before the resumes, whose failures are requests of tenant b.
        for name in ("mine", "unknown"):
            with self.assertRaises(grpc.RpcError) as caught:
                self.stub.Explain(pb.ExplainRequest(request_id=name), metadata=metadata(self.b))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
            errors.append(caught.exception.details().replace(name, "X"))
        self.assertEqual(errors[0], errors[1])
        theirs = collect(self.stub.Resume(pb.ResumeRequest(request_id="mine", next_positions=[0]), metadata=metadata(self.b)))
        unknown = collect(self.stub.Resume(pb.ResumeRequest(request_id="none", next_positions=[0]), metadata=metadata(self.b)))
        self.assertEqual(reason_of(theirs.error), "SESSION_NOT_FOUND")
        self.assertEqual(theirs.error.details().replace("mine", "none"), unknown.error.details())
        # Over HTTP: the id of another tenant's stream.
        body = json.dumps({"model": TINY.name, "prompt": [0, 3, 5], "max_tokens": 4, "stream": True})
        status, _, text = self.ask("POST", "/v1/completions", self.b, body, **{"Last-Event-ID": "mine:0"})
        self.assertEqual(status, 404, text)
        # The same id is another request of another tenant.
        other = collect(self.stub.Generate(request(ids=[0, 3, 6], max_tokens=4, ignore_eos=True, request_id="mine"), metadata=metadata(self.b)))
        self.assertIsNone(other.error)
        repeated = collect(self.stub.Generate(request(ids=[0, 3, 6], max_tokens=4, ignore_eos=True, request_id="mine"), metadata=metadata(self.a)))
        self.assertEqual(reason_of(repeated.error), "REQUEST_ID_IN_USE")

    def test_tenants_share_no_prefix_and_no_idempotency_key(self):
        prompt = [0] + [3 + i % 50 for i in range(120)]

        def generate(key, **more):
            return collect(self.stub.Generate(request(ids=prompt, max_tokens=2, ignore_eos=True, temperature=1.0, **more), metadata=metadata(key)))
        self.assertEqual(generate(self.a).finish.usage.cached_tokens, 0)
        self.assertGreater(generate(self.a).finish.usage.cached_tokens, 0)
        self.assertEqual(generate(self.b).finish.usage.cached_tokens, 0)
        first, second = generate(self.a, idempotency_key="k"), generate(self.b, idempotency_key="k")
        self.assertNotEqual(first.started.request_id, second.started.request_id)
        self.assertNotEqual(first.started.seed, second.started.seed)
        self.assertEqual(generate(self.a, idempotency_key="k").started.request_id, first.started.request_id)

    # ---- Ports

    def test_a_cluster_listens_on_this_machine_only_and_on_no_other_port(self):
        ready = self.cluster.ready
        pids = [ready["router_pid"], ready["scheduler_pid"], *(w["pid"] for w in ready["workers"])]
        sockets = set()
        for pid in pids:
            for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
                try:
                    sockets.add(os.readlink(fd))
                except OSError:
                    pass  # It was closed meanwhile.
        found = set()
        for name in ("tcp", "tcp6"):
            for line in pathlib.Path(f"/proc/net/{name}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                    found.add(tuple(fields[1].split(":")))
        ports = [ready["grpc_port"], ready["http_port"], ready["scheduler_port"], ready["scheduler_metrics_port"]]
        ports += [w[name] for w in ready["workers"] for name in ("port", "metrics_port")]
        self.assertEqual(found, {("0100007F", f"{port:04X}") for port in ports})

    # ---- The file

    def test_keys_change_while_the_router_runs(self):
        added = pathlib.Path(self.folder.name) / "added"
        added.write_text(self.text)
        later = new_key(added, "--tenant", "c")
        stream = self.stub.Generate(request(ids=[0, 3, 7], max_tokens=400, ignore_eos=True), metadata=metadata(self.b))
        next(stream)
        without_b = "".join(line + "\n" for line in added.read_text().splitlines() if self.b.split("-")[1] not in line)
        self.file.write_text(without_b)
        wait_until(lambda: self.ask("GET", "/v1/models", later)[0] == 200, "the new key is taken")
        self.assertEqual(self.ask("GET", "/v1/models", self.b)[0], 401)
        self.assertEqual(self.ask("GET", "/v1/models", self.a)[0], 200)
        self.assertEqual(len(collect_rest(stream)), 400)  # A stream that has begun goes on.
        self.file.write_text("nonsense\n")
        log = pathlib.Path(self.cluster.ready["run_dir"]) / "router.log"
        wait_until(lambda: "a line begins with the id of a key" in log.read_text(), "the log names the mistake")
        self.assertEqual(self.ask("GET", "/v1/models", later)[0], 200)
        self.file.write_text(self.text)
        wait_until(lambda: self.ask("GET", "/v1/models", self.b)[0] == 200, "the old keys are back")


def collect_rest(stream):
    ids = []
    for message in stream:
        if message.WhichOneof("event") == "tokens":
            ids += message.tokens.ids
    return ids


class Start(unittest.TestCase):
    """What the start refuses, and says."""

    def start(self, program, *args):
        command = {"fathom": [BIN / "fathom", "serve", "--grpc-port", "0", "--http-port", "0", "--scheduler-port", "0", "--metrics-port", "0"],
                   "router": [BIN / "fathom-router", "--grpc-port", "0", "--http-port", "0"]}[program]
        return subprocess.run([*command, "--model", TINY, *args], capture_output=True, text=True, timeout=60 * SLOW, check=False)

    def test_a_public_address_needs_keys(self):
        for program in ("fathom", "router"):
            for host in ("0.0.0.0", "::"):
                run = self.start(program, "--host", host)
                self.assertEqual(run.returncode, 64, run.stderr)
                self.assertIn(f"--host {host} is an address of other machines", run.stderr)
                self.assertIn("--allow-unauthenticated", run.stderr)

    def test_keys_must_be_usable(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "keys"
            for text, says in (("", "the file has no key"), ("0\n", "keys:1: a line begins with the id of a key"), (None, "cannot be opened")):
                if text is None:
                    file.unlink()
                else:
                    file.write_text(text)
                run = self.start("router", "--api-keys", file)
                self.assertEqual(run.returncode, 64, run.stderr)
                self.assertIn(says, run.stderr)
            key = new_key(file, "--tenant", "t", "--expires", "2100-01-01")
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
            self.assertNotIn(key.split("-")[2], file.read_text())
            file.write_text(file.read_text().replace("2100", "2020"))
            run = self.start("router", "--api-keys", file)
            self.assertEqual(run.returncode, 64, run.stderr)
            self.assertIn("the time of every key is over", run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
