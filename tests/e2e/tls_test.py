"""TLS with real processes: mutual TLS inside the cluster, certificates of roles, TLS for clients, and certificates that change while
everything runs."""
import http.client
import json
import pathlib
import socket
import ssl
import subprocess
import tempfile
import unittest

import grpc

from cluster import BIN, SLOW, TINY, Cluster, Client, pb_grpc, request, wait_until


def make_certs(folder, *args):
    subprocess.run([BIN / "fathom", "certs", "--dir", folder, *args], capture_output=True, text=True, check=True)


class SecureClient(Client):
    """Stubs over TLS."""

    def __init__(self, port, folder):
        credentials = grpc.ssl_channel_credentials((folder / "ca.crt").read_bytes())
        self.channel = grpc.secure_channel(f"localhost:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = pb_grpc.InferenceStub(self.channel)
        self.admin = pb_grpc.AdminStub(self.channel)


class Tls(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = pathlib.Path(cls.temporary.name) / "certs"
        make_certs(cls.folder)
        cls.others = pathlib.Path(cls.temporary.name) / "others"
        make_certs(cls.others)
        cls.cluster = Cluster("-tp", "2", "--cluster-certs", str(cls.folder), "--tls-cert", str(cls.folder / "server.crt"), "--tls-key",
                              str(cls.folder / "server.key")).__enter__()
        cls.cluster.client.close()
        cls.cluster.client = SecureClient(cls.cluster.ready["grpc_port"], cls.folder)
        cls.client = cls.cluster.client

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()
        cls.temporary.cleanup()

    def context(self, folder=None):
        return ssl.create_default_context(cafile=(folder or self.folder) / "ca.crt")

    def get(self, path, context=None):
        link = http.client.HTTPSConnection("localhost", self.cluster.ready["http_port"], context=context or self.context(), timeout=60 * SLOW)
        link.request("GET", path)
        response = link.getresponse()
        body = response.read()
        serial = ssl.DER_cert_to_PEM_cert(link.sock.getpeercert(True)) if link.sock else None
        link.close()
        return response.status, body, serial

    def served(self, port):
        """The certificate that a port shows to a new connection."""
        with socket.create_connection(("localhost", port), timeout=30 * SLOW) as raw:
            with self.context().wrap_socket(raw, server_hostname="localhost") as secure:
                return ssl.DER_cert_to_PEM_cert(secure.getpeercert(True))

    def test_clients_speak_tls_on_both_ports(self):
        whole = self.client.generate(ids=[0, 3, 5], max_tokens=8, ignore_eos=True)
        self.assertEqual(len(whole.ids), 8, whole.error)
        link = http.client.HTTPSConnection("localhost", self.cluster.ready["http_port"], context=self.context(), timeout=60 * SLOW)
        body = json.dumps({"model": TINY.name, "prompt": [0, 3, 5], "max_tokens": 8, "temperature": 0, "ignore_eos": True, "return_token_ids": True})
        for _ in range(2):  # On one connection.
            link.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            answer = json.loads(link.getresponse().read())
            self.assertEqual(answer["choices"][0]["token_ids"], whole.ids)
        link.request("POST", "/v1/completions", json.dumps({**json.loads(body), "stream": True}), {"Content-Type": "application/json"})
        streamed = link.getresponse().read().decode()
        self.assertTrue(streamed.endswith("data: [DONE]\n\n"), streamed[-200:])
        link.close()
        # A large body, and one that is refused before it was read.
        for size, status in ((3 << 20, 400), (8 << 20, 413)):
            link = http.client.HTTPSConnection("localhost", self.cluster.ready["http_port"], context=self.context(), timeout=60 * SLOW)
            try:
                link.request("POST", "/v1/completions", b"x" * size, {"Content-Type": "application/json"})
            except OSError:
                self.assertEqual(status, 413)  # The rest of the body is not taken.
            self.assertEqual(link.getresponse().status, status)
            link.close()
        run = subprocess.run([BIN / "fathom", "complete", "--token-ids", "0,3,5", "--max-tokens", "4", "--server",
                              f"localhost:{self.cluster.ready['grpc_port']}", "--tls-ca", self.folder / "ca.crt"],
                             capture_output=True, text=True, timeout=60 * SLOW, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)

    def test_nobody_gets_in_without_tls_or_with_another_root(self):
        for port in ("grpc_port", "http_port", "scheduler_port"):
            with socket.create_connection(("localhost", self.cluster.ready[port]), timeout=30 * SLOW) as raw:
                raw.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
                raw.settimeout(30 * SLOW)
                try:
                    answer = raw.recv(4096)
                except ConnectionError:
                    answer = b""
                self.assertNotIn(b"200", answer, port)
        with self.assertRaises(ssl.SSLCertVerificationError):
            self.get("/health", self.context(self.others))
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with self.assertRaises((ssl.SSLError, OSError)):
            self.get("/health", old)

    def join(self, program, folder, role, *args):
        """What a process says that joins the cluster with a certificate; it is ended then."""
        command = [BIN / program, "--model", TINY, "--scheduler", f"127.0.0.1:{self.cluster.ready['scheduler_port']}", "--cluster-cert",
                   folder / f"{role}.crt", "--cluster-key", folder / f"{role}.key", "--cluster-ca", folder / "ca.crt", *args]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def test_a_role_needs_its_certificate(self):
        ports = ("--grpc-port", "0", "--http-port", "0")
        worker = ("--device", "cpu", "--port", "0", "--metrics-port", "0", "-tp", "2")
        # A certificate of another role is refused by the process itself.
        for program, role, more in (("fathom-router", "worker", ports), ("fathom-worker", "router", worker), ("fathom-router", "server", ports)):
            process = self.join(program, self.folder, role, *more)
            text = process.communicate(timeout=60 * SLOW)[1]
            self.assertEqual(process.returncode, 64, text)
            self.assertIn("does not have the DNS name", text)
        # The scheduler refuses it too: a raw client with a router's certificate opens a worker's stream.
        for role, method, code in (("router", "Control", grpc.StatusCode.PERMISSION_DENIED), ("worker", "Route", grpc.StatusCode.PERMISSION_DENIED),
                                   ("operator", "Steps", grpc.StatusCode.PERMISSION_DENIED)):
            self.assertEqual(self.open_stream(self.folder, role, method), code, (role, method))
        # A certificate of another root does not get a connection at all, and neither does a client without one.
        self.assertEqual(self.open_stream(self.others, "worker", "Control"), grpc.StatusCode.UNAVAILABLE)
        self.assertEqual(self.open_stream(self.folder, None, "Control"), grpc.StatusCode.UNAVAILABLE)
        # The workers' ports: health for every process of the cluster, traces for operators.
        port = self.cluster.ready["workers"][0]["port"]
        for role, code in (("router", grpc.StatusCode.PERMISSION_DENIED), ("operator", grpc.StatusCode.OK)):
            self.assertEqual(self.ask_worker(port, role), code)
        stream = self.client.stub.Generate(request(ids=[0, 3, 9], max_tokens=4000, ignore_eos=True))  # Steps to trace.
        next(stream)
        done = subprocess.run([BIN / "fathom", "profile", "--worker", f"127.0.0.1:{port}", "--steps", "1", "--timeout-s", "20", "--out",
                               self.folder / "trace.json", "--cluster-cert", self.folder / "operator.crt", "--cluster-key",
                               self.folder / "operator.key", "--cluster-ca", self.folder / "ca.crt"], capture_output=True, text=True,
                              timeout=60 * SLOW, check=False)
        stream.cancel()
        self.assertEqual(done.returncode, 0, done.stderr)

    def channel(self, folder, role, port, name):
        roots = (self.folder / "ca.crt").read_bytes()
        pair = ((folder / f"{role}.key").read_bytes(), (folder / f"{role}.crt").read_bytes()) if role else (None, None)
        return grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(roots, *pair),
                                   [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)])

    def open_stream(self, folder, role, method):
        with self.channel(folder, role, self.cluster.ready["scheduler_port"], "scheduler.fathom.internal") as channel:
            call = channel.stream_stream(f"/fathom.cluster.v1.Scheduler/{method}")(iter([b""]), timeout=20 * SLOW)
            try:
                for _ in call:
                    pass
            except grpc.RpcError as error:
                return error.code()
            return grpc.StatusCode.OK

    def ask_worker(self, port, role):
        with self.channel(self.folder, role, port, "worker.fathom.internal") as channel:
            try:
                channel.unary_unary("/fathom.worker.v1.WorkerTools/Clock")(b"", timeout=20 * SLOW)
                return grpc.StatusCode.OK
            except grpc.RpcError as error:
                return error.code()

    def test_certificates_change_while_everything_runs(self):
        ports = self.cluster.ready["grpc_port"], self.cluster.ready["http_port"]
        before = (self.folder / "server.crt").read_text()
        for port in ports:
            self.assertEqual(self.served(port), before)
        stream = self.client.stub.Generate(request(ids=[0, 3, 7], max_tokens=600, ignore_eos=True))
        first = next(stream)
        make_certs(self.folder)  # New certificates of the same root, for all roles.
        after = (self.folder / "server.crt").read_text()
        self.assertNotEqual(before, after)
        for port in ports:
            wait_until(lambda port=port: self.served(port) == after, "new connections get the new certificate")
        self.assertIsNotNone(first.started)
        result = [i for message in stream for i in message.tokens.ids]
        self.assertEqual(len(result), 600)
        # A worker that is started again joins with its new certificate.
        self.cluster.client.close()
        type(self).client = self.cluster.client = SecureClient(ports[0], self.folder)
        again = self.client.generate(ids=[0, 3, 5], max_tokens=8, ignore_eos=True)
        self.assertEqual(len(again.ids), 8, again.error)
        # A file that cannot be used changes nothing.
        (self.folder / "server.crt").write_text("nonsense")
        log = pathlib.Path(self.cluster.ready["run_dir"]) / "router.log"
        wait_until(lambda: "is no certificate in PEM" in log.read_text(), "the log names the file")
        self.assertEqual(self.served(ports[1]), after)
        (self.folder / "server.crt").write_text(after)


class Start(unittest.TestCase):
    def test_the_error_names_the_file_and_what_is_wrong(self):
        with tempfile.TemporaryDirectory() as name:
            folder, other = pathlib.Path(name) / "certs", pathlib.Path(name) / "others"
            make_certs(folder)
            make_certs(other)
            old = pathlib.Path(name) / "old"
            make_certs(old, "--days", "-10")
            (folder / "empty").write_text("")

            def start(*args):
                run = subprocess.run([BIN / "fathom-router", "--model", TINY, "--grpc-port", "0", "--http-port", "0", *args], capture_output=True,
                                     text=True, timeout=60 * SLOW, check=False)
                self.assertEqual(run.returncode, 64, run.stderr)
                return run.stderr
            crt, key = folder / "server.crt", folder / "server.key"
            self.assertIn("give the first two", start("--tls-cert", crt))
            self.assertIn(f"--tls-key {other}/server.key: the key does not belong to the certificate", start("--tls-cert", crt, "--tls-key", other / "server.key"))
            self.assertIn(f"--tls-cert {folder}/empty: is no certificate", start("--tls-cert", folder / "empty", "--tls-key", key))
            self.assertIn("is no private key", start("--tls-cert", crt, "--tls-key", crt))
            self.assertIn("cannot be opened", start("--tls-cert", folder / "none", "--tls-key", key))
            self.assertIn("the certificate expired at", start("--tls-cert", old / "server.crt", "--tls-key", old / "server.key"))
            self.assertIn("give all three", start("--cluster-cert", folder / "router.crt", "--cluster-key", folder / "router.key"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
