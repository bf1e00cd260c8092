"""The programs under test, and the flags that they have by their --help."""
import contextlib
import functools
import json
import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("FATHOM_BIN", ROOT / "build/release/bin"))
TINY = ROOT / "models/fathom-tiny"
NAMES = ["fathom", "fathom-router", "fathom-scheduler", "fathom-worker", "fathom-replay"]


@functools.lru_cache
def flags(*command):
    """{name: whether it takes a value} of e.g. flags("fathom", "serve") or flags("fathom-router")."""
    said = subprocess.run([BIN / command[0], *command[1:], "--help"], capture_output=True, text=True, check=True).stdout
    found = {}
    for name, text in re.findall(r"^  (--[\w-]+).*?\s{2,}(.*)$|^  --[\w-]+$", said, re.M):
        switch = text.endswith("[off]") and ":" not in text.rsplit(".", 1)[-1]
        for each in [name, *re.findall(r"-{1,2}[\w-]+", "".join(re.findall(r"\(also (.*?)\)", text)))]:
            found[each] = not switch
    return found | {"-h": False, "--help": False, "--version": False}


def unknown_flags(words):
    """The flags of a command line that its program does not have, and those that lack their value."""
    words = [pathlib.PurePath(words[0]).name, *words[1:]]
    command = words[:2] if words[0] == "fathom" else words[:1]
    known, wrong = flags(*command), []
    rest = words[len(command):]
    while rest:
        flag = rest.pop(0)
        if flag not in known:
            wrong.append(f"{' '.join(command)} has no {flag}")
        elif known[flag]:
            if not rest or rest[0] in known:
                wrong.append(f"{flag} of {' '.join(command)} has no value")
            else:
                rest.pop(0)
    return wrong


@contextlib.contextmanager
def running(words, ready='"role"'):
    """Starts a program; yields the line of JSON that has `ready`, ends it with SIGTERM and expects 0."""
    process = subprocess.Popen([BIN / pathlib.PurePath(words[0]).name, *map(str, words[1:])], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    try:
        line = next((line for line in process.stdout if ready in line), None)
        if line is None:
            raise RuntimeError(f"{words} ended with {process.wait()}: {process.stderr.read()}")
        yield json.loads(line)
        process.terminate()
        code = process.wait(60)
        assert code == 0, f"{words[0]} ended with {code} after SIGTERM"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
