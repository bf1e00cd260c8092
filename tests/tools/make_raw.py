#!/usr/bin/env python3
"""Turns a model folder's safetensors into a raw checkpoint (modeling/checkpoint/raw_checkpoint.h); standard library only.

    make_raw.py models/fathom-tiny /some/folder

Writes weights.raw and weights.json and copies the folder's other files. Tensors keep the order of the files and of
their offsets; each begins at a multiple of 4096 bytes.
"""
import argparse
import json
import pathlib
import shutil
import struct

ALIGNMENT = 4096
COPY_BYTES = 16 << 20


def tensors_of(path):
    """[(name, dtype, shape, offset in the file, bytes)] by offset."""
    with path.open("rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    rows = [(name, t["dtype"], t["shape"], 8 + size + t["data_offsets"][0], t["data_offsets"][1] - t["data_offsets"][0])
            for name, t in header.items()]
    return sorted(rows, key=lambda row: row[3])


def copy(source, offset, count, target):
    source.seek(offset)
    while count > 0:
        piece = source.read(min(count, COPY_BYTES))
        if not piece:
            raise SystemExit(f"{source.name}: cut short")
        target.write(piece)
        count -= len(piece)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("target", type=pathlib.Path)
    args = parser.parse_args()
    files = sorted(args.model.glob("*.safetensors"))
    if not files:
        raise SystemExit(f"{args.model}: no safetensors")
    args.target.mkdir(parents=True, exist_ok=True)
    manifest = []
    with (args.target / "weights.raw").open("wb") as raw:
        for path in files:
            with path.open("rb") as source:
                for name, dtype, shape, offset, count in tensors_of(path):
                    raw.write(bytes(-raw.tell() % ALIGNMENT))
                    manifest.append({"name": name, "dtype": dtype, "shape": shape, "offset": raw.tell()})
                    copy(source, offset, count, raw)
    text = json.dumps({"alignment": ALIGNMENT, "tensors": manifest}, indent=1)
    (args.target / "weights.json").write_text(text + "\n", encoding="utf-8")
    for path in args.model.iterdir():
        if path.is_file() and path not in files and not path.name.endswith(".safetensors.index.json"):
            shutil.copy(path, args.target / path.name)


if __name__ == "__main__":
    main()
