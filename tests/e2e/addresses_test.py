"""IPv6 on every port of every process, by grpcio and by the bundled tools; addresses are printed with brackets."""
import contextlib
import json
import subprocess
import unittest
import urllib.request

from cluster import BIN, SLOW, TINY, Cluster, grpc, pb, pb_grpc, wait_until


@contextlib.contextmanager
def process(name, *args):
    """Starts a process on free ports; returns it and its line about where it listens."""
    running = subprocess.Popen([BIN / name, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        for line in running.stdout:
            if '"role"' in line:
                yield json.loads(line)
                return
        raise RuntimeError(f"{name} did not start")
    finally:
        running.terminate()
        running.wait(20 * SLOW)
        running.stdout.close()


def tool(*args):
    return subprocess.run([BIN / "fathom", *args], capture_output=True, text=True, timeout=60 * SLOW)


def serves(address):
    """Whether grpc.health.v1 says SERVING on a new connection."""
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=20 * SLOW).status
        return status == health_pb2.HealthCheckResponse.SERVING


class Addresses(unittest.TestCase):
    def test_every_port_of_every_process(self):
        with process("fathom-scheduler", "--host", "[::1]", "--port", 0, "--metrics-port", 0) as scheduler, \
                process("fathom-worker", "--model", TINY, "--device", "cpu", "--host", "::", "--port", 0, "--metrics-port", 0,
                        "--scheduler", f"[::1]:{scheduler['port']}") as worker, \
                process("fathom-router", "--model", TINY, "--host", "::1", "--grpc-port", 0, "--http-port", 0,
                        "--scheduler", f"[::1]:{scheduler['port']}") as router:
            server = f"[::1]:{router['grpc_port']}"
            wait_until(lambda: tool("status", "--server", server).returncode == 0, "the cluster is ready")
            self.assertTrue(serves(f"[::1]:{scheduler['port']}"))
            wait_until(lambda: serves(server), "the router's health follows")
            for host in ("[::1]", "127.0.0.1"):  # The wildcard address takes both families.
                wait_until(lambda host=host: serves(f"{host}:{worker['port']}"), f"the worker serves on {host}")
                self.assertIn(b"fathom_worker_", urllib.request.urlopen(f"http://{host}:{worker['metrics_port']}/metrics").read())
            self.assertIn(b"fathom_scheduler_", urllib.request.urlopen(f"http://[::1]:{scheduler['metrics_port']}/metrics").read())
            self.assertIn(b"fathom_router_", urllib.request.urlopen(f"http://[::1]:{router['http_port']}/metrics").read())
            said = tool("complete", "--server", server, "--token-ids", "0,3,5", "--max-tokens", "4", "--temperature", "0")
            self.assertEqual(said.returncode, 0, said.stderr)
            wrong = tool("status", "--server", f"::1:{router['grpc_port']}")
            self.assertEqual(wrong.returncode, 64)
            self.assertIn("brackets", wrong.stderr)

    def test_serve(self):
        for host in ("::1", "[::]"):
            with Cluster("--host", host, "--allow-unauthenticated") as c:
                wait_until(lambda c=c: "Ctrl-C" in "".join(c.log), "the addresses are printed")
                self.assertIn(f"gRPC       [::1]:{c.ready['grpc_port']}\n", "".join(c.log))
                self.assertIn(f"http://[::1]:{c.ready['http_port']}/metrics", "".join(c.log))
                with grpc.insecure_channel(f"[::1]:{c.ready['grpc_port']}") as channel:
                    self.assertTrue(pb_grpc.AdminStub(channel).GetStatus(pb.GetStatusRequest()).ready)

    def test_foreign_addresses_are_refused_by_name(self):
        for host, says in (("2001:db8::1", "not an address of this machine"), ("no.such.host.invalid", "cannot be resolved")):
            said = tool("serve", "--model", TINY, "--device", "cpu", "--host", host, "--grpc-port", "0", "--http-port", "0",
                        "--scheduler-port", "0", "--metrics-port", "0", "--allow-unauthenticated")
            self.assertEqual(said.returncode, 64, said.stderr)
            self.assertIn(says, said.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
