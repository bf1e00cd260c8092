"""tests/e2e/limits_test.py: every program with too low limits of the system, and a cluster whose groups can never form.

A program never ends by a signal or without a message: it prints a line that names the limit and ends with the documented exit code.
"""
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

from cluster import BIN, SLOW, TINY, Cluster

SERVE = ["fathom", "serve", "--model", str(TINY), "--device", "cpu", "--http-port", "0", "--grpc-port", "0", "--scheduler-port", "0", "--metrics-port", "0"]
WORKER = ["fathom-worker", "--model", str(TINY), "--device", "cpu", "--port", "0", "--metrics-port", "0"]
PROGRAMS = (SERVE, ["fathom", "status", "--server", "127.0.0.1:9"], WORKER,
            ["fathom-router", "--model", str(TINY), "--grpc-port", "0", "--http-port", "0"],
            ["fathom-scheduler", "--port", "0", "--metrics-port", "0"])
# A mount namespace, if this system allows one.
PRIVATE = ["unshare", "--mount"] if os.getuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
SANITIZED = SLOW > 1  # ASan alone reserves terabytes of address space.


def run(words, wrap=(), **kw):
    return subprocess.run([*wrap, str(BIN / words[0]), *words[1:]], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60 * SLOW, **kw)


def private_mounts(script, *words):
    """Runs a shell script in a mount namespace of its own; its arguments are `words`."""
    return subprocess.run([*PRIVATE, "sh", "-c", script, "sh", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120 * SLOW)


class Limits(unittest.TestCase):
    def check(self, result, *says):
        self.assertEqual(result.returncode, 71, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        self.assertEqual(len(lines), 1, result.stderr)
        for text in says:
            self.assertIn(text, lines[0])

    def test_descriptors(self):
        for words in PROGRAMS:
            for number in (8, 16, 24):
                with self.subTest(words=words[:2], number=number):
                    if words[1] == "status" and number > 8:
                        continue  # So few descriptors are enough for this program.
                    self.check(run(words, ["prlimit", f"--nofile={number}:{number}"]), f"{number} file descriptors")

    @unittest.skipIf(SANITIZED, "a sanitizer's shadow is address space")
    def test_address_space(self):
        for words in PROGRAMS:
            if words[1] == "status":
                continue  # So little address space is enough for this program.
            with self.subTest(words=words[:2]):
                self.check(run(words, ["prlimit", f"--as={100 << 20}:{100 << 20}"]), "address space", "ulimit -v")

    def test_shared_memory(self):
        if private_mounts("mount -t tmpfs -o size=64k none /dev/shm").returncode != 0:
            self.skipTest("this system does not let us mount")
        for options in ("size=64k", "ro"):
            for words in ([*SERVE, "-tp", "2"], [*WORKER, "-tp", "2"]):
                with self.subTest(options=options, words=words[:2]):
                    result = private_mounts(f'mount -t tmpfs -o {options} none /dev/shm && exec "$@"', str(BIN / words[0]), *words[1:])
                    self.check(result, "/dev/shm", "shared memory")

    def test_a_group_that_can_never_form(self):
        """Each worker has its own /dev/shm, so the ranks share no memory: serve ends with the names of the ranks and the way out."""
        if private_mounts("mount -t tmpfs none /dev/shm").returncode != 0:
            self.skipTest("this system does not let us mount")
        with tempfile.TemporaryDirectory() as folder:
            there = pathlib.Path(folder)
            for name in ("fathom", "fathom-router", "fathom-scheduler"):
                shutil.copy2(BIN / name, there)
            worker = there / "fathom-worker"
            worker.write_text(f"#!/bin/sh\nexec {' '.join(PRIVATE)} sh -c 'mount -t tmpfs none /dev/shm && exec \"$@\"' sh {BIN}/fathom-worker \"$@\"\n")
            worker.chmod(0o755)
            result = subprocess.run([there / "fathom", *SERVE[1:], "-tp", "2"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120 * SLOW)
        self.assertEqual(result.returncode, 69, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        self.assertRegex(lines[-1], r"the workers can form no group: .*rank [01] on \S+ \(machine \w+, /dev/shm [\d:]+\); rank [01] on ")
        self.assertIn("where they see the same /dev/shm", lines[-1])

    def test_a_group_that_is_lost_again_and_again(self):
        """Rank 1 runs as another user, who may not open rank 0's shared memory: serve reports each loss and ends after a few."""
        if os.geteuid() != 0 or shutil.which("setpriv") is None:
            self.skipTest("only root can start a worker as another user")
        with tempfile.TemporaryDirectory() as folder:
            there = pathlib.Path(folder)
            there.chmod(0o755)
            for program in ("fathom", "fathom-scheduler", "fathom-router", "fathom-worker"):
                shutil.copy2(BIN / program, there / (program if program != "fathom-worker" else "real-worker"))
            wrapper = there / "fathom-worker"
            wrapper.write_text('#!/bin/sh\ncase " $* " in *" --rank 1 "*) exec setpriv --reuid=65534 --clear-groups "${0%/*}/real-worker" "$@" ;; esac\n'
                               'exec "${0%/*}/real-worker" "$@"\n', encoding="utf-8")
            wrapper.chmod(0o755)
            result = subprocess.run([there / "fathom", *SERVE[1:], "-tp", "2"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120 * SLOW)
        self.assertEqual(result.returncode, 69, result.stderr)
        lines = [line for line in result.stderr.splitlines() if line.strip()]
        self.assertIn("a group of workers was lost", lines[0])
        self.assertIn("5 groups of workers were lost for the same reason", lines[-1])
        for line in (lines[0], lines[-1]):
            self.assertIn("rank 1", line)
            self.assertIn("Permission denied", line)

    def test_few_will_do(self):
        """The documented limits are enough: a cluster starts and answers with exactly these limits."""
        least = ["prlimit", "--nofile=56:56"]
        if not SANITIZED:
            least.append(f"--as={2560 << 20}:{2560 << 20}")
        with Cluster("-tp", "2", "--kv-cache-memory", "64M", wrap=least) as cluster:
            self.assertEqual(len(cluster.generate(ids=[0, 3, 5], max_tokens=8, ignore_eos=True).ids), 8)


if __name__ == "__main__":
    unittest.main(verbosity=2)
