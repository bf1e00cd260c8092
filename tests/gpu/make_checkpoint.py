#!/usr/bin/env python3
"""Writes a safetensors checkpoint with small random bf16 weights for the config.json of a Llama: make_checkpoint.py CONFIG FOLDER.

It is used to measure the time of loading. The values repeat every 64 MiB. The files stay in the page cache.
"""
import json
import os
import pathlib
import struct
import sys

BLOCK = 64 << 20
SHARD_BYTES_MAX = 5 << 30


def tensors(c):
    """(name, shape) in the order of layers."""
    head_dim = c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"]
    hidden, ffn, q, kv = c["hidden_size"], c["intermediate_size"], c["num_attention_heads"] * head_dim, c["num_key_value_heads"] * head_dim
    yield "model.embed_tokens.weight", (c["vocab_size"], hidden)
    for i in range(c["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        yield layer + "input_layernorm.weight", (hidden,)
        for name, shape in (("q_proj", (q, hidden)), ("k_proj", (kv, hidden)), ("v_proj", (kv, hidden)), ("o_proj", (hidden, q))):
            yield f"{layer}self_attn.{name}.weight", shape
        yield layer + "post_attention_layernorm.weight", (hidden,)
        for name, shape in (("gate_proj", (ffn, hidden)), ("up_proj", (ffn, hidden)), ("down_proj", (hidden, ffn))):
            yield f"{layer}mlp.{name}.weight", shape
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (c["vocab_size"], hidden)


def count(shape):
    return shape[0] * (shape[1] if len(shape) == 2 else 1)


def random_block(size):
    """bf16 values between 2^-7 and 2^-6 with both signs: the sign and the fraction of each are random."""
    raw = int.from_bytes(os.urandom(size), "little")
    mask = int.from_bytes(b"\x7f\x80" * (size // 2), "little")
    exponent = int.from_bytes(b"\x00\x3c" * (size // 2), "little")
    return ((raw & mask) | exponent).to_bytes(size, "little")


def shards(all_tensors):
    found, size = [[]], 0
    for name, shape in all_tensors:
        size += 2 * count(shape)
        if size > SHARD_BYTES_MAX:
            found.append([])
            size = 2 * count(shape)
        found[-1].append((name, shape))
    return found


def write_shard(path, part, block):
    header, at = {}, 0
    for name, shape in part:
        size = 2 * count(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for left in range(at, 0, -len(block)):
            file.write(block[:min(left, len(block))])
    return at


def main():
    config = json.loads(pathlib.Path(sys.argv[1]).read_text())
    folder = pathlib.Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    block = random_block(BLOCK)
    parts = shards(tensors(config))
    index, total = {}, 0
    for i, part in enumerate(parts):
        name = f"model-{i + 1:05}-of-{len(parts):05}.safetensors"
        total += write_shard(folder / name, part, block)
        index.update({tensor: name for tensor, _ in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))
    (folder / "config.json").write_text(json.dumps(config))
    print(f"{total / 1e9:.2f} GB in {len(parts)} files")


if __name__ == "__main__":
    main()
