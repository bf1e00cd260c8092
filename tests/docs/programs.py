"""tests/docs/programs.py: what the programs say about themselves: the commands of `fathom` and the flags in each --help."""
import functools
import os
import pathlib
import re
import subprocess

from markdown import ROOT

BIN = pathlib.Path(os.environ.get("FATHOM_BIN", ROOT / "build/release/bin"))
SLOW = float(os.environ.get("FATHOM_TEST_SLOWDOWN", "1"))
FLAG = re.compile(r"-{1,2}[a-zA-Z][\w-]*")
PROGRAM = re.compile(r"(fathom-(?:router|scheduler|worker|replay)|fathom)(?![\w./-])(?: ([a-z]+)\b(?!:))?(?: ([a-z]+)\b)?")
COMMANDS_MIN = 10  # As many commands `fathom --help` must have, or this file reads it wrongly.


def _help(*words):
    done = subprocess.run([BIN / words[0], *words[1:], "--help"], capture_output=True, text=True, timeout=60 * SLOW)
    assert done.returncode == 0, f"{' '.join(words)} --help ended with {done.returncode}: {done.stderr}"
    return done.stdout


@functools.cache
def commands():
    names = re.findall(r"^  ([a-z]+) {2,}", _help("fathom"), re.M)
    assert len(names) >= COMMANDS_MIN, names
    return names


@functools.cache
def flags_of(program):
    """The flags of "fathom-router", "fathom serve", ..., with their short forms and second names."""
    text = _help(*program.split())
    found = {flag for line in text.splitlines() if line.startswith("  -") for flag in FLAG.findall(re.split(r" {2,}", line.strip())[0])}
    if program == "fathom":  # Its --help is prose.
        return set(FLAG.findall(text))
    for entry in re.split(r"\n(?=  -)", text):
        if re.search(r"\[(on|off)\]", entry):  # A switch has an unlisted --no-x.
            names = FLAG.findall(re.split(r" {2,}", entry.splitlines()[0].strip())[0])
            found |= {"--no-" + name.removeprefix("--") for name in names if name.startswith("--")}
    return found | {flag for also in re.findall(r"\(also ([^)]*)\)", text) for flag in FLAG.findall(also)}


def wrong_names(code, default=None):
    """What is wrong in a command or a code span that begins with one of our programs; `default`: whose flag a bare `--flag` is."""
    match = PROGRAM.match(code)
    if match:
        program, command, kind = match.groups()
        if program == "fathom" and command:
            if command not in commands():
                return [f"fathom has no command {command}"]
            program = f"fathom {command} {kind}" if command == "bench" and kind else f"fathom {command}"
    elif default and code.startswith("-"):
        program = default
    else:
        return []
    own = code.split("#")[0].split("|")[0]
    flags = re.findall(r"(?:^|(?<=[\s\[]))-{1,2}[a-z][\w-]*", own)
    return [f"{program} --help has no flag {flag}" for flag in flags if flag not in flags_of(program)]
