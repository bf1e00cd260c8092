#!/usr/bin/env python3
"""Runs every program of docs/examples against a cluster, as a reader would."""
import os
import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from cluster import ROOT, SLOW, Cluster  # noqa: E402

EXAMPLES = ROOT / "docs" / "examples"
# What the output of each must have.
SAYS = {
    "curl.sh": ['"object":"list"', '"finish_reason":"stop"', "data: [DONE]", '"total_tokens"', '"token_strs":["'],
    "openai_chat.py": ["answer: ", "stream: ", "usage of the stream: ", "refused: temperature: temperature is 7"],
    "resume.py": ["came before", "came after"],
    "tools.py": ["call: get_weather {'city': 'Oslo'}", "answer: ", "thinking: 1 + 9"],
}


class Examples(unittest.TestCase):
    def test_all(self):
        programs = sorted(p.name for p in EXAMPLES.iterdir() if p.suffix in (".sh", ".py"))
        self.assertEqual(programs, sorted(SAYS))
        page = (EXAMPLES / "README.md").read_text()
        with Cluster() as cluster:
            environment = {**os.environ, "FATHOM_URL": f"http://127.0.0.1:{cluster.ready['http_port']}"}
            for name in programs:
                self.assertIn(f"[{name}]({name})", page)
                command = [sys.executable] if name.endswith(".py") else ["sh"]
                done = subprocess.run([*command, EXAMPLES / name], env=environment, capture_output=True, text=True, timeout=120 * SLOW)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                for text in SAYS[name]:
                    self.assertIn(text, done.stdout, name)


if __name__ == "__main__":
    unittest.main()
