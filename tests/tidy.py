#!/usr/bin/env python3
"""The part of docs/STYLE.md that a script can hold: run by ctest, or by hand: python3 tests/tidy.py.

Prints one line for each breach (file:line: what, and what to do instead) and exits 1 if there is any.
"""
import pathlib
import posixpath
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
CPP = {".h", ".cc", ".cu", ".cuh"}
COLUMNS_MAX = 100
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 70

# Files that may be longer, each with its reason. The list only gets shorter.
LONG_FILES = {
    "text/jinja/parser.cc": "one grammar, read top to bottom",
}
LONG_FUNCTIONS = {}

# Folder (longest match wins) -> what its files may include of ours. The CMake link lines say the same; this check also
# sees headers. common, kernels < cluster, text, modeling < scheduler, router, worker, client < cli.
MAY_INCLUDE = {
    "common": {"common"},
    "http": {"common", "http"},
    "rpc": {"common", "rpc"},
    "kernels": {"kernels"},
    "cluster": {"common", "cluster"},
    "text": {"common", "text"},
    "text/jinja": {"common", "text/jinja"},
    "modeling": {"common", "kernels", "modeling"},
    "scheduler": {"common", "http", "rpc", "cluster", "scheduler"},
    "scheduler/sessions": {"common", "cluster", "scheduler/sessions"},
    "scheduler/core": {"common", "cluster", "scheduler/sessions", "scheduler/core"},
    "scheduler/membership": {"common", "cluster", "scheduler/sessions", "scheduler/core", "scheduler/membership"},
    "router": {"common", "http", "rpc", "cluster", "text", "modeling", "router"},
    "router/sessions": {"common", "cluster", "text", "modeling", "router/api", "router/sessions"},
    "router/api": {"common", "cluster", "text", "modeling", "router/api", "router/sessions"},
    "router/link": {"common", "cluster", "router/sessions", "router/link"},
    "router/frontend": {"common", "rpc", "cluster", "router/api", "router/sessions", "router/frontend"},
    "router/frontend/http": {"common", "http", "cluster", "text", "router/api", "router/sessions", "router/frontend/http"},
    "worker": {"common", "http", "rpc", "cluster", "kernels", "modeling", "text", "worker"},
    "client": {"common", "cluster", "client"},
    "cli": {"common", "http", "cluster", "text", "modeling", "client", "cli"},
}
# Where gRPC's and protobuf's headers may be included: the edges. In particular not in router/api and router/sessions, which
# serve front ends of any protocol.
EDGES = ("rpc/", "cluster/", "scheduler/transport/", "scheduler/recorder/", "router/frontend/grpc/", "router/link/",
         "worker/cluster/", "client/", "cli/", "tests/")
EDGE_HEADER = re.compile(r'#include [<"](grpc|grpcpp|google/(protobuf|rpc))/|#include [<"][\w/.]+\.pb\.h[>"]')
COMMON_HOST = ("common/flags.h", "common/metrics.h", "common/log.h", "common/process.h")
PURE = ("scheduler/sessions/", "scheduler/core/", "scheduler/membership/", "text/", "modeling/spec/", "modeling/config/", "modeling/architectures/",
        "modeling/layout/", "router/api/admission", "router/api/field_limits")

# (files it concerns, pattern, what to do instead)
BANNED = [
    (r"", r"\b(TODO|FIXME|XXX)\b", "finish it, or write an issue"),
    (r"", r"#include <format>", "g++ 12 has none: fmt/format.h"),
    (r"", r"\busing namespace\b", "name what you use"),
    (r"(?!common/status)", r"absl::(string_view|optional|variant|StrCat|StrFormat)\b",
     "std's types and fmt: Debian's Abseil has types of its own"),
    (r"(?!common/status)", r"status\w*(\(\))?\.message\(\)", "Message(status) of common/status.h"),
    (r"(?!tests/|docs/examples/|common/output)", r"\bfmt::print\(|\bstd::(cout|cerr|clog|printf|puts|perror)\b|\bfprintf\(\s*std(err|out)",
     "common/output.h, which drops and counts what cannot be written, or common/log.h"),
    (r"(?!tests/)", r"\b(assert|abort)\((?!\))", "FATHOM_CHECK"),
    (r"", r"std::random_device|\bsrand\(|\brand\(\)", "a seeded generator, or common/process.h's RandomSeed"),
    (r"", r"\b(alloca|strcpy|sprintf|gets)\(", "bounded alternatives"),
    (r"kernels/(?!canon|cuda/base/canon|rope_table)", r"\b(std::)?(exp2?f?|logf?|log1pf?|log2f?|sqrtf?|rsqrtf?|tanhf?)\(", "the formula in canon.h"),
    (r"kernels/(?!canon|cuda/base/canon)", r"__(expf|logf|fdividef|frcp_rn|fsqrt_rn|frsqrt_rn)|ex2\.approx", "the formula in canon.cuh"),
]
PURE_BANNED = [
    (r"system_clock|steady_clock|\bNow\(\)", "time is an argument in pure code"),
    (r"std::(thread|jthread|mutex|condition_variable)\b", "pure code has no threads"),
]
# What has one definition in the product: (files of the product it concerns, files where it belongs, pattern in a line without
# its comment, what to use elsewhere).
ONE_DEFINITION = [
    (r"", r"modeling/architectures/", r'"[^"]*(_proj|layernorm|embed_tokens|lm_head|self_attn|model\.(layers|norm))\b',
     "a ParameterRole: only an architecture's file knows the names of tensors"),
    (r"", r"modeling/spec/rank_model|common/group_shape", r"/\s*(\w+(\.|->))*(tp|tensor_parallel_size)\b", "RankOf (modeling/spec/rank_model.h) or GroupShape, which divide once"),
    (r"(?!kernels/)", r"modeling/spec/rank_model", r"\bplane\w*(\.|->)(heads|width)\s*\*|\*\s*plane\w*(\.|->)(heads|width)\b",
     "KvBytes (modeling/spec/rank_model.h)"),
    (r"worker/", r"worker/engine/", r"\bplan\.(copies|releases|admits|extends)\b", "worker/engine, which alone checks and takes apart plans"),
    (r"", r"cluster/protocol\.h", r"\bk?[Pp]rotocol_?[Mm](in|ax)\s*=\s*\d", "kProtocolMin and kProtocolMax (cluster/protocol.h)"),
    (r"", r"cluster/channel\.cc|rpc/port_limits\.cc|scheduler/transport/grpc_transport\.cc",
     r"SetMax(Receive|Send)MessageSize|GRPC_ARG_MAX_(RECEIVE|SEND)_MESSAGE_LENGTH", "MakeChannel, or rpc::Apply with rpc::PortLimits"),
    (r"", r"cluster/protocol\.h|client/client\.h", r"\b\w*(silence|heartbeat)\w*_(us|ms)\s*=\s*\d",
     "the times of cluster/protocol.h"),
    (r"", r"common/server_process\.cc", r'Add\w*\("--(die-with-parent|log-level)"', "AddProcessFlags (common/server_process.h)"),
    (r"(\w+/)?\w*main\.cc", r"(?!)", r"\b(LogFlush|DieWithParent|LogInit)\(", "common/server_process.h"),
]
MACHINE = re.compile(r"/(work|root|home/\w+|tmp/bash)/|pypi\.org|deb\.debian\.org")


def tracked():
    names = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True,
                           text=True).stdout.splitlines()
    return sorted(n for n in names if (ROOT / n).is_file())


class Report:
    def __init__(self):
        self.lines = []

    def add(self, name, line, what):
        self.lines.append(f"{name}:{line}: {what}")


def check_text(name, lines, report):
    if len(lines) > FILE_LINES_MAX and name not in LONG_FILES:
        report.add(name, len(lines), f"{len(lines)} lines; split it, {FILE_LINES_MAX} is the limit")
    for number, line in enumerate(lines, 1):
        if len(line) > COLUMNS_MAX and "http" not in line and not name.endswith(".py"):
            report.add(name, number, f"{len(line)} columns; {COLUMNS_MAX} is the limit")
        for where, pattern, instead in BANNED:
            code = line if "TODO" in pattern else re.sub(r'"(\\.|[^"\\])*"|//.*', '""', line)
            if re.match(where, name) and re.search(pattern, code):
                report.add(name, number, f"'{re.search(pattern, code).group(0).strip()}': use {instead}")
        for where, but, pattern, instead in ONE_DEFINITION:
            if not name.startswith("tests/") and re.match(where, name) and not re.match(but, name):
                second = re.search(pattern, re.sub(r"(?<!:)//.*", "", line))
                if second:
                    report.add(name, number, f"a second definition, '{second.group(0).strip()}': use {instead}")
        if name.startswith(PURE):
            for pattern, instead in PURE_BANNED:
                if re.search(pattern, re.sub(r"//.*", "", line)):
                    report.add(name, number, instead)


def check_header(name, lines, report):
    if not lines or not lines[0].startswith(f"// {name}: "):
        report.add(name, 1, f"the first line says what it is: '// {name}: ...'")
    if "#pragma once" not in lines[:40]:
        report.add(name, 1, "no #pragma once")


def allowed_for(name):
    folders = [f for f in MAY_INCLUDE if name.startswith(f + "/")]
    return MAY_INCLUDE[max(folders, key=len)] if folders else None


def check_includes(name, lines, report):
    for number, line in enumerate(lines, 1):
        if EDGE_HEADER.match(line) and not name.startswith(EDGES):
            report.add(name, number, "gRPC and protobuf are for the edges (EDGES above); plain structs here")
    allowed = allowed_for(name)
    if allowed is None:
        return
    for number, line in enumerate(lines, 1):
        match = re.match(r'#include "([\w/.]+)"', line)
        if not match:
            continue
        path = match.group(1)
        if path.split("/")[0] not in MAY_INCLUDE or path == "common/build_version.h":
            continue  # Generated code and other libraries: the link line decides.
        if not any(path == a or path.startswith(a + "/") for a in allowed):
            report.add(name, number, f"{name.split('/')[0]} must not include {path}; see docs/STYLE.md, dependencies")
        if path == "cluster/wire_parts.h" and not name.startswith(("cluster/", "tests/cluster/")):
            report.add(name, number, "cluster/wire.h, which checks ranges before it converts")
        if name.startswith(PURE) and path in COMMON_HOST:
            report.add(name, number, f"pure code must not include {path}")


FUNCTION = re.compile(r"^(?! *(if|for|while|switch|else|do|namespace|struct|class|enum|union|extern|return|case)\b)"
                      r"[\w:~<>,&*\s\[\]()=.\-+{}'\"!|]*\) *(const|noexcept|override|final|mutable|->[\w:<>*& ]+| )*\{$")


ALGORITHM = re.compile(
    r"\bstd::(shuffle|sort|stable_sort|min|max|clamp|find|find_if|any_of|all_of|none_of|count|count_if|fill|fill_n|copy|copy_n|equal|"
    r"reverse|unique|lower_bound|upper_bound|nth_element|partial_sort|min_element|max_element|rotate|transform|generate|remove_if|"
    r"replace|is_sorted|binary_search|search|mismatch|merge)\s*[(<]")


def check_algorithm(name, lines, report):
    """Each compiler's headers include another part of <algorithm>, so a file that uses it, or its own header, includes it."""
    text = "\n".join(lines)
    header = ROOT / re.sub(r"\.(cc|cu)$", ".h", name)
    if "#include <algorithm>" in text or (header.suffix == ".h" and header.exists() and "#include <algorithm>" in header.read_text()):
        return
    for number, line in enumerate(lines, 1):
        used = ALGORITHM.search(line.split("//")[0])
        if used:
            report.add(name, number, f"std::{used.group(1)} without #include <algorithm>")
            return


def check_functions(name, lines, report):
    """A line that looks like the end of a function's head (it ends with {), up to the brace that closes it."""
    bare = [re.sub(r"'(\\.|[^'\\])'|\"(\\.|[^\"\\])*\"|//.*", "", line) for line in lines]
    for number, line in enumerate(lines, 1):
        if not FUNCTION.match(line) or line.lstrip().startswith(("//", "[", "}", "INSTANTIATE")):
            continue
        depth = 0
        for end in range(number - 1, len(lines)):
            depth += bare[end].count("{") - bare[end].count("}")
            if depth <= 0:
                break
        length = end - number + 2
        if length > FUNCTION_LINES_MAX and f"{name}:{line.strip()}" not in LONG_FUNCTIONS:
            report.add(name, number, f"a function of {length} lines; {FUNCTION_LINES_MAX} is the limit")


TYPE_DEFINED = re.compile(r"^(?:enum class|class|struct) (?!std\b)(\w+)\b(?! *;)[^;]*?\{", re.M)
TYPE_USED = re.compile(r"(?<![\w.>:])(\w+)(?=::\w|[&*]+ ?\w|\{)")
INCLUDE = re.compile(r'#include "([^"]+)"')


def check_types(sources, report):
    """A file that names a type of one of our headers includes that header, itself or through others. Builds that compile each
    target as one source do not detect a missing include."""
    bare = {name: re.sub(r'//[^\n]*|"(?:\\.|[^"\\\n])*"', "", text) for name, text in sources.items()}
    includes = {name: [i for i in INCLUDE.findall(text) if i in sources] for name, text in sources.items()}
    defined = {}
    for name in sources:
        if name.endswith((".h", ".cuh")):
            for kind in TYPE_DEFINED.findall(bare[name]):
                defined.setdefault(kind, set()).add(name)
    for name in sources:
        reached, waiting = {name}, [name]
        while waiting:
            new = set(includes[waiting.pop()]) - reached
            reached |= new
            waiting += new
        for kind in sorted(set(TYPE_USED.findall(bare[name])) & defined.keys()):
            declared = re.compile(rf"\b(class|struct|using|enum class) {kind}\b|\busing [\w:]+::{kind};")
            if not defined[kind] & reached and not any(declared.search(bare[other]) for other in reached):
                report.add(name, 1, f"{kind} without #include \"{sorted(defined[kind])[0]}\"")


SOURCE_NAME = re.compile(r"[\w./${}-]+\.(?:cc|cu)\b")


def check_built(names, report):
    """A CMakeLists.txt of the source's folder (or of a folder around it) names every source by its path, so none is dead."""
    built = set()
    for name in (n for n in names if pathlib.PurePath(n).name == "CMakeLists.txt"):
        folder = pathlib.PurePath(name).parent
        for source in SOURCE_NAME.findall(re.sub(r"(^|\s)#.*", "", (ROOT / name).read_text(), flags=re.M)):
            # kernels/cpu lists its files for the target of the folder around it.
            built.update({posixpath.normpath(folder / source), posixpath.normpath(folder.parent / source)})
    for name in names:
        if pathlib.PurePath(name).suffix in {".cc", ".cu"} and name not in built:
            report.add(name, 1, "in no CMakeLists.txt; build it or delete it")


def check_included(names, report):
    """Some file includes every header, by its path from the root or from the file's folder."""
    included = set()
    for name in (n for n in names if pathlib.PurePath(n).suffix in CPP):
        for path in re.findall(r'#include "([^"]+)"', (ROOT / name).read_text()):
            included.update({path, posixpath.normpath(pathlib.PurePath(name).parent / path)})
    for name in names:
        if pathlib.PurePath(name).suffix in {".h", ".cuh", ".inc"} and name not in included:
            report.add(name, 1, "no file includes it; use it or delete it")


def check_links(name, text, report):
    for match in re.finditer(r"\]\(([^)#\s]+)(#[^)]*)?\)", text):
        target = match.group(1)
        if "://" in target or target.startswith("mailto:"):
            continue
        if not ((ROOT / name).parent / target).exists():
            report.add(name, text[: match.start()].count("\n") + 1, f"the link {target} leads nowhere")


PAGE = re.compile(r"docs/([A-Z]+)\.md")
SECTION = re.compile(r"docs/([A-Z]+)\.md(?:,|'s)?\s*\(?\"([^\";]{1,60})\"")
FILE_IN_DOCS = re.compile(r"`((?:[\w-]+/)+[\w-]+\.(?:h|cc|cu|cuh|py|proto|cfg|cmake|md))`")


def check_sections(name, text, report):
    """A docs/NAME.md in a file exists; "Section" behind it is a heading or the first bold words of a list item there."""
    flat = re.sub(r"\n\s*(//|#)? ?", " ", text)
    for page in sorted(set(PAGE.findall(flat))):
        if not (ROOT / "docs" / f"{page}.md").exists():
            report.add(name, 1, f"docs/{page}.md does not exist")
    for page, section in SECTION.findall(flat):
        path = ROOT / "docs" / f"{page}.md"
        if path.exists() and not re.search(rf"^(#+ |\d+\. \*\*|\*\*|- \*\*){re.escape(section)}", path.read_text(), re.M):
            report.add(name, 1, f"docs/{page}.md has no section \"{section}\"")


def check_files_in_docs(name, text, report):
    """A path in backquotes in a page, from one of our folders on, is a file of this tree."""
    for match in FILE_IN_DOCS.finditer(text):
        if (ROOT / match.group(1).split("/")[0]).is_dir() and not (ROOT / match.group(1)).exists():
            report.add(name, text[: match.start()].count("\n") + 1, f"{match.group(1)} does not exist")


def main():
    report = Report()
    names = tracked()
    sources = {}
    for name in names:
        path = ROOT / name
        if path.stat().st_size > 1 << 20 or path.suffix in {".safetensors", ".jsonl", ".json"}:
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = text.splitlines()
        if name != "tests/tidy.py":
            for number, line in enumerate(lines, 1):
                if MACHINE.search(line):
                    report.add(name, number, "a path or host of one machine")
        if path.suffix in CPP:
            sources[name] = text
            check_text(name, lines, report)
            check_includes(name, lines, report)
            check_algorithm(name, lines, report)
            check_functions(name, lines, report)
            if path.suffix in {".h", ".cuh"}:
                check_header(name, lines, report)
        if name != "tests/tidy.py":
            check_sections(name, text, report)
        if path.suffix == ".md":
            check_links(name, text, report)
            if name != "CHANGELOG.md":
                check_files_in_docs(name, text, report)
    check_types(sources, report)
    check_built(names, report)
    check_included(names, report)
    print("\n".join(report.lines) if report.lines else f"tidy: {len(names)} files, nothing to say")
    return 1 if report.lines else 0


if __name__ == "__main__":
    sys.exit(main())
