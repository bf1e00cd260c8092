"""The weights are replaced in place while an answer runs. The answer ends with MODEL_CHANGED, so two models never make one answer. With
the same weights it continues, equal to the last bit. Another test sets proxies in the environment, which the cluster must ignore."""
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import unittest

from cluster import BIN, TINY, Cluster, collect, grpc, request

LONG = 1500


def flip_weights(folder):
    """Changes the values at the start of the first tensor. The new file replaces the old one by a rename, as in a deployment."""
    path = min(folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    for i in range(0, 4096, 2):
        data[begin + i] ^= 0x55
    new = folder / "model.new"
    new.write_bytes(data)
    new.replace(path)


class ModelChange(unittest.TestCase):
    def run_through(self, replace):
        with tempfile.TemporaryDirectory() as temp:
            folder = pathlib.Path(temp) / "model"
            shutil.copytree(TINY, folder)
            with Cluster("--model-wait", "2", model=folder) as c:
                alone = c.generate(timeout=200, ids=[0, 3, 5], max_tokens=LONG, ignore_eos=True)
                self.assertIsNone(alone.error)
                started = threading.Event()
                found = []
                stream = c.client.stub.Generate(request(ids=[0, 3, 5], max_tokens=LONG, ignore_eos=True), timeout=200)
                thread = threading.Thread(
                    target=lambda: found.append(collect(stream, lambda r: len(r.ids) >= 20 and started.set())))
                thread.start()
                self.assertTrue(started.wait(60))
                if replace:
                    flip_weights(folder)
                os.kill(c.ready["workers"][0]["pid"], signal.SIGKILL)
                thread.join()
                after = c.generate(ids=[0, 3, 5], max_tokens=8, ignore_eos=True)
                return alone, found[0], after, c.metrics("scheduler")

    def test_an_answer_is_of_one_model(self):
        alone, answer, after, metrics = self.run_through(replace=True)
        self.assertIsNotNone(answer.error)
        self.assertEqual(answer.error.code(), grpc.StatusCode.FAILED_PRECONDITION)
        self.assertIn("the cluster now serves", answer.error.details())
        self.assertIn("--model-wait", answer.error.details())
        self.assertLess(len(answer.ids), LONG)
        self.assertEqual(answer.ids, alone.ids[:len(answer.ids)])
        self.assertIsNone(after.error)
        self.assertNotEqual(after.started.fingerprint, alone.started.fingerprint)
        self.assertEqual(metrics["fathom_scheduler_model_changes_total"], 1)

    def test_the_same_model_goes_on(self):
        alone, answer, _, metrics = self.run_through(replace=False)
        self.assertIsNone(answer.error)
        self.assertEqual(answer.ids, alone.ids)
        self.assertEqual(len(answer.finish.fingerprints), 1)
        span = answer.finish.fingerprints[0]
        self.assertEqual((span.dtype, span.device, span.tensor_parallel_size), ("float32", "cpu", 1))
        self.assertEqual(len(span.model_digest), 64)
        self.assertEqual(metrics["fathom_scheduler_kind_changes_total"], 0)


class Proxies(unittest.TestCase):
    def test_a_proxy_of_the_environment_is_not_used(self):
        names = ("http_proxy", "https_proxy", "grpc_proxy", "HTTP_PROXY")
        os.environ.update({name: "http://127.0.0.1:9" for name in names})  # No process answers on port 9.
        self.addCleanup(lambda: [os.environ.pop(name) for name in names])
        with Cluster("-tp", "2") as c:
            tool = [BIN / "fathom", "complete", "--server", f"127.0.0.1:{c.ready['grpc_port']}", "--token-ids", "0,3,5", "--max-tokens", "4"]
            done = subprocess.run(tool, capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
            asked = subprocess.run([*tool, "--use-proxy"], capture_output=True, text=True, timeout=60)
            self.assertNotEqual(asked.returncode, 0)


if __name__ == "__main__":
    unittest.main()
