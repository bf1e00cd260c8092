"""`fathom serve` with models that it must refuse: one line that says what to do, the right exit code, no restart."""
import json
import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

from cluster import BIN, ROOT

TINY = ROOT / "models/fathom-tiny-draft"


def serve(*args, timeout=60):
    return subprocess.run([BIN / "fathom", "serve", "--http-port", "0", "--grpc-port", "0", "--scheduler-port", "0", "--scheduler-metrics-port",
                           "0", "--worker-port", "0", "--worker-metrics-port", "0", *args], capture_output=True, text=True, timeout=timeout,
                          env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})


class BadModel(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp()) / "model"
        shutil.copytree(TINY, self.folder)
        self.addCleanup(shutil.rmtree, self.folder.parent)

    def edit_config(self, name="config.json", **changes):
        path = self.folder / name
        config = json.loads(path.read_text())
        config.update(changes)
        path.write_text(json.dumps(config))

    def tensors(self, change):
        """Rewrites model.safetensors: change(header, data) may edit both."""
        path = self.folder / "model.safetensors"
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        header, data = json.loads(raw[8:8 + size]), bytearray(raw[8 + size:])
        text = change(header, data)
        text = (text if isinstance(text, str) else json.dumps(header)).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)

    def refused(self, *says, code=66, args=()):
        run = serve("--model", str(self.folder), "--device", "cpu", *args)
        self.assertEqual(run.returncode, code, run.stderr)
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        for text in says:
            self.assertIn(text, run.stderr)
        self.assertLessEqual(len(lines), 3, run.stderr)

    def test_missing_folder(self):
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.refused("config.json")

    def test_missing_weights(self):
        (self.folder / "model.safetensors").unlink()
        self.refused("safetensors")

    def test_truncated_weights(self):
        path = self.folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1000])
        self.refused("model.safetensors")

    def test_broken_config(self):
        (self.folder / "config.json").write_text('{"hidden_size": 128,')
        self.refused("config.json")

    def test_broken_tokenizer(self):
        (self.folder / "tokenizer.json").write_text('{"model": {"type": "Unigram"}}')
        self.refused("tokenizer.json")

    def test_mha_weights_under_a_gqa_configuration(self):
        def change(header, data):
            name = "model.layers.0.self_attn.k_proj.weight"
            header[name]["shape"] = [128, 128]
        self.edit_config(num_key_value_heads=2)
        self.refused("k_proj", "num_key_value_heads=1")

    def test_wrong_shape_type_name_and_missing_tensor(self):
        name = "model.layers.1.mlp.up_proj.weight"

        def shape(header, data):
            header[name]["shape"] = header[name]["shape"][::-1]

        def dtype(header, data):
            header[name]["dtype"] = "I16"

        def missing(header, data):
            header["model.layers.1.mlp.up_proj.wait"] = header.pop(name)

        for change in (shape, dtype, missing):
            with self.subTest(change=change.__name__):
                shutil.copy(TINY / "model.safetensors", self.folder)
                self.tensors(change)
                self.refused("model.safetensors", "model.layers.1.mlp.up_proj")

    def test_duplicate_key_in_a_header(self):
        def twice(header, data):
            text = json.dumps(header)
            return text[:-1] + ', "lm_head.weight": ' + json.dumps(header["lm_head.weight"]) + "}"
        self.tensors(twice)
        self.refused("lm_head.weight")

    def test_a_weight_that_is_not_finite(self):
        def infinite(header, data):
            begin = header["model.layers.0.mlp.gate_proj.weight"]["data_offsets"][0]
            data[begin + 10:begin + 12] = struct.pack("<H", 0x7F80)
        self.tensors(infinite)
        self.refused("model.layers.0.mlp.gate_proj.weight")

    def test_unknown_architecture_rope_and_activation(self):
        for changes, says in (({"architectures": ["FooForCausalLM"]}, "FooForCausalLM"), ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope"),
                              ({"hidden_act": "gelu"}, "gelu"), ({"sliding_window": 128, "layer_types": ["sliding_attention"] * 2}, "sliding_window")):
            with self.subTest(changes=changes):
                shutil.copy(TINY / "config.json", self.folder)
                self.edit_config(**changes)
                self.refused(says, "config.json")

    def test_heads_that_do_not_divide(self):
        self.refused("3", args=("-tp", "3"))

    def test_no_gpu(self):
        """No GPU is visible to the process, even if the machine has one."""
        run = subprocess.run([BIN / "fathom-worker", "--model", self.folder, "--device", "cuda", "--port", "0", "--metrics-port", "0"],
                             capture_output=True, text=True, timeout=60, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
        self.assertEqual(run.returncode, 64, run.stderr)
        lines = run.stderr.strip().splitlines()
        self.assertEqual(len(lines), 1, run.stderr)
        self.assertIn("--device cuda", lines[0])
        self.assertIn("--device cpu", lines[0])

    def test_flags(self):
        run = serve("--model", str(self.folder), "--max-num-seq", "4")
        self.assertEqual(run.returncode, 64)
        self.assertIn("did you mean --max-num-seqs?", run.stderr)
        run = serve("--model", str(self.folder), "--device", "cuda")
        self.assertEqual(run.returncode, 64)
        self.assertEqual(len(run.stderr.strip().splitlines()), 1, run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
