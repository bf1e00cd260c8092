"""Chat templates give the text of Python's Jinja: random conversations with small templates that use the features of published ones."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

from cluster import BIN, ROOT

SEED = os.environ.get("FATHOM_SEED", "20240613")
RENDERINGS = 64


class Templates(unittest.TestCase):
    def test_random_renderings(self):
        templates = sorted((ROOT / "tests/data/chat/templates").glob("*.jinja"))
        self.assertGreaterEqual(len(templates), 8)
        with tempfile.TemporaryDirectory() as folder:
            for template in templates:
                vectors = pathlib.Path(folder) / f"{template.stem}.jsonl"
                vectors.write_bytes(subprocess.run(
                    [sys.executable, ROOT / "tests/tools/template_oracle.py", template, str(RENDERINGS), SEED],
                    check=True, capture_output=True).stdout)
                with self.subTest(template=template.name, FATHOM_SEED=SEED):
                    result = subprocess.run([BIN / "fathom", "render", "--template", template, "--vectors", vectors],
                                            capture_output=True, text=True, timeout=60)
                    self.assertIn(f"{RENDERINGS} of {RENDERINGS} exact", result.stdout, result.stdout[:2000] + result.stderr)


if __name__ == "__main__":
    unittest.main()
