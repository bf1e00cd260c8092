"""deploy/compose: the files follow the Compose Specification, name files and flags that exist, and their commands serve."""
import json
import pathlib
import re
import subprocess
import tempfile
import time
import unittest

import yaml
from compose_spec import models

import programs
from prometheus_test import promtool

FOLDER = programs.ROOT / "deploy/compose"
OURS = ("scheduler", "router", "worker-0", "worker-1")


def load(name):
    """A compose file without its variables: each has the default that the file gives it."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (FOLDER / name).read_text())
    assert "$" not in re.sub(r"#.*", "", text), "a variable without a default"
    return yaml.safe_load(text)


def unknown_keys(given, kept, path=""):
    """Keys that the models of compose-spec do not have; they drop them."""
    if isinstance(given, dict) and isinstance(kept, dict):
        return [line for key, value in given.items() if not key.startswith("x-") for line in
                (unknown_keys(value, kept[key], f"{path}.{key}") if key in kept else [f"{path}.{key}"])]
    if isinstance(given, list) and isinstance(kept, list) and len(given) == len(kept):
        return [line for i, value in enumerate(given) for line in unknown_keys(value, kept[i], f"{path}[{i}]")]
    return []


def complaints(document):
    model = models.ComposeSpecification.model_validate(document)
    return unknown_keys(document, model.model_dump(by_alias=True, exclude_unset=True))


def fathom(*args):
    return subprocess.run([programs.BIN / "fathom", *args], capture_output=True, text=True, timeout=60)


class Compose(unittest.TestCase):
    def setUp(self):
        self.services = load("compose.yaml")["services"]

    def test_files_follow_the_specification(self):
        for name in ("compose.yaml", "compose.cuda.yaml"):
            self.assertEqual(complaints(load(name)), [], name)

    def test_wrong_files_are_found(self):
        document = load("compose.yaml")
        document["services"]["router"]["comand"] = []
        self.assertEqual(complaints(document), [".services.router.comand"])
        document = load("compose.yaml")
        document["services"]["router"]["ports"] = 8000
        with self.assertRaises(ValueError):
            complaints(document)

    def test_files_and_stages_exist(self):
        stages = re.findall(r"^FROM \S+ AS (\S+)$", (programs.ROOT / "deploy/image/Dockerfile").read_text(), re.M)
        for name in ("compose.yaml", "compose.cuda.yaml"):
            document = load(name)
            for service in document["services"].values():
                for volume in service.get("volumes", []):
                    source = volume.split(":")[0]
                    if source.startswith("."):
                        self.assertTrue((FOLDER / source).exists(), volume)
                    else:
                        self.assertIn(source, document["volumes"])
                if "build" in service:
                    context = FOLDER / service["build"]["context"]
                    self.assertEqual(context.resolve(), programs.ROOT)
                    self.assertTrue((context / service["build"]["dockerfile"]).exists())
                    self.assertIn(service["build"]["target"], stages)

    def test_images_have_a_version_and_a_place_for_a_digest(self):
        for name in ("compose.yaml", "compose.cuda.yaml"):
            for image in re.findall(r"^\s+image: (.+)$", (FOLDER / name).read_text(), re.M):
                self.assertRegex(image, r":v?\d+\.\d+\.\d+\S*$", image)
                self.assertRegex(image, r"\$\{FATHOM_IMAGE:-.*\}$|\$\{\w+_DIGEST:-\}$", image)

    def test_containers_are_confined(self):
        for name, service in self.services.items():
            self.assertEqual(service["cap_drop"], ["ALL"], name)
            self.assertEqual(service["security_opt"], ["no-new-privileges:true"], name)
            for port in service.get("ports", []):
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name} publishes {port}")
        for name in OURS:
            self.assertTrue(self.services[name]["read_only"], name)

    def test_flags_exist(self):
        for document in (load("compose.yaml"), load("compose.cuda.yaml")):
            for name in OURS:
                service = {**self.services[name], **document["services"][name]}
                self.assertEqual(programs.unknown_flags(service["entrypoint"] + service["command"]), [], name)
        self.assertEqual(programs.unknown_flags(self.services["router"]["healthcheck"]["test"][1:]), [])

    def test_prometheus(self):
        config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
        for job in config["scrape_configs"]:
            for target in job["static_configs"][0]["targets"]:
                service, port = target.split(":")
                self.assertIn("cluster", self.services[service]["networks"])
                self.assertEqual(port, {"router": "8000", "scheduler": "8002"}.get(service, "8110"))
        with tempfile.TemporaryDirectory() as folder:
            for file in (FOLDER / "prometheus.yaml", FOLDER / "../prometheus/alerts.yaml"):
                (pathlib.Path(folder) / file.name).write_bytes(file.read_bytes())
            said = promtool("check", "config", pathlib.Path(folder) / "prometheus.yaml")
            self.assertEqual(said.returncode, 0, said.stdout + said.stderr)

    def test_grafana_is_provisioned(self):
        mounts = dict(reversed(volume.split(":")[:2]) for volume in self.services["grafana"]["volumes"])
        provider = yaml.safe_load((FOLDER / "grafana-dashboards.yaml").read_text())["providers"][0]
        self.assertEqual(mounts[provider["options"]["path"]], "../grafana")
        source = yaml.safe_load((FOLDER / "grafana-datasource.yaml").read_text())["datasources"][0]
        self.assertEqual(source["type"], "prometheus")
        service, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
        self.assertIn(f"127.0.0.1:{port}:9090", self.services[service]["ports"])

    def test_commands_serve(self):
        """The commands as processes of this machine: other addresses and ports, and files outside of a container."""
        with tempfile.TemporaryDirectory() as folder:
            def words(name, scheduler="", **ports):
                service, given = self.services[name], {"/model": programs.TINY, "0.0.0.0": "127.0.0.1",
                                                       "/run/fathom/term": f"{folder}/term", "scheduler:8003": scheduler}
                free = [word for flag, port in ports.items() for word in (f"--{flag.replace('_', '-')}", port)]
                return [given.get(word, word) for word in service["entrypoint"] + service["command"]] + free
            with programs.running(words("scheduler", port=0, metrics_port=0)) as scheduler:
                at = f"127.0.0.1:{scheduler['port']}"
                with programs.running(words("worker-0", at, port=0, metrics_port=0)), \
                        programs.running(words("worker-1", at, port=0, metrics_port=0)), \
                        programs.running(words("router", at, grpc_port=0, http_port=0)) as router:
                    server = ["--server", f"127.0.0.1:{router['grpc_port']}"]
                    check = self.services["router"]["healthcheck"]["test"][1:3]
                    self.assertEqual(check[0], "fathom")
                    said, until = None, time.monotonic() + 60
                    while (said is None or said.returncode != 0) and time.monotonic() < until:
                        said = fathom(*check[1:], "--json", *server)
                    self.assertEqual(said.returncode, 0, said.stdout + said.stderr)
                    self.assertEqual(len(json.loads(said.stdout)["starts"][0]["ranks"]), 2, said.stdout)
                    said = fathom("complete", "In the beginning", "--max-tokens", "8", *server)
                    self.assertEqual(said.returncode, 0, said.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
