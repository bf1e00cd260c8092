"""tests/gpu/gpu_sanitizer.py: the part `sanitizer`: every kernel test, on fewer and narrower shapes (FATHOM_SANITIZED,
tests/kernels/cuda/gpu_test.h), under compute-sanitizer. racecheck logs every access to shared memory. If it does not end a test in
time, it checks single launches instead: the first launch of each kernel and grid. The outcome of a test is one of OUTCOMES. Tests for
which the time was too short are named, and a later run does only those (--sanitizer-done)."""
import concurrent.futures
import itertools
import json
import pathlib
import re
import shutil
import time

from gpu_host import Failed, last_lines
import gpu_rows

CLEAN, LAUNCHES, REPORTED, NOT_ENDED, NOT_BEGUN, SKIPPED = OUTCOMES = ("clean", "clean in single launches", "reported", "not ended",
                                                                       "not begun", "skips itself")
TIMED_OUT = 124
LAUNCHES_MAX = 5  # The most single launches of a test that are checked.
# racecheck does not check the kernels of cuBLASLt, which are not part of this project.
TOOLS = {"memcheck": [], "racecheck": ["--kernel-name-exclude", "kns=nvjet"], "synccheck": []}
WORKERS = "--racecheck-num-workers"  # CPU threads of one run; not every version knows it.
DUMP = ["--dump-kernel-launches", "--print-limit", "100000", "--show-backtrace", "no"]  # The tool counts these lines as reports, so the exit code is that of an error.
HELPERS = re.compile(r"Reference|gpu_test|ScaleKernel|ScatterKernel|PoisonKernel|EvaluateKernel|nvjet|cublas|cutlass")  # Kernels that are not checked.
NO_RACES = re.compile(r"RACECHECK SUMMARY: \d+ hazards displayed \(0 errors, 0 warnings\)")


def sanitizer_program(host):
    """The sanitizer of the bundle (tests/gpu/bundle --sanitizer), which may be newer than the host's; the host's if that one does not work."""
    carried = host.work / "sanitizer/compute-sanitizer"
    for found in (carried if carried.exists() else None, shutil.which("compute-sanitizer")):
        if not found:
            continue
        text, _ = host.run([found, "/bin/true"], 60, check=False)
        if "terminate successfully" not in text:
            return found
        host.say(f"     {found} cannot run programs here: {last_lines(text)}")
    raise Failed("no compute-sanitizer works: neither one in the bundle (tests/gpu/bundle --sanitizer) nor in PATH")


def tests_of(host, program):
    text, _ = host.run([program, "--gtest_list_tests"], 60)
    return [name for name in gpu_rows.gtest_names(text) if not re.search(r"/[1-9]\d*\.", name)]  # One element type.


def already_clean(files):
    """The (tool, test) that earlier runs found clean, from files like results.json or docs/performance/sanitizer.json."""
    found = set()
    for file in files:
        content = json.loads(pathlib.Path(file).read_text())
        for one in content.get("tests", []) + [m for m in content.get("measurements", []) if m.get("id") == "sanitizer"]:
            if one["outcome"] in (CLEAN, LAUNCHES):
                found.add((one["tool"], one["test"]))
    return found


def launches_of(text):
    """(number from 1, (kernel, grid, cluster), whether it was left out) of each launch in the output of a run with DUMP."""
    found = []
    for piece in re.split(r"Launch #", text)[1:]:
        def field(name):
            return next(iter(re.findall(rf"{name}:\s+(\S.*)", piece)), "")
        number = int(re.match(r"\d+", piece)[0])
        found.append((number, (field("Kernel"), field("Grid"), field("Cluster")), "(filtered:" in piece.splitlines()[0]))
    return found


def chosen(launches):
    """The numbers of at most LAUNCHES_MAX different launches of our kernels, spread from the first to the last."""
    first = {}
    for number, what, _ in launches:
        if not HELPERS.search(what[0]):
            first.setdefault(what, number)
    numbers = sorted(first.values())
    step = max(1.0, (len(numbers) - 1) / (LAUNCHES_MAX - 1))
    return sorted({numbers[round(i * step)] for i in range(LAUNCHES_MAX) if round(i * step) < len(numbers)})


class Checker:
    def __init__(self, host):
        self.host, self.program = host, sanitizer_program(host)
        self.end = time.monotonic() + host.options.sanitizer_s
        text, _ = host.run([self.program, "--help"], 60, check=False)
        self.flags = {**TOOLS, "racecheck": TOOLS["racecheck"] + ([WORKERS, "2"] if WORKERS in text else [])}

    def run(self, tool, program, name, *flags):
        words = [self.program, "--tool", tool, *self.flags[tool], *flags, "--error-exitcode", "9", program, "--gtest_brief=1", f"--gtest_filter={name}"]
        return self.host.run(words, self.host.options.sanitizer_test_s, check=False, env={"FATHOM_SANITIZED": "1"})

    def whole(self, tool, program, name):
        text, code = self.run(tool, program, name)
        # The tool has an exit code of its own for a test without a launch.
        untouched = code == 255 and "[  PASSED  ] 1 test" in text and "before first instrumented API call" in text
        outcome = {0: CLEAN, TIMED_OUT: NOT_ENDED}.get(0 if untouched else code, REPORTED)
        if "[  SKIPPED ] 1 test" in text and code in (0, 255):  # Its ranks must run at the same time, or it needs more devices.
            outcome = SKIPPED
        return outcome, f"ended with {code}: {last_lines(text, 4)}" if outcome == REPORTED else ""

    def single_launches(self, program, name):
        """Checks single launches; those that end in time decide the outcome. The note says which ones ended, of how many."""
        text, _ = self.run("racecheck", program, name, *DUMP, "--kernel-name", "kns=NoSuchKernel")
        launches = launches_of(text)
        numbers, ended = chosen(launches), []
        for number in numbers:
            if time.monotonic() > self.end:
                break
            text, code = self.run("racecheck", program, name, *DUMP, "--launch-skip", str(number - 1), "--launch-count", "1")
            if code == TIMED_OUT:
                continue
            if not NO_RACES.search(text) or "[  PASSED  ] 1 test" not in text:
                return REPORTED, f"launch {number} ended with {code}: {last_lines(text, 4)}"
            if not any(n == number and not left_out for n, _, left_out in launches_of(text)):
                return NOT_ENDED, f"the tool does not say that it checked launch {number}"
            ended.append(number)
        return LAUNCHES if ended else NOT_ENDED, f"launches {ended} of those of {numbers} chosen from {len(launches)}"

    def check(self, work):
        """The outcome of a test, its seconds, and a note about it."""
        tool, program, name = work
        begin = time.monotonic()
        if begin > self.end:
            return NOT_BEGUN, 0.0, ""
        outcome, said = self.whole(tool, program, name)
        if outcome == NOT_ENDED and tool == "racecheck":
            outcome, said = self.single_launches(program, name)
        return outcome, time.monotonic() - begin, said


def sanitizer(host, programs):
    """Runs every kernel test of one element type under the chosen tools, and names the tests that did not end, or begin, in time."""
    checker = Checker(host)
    done = already_clean(host.options.sanitizer_done)
    # The programs take turns. If the time runs out, some tests of each program have been checked.
    turns = itertools.zip_longest(*([(program, name) for name in tests_of(host, program)] for program in programs))
    tests = [one for turn in turns for one in turn if one]
    works = [(tool, program, name) for tool in host.options.sanitizer_tools for program, name in tests
             if (tool, f"{program.name} {name}") not in done]
    with concurrent.futures.ThreadPoolExecutor(host.options.sanitizer_at_once) as pool:
        results = list(pool.map(checker.check, works))
    for tool in host.options.sanitizer_tools:
        mine = [(f"{program.name} {name}", *result) for (t, program, name), result in zip(works, results) if t == tool]
        clean = sum(outcome in (CLEAN, LAUNCHES) for _, outcome, _, _ in mine)
        bad = [f"{test}: {said}" for test, outcome, _, said in mine if outcome == REPORTED]
        host.check(f"sanitizer_{tool}", clean, clean + len(bad), bad)
        for outcome in (LAUNCHES, NOT_ENDED, NOT_BEGUN, SKIPPED):
            names = [f"{test} ({said})" if said else test for test, its, _, said in mine if its == outcome]
            if names:
                host.say(f"     {outcome} under {tool}, {len(names)}: {'; '.join(names)}")
        host.measurements += [{"id": "sanitizer", "tool": tool, "test": test, "outcome": outcome, "value": round(seconds, 1), "unit": "s", "note": said}
                              for test, outcome, seconds, said in mine]


def merge_outcomes(kept, runs):
    """The tests for docs/performance/sanitizer.json: for each test that began, its last outcome."""
    tests = {(one["tool"], one["test"]): one for one in kept}
    for run in runs:
        for one in run.get("measurements", []):
            if one.get("id") == "sanitizer" and one["outcome"] != NOT_BEGUN:
                tests[one["tool"], one["test"]] = {"tool": one["tool"], "test": one["test"], "outcome": one["outcome"], "seconds": one["value"],
                                                   "note": one.get("note", ""), "card": run["card"], "commit": run["commit"]}
    return [tests[key] for key in sorted(tests)]
