"""deploy/image: the Dockerfile is clean, its RUN lines are those of build.sh, and what `cmake --install` puts into it works.

tests/image/rootfs makes and runs the whole image (tests/run --long).
"""
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

import programs

FOLDER = programs.ROOT / "deploy/image"
DOCKERFILE = FOLDER / "Dockerfile"


def instructions():
    """(name, arguments) of each instruction, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.M))
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def stage(name):
    """The instructions of a stage, by name."""
    found, inside = {}, False
    for instruction, text in instructions():
        if instruction == "FROM":
            inside = text.endswith(f" AS {name}")
        if inside:
            found[instruction] = text
    return found


class Image(unittest.TestCase):
    def test_hadolint(self):
        hadolint = pathlib.Path(sys.executable).parent / "hadolint"
        said = subprocess.run([hadolint, "--failure-threshold", "style", DOCKERFILE], capture_output=True, text=True)
        self.assertEqual((said.returncode, said.stdout), (0, ""), said.stdout + said.stderr)
        with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as bad:
            bad.write("FROM debian:latest\nRUN cd /x && apt-get install y\n")
            bad.flush()
            self.assertIn("DL3007", subprocess.run([hadolint, bad.name], capture_output=True, text=True).stdout)

    def test_bases_have_versions_and_digests(self):
        stages = []
        for image, name in re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE.read_text(), re.M):
            if image not in stages:
                self.assertRegex(image, r"^[\w/]+:(?!latest)[\w.-]+\$\{\w+_DIGEST\}$")
            stages.append(name)
        self.assertEqual({name for name, _ in instructions()} & {"ADD", "VOLUME", "SHELL"}, set())

    def test_the_final_stages(self):
        version = re.search(r"project\(fathom VERSION (\S+)", (programs.ROOT / "CMakeLists.txt").read_text())[1]
        self.assertIn(f"fathom:{version}-cpu", DOCKERFILE.read_text())
        for name in ("cpu", "cuda"):
            self.assertEqual(stage(name)["USER"], "65532:65532")
            entrypoint, command = (json.loads(stage(name)[part]) for part in ("ENTRYPOINT", "CMD"))
            self.assertEqual(entrypoint, ["/usr/local/bin/fathom"])
            self.assertEqual(programs.unknown_flags(entrypoint + command), [])

    def test_commands_are_those_of_the_script(self):
        """So that tests/image/rootfs tests them. Only the stage that takes NCCL from NVIDIA's packages has others."""
        script = (FOLDER / "build.sh").read_text()
        runs, of = [], ""
        for name, text in instructions():
            if name == "FROM":
                of = text.split()[-1]
            elif name == "RUN" and of != "toolkit":
                runs.append(re.sub(r"^--mount=\S+ ", "", text))
        self.assertEqual([re.sub(r"^(/|deploy/image/)build\.sh ", "", run) for run in runs],
                         ["packages", "build cpu /stage", "build cuda /stage", "runtime", "runtime"])
        for command in ("packages", "build", "runtime"):
            self.assertRegex(script, rf"(?m)^  {command}\) ")
        said = subprocess.run([FOLDER / "build.sh", "nothing"], capture_output=True, text=True)
        self.assertEqual(said.returncode, 64)
        self.assertIn(f"programs=({' '.join(programs.NAMES)})", script)

    def test_install(self):
        with tempfile.TemporaryDirectory() as prefix:
            for component in ("programs", "models"):
                subprocess.run(["cmake", "--install", programs.BIN.parent, "--component", component, "--strip",
                                "--prefix", prefix], check=True, capture_output=True)
            bin_folder, models = pathlib.Path(prefix) / "bin", pathlib.Path(prefix) / "share/fathom/models"
            self.assertEqual(sorted(p.name for p in bin_folder.iterdir()), sorted(programs.NAMES))
            for name in programs.NAMES:
                said = subprocess.run([bin_folder / name, "--version"], capture_output=True, text=True)
                self.assertEqual(said.returncode, 0, f"{name}: {said.stderr}")
                self.assertNotIn(b".debug_info", (bin_folder / name).read_bytes())
            self.assertEqual(sorted(p.name for p in models.iterdir()), ["README.md", "fathom-tiny", "fathom-tiny-draft"])
            self.assertTrue((pathlib.Path(prefix) / "share/doc/fathom/LICENSE").exists())
            # The installed programs find each other and the installed model.
            words = [bin_folder / "fathom", "serve", "--model", models / "fathom-tiny", "--device", "cpu", "--json"]
            free = [w for flag in ("grpc", "http", "scheduler", "metrics") for w in (f"--{flag}-port", "0")]
            process = subprocess.Popen([*words, *free], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            try:
                self.assertTrue(any('"event":"ready"' in line for line in process.stdout), "serve is not ready")
            finally:
                process.terminate()
                self.assertEqual(process.wait(60), 0)
                process.stdout.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
