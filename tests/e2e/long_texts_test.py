"""Long texts at a real router: cancelled texts take no time of other clients, and a drain does not wait for running ones. Times
are compared with the time of one such text in the same run."""
import json
import signal
import subprocess
import time
import unittest

from cluster import BIN, SLOW, TINY, grpc, pb, pb_grpc

BIG = pb.TokenizeRequest(text=" " * ((4 << 20) - 100))  # A run of spaces, the slowest known text.


class LongTexts(unittest.TestCase):
    def setUp(self):
        # No scheduler: Tokenize needs none.
        self.router = subprocess.Popen([BIN / "fathom-router", "--model", TINY, "--grpc-port", "0", "--http-port", "0",
                                        "--scheduler", "127.0.0.1:1"],
                                       stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        port = next(json.loads(line)["grpc_port"] for line in self.router.stdout if '"role"' in line)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_send_message_length", -1),
                                                                   ("grpc.max_receive_message_length", -1)])
        self.stub = pb_grpc.InferenceStub(self.channel)

    def tearDown(self):
        self.channel.close()
        self.router.kill()
        self.router.wait()
        self.router.stdout.close()

    def test_cancelled_texts_and_a_drain(self):
        begin = time.monotonic()
        self.stub.Tokenize(BIG)
        one = time.monotonic() - begin
        calls = [self.stub.Tokenize.future(BIG) for _ in range(24)]
        deadline = time.monotonic() + 60 * SLOW
        while not any(call.done() for call in calls) and time.monotonic() < deadline:
            time.sleep(0.01)  # Gives the queue time to take the next text.
        for call in calls:
            call.cancel()
        begin = time.monotonic()
        self.stub.Tokenize(pb.TokenizeRequest(text=" the" * 1500))
        self.assertLess(time.monotonic() - begin, 3 * one + 1)  # All 24 texts would take 11 times as long as one, or longer.

        calls = [self.stub.Tokenize.future(BIG) for _ in range(16)]
        while not any(call.done() for call in calls) and time.monotonic() < deadline:
            time.sleep(0.01)
        begin = time.monotonic()
        self.router.send_signal(signal.SIGTERM)
        self.assertEqual(self.router.wait(30 * SLOW), 0)
        self.assertLess(time.monotonic() - begin, 3 * one + 2)


if __name__ == "__main__":
    unittest.main()
