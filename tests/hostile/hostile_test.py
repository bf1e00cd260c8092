"""Runs attacks.py for half a minute while a client is checked, directly and through HAProxy. Another test has idle connections with
1,024 descriptors."""
import os
import shutil
import sys
import unittest

import hostile
import mutated
from cluster import Client, Cluster, wait_until
from hostile import PROMPT, attacks

SEED = int(os.environ.get("FATHOM_SEED", "1"))
MUTATED = int(os.environ.get("FATHOM_MUTATED_REQUESTS", "4000"))
SECONDS = float(os.environ.get("FATHOM_HOSTILE_SECONDS", "12"))


class Hostile(unittest.TestCase):
    def attack(self, *args):
        self.assertEqual(hostile.run(SECONDS, SEED, cluster_args=args)[1], [])

    def test_straight(self):
        self.attack()

    @unittest.skipUnless(shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin"), "haproxy is not installed")
    def test_edge(self):
        self.attack("--edge")

    def test_mutated_requests(self):
        figures, problems = mutated.run(MUTATED, SEED)
        self.assertEqual(problems, [])
        self.assertGreaterEqual(figures["sent"], MUTATED // 2)

    def test_idle_connections_at_1024_descriptors(self):
        """1,012 idle connections, half of which send no byte. Router and scheduler answer on new connections meanwhile and afterwards."""
        with Cluster(wrap=["prlimit", "--nofile=1024:1024"]) as c:
            pids = [c.ready["router_pid"], c.ready["scheduler_pid"]]
            want = c.generate(ids=PROMPT, max_tokens=8, ignore_eos=True).bits()

            def answers():
                fresh = Client(c.ready["grpc_port"])
                try:
                    return fresh.generate(ids=PROMPT, max_tokens=8, ignore_eos=True).bits() == want
                finally:
                    fresh.close()

            ports = [c.ready["grpc_port"], c.ready["scheduler_port"]]
            held = []
            for i in range(1012):
                for port in ports:
                    try:
                        held.append(attacks.Connection(attacks.Target("127.0.0.1", port, 0), speak=i % 2 == 0))
                    except OSError:
                        pass  # The server may close the connection at once.
            self.assertTrue(answers())
            c.add_router()  # The scheduler accepts it on a new connection.
            for connection in held:
                connection.close()
            wait_until(answers, "a new connection is answered")
            for pid in pids:
                self.assertTrue(os.path.exists(f"/proc/{pid}"))


if __name__ == "__main__":
    print(f"FATHOM_SEED={SEED}", file=sys.stderr)
    unittest.main(verbosity=2)
