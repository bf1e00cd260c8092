"""The chart as Helm renders it: valid for Kubernetes 1.25 and 1.37, as recorded in tests/helm/goldens, and with the
properties that a schema cannot tell. FATHOM_UPDATE=1 rewrites the goldens."""
import functools
import importlib.resources
import itertools
import json
import os
import re
import unittest

import charts
import jsonschema
import referencing
from charts import CASES, RELEASE, find, labels_of, pod_of, render

VERSIONS = ("1.25", "1.37")
CUSTOM = {"ServiceMonitor": "servicemonitor-monitoring-v1", "PrometheusRule": "prometheusrule-monitoring-v1",
          "LeaderWorkerSet": "leaderworkerset-leaderworkerset-v1"}


@functools.cache
def validator(version, kind, api_version):
    """As kubernetes_validate.validate, which reads megabytes of definitions for each object."""
    folder = importlib.resources.files("kubernetes_validate") / f"kubernetes-json-schema/v{version}.0-local-strict"
    group = re.sub(r"^([^./]*)(?:\.[^/]*)?/", r"\1-", api_version)
    schema = json.loads((folder / f"{kind.lower()}-{group}.json").read_text())
    return jsonschema.Draft202012Validator(schema, registry=definitions(folder))


@functools.cache
def definitions(folder):
    text = (folder / "_definitions.json").read_text()
    return referencing.Resource.from_contents(json.loads(text)) @ referencing.Registry()


def selected(selector, labels):
    return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or selector).items())


class RenderTest(unittest.TestCase):
    maxDiff = None

    def each(self):
        for case in CASES:
            with self.subTest(case=case):
                yield case, render(case)

    def test_manifests_are_valid(self):
        seen = set()
        for _, docs in self.each():
            for doc in docs:
                text = json.dumps(doc, sort_keys=True)
                if text not in seen:
                    with self.subTest(kind=doc["kind"], name=doc["metadata"]["name"]):
                        self.validate(doc)
                seen.add(text)

    def validate(self, doc):
        if doc["kind"] not in CUSTOM:
            for version in VERSIONS:
                validator(version, doc["kind"], doc["apiVersion"]).validate(doc)
            return
        jsonschema.validate(doc, json.loads((charts.HERE / f"schemas/{CUSTOM[doc['kind']]}.json").read_text()))
        if doc["kind"] == "LeaderWorkerSet":  # Its pods are pods: their spec is checked as that of a Pod.
            template = doc["spec"]["leaderWorkerTemplate"]["workerTemplate"]
            for version in VERSIONS:
                validator(version, "Pod", "v1").validate({"apiVersion": "v1", "kind": "Pod", **template})

    def test_a_misspelt_field_is_found(self):
        docs = render("67b-two-nodes") + render("all-on")
        for kind, path in (("StatefulSet", ["spec", "template", "spec"]), ("ServiceMonitor", ["spec"]),
                           ("PrometheusRule", ["spec"]),
                           ("LeaderWorkerSet", ["spec", "leaderWorkerTemplate", "workerTemplate", "spec"])):
            found = [d for d in docs if d["kind"] == kind]
            doc = json.loads(json.dumps(found[0]))
            inner = doc
            for key in path:
                inner = inner[key]
            inner["nodeSelektor"] = {}
            with self.subTest(kind=kind), self.assertRaises(jsonschema.ValidationError):
                self.validate(doc)

    def test_goldens(self):
        for case in CASES:
            path = charts.HERE / f"goldens/{case}.txt"
            text = charts.golden(charts.templates(case))
            if os.environ.get("FATHOM_UPDATE"):
                path.write_text(text, encoding="utf-8")
            with self.subTest(case=case):
                self.assertEqual(text, path.read_text(encoding="utf-8"), f"FATHOM_UPDATE=1 rewrites {path.name}")
        left = {p.stem for p in (charts.HERE / "goldens").glob("*.txt")} - CASES.keys()
        self.assertFalse(left, "goldens without a case")

    def test_every_pod_is_locked_down(self):
        for _, docs in self.each():
            for spec in filter(None, map(pod_of, docs)):
                self.assertIs(spec["enableServiceLinks"], False)
                self.assertTrue(spec["securityContext"]["runAsNonRoot"])
                self.assertEqual(spec["securityContext"]["runAsUser"], 65532)
                self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
                for container in spec["containers"] + spec.get("initContainers", []):
                    security = container["securityContext"]
                    self.assertTrue(security["readOnlyRootFilesystem"])
                    self.assertFalse(security["allowPrivilegeEscalation"])
                    self.assertEqual(security["capabilities"], {"drop": ["ALL"]})
                    self.assertRegex(container["image"], r"@sha256:[0-9a-f]{64}$|:\d+\.\d+\.\d+-(cpu|cuda)$")
                    self.assertIn("memory", container["resources"]["limits"])

    def test_only_a_scheduler_with_a_lease_has_a_token(self):
        for case, docs in self.each():
            for doc in docs:
                if pod_of(doc):
                    has = case == "lease" and doc["metadata"]["name"].endswith("-scheduler")
                    self.assertIs(pod_of(doc)["automountServiceAccountToken"], has, doc["metadata"]["name"])
            self.assertEqual(any(d["kind"] == "Role" for d in docs), case == "lease")

    def test_writes_go_to_volumes_only(self):
        """A path that an argument names for writing is in a mount that is not read-only."""
        for _, docs in self.each():
            for spec in filter(None, map(pod_of, docs)):
                for container in spec["containers"]:
                    writable = [m["mountPath"] for m in container.get("volumeMounts", []) if not m.get("readOnly")]
                    for argument in container["args"]:
                        written = re.match(r"--(?:run-dir|term-file)=(.*)", argument)
                        if written:
                            self.assertTrue(any((written.group(1) + "/").startswith(m + "/") for m in writable), argument)

    def test_mounts_have_volumes(self):
        for _, docs in self.each():
            for doc in filter(pod_of, docs):
                spec = pod_of(doc)
                names = [v["name"] for v in spec.get("volumes", [])]
                names += [c["metadata"]["name"] for c in doc["spec"].get("volumeClaimTemplates", [])]
                containers = spec["containers"] + spec.get("initContainers", [])
                used = {m["name"] for c in containers for m in c.get("volumeMounts", [])}
                self.assertEqual(sorted(names), sorted(used), doc["metadata"]["name"])

    def test_probes_and_services_name_ports_that_are_there(self):
        for case, docs in self.each():
            pods = [d for d in docs if pod_of(d)]
            for doc in pods:
                for container in pod_of(doc)["containers"]:
                    ports = {p["name"] for p in container.get("ports", [])}
                    probes = [container[p] for p in ("startupProbe", "livenessProbe", "readinessProbe") if p in container]
                    self.assertIn(len(probes), (0, 3))
                    for probe in probes:
                        self.assertIn(probe["httpGet"]["port"], ports)
                        self.assertRegex(probe["httpGet"]["path"], "^/health/(live|ready|progress)$")
            for service in (d for d in docs if d["kind"] == "Service"):
                outside = case == "secure" and service["metadata"]["name"].endswith("-router")
                behind = [d for d in pods if selected({k: v for k, v in service["spec"]["selector"].items()
                                                       if "pod-name" not in k}, labels_of(d))]
                self.assertEqual(len(behind), 1, service["metadata"]["name"])
                ports = {p["name"] for c in pod_of(behind[0])["containers"] for p in c["ports"]}
                self.assertLessEqual({p["targetPort"] for p in service["spec"]["ports"]}, ports)
                self.assertIn(service["spec"].get("type"), ("LoadBalancer",) if outside else (None, "ClusterIP"))

    def test_workers_reach_a_scheduler_that_is_not_ready(self):
        """The scheduler is ready when it has workers, so its Services have it before."""
        for case, docs in self.each():
            dialled = set()
            for name in ("router", "worker"):
                doc = next(d for d in docs if pod_of(d) and d["metadata"]["name"].endswith(f"-{name}"))
                args = pod_of(doc)["containers"][0]["args"]
                dialled.add(next(a for a in args if a.startswith("--scheduler=")).removeprefix("--scheduler="))
            self.assertEqual(len(dialled), 1)
            addresses = dialled.pop().split(",")
            self.assertEqual(len(addresses), 2 if case == "lease" else 1)
            for address in addresses:
                host, port = address.split(":")
                service = next(d for d in docs if d["kind"] == "Service" and f"{d['metadata']['name']}.llm.svc" == host)
                self.assertTrue(service["spec"]["publishNotReadyAddresses"])
                self.assertIn(int(port), [p["port"] for p in service["spec"]["ports"]])

    def test_a_worker_has_a_gpu_and_shared_memory_for_each_rank(self):
        for case, gpus, shm in (("default", None, "80Mi"), ("multi-group", None, "128Mi"), ("7b-one-gpu", 1, "512Mi"),
                                ("33b-tp4", 4, "2048Mi"), ("67b-two-nodes", 4, "2048Mi"), ("all-on", 8, "8Gi")):
            with self.subTest(case=case):
                doc = find(render(case), "LeaderWorkerSet" if case == "67b-two-nodes" else "StatefulSet", "worker")
                spec = pod_of(doc)
                container = spec["containers"][0]
                self.assertEqual(container["resources"]["limits"].get("nvidia.com/gpu"), gpus)
                volume = next(v for v in spec["volumes"] if v["name"] == "shm")
                self.assertEqual(volume["emptyDir"], {"medium": "Memory", "sizeLimit": shm})
                self.assertIn({"name": "shm", "mountPath": "/dev/shm"}, container["volumeMounts"])
                ports = [p["name"] for p in container["ports"] if p["name"].startswith("metrics")]
                self.assertEqual(len(ports), gpus or {"default": 1, "multi-group": 4}[case])

    def test_only_workers_see_gpus(self):
        for case in ("7b-one-gpu", "all-on"):
            for doc in filter(pod_of, render(case)):
                for container in pod_of(doc)["containers"]:
                    hidden = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"} in container.get("env", [])
                    has = "nvidia.com/gpu" in container["resources"]["limits"]
                    self.assertNotEqual(hidden, has, doc["metadata"]["name"])

    def test_ranks_of_several_nodes(self):
        args = pod_of(find(render("67b-two-nodes"), "LeaderWorkerSet", "worker"))["containers"][0]["args"]
        for argument in ("--nnodes=2", "--node-rank=$(LWS_WORKER_INDEX)", "--group=$(GROUP_INDEX)", "--nccl-interface=eth0"):
            self.assertIn(argument, args)

    def test_a_copy_is_written_by_the_init_container_and_read_by_the_worker(self):
        docs = render("33b-tp4")
        worker = pod_of(find(docs, "StatefulSet", "worker"))
        copy = worker["initContainers"][0]
        self.assertEqual(copy["command"], ["cp"])
        self.assertEqual(copy["args"], ["-RL", "/model-source/.", "/models/deepseek-coder-33b-instruct"])
        mount = next(m for m in worker["containers"][0]["volumeMounts"] if m["name"] == "model")
        self.assertTrue(mount["readOnly"])
        self.assertNotIn("subPath", mount)
        router = pod_of(find(docs, "Deployment", "router"))
        self.assertNotIn("initContainers", router)
        claim = {"claimName": "models", "readOnly": True}
        self.assertEqual(router["volumes"], [{"name": "model", "persistentVolumeClaim": claim}])

    def test_pods_end_after_their_drain(self):
        for _, docs in self.each():
            spec = pod_of(find(docs, "Deployment", "router"))
            args = dict(a.removeprefix("--").split("=", 1) for a in spec["containers"][0]["args"] if "=" in a)
            stop = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
            self.assertGreaterEqual(spec["terminationGracePeriodSeconds"], stop + int(args["drain-timeout"]) + 10)
            workers = [pod_of(d) for d in docs if d["kind"] == "StatefulSet" and d["metadata"]["name"].startswith(f"{RELEASE}-fathom-worker")]
            for worker in workers:
                args = dict(a.removeprefix("--").split("=", 1) for a in worker["containers"][0]["args"] if "=" in a)
                self.assertGreaterEqual(worker["terminationGracePeriodSeconds"], int(args["drain-timeout-s"]) + 10)

    def test_monitors_select_a_service_with_their_ports(self):
        for case in ("33b-tp4", "all-on"):
            docs = render(case)
            monitors = [d for d in docs if d["kind"] == "ServiceMonitor"]
            self.assertEqual(len(monitors), 3)
            for monitor in monitors:
                services = [d for d in docs if d["kind"] == "Service"]
                services = [d for d in services if selected(monitor["spec"]["selector"], d["metadata"]["labels"])]
                self.assertEqual(len(services), 1, monitor["metadata"]["name"])
                ports = {p["name"] for p in services[0]["spec"]["ports"]}
                self.assertLessEqual({e["port"] for e in monitor["spec"]["endpoints"]}, ports)

    def test_the_acceptance_test_asks_each_process(self):
        for case, pods in (("multi-group", ["worker-0", "worker-1", "worker-2"]),
                           ("67b-two-nodes", ["worker-0", "worker-0-1"])):
            args = pod_of(find(render(case), "Pod", "acceptance"))["containers"][0]["args"]
            asked = next(a for a in args if a.startswith("--processes=")).removeprefix("--processes=").split(",")
            ranks = [f"chat-fathom-{pod}.chat-fathom-worker.llm.svc:{8110 + i}" for pod in pods for i in range(4)]
            scheduler = "chat-fathom-scheduler-0.chat-fathom-scheduler.llm.svc:8002"
            self.assertEqual(asked, ["chat-fathom-router.llm.svc:8000", scheduler, *ranks])

    def test_a_change_of_the_chat_template_restarts_the_routers(self):
        sums = set()
        for text in ("{{ a }}", "{{ b }}"):
            router = find(render(values={"model": {"chatTemplate": text}}), "Deployment", "router")
            sums.add(router["spec"]["template"]["metadata"]["annotations"]["checksum/config"])
        self.assertEqual(len(sums), 2)

    def test_releases_do_not_share_names_or_pods(self):
        first, second = (charts.objects(charts.templates("default", release=name)) for name in ("a", "b"))
        names = [{(d["kind"], d["metadata"]["name"]) for d in docs} for docs in (first, second)]
        self.assertFalse(names[0] & names[1])
        for policy, doc in itertools.product([d for d in first if d["kind"] == "NetworkPolicy"], second):
            if pod_of(doc):
                self.assertFalse(selected(policy["spec"]["podSelector"], labels_of(doc)))


if __name__ == "__main__":
    unittest.main()
