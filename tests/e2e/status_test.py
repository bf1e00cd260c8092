"""tests/e2e/status_test.py: `fathom status --watch` on a terminal (a pty) and into a pipe: what it shows, and how it ends."""
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import fcntl
import time
import unittest

from cluster import BIN, SLOW, Cluster

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Terminal:
    """A program on a pty of 100 columns and 20 rows."""

    def __init__(self, *args):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 100, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        # A session of its own, so that Ctrl-C typed into the pty reaches the program. setsid(1) makes it: code of ours between
        # fork and exec would run beside gRPC's threads, which now and then ended the child.
        self.process = subprocess.Popen(["setsid", "--ctty", BIN / "fathom", *args], stdin=slave, stdout=slave, stderr=subprocess.PIPE)
        self.text = ""

    def read_until(self, what, seconds=20):
        """Reads until `what` is on the screen, which is drawn again and again."""
        end = time.monotonic() + seconds * SLOW
        while not what(self.text):
            assert time.monotonic() < end, self.text
            if select.select([self.master], [], [], 0.2)[0]:
                self.text += os.read(self.master, 65536).decode()

    def press_ctrl_c(self):
        os.write(self.master, b"\x03")

    def end(self):
        code = self.process.wait(20 * SLOW)
        while select.select([self.master], [], [], 0)[0]:
            self.text += os.read(self.master, 65536).decode()
        after = termios.tcgetattr(self.slave)
        os.close(self.slave)
        os.close(self.master)
        self.process.stderr.close()
        return code, after == self.before


class Status(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("-tp", "2")
        cls.cluster.__enter__()
        cls.address = ["--server", f"127.0.0.1:{cls.cluster.ready['grpc_port']}",
                       "--scheduler-metrics", f"127.0.0.1:{cls.cluster.ready['scheduler_metrics_port']}", "--interval-ms", "100"]

    @classmethod
    def tearDownClass(cls):
        cls.cluster.__exit__()

    def pipe(self, *args):
        done = subprocess.run([BIN / "fathom", "status", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60 * SLOW)
        return done.returncode, done.stdout, done.stderr

    def test_a_terminal_is_drawn_and_given_back(self):
        terminal = Terminal("status", "--watch", *self.address)
        terminal.read_until(lambda text: text.count("\x1b[H") >= 3 and "steps/s" in text)
        terminal.press_ctrl_c()
        code, restored = terminal.end()
        self.assertEqual(code, 0)
        self.assertTrue(restored)
        self.assertTrue(terminal.text.startswith(ENTER), terminal.text[:40])
        self.assertTrue(terminal.text.endswith(LEAVE), terminal.text[-40:])
        screen = terminal.text.split("\x1b[H")[-2]  # Ctrl-C makes the terminal drop what it has not shown of the last one.
        self.assertIn("ready", screen)
        self.assertIn("blocks    [", screen)
        rows = screen.split(LEAVE)[0].split("\n")
        self.assertLessEqual(len(rows), 20)
        for row in rows:
            self.assertLessEqual(len(row.replace("\x1b[K", "").replace("\x1b[J", "").strip("\r")), 100)

    def test_tokens_per_second_while_a_request_runs(self):
        stop = threading.Event()
        stream = threading.Thread(target=lambda: [self.cluster.generate(ids=[0, 3, 5], max_tokens=64, ignore_eos=True) for _ in iter(stop.is_set, True)])
        stream.start()
        try:
            code, out, err = self.pipe("--watch", "--json", "--count", "8", *self.address)
        finally:
            stop.set()
            stream.join()
        self.assertEqual(code, 0, err)
        lines = [json.loads(line) for line in out.splitlines()]
        self.assertEqual(len(lines), 8)
        self.assertIsNone(lines[0]["generated_tokens_per_s"])  # One reading has no rate.
        self.assertTrue(any(line["generated_tokens_per_s"] > 0 for line in lines[1:]), out)
        self.assertTrue(any(line["steps_per_s"] > 0 for line in lines[1:]), out)
        self.assertEqual({rank["rank"] for rank in lines[-1]["ranks"]}, {0, 1})

    def test_into_a_pipe_there_is_no_control_sequence(self):
        code, out, err = self.pipe("--watch", "--count", "2", *self.address)
        self.assertEqual((code, err), (0, ""))
        self.assertNotIn("\x1b", out)
        self.assertEqual(out.count("model     "), 2)

    def test_once_stays_as_it_was(self):
        code, out, _ = self.pipe(*self.address[:2])
        self.assertEqual(code, 0)
        self.assertIn("kv cache     ", out)
        code, out, _ = self.pipe("--json", *self.address[:2])
        self.assertNotIn("steps_per_s", json.loads(out))

    def test_sigterm_ends_it_and_a_lost_rank_is_shown(self):
        terminal = Terminal("status", "--watch", *self.address)
        terminal.read_until(lambda text: "steps/s" in text)
        os.kill(self.cluster.ready["workers"][1]["pid"], signal.SIGKILL)
        terminal.read_until(lambda text: "losses" in text and "rank 1" in text.split("losses")[-1])
        terminal.process.send_signal(signal.SIGTERM)
        code, restored = terminal.end()
        self.assertEqual((code, restored), (0, True))
        self.assertTrue(terminal.text.endswith(LEAVE))

    def test_the_port_of_another_process(self):
        for port in (self.cluster.ready["workers"][0]["port"], self.cluster.ready["scheduler_port"]):
            code, _, err = self.pipe("--server", f"127.0.0.1:{port}")
            self.assertEqual(code, 69, err)
            self.assertRegex(err, r"this (worker|scheduler) has no method .*; is this the port of a router\?")

    def test_without_a_cluster(self):
        code, out, err = self.pipe("--watch", "--count", "1", "--server", "127.0.0.1:9", "--scheduler-metrics", "127.0.0.1:9")
        self.assertEqual(code, 69)
        self.assertIn("no answer: ", out)


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
