#!/usr/bin/env python3
"""llama.cpp as a peer: converts a Llama-like model folder to GGUF once, then times blocks of decode steps on request.

    llama_peer.py MODEL_DIR OUT_DIR bf16|f32 THREADS
Reads lines "ROWS STEPS" and answers with a JSON list of microseconds per step: ROWS sequences, one token each, at contexts
from 32 tokens on. A step is llama_decode and reading the logits; choosing the token is not counted.
"""
import ctypes
import json
import pathlib
import struct
import sys
import time

import gguf
import numpy as np

CONTEXT_START = 32


def read_tensors(folder):
    for path in sorted(folder.glob("*.safetensors")):
        raw = path.read_bytes()
        size = struct.unpack("<Q", raw[:8])[0]
        for name, info in json.loads(raw[8:8 + size]).items():
            if name == "__metadata__":
                continue
            assert info["dtype"] == "BF16", "the bundled models are bf16"
            begin, end = info["data_offsets"]
            bits = np.frombuffer(raw[8 + size + begin:8 + size + end], np.uint16).reshape(info["shape"])
            yield name, (bits.astype(np.uint32) << 16).view(np.float32)


def interleaved(weight, heads):
    """Rotate-half rows to llama.cpp's order of pairs."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
         "post_attention_layernorm": "ffn_norm"}


def convert(folder, out, kind):
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    for name, weight in read_tensors(folder):
        if name in ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"):
            target = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                      "lm_head.weight": "output.weight"}[name]
        else:
            _, _, layer, rest = name.split(".", 3)
            part = rest.removesuffix(".weight")
            target = f"blk.{layer}.{NAMES[part]}.weight"
            if part.endswith("q_proj"):
                weight = interleaved(weight, config["num_attention_heads"])
            if part.endswith("k_proj"):
                weight = interleaved(weight, config["num_key_value_heads"])
        if kind == "bf16" and weight.ndim == 2:
            data = (weight.view(np.uint32) >> 16).astype(np.uint16)
            writer.add_tensor(target, data.view(np.uint8).reshape(*data.shape[:-1], data.shape[-1] * 2), raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(target, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Peer:
    def __init__(self, path, threads):
        import llama_cpp as lc
        self.lc = lc
        lc.llama_backend_init()
        quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
        lc.llama_log_set(quiet, ctypes.c_void_p(0))
        self._quiet = quiet
        self.model = lc.llama_model_load_from_file(str(path).encode(), lc.llama_model_default_params())
        params = lc.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max = 4096 * 4, 512, 64
        params.n_threads = params.n_threads_batch = threads
        params.kv_unified = True
        self.context = lc.llama_init_from_model(self.model, params)
        self.vocab = lc.llama_vocab_n_tokens(lc.llama_model_get_vocab(self.model))

    def decode(self, rows):
        """rows: (token, position, sequence); all with logits."""
        batch = self.lc.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, position, 1, sequence, 1
        begin = time.perf_counter()
        assert self.lc.llama_decode(self.context, batch) == 0
        logits = self.lc.llama_get_logits(self.context)
        took = time.perf_counter() - begin
        best = np.ctypeslib.as_array(logits, shape=(len(rows), self.vocab)).argmax(axis=1)
        self.lc.llama_batch_free(batch)
        return took * 1e6, best

    def block(self, rows, steps):
        self.lc.llama_memory_clear(self.lc.llama_get_memory(self.context), True)
        tokens = np.zeros(rows, int)
        for s in range(rows):
            _, best = self.decode([(3 + (7 * s + 13 * i) % 4000, i, s) for i in range(CONTEXT_START)])
            tokens[s] = best[-1]
        times = []
        for step in range(steps):
            took, tokens = self.decode([(int(tokens[s]), CONTEXT_START + step, s) for s in range(rows)])
            times.append(round(took, 1))
        return times


def main():
    folder, out, kind, threads = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    path = out / f"{folder.name}-{kind}.gguf"
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        convert(folder, path, kind)
    peer = Peer(path, threads)
    print("ready", flush=True)
    for line in sys.stdin:
        rows, steps = map(int, line.split())
        print(json.dumps(peer.block(rows, steps)), flush=True)


if __name__ == "__main__":
    main()
