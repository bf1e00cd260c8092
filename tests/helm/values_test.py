"""Values of the chart: bad ones are refused with a message that names them, and each key is described. FATHOM_UPDATE=1
writes the README again. Also what is in a package of the chart."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import charts
import helm_python as helm

DIGEST = "sha256:" + "a" * 64
CLAIM = {"model": {"path": "/models/x", "volume": {"type": "claim", "claimName": "models"}}}

# (values, words of the refusal).
REFUSED = [
    ({"image": {"tag": "latest"}}, "image.tag=latest", "image.digest"),
    ({"image": {"digest": "sha256:12"}}, "image/digest", "does not match pattern"),
    ({"model": {"volume": {"type": "claim"}, "path": "/models/x"}}, "model.volume.claimName is missing"),
    ({"model": {"volume": {"type": "copy"}, "path": "/models/x"}}, "model.volume.claimName is missing"),
    ({"model": {"volume": {"type": "volume"}, "path": "/models/x"}}, "model.volume.source is missing"),
    ({"model": {"volume": {"type": "claim", "claimName": "models"}}}, "model.path=", "set model.path"),
    ({"model": {"volume": {"claimName": "models"}}}, "set the type to claim or copy"),
    ({"model": {"path": "models/x"}}, "model/path"),
    ({"worker": {"device": "cuda", "tensorParallel": 16}}, "worker.tensorParallel=16", "at most 8"),
    ({"worker": {"tensorParallel": 16, "pipelineParallel": 8}}, "at most 64 ranks"),
    ({"worker": {"tensorParallel": 0}}, "worker/tensorParallel", "minimum"),
    ({"worker": {"groups": 100, "tensorParallel": 64}}, "at most 4096 ranks"),
    ({"worker": {"device": "gpu"}}, "worker/device", "cpu", "cuda"),
    ({"worker": {"dtype": "fp8"}}, "worker/dtype"),
    ({"worker": {"resources": {"limits": {"nvidia.com/gpu": 1}}}}, "nvidia.com/gpu", "leave it out"),
    ({"worker": {"leaderWorkerSet": {"enabled": True}}}, "worker.device=cpu", "worker.groups"),
    ({"worker": {"device": "cuda", "tensorParallel": 8, "leaderWorkerSet": {"enabled": True, "size": 3}}}, "size=3",
     "divisor"),
    ({"worker": {"gpuMemoryUtilization": 1.5}}, "worker/gpuMemoryUtilization"),
    ({"worker": {"kvCacheMemory": "4 gigs"}}, "worker/kvCacheMemory"),
    ({"worker": {"shmSize": "64MB"}}, "worker/shmSize"),
    ({"scheduler": {"replicas": 2}}, "scheduler.replicas=2", "use 1"),
    ({"scheduler": {"replicas": 3}}, "scheduler/replicas", "maximum"),
    ({"scheduler": {"lease": {"enabled": True}}}, "0.2.0 has no Lease"),
    ({"scheduler": {"policy": "lifo"}}, "scheduler/policy", "fair-share"),
    ({"router": {"autoscaling": {"minReplicas": 9}}}, "minReplicas=9", "maxReplicas=8"),
    ({"router": {"service": {"type": "LoadBalancer"}}}, "router.service.type=LoadBalancer", "auth.existingSecret", "ClusterIP"),
    ({"router": {"service": {"type": "NodePort"}}, "auth": {"existingSecret": "keys"}}, "tls.client.existingSecret"),
    ({"router": {"service": {"type": "ExternalName"}}}, "router/service/type"),
    ({"tls": {"cluster": {"router": "a", "worker": "b"}}}, "tls.cluster", "or none of them"),
    ({"traces": {"endpoint": "https://collector:4318"}}, "traces/endpoint"),
    # Unknown keys, at each depth.
    ({"routers": {}}, "routers"),
    ({"worker": {"tensorParalel": 2}}, "tensorParalel"),
    ({"worker": {"leaderWorkerSet": {"nodes": 2}}}, "nodes"),
    ({"networkPolicy": {"enable": False}}, "enable"),
    ({"auth": {"secret": "keys"}}, "secret"),
    ({"auth": {"existingSecret": "Keys!"}}, "auth/existingSecret"),
]
TAKEN = [{}, {"global": {"anything": 1}}, {"image": {"digest": DIGEST}}, CLAIM, {"worker": {"maxModelLen": "4096"}},
         {"worker": {"maxModelLen": 4096}}, {"worker": {"groups": 0}}, {"router": {"pdb": {"maxUnavailable": "50%"}}},
         {"networkPolicy": {"clients": [], "prometheus": []}}]


class ValuesTest(unittest.TestCase):
    maxDiff = None

    def test_bad_values_are_refused_by_name(self):
        for values, *words in REFUSED:
            with self.subTest(values=values):
                message = charts.refusal(values)
                self.assertIsNotNone(message, "taken")
                for word in words:
                    self.assertIn(word, message)

    def test_good_values_are_taken(self):
        for values in TAKEN:
            with self.subTest(values=values):
                self.assertIsNone(charts.refusal(values))

    def test_large_numbers_have_no_exponent(self):
        docs = charts.render(values={"worker": {"maxModelLen": 1048576}, "acceptance": {"requests": 100000}})
        args = [a for doc in filter(charts.pod_of, docs) for a in charts.pod_of(doc)["containers"][0]["args"]]
        self.assertIn("--max-model-len=1048576", args)
        self.assertIn("--requests=100000", args)

    def test_lint(self):
        for case, values in charts.CASES.items():
            if charts.version_of(case) is None:
                with self.subTest(case=case):
                    self.assertEqual([m for m in charts.lint(values) if m["severity"] > 1], [])

    def test_every_object_of_the_schema_refuses_unknown_keys(self):
        open_keys = {"global", "podSecurityContext", "containerSecurityContext", "affinity", "source", "copyTo"}

        def walk(schema, name):
            if schema.get("type") == "object" and name not in open_keys:
                self.assertIn("additionalProperties", schema, name)
            for key, inner in schema.get("properties", {}).items():
                walk(inner, key)

        walk(charts.schema(), "")

    def test_schema_and_values_have_the_same_keys(self):
        def walk(schema, values, path):
            properties = schema.get("properties")
            if properties is None:
                return
            self.assertEqual(set(properties) - {"global"}, set(values), path)
            for key, value in values.items():
                walk(properties[key], value, f"{path}.{key}")

        walk(charts.schema(), charts.chart().values, "")

    def test_no_policy_admits_everybody_by_an_empty_list(self):
        """An empty `from` of a NetworkPolicy admits everybody; no rule admits nobody."""
        for test in (False, True):
            nobody = {"clients": [], "prometheus": []}
            docs = charts.render(values={"networkPolicy": nobody, "acceptance": {"enabled": test}})
            for doc in (d for d in docs if d["kind"] == "NetworkPolicy"):
                for rule in doc["spec"].get("ingress") or []:
                    self.assertTrue(rule["from"], doc["metadata"]["name"])

    def test_notes_say_what_is_missing(self):
        notes = charts.templates(values={})["NOTES.txt"]
        for words in ("Clients need no key", "ClusterIP", "image.digest is empty", "port-forward service/chat-fathom-router",
                      "helm -n llm test chat"):
            self.assertIn(words, notes)
        bare = charts.templates(values={"networkPolicy": {"enabled": False}, "image": {"digest": DIGEST}})["NOTES.txt"]
        self.assertIn("WARNING: networkPolicy.enabled is false", bare)
        self.assertNotIn("image.digest", bare)

    def test_the_readme_is_current(self):
        if os.environ.get("FATHOM_UPDATE"):
            subprocess.run([sys.executable, charts.ROOT / "helm/readme.py"], check=True)
        done = subprocess.run([sys.executable, charts.ROOT / "helm/readme.py", "--check"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_a_package_has_the_alerts_and_dashboards_of_deploy(self):
        """files/ has links to them; Helm follows links, and a package has the files."""
        deploy = charts.ROOT / "deploy"
        wanted = {f"files/dashboards/{p.name}": p for p in (deploy / "grafana").glob("*.json")}
        wanted["files/alerts.yaml"] = deploy / "prometheus/alerts.yaml"
        with tempfile.TemporaryDirectory() as folder:
            package = helm.Chart.load(helm.package(charts.CHART, destination=folder))
            found = {f["name"]: f["data"] for f in package.files if f["name"].startswith("files/")}
            self.assertEqual(found, {name: path.read_text(encoding="utf-8") for name, path in wanted.items()})
            rendered = package.render({"metrics": {"rules": {"enabled": True}}}, name="a", namespace="b")
            rules = rendered["fathom/templates/metrics.yaml"]
            self.assertIn("alert: FathomRankHung", rules)
            self.assertIn("{{ $labels.", rules)  # Prometheus' templates are not Helm's.

    def test_versions_agree(self):
        text = pathlib.Path(charts.ROOT / "CMakeLists.txt").read_text()
        self.assertIn(f"project(fathom VERSION {charts.chart().metadata['appVersion']} ", text)


if __name__ == "__main__":
    unittest.main()
