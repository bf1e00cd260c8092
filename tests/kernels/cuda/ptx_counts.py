#!/usr/bin/env python3
"""Compares the arithmetic of every CUDA kernel with a table (docs/NUMERICS.md, "The CUDA recipe"): ctest kernels_ptx_counts_test.

Takes the PTX of each kernels/cuda/*.cu from its object file (-lineinfo makes nvcc put the text beside the code) and counts,
per kernel, the instructions whose rounding a compiler, a flag or a careless call can change: division, reciprocal, roots,
logarithm, ex2, sine, cosine and tanh of floats. ptx_counts.json beside this file has the expected counts; any difference
fails, and --update rewrites the table, so that a change is visible in the diff. mad on floats and instructions that flush
denormals are never allowed, except ex2.approx.ftz.f32. fma is not counted: only canon::Fma makes it, because -fmad=false
forbids all others.

A template's instances with equal counts are one line of the table. Counts are of the text, after inlining and unrolling,
so another release of nvcc may change them: the table names its own.

The objects must be those of a build with FATHOM_CUDA_ONE_ARCH, as tests/run makes it.

python3 ptx_counts.py --objects FOLDER [--root FOLDER] [--update]
"""
import argparse
import collections
import json
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE / "ptx_counts.json"
ELF_OF_CUDA = 190
COUNTED = {"div", "rcp", "sqrt", "rsqrt", "lg2", "ex2", "sin", "cos", "tanh"}
FLUSHING_ALLOWED = "ex2.approx.ftz.f32"
# A function's head, or an instruction, which begins a line or follows another on it; a guard is skipped.
PTX_ITEM = re.compile(r"\.(?:entry|func)\s+(?:\([^)]*\)\s*)?([\w$]+)"
                      r"|(?:^|[;{}])\s*(?:@!?%?\w+\s+)?([a-z]\w*\.[\w.:]+)", re.M)
FLOAT_TYPE = re.compile(r"\.(?:f16|f16x2|f32|f32x2|f64|bf16|bf16x2)\b")


class Kernel:
    """One function of a PTX file: its short name, what it counts to, and what no kernel may have."""

    def __init__(self, mangled):
        self.mangled = mangled
        self.name = short_name(mangled)
        self.counts = collections.Counter()
        self.banned = collections.Counter()

    def add(self, instruction):
        if not FLOAT_TYPE.search(instruction):
            return  # Of integers.
        base = instruction.split(".", 1)[0]
        flushes = ".ftz" in instruction and instruction != FLUSHING_ALLOWED
        if flushes or base == "mad":
            self.banned[instruction] += 1
        if base in COUNTED:
            self.counts[instruction] += 1


def short_name(mangled):
    """The last identifier before template arguments: RmsNormKernel. The table must not depend on a demangler being there."""
    match = re.match(r"_ZL?N?", mangled)
    if not match:
        return mangled
    name, at = mangled, match.end()
    while (length := re.match(r"L?(\d+)", mangled[at:])):
        at += length.end()
        name = mangled[at:at + int(length[1])]
        at += len(name)
    return name


def demangled(mangled):
    tool = shutil.which("cu++filt") or shutil.which("c++filt")
    if not tool:
        return mangled
    text = subprocess.run([tool, mangled], capture_output=True, text=True).stdout.strip() or mangled
    text = re.sub(r"^void |fathom::kernels::cuda::|\(anonymous namespace\)::", "", text)
    depth = 0
    for at, char in enumerate(text):  # Without the parameters, which say nothing of which instance it is.
        depth += (char == "<") - (char == ">")
        if char == "(" and depth == 0:
            return text[:at]
    return text


def parse(ptx):
    kernels, current = {}, None
    for match in PTX_ITEM.finditer(re.sub(r"//.*", "", ptx)):
        if match[1]:
            current = kernels.setdefault(match[1], Kernel(match[1]))  # Declared, then defined.
        elif current:
            current.add(match[2])
    return list(kernels.values())


def sections(data, at):
    """(name, bytes) of each section of the 64-bit ELF file that begins at `at`."""
    offset, = struct.unpack_from("<Q", data, at + 40)
    size, count, names = struct.unpack_from("<HHH", data, at + 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, at + offset + i * size) for i in range(count)]
    for header in headers:
        begin = at + headers[names][4] + header[0]
        yield data[begin:data.index(b"\0", begin)], data[at + header[4]:at + header[4] + header[5]]


def ptx_of(object_file):
    """(the PTX text of the device code in an object file, nvcc's release); the text is empty if there is none."""
    data, texts, release = object_file.read_bytes(), [], ""
    for match in re.finditer(rb"\x7fELF\x02\x01", data):
        machine, = struct.unpack_from("<H", data, match.start() + 18)
        if machine != ELF_OF_CUDA:
            continue  # The object file itself.
        for name, content in sections(data, match.start()):
            if name == b".nv_debug_ptx_txt":
                texts.append(content.replace(b"\0", b"\n").decode())
            found = re.search(rb"Cuda compilation tools, release ([\d.]+)", content)
            release = found[1].decode() if found else release
    return "\n".join(texts), release


def rows_of(kernels):
    """{kernel: [row]} of one file: a row per set of counts, {"instances": n, instruction: count}, in a fixed order."""
    sets = collections.Counter((k.name, tuple(sorted(k.counts.items()))) for k in kernels)
    table = {}
    for (name, counts), instances in sorted(sets.items()):
        table.setdefault(name, []).append({"instances": instances, **dict(counts)})
    return table


def dump(table):
    lines = []
    for key, value in table.items():
        if isinstance(value, str):
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
            continue
        kernels = [f"    {json.dumps(name)}: [\n" + ",\n".join(f"      {json.dumps(row)}" for row in rows) + "\n    ]"
                   for name, rows in value.items()]
        lines.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(kernels) + "\n  }")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def words(row):
    return ", ".join(f"{name} {count}" for name, count in row.items())


def example(kernels, name, row):
    counts = {key: value for key, value in row.items() if key != "instances"}
    return next((demangled(k.mangled) for k in kernels if k.name == name and k.counts == counts), "")


def compare(where, found, expected, kernels):
    """Lines that say what differs between {kernel: [row]} of one file."""
    lines = []
    for name in sorted(found.keys() | expected.keys()):
        new = [row for row in found.get(name, []) if row not in expected.get(name, [])]
        old = [row for row in expected.get(name, []) if row not in found.get(name, [])]
        for row, was in zip(new, old):
            for what in sorted(row.keys() | was.keys()):
                if row.get(what, 0) != was.get(what, 0):
                    lines.append(f"{where}: {name}: {what}: found {row.get(what, 0)}, expected {was.get(what, 0)}"
                                 f" (as in {example(kernels, name, row)})")
        lines += [f"{where}: {name}: found, not in the table: {words(row)} (as in {example(kernels, name, row)})"
                  for row in new[len(old):]]
        lines += [f"{where}: {name}: expected, not found: {words(row)}" for row in old[len(new):]]
    return lines


def check_banned(where, kernels):
    total, examples = collections.Counter(), {}
    for kernel in kernels:
        for what, count in kernel.banned.items():
            total[kernel.name, what] += count
            examples.setdefault((kernel.name, what), kernel.mangled)
    return [f"{where}: {name}: {what}: found {count}, expected 0: no kernel may have it"
            f" (as in {demangled(examples[name, what])})" for (name, what), count in sorted(total.items())]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", required=True, type=pathlib.Path, help="the build folder of kernels/cuda")
    parser.add_argument("--root", default=HERE.parents[2], type=pathlib.Path, help="the source tree")
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing with it")
    args = parser.parse_args()

    sources = sorted((args.root / "kernels" / "cuda").rglob("*.cu"))
    objects = {path.as_posix(): path for path in args.objects.rglob("*.cu.o")}
    expected = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    found, broken, differences, release = {"nvcc": ""}, [], [], ""
    for source in sources:
        where = source.relative_to(args.root).as_posix()
        ending = "/" + source.relative_to(args.root / "kernels" / "cuda").as_posix() + ".o"
        paths = [path for name, path in objects.items() if name.endswith(ending)]
        if len(paths) != 1:
            broken.append(f"{where}: {len(paths)} object files in {args.objects}; build it first, in one library")
            continue
        ptx, release = ptx_of(paths[0])
        if not ptx:
            broken.append(f"{where}: {paths[0].name} has no PTX; it is compiled without -lineinfo")
            continue
        kernels = parse(ptx)
        found[where] = rows_of(kernels)
        broken += check_banned(where, kernels)
        differences += compare(where, found[where], expected.get(where, {}), kernels)
    found["nvcc"] = release
    differences += [f"{where}: in the table, but there is no such file" for where in expected
                    if where != "nvcc" and not (args.root / where).exists()]

    total = sum(row["instances"] for where, file in found.items() if where != "nvcc" for k in file.values() for row in k)
    print(f"{total} kernels in {len(sources)} files")
    if broken or (differences and not args.update):
        print("\n".join(broken + ([] if args.update else differences)))
    if broken:
        return 1
    if args.update:
        TABLE.write_text(dump(found))
        print(f"{TABLE.name}: " + (f"{len(differences)} changes" if differences else "no change"))
        return 0
    if differences:
        if expected.get("nvcc") != release:
            print(f"The table is nvcc {expected.get('nvcc')}'s, this is {release}: unrolling may differ.")
        command = [sys.executable, *sys.argv, "--update"]
        print(f"If this is meant, rewrite the table, and say why in the commit:\n  {shlex.join(command)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
