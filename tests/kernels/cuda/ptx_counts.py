#!/usr/bin/env python3
"""Compares the arithmetic of every CUDA kernel with a table (docs/NUMERICS.md, "The CUDA recipe"): ctest kernels_ptx_counts_test.

Makes PTX of each kernels/cuda/*.cu with the build's flags and counts, per kernel, the instructions whose rounding a
compiler, a flag or a careless call can change: division, reciprocal, roots, logarithm, ex2, sine, cosine and tanh of
floats. ptx_counts.json beside this file has the expected counts; any difference fails, and --update rewrites the table,
so that a change is visible in the diff. mad on floats and instructions that flush denormals are never allowed, except
ex2.approx.ftz.f32. fma is not counted: only canon::Fma makes it, because -fmad=false forbids all others.

A template's instances with equal counts are one line of the table. Counts are of the text, after inlining and unrolling,
so another release of nvcc may change them: the table names its own.

PTX is kept in --cache by the contents of all that it was made from; nothing is compiled when nothing changed.

python3 ptx_counts.py --nvcc NVCC --cache FOLDER [--root FOLDER] [--update] -- FLAGS
"""
import argparse
import collections
import concurrent.futures
import hashlib
import json
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE / "ptx_counts.json"
JOBS = 2
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


class Compiler:
    """Makes PTX, or has it: a file's entry is good while everything that its compile read has the same contents."""

    def __init__(self, nvcc, flags, root, cache):
        # Line tables change no instruction and cost time.
        self.command = [nvcc, "--ptx", "-arch=compute_90a", *[f for f in flags if f != "-lineinfo"], f"-I{root}"]
        version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
        self.release = re.search(r"release ([\d.]+)", version)[1]
        self.salt = json.dumps([self.command, version])
        self.cache = cache
        self.digests = {}
        self.made = 0
        cache.mkdir(parents=True, exist_ok=True)

    def key(self, paths):
        total = hashlib.sha256(self.salt.encode())
        for path in paths:
            if path not in self.digests:
                self.digests[path] = hashlib.sha256(pathlib.Path(path).read_bytes()).digest()
            total.update(path.encode() + self.digests[path])
        return total.hexdigest()

    def ptx(self, source):
        """The PTX of `source`, or the compiler's words as the second value."""
        text, entry = self.cache / f"{source.stem}.ptx", self.cache / f"{source.stem}.json"
        try:
            known = json.loads(entry.read_text())
            if known["key"] == self.key(known["inputs"]):
                return text.read_text(), None
        except (OSError, ValueError, KeyError):
            pass  # Not made yet, cut short, or an input is gone.
        return self.make(source, text, entry)

    def make(self, source, text, entry):
        entry.unlink(missing_ok=True)
        begin_ns = time.time_ns()
        depfile = self.cache / f"{source.stem}.d"
        done = subprocess.run([*self.command, "-MD", "-MF", str(depfile), str(source), "-o", str(text)],
                              capture_output=True, text=True)
        if done.returncode:
            return None, done.stderr + done.stdout
        self.made += 1
        inputs = depfile.read_text().replace("\\\n", " ").split(":", 1)[1].split()
        # An input edited meanwhile may not be what was compiled: good for this run, not kept.
        if all(pathlib.Path(path).stat().st_mtime_ns < begin_ns for path in inputs):
            entry.write_text(json.dumps({"key": self.key(inputs), "inputs": inputs}))
        return text.read_text(), None


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
    parser.add_argument("--nvcc", required=True)
    parser.add_argument("--cache", required=True, type=pathlib.Path, help="where PTX is kept between runs")
    parser.add_argument("--root", default=HERE.parents[2], type=pathlib.Path, help="the source tree")
    parser.add_argument("--update", action="store_true", help="write the table instead of comparing with it")
    parser.add_argument("flags", nargs="*", help="nvcc's flags, after --")
    args = parser.parse_args()

    compiler = Compiler(args.nvcc, args.flags, args.root, args.cache)
    sources = sorted((args.root / "kernels" / "cuda").rglob("*.cu"))
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        results = list(pool.map(compiler.ptx, sources))

    expected = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    found, broken, differences = {"nvcc": compiler.release}, [], []
    for source, (ptx, error) in zip(sources, results):
        where = source.relative_to(args.root).as_posix()
        if ptx is None:
            broken.append(f"{where}: does not compile:\n{error}")
            continue
        kernels = parse(ptx)
        found[where] = rows_of(kernels)
        broken += check_banned(where, kernels)
        differences += compare(where, found[where], expected.get(where, {}), kernels)
    differences += [f"{where}: in the table, but there is no such file" for where in expected
                    if where != "nvcc" and not (args.root / where).exists()]

    total = sum(row["instances"] for where, file in found.items() if where != "nvcc" for k in file.values() for row in k)
    print(f"{total} kernels in {len(sources)} files, {compiler.made} compiled")
    if broken or (differences and not args.update):
        print("\n".join(broken + ([] if args.update else differences)))
    if broken:
        return 1
    if args.update:
        TABLE.write_text(dump(found))
        print(f"{TABLE.name}: " + (f"{len(differences)} changes" if differences else "no change"))
        return 0
    if differences:
        if expected.get("nvcc") != compiler.release:
            print(f"The table is nvcc {expected.get('nvcc')}'s, this is {compiler.release}: unrolling may differ.")
        split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
        command = [sys.executable, *sys.argv[:split], "--update", *sys.argv[split:]]
        print(f"If this is meant, rewrite the table, and say why in the commit:\n  {shlex.join(command)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
