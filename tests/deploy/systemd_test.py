"""deploy/systemd: the units are valid and hardened; their commands and configuration files have only flags that exist."""
import configparser
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest

import yaml

import programs

FOLDER = programs.ROOT / "deploy/systemd"
UNITS = sorted(FOLDER.glob("*.service"))
MUST = {"User": "fathom", "ProtectSystem": "strict", "NoNewPrivileges": "yes", "LimitNOFILE": "65536",
        "LimitMEMLOCK": "infinity", "Restart": "on-failure", "CapabilityBoundingSet": "",
        "RestartPreventExitStatus": "64 66"}
EXPOSURE_MAX = 2.5  # Of 10, by systemd-analyze security.


def unit(path):
    parser = configparser.RawConfigParser(strict=True)  # A key that is given twice is an error.
    parser.optionxform = str
    parser.read_string(path.read_text())
    return parser


def command(path):
    return shlex.split(unit(path)["Service"]["ExecStart"].replace("%i", "1"))


def config_of(words):
    """The file of this folder that is installed as the --config of a command."""
    path = pathlib.PurePath(words[words.index("--config") + 1])
    assert path.parent == pathlib.PurePath("/etc/fathom")
    return FOLDER / path.name


class Systemd(unittest.TestCase):
    def test_units(self):
        self.assertEqual([p.name for p in UNITS],
                         ["fathom-router.service", "fathom-scheduler.service", "fathom-worker@.service", "fathom.service"])
        for path in UNITS:
            with self.subTest(path.name):
                service = unit(path)["Service"]
                for key, value in MUST.items():
                    self.assertEqual(service[key], value, key)
                self.assertEqual(unit(path)["Unit"]["StartLimitIntervalSec"], "0")
                # What is written lies in the state directory, all else is read-only.
                for written in re.findall(r"/var/lib/([\w-]+)", service["ExecStart"]):
                    self.assertEqual(service["StateDirectory"], written)

    def test_a_stop_leaves_time_to_drain(self):
        for name, program in (("fathom.service", ["fathom", "serve"]), ("fathom-router.service", ["fathom-router"])):
            said = subprocess.run([programs.BIN / program[0], *program[1:], "--help"], capture_output=True, text=True).stdout
            drain = int(re.search(r"--drain-timeout(?:-s)? .*\[(\d+)\]", said)[1])
            self.assertGreaterEqual(int(unit(FOLDER / name)["Service"]["TimeoutStopSec"]), drain + 10)

    def test_flags_exist(self):
        for path in UNITS:
            words = command(path)
            self.assertEqual(programs.unknown_flags(words), [], path.name)
            program = [pathlib.PurePath(words[0]).name] + (["serve"] if words[1] == "serve" else [])
            for key in yaml.safe_load(config_of(words).read_text()):
                self.assertIn(f"--{key}", programs.flags(*program), config_of(words).name)

    def test_systemd_accepts_the_units(self):
        if shutil.which("systemd-analyze") is None:
            self.skipTest("no systemd-analyze")
        with tempfile.TemporaryDirectory() as folder:
            for path in UNITS:
                (pathlib.Path(folder) / path.name).write_text(path.read_text().replace("/usr/local/bin", str(programs.BIN)))
            files = [f"{folder}/{path.name}" for path in UNITS]
            said = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True)
            self.assertNotIn(folder, said.stdout + said.stderr)
            self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
            for file in files:
                ask = ["systemd-analyze", "security", "--offline=true", file]
                said = subprocess.run(ask, capture_output=True, text=True)
                exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
                self.assertLessEqual(float(exposure[1]), EXPOSURE_MAX, file)

    def test_commands_serve(self):
        """The command and the configuration of fathom.service, with the model of the checkout and free ports."""
        with tempfile.TemporaryDirectory() as folder:
            words = command(FOLDER / "fathom.service")
            config = pathlib.Path(folder) / "serve.yaml"
            models = str(programs.ROOT / "models")
            config.write_text(config_of(words).read_text().replace("/usr/local/share/fathom/models", models))
            given = {"/etc/fathom/serve.yaml": config, "/var/lib/fathom/serve": f"{folder}/serve"}
            free = [w for flag in ("grpc", "http", "scheduler", "metrics") for w in (f"--{flag}-port", 0)]
            words = [given.get(w, w) for w in words] + free + ["--device", "cpu", "--json"]
            with programs.running(words, '"event":"ready"') as ready:
                said = subprocess.run([programs.BIN / "fathom", "status", "--server", f"127.0.0.1:{ready['grpc_port']}"],
                                      capture_output=True, text=True)
                self.assertEqual(said.returncode, 0, said.stdout + said.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
