"""tests/e2e/replay_test.py: a cluster that records, a worker that is killed in the middle, and a replay of the recording."""
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import unittest

from cluster import BIN, SLOW, Cluster, collect, request

LONG = 400


def replay(*words):
    return subprocess.run([str(BIN / "fathom"), "replay", *map(str, words)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120 * SLOW)


class Replay(unittest.TestCase):
    def test_a_recording_is_replayed(self):
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "events"
            with Cluster("--record-events", str(file)) as cluster:
                self.assertEqual(len(cluster.generate(ids=[0, 3, 5], max_tokens=8, ignore_eos=True).ids), 8)
                killed = []

                def kill(result):
                    if len(result.ids) >= 20 and not killed:
                        killed.append(os.kill(cluster.ready["workers"][0]["pid"], signal.SIGKILL))

                answer = collect(cluster.client.stub.Generate(request(ids=[0, 7], max_tokens=LONG, ignore_eos=True), timeout=60 * SLOW), kill)
                self.assertIsNone(answer.error)
                self.assertEqual((len(answer.ids), len(killed)), (LONG, 1))
                cluster.wait_idle()
                metrics = cluster.metrics()
            recorded = metrics["fathom_scheduler_events_recorded_total"]
            self.assertEqual(metrics["fathom_scheduler_events_unrecorded_total"], 0)

            whole = replay(file)
            self.assertEqual(whole.returncode, 0, whole.stderr)
            events = int(re.search(r"^events +(\d+):", whole.stdout, re.M).group(1))
            self.assertGreaterEqual(events, recorded)  # More events may have come after the metrics were read.
            counts = {name: int(count) for name, count in re.findall(r"(\w+) (\d+)(?=[,\n])", whole.stdout)}
            self.assertEqual((counts["Submit"], counts["GroupUp"], counts["refused"], counts["aborts"]), (2, 2, 0, 0), whole.stdout)
            self.assertGreaterEqual(counts["GroupLost"], 1)
            self.assertGreaterEqual(counts["StepDone"], LONG)
            self.assertNotIn("cut off", whole.stdout)
            self.assertEqual(replay(file).stdout, whole.stdout)

            some = replay(file, "--to", 5, "--verbose")
            self.assertEqual(some.returncode, 0, some.stderr)
            self.assertEqual(sum(" -> accepted" in line for line in some.stdout.splitlines()), 5)
            self.assertIn("events   5:", some.stdout)

            size = file.stat().st_size
            os.truncate(file, size - 3)
            cut = replay(file)
            self.assertEqual(cut.returncode, 0, cut.stderr)
            self.assertIn(f"events   {events - 1}:", cut.stdout)
            self.assertIn("cut off", cut.stdout)

            with open(file, "r+b") as damaged:
                damaged.seek(size // 2)
                byte = damaged.read(1)
                damaged.seek(size // 2)
                damaged.write(bytes([byte[0] ^ 1]))
            broken = replay(file)
            self.assertEqual(broken.returncode, 64, broken.stdout)
            self.assertIn("damaged at offset", broken.stderr)

    def test_what_is_no_recording(self):
        for file, says in ((__file__, "not a recording"), ("/nowhere/at/all", "cannot be read")):
            with self.subTest(file=file):
                result = replay(file)
                self.assertEqual(result.returncode, 64)
                self.assertIn(says, result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
