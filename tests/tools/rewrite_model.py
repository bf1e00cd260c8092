#!/usr/bin/env python3
"""Rewrites a model folder into a variant that the published test data does not have; uses only the standard library.

    rewrite_model.py models/fathom-tiny /some/folder --dtype float32 --shards 3

Answers of these are equal bit for bit: any --shards; --dtype float32 and the bfloat16 original; --round float16
--dtype float32 and --dtype float16; --tie and --copy-head; --template-file and the original. With --end-ids an answer
ends at the first of them. --vocab N adds tokens, each with the weights of the last one, which wins every tie with them:
greedy tokens stay the same.
"""
import argparse
import json
import pathlib
import shutil
import struct

NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def read_safetensors(path):
    """{name: (dtype, shape, bytes)}"""
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + size])
    header.pop("__metadata__", None)
    return {name: (t["dtype"], t["shape"], raw[8 + size:][t["data_offsets"][0]:t["data_offsets"][1]]) for name, t in header.items()}


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, _, data in tensors.values()))


def to_float32(dtype, data):
    if dtype == "F32":
        return data
    if dtype == "F16":
        return struct.pack(f"<{len(data) // 2}f", *struct.unpack(f"<{len(data) // 2}e", data))
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[0::2], data[1::2]
    return bytes(wide)


def convert(dtype, data, target):
    if dtype == target:
        return data
    wide = to_float32(dtype, data)
    if target == "F32":
        return wide
    assert target == "F16", "to bfloat16 only what is bfloat16"
    return struct.pack(f"<{len(wide) // 4}e", *struct.unpack(f"<{len(wide) // 4}f", wide))


def edit_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")


def write_weights(target, tensors, shards):
    if shards == 1:
        write_safetensors(target / "model.safetensors", tensors)
        return
    index = {}
    for i in range(shards):
        names = list(tensors)[i * len(tensors) // shards:(i + 1) * len(tensors) // shards]
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        write_safetensors(target / file, {name: tensors[name] for name in names})
        index.update({name: file for name in names})
    total = sum(len(data) for _, _, data in tensors.values())
    (target / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": index}))


def rewrite(source, target, dtype=None, round_to=None, tie=False, copy_head=False, shards=1, end_ids=None, template_file=False, vocab=None):
    """See the top of the file. `target` must not exist."""
    source, target = pathlib.Path(source), pathlib.Path(target)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors*"))
    tensors = {}
    for path in sorted(source.glob("*.safetensors")):
        tensors.update(read_safetensors(path))
    for wanted in (round_to, dtype):
        if wanted is not None:
            tensors = {name: (DTYPES[wanted], shape, convert(kind, data, DTYPES[wanted])) for name, (kind, shape, data) in tensors.items()}
    changes = {"torch_dtype": NAMES[tensors["model.embed_tokens.weight"][0]]}
    if copy_head:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    if tie:
        tensors.pop("lm_head.weight")
        changes["tie_word_embeddings"] = True
    if vocab is not None:
        changes["vocab_size"] = vocab
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            if name in tensors:
                kind, (rows, width), data = tensors[name]
                tensors[name] = (kind, [vocab, width], data + data[-len(data) // rows:] * (vocab - rows))
    edit_json(target / "config.json", **changes)
    if end_ids is not None:
        edit_json(target / "generation_config.json", eos_token_id=end_ids)
    if template_file:
        config = json.loads((target / "tokenizer_config.json").read_text(encoding="utf-8"))
        (target / "chat_template.jinja").write_text(config.pop("chat_template"), encoding="utf-8")
        (target / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8")
    write_weights(target, tensors, shards)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--dtype", choices=list(DTYPES))
    parser.add_argument("--round", dest="round_to", choices=["float16"], help="round the values to this type first")
    parser.add_argument("--tie", action="store_true", help="drop the head, tie it to the embedding")
    parser.add_argument("--copy-head", action="store_true", help="the head becomes a copy of the embedding")
    parser.add_argument("--shards", type=int, default=1)
    parser.add_argument("--end-ids", type=lambda text: [int(part) for part in text.split(",")])
    parser.add_argument("--vocab", type=int, help="add tokens, copies of the last one, up to so many")
    parser.add_argument("--template-file", action="store_true", help="move the template into chat_template.jinja")
    rewrite(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
