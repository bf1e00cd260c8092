#!/usr/bin/env python3
"""Runs every program of docs/examples against a cluster, as a reader would."""
import os
import pathlib
import subprocess
import sys
import unittest

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "e2e"))
from cluster import BIN, ROOT, SLOW, Cluster  # noqa: E402

EXAMPLES = ROOT / "docs" / "examples"
# What the output of each must have.
SAYS = {
    "curl.sh": ['"object":"list"', '"finish_reason":"stop"', "data: [DONE]", '"total_tokens"', '"token_strs":["'],
    "openai_chat.py": ["answer: ", "stream: ", "usage of the stream: ", "refused: temperature: temperature is 7"],
    "anthropic_chat.py": ["tokens: ", "answer: The capital of France", "stream: The capital of France", "end of the stream: end_turn", "refused: temperature is 7"],
    "responses.py": ["answer: ", "end of the stream: completed"],
    "grpc_chat.py": ["model: ", "stream: The capital of France", "finish: FINISH_REASON_", "refused: INVALID_ARGUMENT sampling.temperature is 7"],
    "client.cc": ["stream: The capital of France", "answer: The capital of France", "refused: sampling.temperature is 7"],
    "resume.py": ["came before", "came after"],
    "tools.py": ["call: get_weather {'city': 'Oslo'}", "answer: ", "thinking: 1 + 9"],
}


class Examples(unittest.TestCase):
    def test_all(self):
        programs = sorted(p.name for p in EXAMPLES.iterdir() if p.suffix in (".sh", ".py", ".cc"))
        self.assertEqual(programs, sorted(SAYS))
        page = (EXAMPLES / "README.md").read_text()
        with Cluster() as cluster:
            grpc = f"127.0.0.1:{cluster.ready['grpc_port']}"
            environment = {**os.environ, "FATHOM_URL": f"http://127.0.0.1:{cluster.ready['http_port']}", "FATHOM_GRPC": grpc}
            commands = {".py": lambda path: [sys.executable, path], ".sh": lambda path: ["sh", path],
                        ".cc": lambda path: [BIN.parent / "tests" / "example_client", grpc]}  # Built by tests/docs/CMakeLists.txt.
            for name in programs:
                self.assertIn(f"[{name}]({name})", page)
                command = commands[pathlib.Path(name).suffix](EXAMPLES / name)
                done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120 * SLOW)
                self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
                for text in SAYS[name]:
                    self.assertIn(text, done.stdout, name)


if __name__ == "__main__":
    unittest.main()
