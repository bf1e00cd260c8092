"""tests/helm/pods.py: runs the containers of rendered pods as processes of this machine, and does what the kubelet does.

    with Pods(docs) as pods:
        pod = pods.start(doc, "chat-fathom-worker-0")
        pods.wait(pod)      # the startup probe

Each pod has an address of its own in 127.0.0.0/8, so the ports are those of the manifest. In the arguments 0.0.0.0 becomes
the pod's address, the name of a Service the address of its pod, a mount of a volume a new folder, and $(NAME) a variable of the
container. A folder is root's and writable for the group of the pod, as the kubelet makes it. If the test runs as root,
the processes run as the user of the manifest.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request

import charts

sys.path.insert(0, str(charts.ROOT / "tests/e2e"))
from cluster import BIN, SLOW, wait_until  # noqa: E402


def _user(spec):
    """The user of the pod, as keywords of Popen; none if this is not root, or if that user may not read this checkout."""
    if os.geteuid() != 0:
        return {}
    security = spec["securityContext"]
    user = {"user": security["runAsUser"], "group": security["runAsGroup"], "extra_groups": [security["fsGroup"]]}
    try:
        subprocess.run([BIN / "fathom", "--version"], check=True, capture_output=True, **user)
    except PermissionError:
        print("the programs cannot be run by another user here; the pods run as root", file=sys.stderr)
        return {}
    return user


class Pod:
    def __init__(self, name, address, spec, folder):
        self.name, self.address, self.spec, self.folder = name, address, spec, folder
        self.container = spec["containers"][0]
        self.log, self.lines = [], []

    def ports(self):
        return {p["name"]: p["containerPort"] for p in self.container.get("ports", [])}

    def probe(self, name):
        """(status, body) of a probe of the manifest; (0, reason) without an answer."""
        get = self.container[f"{name}Probe"]["httpGet"]
        url = f"http://{self.address}:{self.ports()[get['port']]}{get['path']}"
        try:
            with urllib.request.urlopen(url, timeout=self.container[f"{name}Probe"]["timeoutSeconds"] * SLOW) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            if error.code == 404:  # A program of before the health paths.
                return urllib.request.urlopen(url.replace(get["path"], "/livez"), timeout=10).status, ""
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)


class Pods:
    def __init__(self, docs):
        self.docs, self.pods = docs, []
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="fathom-pods-"))
        self.folder.chmod(0o755)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pod in self.pods:
            if pod.process.poll() is None:
                pod.process.kill()
            self.stop(pod)
        shutil.rmtree(self.folder)

    def address(self, name):
        """Of this test's process and of the pod, so that two tests at the same time have different ones."""
        names = [p.name for p in self.pods] + [name]
        pid = os.getpid()
        return f"127.{1 + pid // 256 % 250}.{pid % 256}.{1 + names.index(name)}"

    def resolve(self, host):
        """The pod behind the name of a Service, as the manifests say."""
        name = host.split(".")[0]
        service = next(d for d in self.docs if d["kind"] == "Service" and d["metadata"]["name"] == name)
        selector = dict(service["spec"]["selector"])
        pod_name = selector.pop("statefulset.kubernetes.io/pod-name", None)
        found = [p for p in self.pods if (pod_name in (None, p.name)) and all(p.labels.get(k) == v for k, v in selector.items())]
        return found[0].address

    def start(self, doc, name, wait=True):
        spec = charts.pod_of(doc)
        pod = Pod(name, self.address(name), spec, self.folder / name)
        pod.labels = charts.labels_of(doc)
        pod.folder.mkdir()
        pod.folder.chmod(0o755)
        values = {"metadata.name": name}
        variables = {e["name"]: e.get("value") or values[e["valueFrom"]["fieldRef"]["fieldPath"]] for e in pod.container.get("env", [])}
        arguments = [self.argument(pod, a, variables) for a in pod.container["command"] + pod.container["args"]]
        arguments[0] = str(BIN / arguments[0])
        pod.process = subprocess.Popen(arguments, env={"PATH": "/usr/bin:/bin", **variables}, cwd="/", text=True, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, **_user(spec))
        pod.readers = [threading.Thread(target=lambda: pod.log.extend(pod.process.stderr)),
                       threading.Thread(target=lambda: pod.lines.extend(pod.process.stdout))]
        for reader in pod.readers:
            reader.start()
        self.pods.append(pod)
        return pod

    def argument(self, pod, text, variables):
        text = re.sub(r"\$\((\w+)\)", lambda m: variables[m.group(1)], str(text))
        text = text.replace("0.0.0.0", pod.address)
        text = re.sub(r"[\w-]+\.llm\.svc", lambda m: self.resolve(m.group(0)), text)
        for mount in pod.container.get("volumeMounts", []):
            path = mount["mountPath"]
            if path not in ("/tmp", "/dev/shm") and re.search(rf"={re.escape(path)}(/|$)", text) and not mount.get("readOnly"):
                text = text.replace(path, str(self.volume(pod, mount["name"])))
        return text

    def volume(self, pod, name):
        folder = pod.folder / name
        if not folder.exists():
            folder.mkdir()
            folder.chmod(0o2777)
        return folder

    def wait(self, pod, probe="startup"):
        """Until the probe passes; at most as long as the kubelet waits, and at most a minute."""
        last = []

        def passes():
            assert pod.process.poll() is None, f"{pod.name} ended with {pod.process.returncode}: {''.join(pod.log[-5:])}"
            last[:] = [pod.probe(probe)]
            return last[0][0] == 200

        rule = pod.container[f"{probe}Probe"]
        try:
            wait_until(passes, f"{pod.name}: {probe}", min(60, rule["periodSeconds"] * rule["failureThreshold"]))
        except AssertionError as error:
            raise AssertionError(f"{error}; last answer {last}; log: {''.join(pod.log[-10:])}") from None

    def stop(self, pod):
        """SIGTERM and the end, within the pod's grace period. Returns the exit code."""
        if pod.process.poll() is None:
            pod.process.send_signal(signal.SIGTERM)
        code = pod.process.wait(pod.spec.get("terminationGracePeriodSeconds", 30) * SLOW)
        for reader in pod.readers:
            reader.join()
        pod.process.stdout.close()
        pod.process.stderr.close()
        return code

    @staticmethod
    def event(pod, name):
        """The last line of JSON on stdout with this event; None: there is none."""
        found = [json.loads(line) for line in pod.lines if line.startswith("{")]
        return next((line for line in reversed(found) if line.get("event") == name), None)
