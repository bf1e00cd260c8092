"""tests/gpu/gpu_sanitizer.py: the part `sanitizer`: every kernel test, on fewer and narrower shapes (FATHOM_SANITIZED,
tests/kernels/cuda/gpu_test.h), under compute-sanitizer. A test's outcome is one of OUTCOMES; what time does not allow is named, and a
later run takes up only that (--sanitizer-done)."""
import concurrent.futures
import itertools
import json
import pathlib
import re
import shutil
import time

from gpu_host import Failed, last_lines
import gpu_rows

CLEAN, FIRST_CLUSTER, REPORTED, NOT_ENDED, NOT_BEGUN = OUTCOMES = ("clean", "clean in its first cluster", "reported", "not ended", "not begun")
TIMED_OUT = 124
# cuBLASLt's own kernels are not ours to check for races.
TOOLS = {"memcheck": [], "racecheck": ["--kernel-name-exclude", "kns=nvjet"], "synccheck": []}
FILTER = "--racecheck-filter-cluster-id"


def sanitizer_program(host):
    """The bundle's own (tests/gpu/bundle --sanitizer), which may be newer than the host's; the host's where that one does not work."""
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
    """(tool, test) that earlier runs found clean: results.json or docs/performance/sanitizer.json."""
    found = set()
    for file in files:
        content = json.loads(pathlib.Path(file).read_text())
        for one in content.get("tests", []) + [m for m in content.get("measurements", []) if m.get("id") == "sanitizer"]:
            if one["outcome"] in (CLEAN, FIRST_CLUSTER):
                found.add((one["tool"], one["test"]))
    return found


class Checker:
    def __init__(self, host):
        self.host, self.program = host, sanitizer_program(host)
        self.end = time.monotonic() + host.options.sanitizer_s
        text, _ = host.run([self.program, "--help"], 60, check=False)
        self.can_filter = FILTER in text

    def run(self, tool, program, name, *flags):
        words = [self.program, "--tool", tool, *TOOLS[tool], *flags, "--error-exitcode", "9", program, "--gtest_brief=1", f"--gtest_filter={name}"]
        text, code = self.host.run(words, self.host.options.sanitizer_test_s, check=False, env={"FATHOM_SANITIZED": "1"})
        # The tool has an exit code of its own for a test without a launch.
        untouched = code == 255 and "[  PASSED  ] 1 test" in text and "before first instrumented API call" in text
        return 0 if untouched else code, text

    def check(self, work):
        """A test's outcome, its seconds and, where something was reported, the last lines."""
        tool, program, name = work
        begin = time.monotonic()
        if begin > self.end:
            return NOT_BEGUN, 0.0, ""
        code, text = self.run(tool, program, name)
        outcome = {0: CLEAN, TIMED_OUT: NOT_ENDED}.get(code, REPORTED)
        if outcome == NOT_ENDED and tool == "racecheck" and self.can_filter:
            code, text = self.run(tool, program, name, FILTER, "0")
            outcome = {0: FIRST_CLUSTER, TIMED_OUT: NOT_ENDED}.get(code, REPORTED)
        return outcome, time.monotonic() - begin, f"ended with {code}: {last_lines(text, 4)}" if outcome == REPORTED else ""


def sanitizer(host, programs):
    """Every kernel test under compute-sanitizer's memcheck and racecheck, of one element type; what did not end, or begin, in time."""
    checker = Checker(host)
    done = already_clean(host.options.sanitizer_done)
    # Programs take turns: where time runs out, each has had some of its tests looked at.
    turns = itertools.zip_longest(*([(program, name) for name in tests_of(host, program)] for program in programs))
    tests = [one for turn in turns for one in turn if one]
    works = [(tool, program, name) for tool in host.options.sanitizer_tools for program, name in tests
             if (tool, f"{program.name} {name}") not in done]
    with concurrent.futures.ThreadPoolExecutor(host.options.sanitizer_at_once) as pool:
        results = list(pool.map(checker.check, works))
    for tool in host.options.sanitizer_tools:
        mine = [(f"{program.name} {name}", *result) for (t, program, name), result in zip(works, results) if t == tool]
        clean = sum(outcome in (CLEAN, FIRST_CLUSTER) for _, outcome, _, _ in mine)
        bad = [f"{test}: {said}" for test, outcome, _, said in mine if outcome == REPORTED]
        host.check(f"sanitizer_{tool}", clean, clean + len(bad), bad)
        for outcome in (FIRST_CLUSTER, NOT_ENDED, NOT_BEGUN):
            names = [test for test, its, _, _ in mine if its == outcome]
            if names:
                host.say(f"     {outcome} under {tool}, {len(names)}: {'; '.join(names)}")
        host.measurements += [{"id": "sanitizer", "tool": tool, "test": test, "outcome": outcome, "value": round(seconds, 1), "unit": "s"}
                              for test, outcome, seconds, _ in mine]


def merge_outcomes(kept, runs):
    """The tests of docs/performance/sanitizer.json: the last outcome of each that began."""
    tests = {(one["tool"], one["test"]): one for one in kept}
    for run in runs:
        for one in run.get("measurements", []):
            if one.get("id") == "sanitizer" and one["outcome"] != NOT_BEGUN:
                tests[one["tool"], one["test"]] = {"tool": one["tool"], "test": one["test"], "outcome": one["outcome"], "seconds": one["value"],
                                                   "card": run["card"], "commit": run["commit"]}
    return [tests[key] for key in sorted(tests)]
