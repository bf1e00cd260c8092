"""`fathom verify` against real clusters: every recorded output exact, with one rank and with two."""
import json
import pathlib
import subprocess
import unittest

from cluster import BIN, ROOT, Cluster

SHARED = ROOT.parent / "shared"


def run_verify(cluster, goldens, *flags):
    return subprocess.run([BIN / "fathom", "verify", "--goldens", str(goldens), "--server", f"127.0.0.1:{cluster.ready['grpc_port']}", *flags],
                          capture_output=True, text=True, timeout=300)


class Golden(unittest.TestCase):
    def verify(self, model, goldens, *args):
        with Cluster(*args, model=model) as c:
            run = run_verify(c, goldens)
        count = len(pathlib.Path(goldens).read_text(encoding="utf-8").splitlines())
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("rule cpu", run.stdout)
        self.assertIn(f"{count} of {count} exact", run.stdout)

    def test_fathom_tiny(self):
        for tp in ("1", "2"):
            with self.subTest(tp=tp):
                self.verify(ROOT / "models/fathom-tiny", ROOT / "tests/data/goldens/fathom-tiny.jsonl", "-tp", tp)

    def test_fathom_tiny_draft(self):
        for tp in ("1", "2"):
            with self.subTest(tp=tp):
                self.verify(ROOT / "models/fathom-tiny-draft", ROOT / "tests/data/goldens/fathom-tiny-draft.jsonl", "-tp", tp)

    def test_fixtures_of_every_architecture(self):
        """Compares ids. The fixtures' folders are not part of the project (18 MB); those that exist are tested."""
        for folder in sorted([*SHARED.glob("fixtures/*/"), *SHARED.glob("fixtures-next/*/")]):
            with self.subTest(fixture=folder.name):
                self.verify(folder, folder / "goldens.jsonl")

    def test_a_wrong_golden_is_caught(self):
        lines = (ROOT / "tests/data/goldens/fathom-tiny-draft.jsonl").read_text(encoding="utf-8").splitlines()
        golden = json.loads(lines[0])
        golden["output_ids"][0] += 1
        broken = ROOT / "build/broken_golden.jsonl"
        broken.write_text(json.dumps(golden) + "\n", encoding="utf-8")
        with Cluster(model=ROOT / "models/fathom-tiny-draft") as c:
            run = run_verify(c, broken)
            by_cuda_rule = run_verify(c, broken, "--rule", "cuda")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("0 of 1 exact", run.stdout + run.stderr)
        self.assertNotEqual(by_cuda_rule.returncode, 0)
        self.assertIn("0 of 1 within the rule", by_cuda_rule.stdout + by_cuda_rule.stderr)

    def test_the_rule_for_cuda(self):
        """The exact arithmetic satisfies the CUDA rule too; log-probabilities that were recorded too high on average are found."""
        goldens = ROOT / "tests/data/goldens/fathom-tiny.jsonl"
        lines = goldens.read_text(encoding="utf-8").splitlines()
        shifted = ROOT / "build/shifted_golden.jsonl"
        with open(shifted, "w", encoding="utf-8") as file:
            for golden in map(json.loads, lines):
                golden["logprobs"] = [x + 0.04 for x in golden["logprobs"]]
                file.write(json.dumps(golden) + "\n")
        with Cluster(model=ROOT / "models/fathom-tiny") as c:
            run = run_verify(c, goldens, "--rule", "cuda", "--json")
            text = run_verify(c, goldens, "--rule", "cuda")
            caught = run_verify(c, shifted, "--rule", "cuda", "--json")
        found = json.loads(run.stdout)
        self.assertEqual((found["rule"], found["passed"], found["exact"], found["total"], found["failed"]), ("cuda", *[len(lines)] * 3, []))
        self.assertLess(found["logprob_difference_max"], 2e-3)
        self.assertIn("rule cuda", text.stdout)
        self.assertIn(f"{len(lines)} of {len(lines)} within the rule", text.stdout)
        found = json.loads(caught.stdout)
        self.assertEqual((found["passed"], len(found["failed"])), (0, 1))
        self.assertNotEqual(caught.returncode, 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
