"""`fathom verify` against real clusters: every recorded output exact, with one rank and with two."""
import pathlib
import subprocess
import unittest

from cluster import BIN, ROOT, Cluster

SHARED = ROOT.parent / "shared"


class Golden(unittest.TestCase):
    def verify(self, model, goldens, *args):
        with Cluster(*args, model=model) as c:
            run = subprocess.run([BIN / "fathom", "verify", "--goldens", str(goldens), "--server", f"127.0.0.1:{c.ready['grpc_port']}"],
                                 capture_output=True, text=True, timeout=300)
        count = len(pathlib.Path(goldens).read_text(encoding="utf-8").splitlines())
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn(f"{count} of {count} exact", run.stdout + run.stderr)

    def test_fathom_tiny(self):
        for tp in ("1", "2"):
            with self.subTest(tp=tp):
                self.verify(ROOT / "models/fathom-tiny", ROOT / "tests/data/goldens/fathom-tiny.jsonl", "-tp", tp)

    def test_fathom_tiny_draft(self):
        for tp in ("1", "2"):
            with self.subTest(tp=tp):
                self.verify(ROOT / "models/fathom-tiny-draft", ROOT / "tests/data/goldens/fathom-tiny-draft.jsonl", "-tp", tp)

    def test_fixtures_of_every_architecture(self):
        """By ids; the folders are not part of the project (18 MB): what is there is tested."""
        for folder in sorted(SHARED.glob("fixtures/*/")):
            with self.subTest(fixture=folder.name):
                self.verify(folder, folder / "goldens.jsonl")

    def test_a_wrong_golden_is_caught(self):
        lines = (ROOT / "tests/data/goldens/fathom-tiny-draft.jsonl").read_text(encoding="utf-8").splitlines()
        import json
        golden = json.loads(lines[0])
        golden["output_ids"][0] += 1
        broken = ROOT / "build/broken_golden.jsonl"
        broken.write_text(json.dumps(golden) + "\n", encoding="utf-8")
        with Cluster(model=ROOT / "models/fathom-tiny-draft") as c:
            run = subprocess.run([BIN / "fathom", "verify", "--goldens", str(broken), "--server", f"127.0.0.1:{c.ready['grpc_port']}"],
                                 capture_output=True, text=True, timeout=60)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("0 of 1 exact", run.stdout + run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
