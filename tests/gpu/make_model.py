#!/usr/bin/env python3
"""Writes a model of a published shape with cheap random weights, to measure loading and computing with real sizes.

    make_model.py models/shapes/deepseek-llm-7b.json /some/folder [--tokenizer models/fathom-tiny]

It writes bf16 safetensors in shards of about 5 GB with their index, and config.json: 13.8 GB for 7 billion parameters, in seconds.
Weights are about N(0, 0.02). They are windows of one pool of 2^24 values, with another place for each row block, because making new
random numbers would take longer than writing. Norms are 1. Equal arguments give equal files. Needs numpy.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import struct
import sys
import time

import numpy

POOL = 1 << 24  # Values.
PIECE = 1 << 24  # Bytes of one write.
DEVIATION = 0.02


def tensors_of(config):
    """[(name, shape)], as modeling/architectures/architecture.cc expects them."""
    hidden, ffn, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or hidden // heads
    architecture = config["architectures"][0]
    rows = [("model.embed_tokens.weight", [vocab, hidden])]
    for i in range(config["num_hidden_layers"]):
        p = f"model.layers.{i}."
        a = p + "self_attn."
        rows += [(p + "input_layernorm.weight", [hidden]), (a + "q_proj.weight", [heads * head_dim, hidden]),
                 (a + "k_proj.weight", [kv_heads * head_dim, hidden]), (a + "v_proj.weight", [kv_heads * head_dim, hidden])]
        if architecture == "Qwen2ForCausalLM":
            rows += [(a + "q_proj.bias", [heads * head_dim]), (a + "k_proj.bias", [kv_heads * head_dim]),
                     (a + "v_proj.bias", [kv_heads * head_dim])]
        if architecture == "Qwen3ForCausalLM":
            rows += [(a + "q_norm.weight", [head_dim]), (a + "k_norm.weight", [head_dim])]
        rows += [(a + "o_proj.weight", [hidden, heads * head_dim]), (p + "post_attention_layernorm.weight", [hidden]),
                 (p + "mlp.gate_proj.weight", [ffn, hidden]), (p + "mlp.up_proj.weight", [ffn, hidden]),
                 (p + "mlp.down_proj.weight", [hidden, ffn])]
    rows.append(("model.norm.weight", [hidden]))
    if not config.get("tie_word_embeddings"):
        rows.append(("lm_head.weight", [vocab, hidden]))
    return rows


def bytes_of(shape):
    count = 2
    for n in shape:
        count *= n
    return count


def shards_of(tensors, shard_bytes):
    shards, used = [[]], 0
    for tensor in tensors:
        if shards[-1] and used + bytes_of(tensor[1]) > shard_bytes:
            shards.append([])
            used = 0
        shards[-1].append(tensor)
        used += bytes_of(tensor[1])
    return shards


def make_pool(seed):
    """The pool with its begin repeated at its end, so that a window may begin anywhere."""
    rng = numpy.random.Generator(numpy.random.SFC64(seed))
    bits = (rng.standard_normal(POOL, dtype=numpy.float32) * numpy.float32(DEVIATION)).view(numpy.uint32)
    bf16 = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    assert 2 * POOL > PIECE
    return numpy.concatenate([bf16, bf16[:PIECE // 2]])


def window(seed, number):
    """The index in the pool at which the values of piece `number` begin (SplitMix64)."""
    mask = (1 << 64) - 1
    z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) % POOL


def write_all(descriptor, view, offset):
    while view:
        wrote = os.pwrite(descriptor, view, offset)
        view, offset = view[wrote:], offset + wrote


def header_of(tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in tensors:
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + bytes_of(shape)]}
        offset += bytes_of(shape)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, offset


def plan_shard(path, tensors, pieces):
    """Makes the file with its header and appends (descriptor, offset, bytes, is ones) to `pieces`."""
    header, data_bytes = header_of(tensors)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    os.ftruncate(descriptor, len(header) + data_bytes)
    write_all(descriptor, memoryview(header), 0)
    at = len(header)
    for name, shape in tensors:
        end = at + bytes_of(shape)
        while at < end:
            count = min(PIECE, end - at)
            pieces.append((descriptor, at, count, len(shape) == 1 and "norm" in name))
            at += count
    return descriptor


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shard-bytes", type=int, default=5 * 10**9)
    parser.add_argument("--threads", type=int, default=min(16, os.cpu_count() or 1))
    parser.add_argument("--tokenizer", type=pathlib.Path, help="folder whose tokenizer files are copied")
    args = parser.parse_args()
    start = time.monotonic()
    config = json.loads(args.shape.read_text(encoding="utf-8"))
    args.target.mkdir(parents=True, exist_ok=True)
    for old in list(args.target.glob("*.safetensors")) + list(args.target.glob("*.safetensors.index.json")):
        old.unlink()
    (args.target / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}, indent=1) + "\n", encoding="utf-8")
    if args.tokenizer:
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            if (args.tokenizer / name).is_file():
                shutil.copy(args.tokenizer / name, args.target / name)
    shards = shards_of(tensors_of(config), args.shard_bytes)
    names = ["model.safetensors"] if len(shards) == 1 else [
        f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    pieces, descriptors = [], []
    for name, tensors in zip(names, shards):
        descriptors.append(plan_shard(args.target / name, tensors, pieces))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(bytes_of(s) for t in shards for _, s in t)},
                 "weight_map": {tensor: name for name, tensors in zip(names, shards) for tensor, _ in tensors}}
        (args.target / "model.safetensors.index.json").write_text(json.dumps(index, indent=1), encoding="utf-8")
    pool = make_pool(args.seed)
    values = memoryview(pool).cast("B")
    ones = memoryview(numpy.full(1 << 20, 0x3F80, dtype="<u2")).cast("B")

    def write(job):
        number, (descriptor, offset, count, is_ones) = job
        begin = 0 if is_ones else 2 * window(args.seed, number)
        write_all(descriptor, (ones if is_ones else values)[begin:begin + count], offset)

    with concurrent.futures.ThreadPoolExecutor(args.threads) as threads:
        for _ in threads.map(write, enumerate(pieces)):
            pass
    for descriptor in descriptors:
        os.close(descriptor)
    total = sum(count for _, _, count, _ in pieces)
    print(f"{total} bytes in {len(shards)} files in {time.monotonic() - start:.1f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
