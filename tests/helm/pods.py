"""tests/helm/pods.py: runs the containers of rendered pods as processes of this machine, and does what the kubelet does.

    with Pods(docs) as pods:
        pod = pods.start(doc, "chat-fathom-worker-0")
        pods.wait(pod)      # the startup probe

Each pod has an address of its own in 127.0.0.0/8, so the ports are those of the manifest. In the arguments 0.0.0.0 becomes
the pod's address, the name of a Service the address of its pod, and $(NAME) a variable of the container.

As root, each pod has its own mounts: a root that is read-only, its volumes at their paths (folders of root that the pod's
group may write, as the kubelet makes them, and /dev/shm with its size), the user of the manifest and no capabilities.
Otherwise, the processes run as this user, and paths of volumes become folders in the arguments.
"""
import functools
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


# Mounts of a pod, then the program: sh -c MOUNTS sh USER GROUP PROGRAM...
MOUNTS = """set -e
place() { [ -d "$1" ] || { mount -t tmpfs -o mode=755 tmpfs "$(dirname "$1")"; mkdir "$1"; }; }
%s
mount -o remount,bind,ro /
user=$1 group=$2
shift 2
exec setpriv --reuid "$user" --regid "$group" --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all "$@"
"""


@functools.cache
def isolates():
    """Whether pods can have their own mounts and user here: root in a container often cannot mount."""
    if os.geteuid() != 0:
        return False
    tried = ["unshare", "-m", "sh", "-c", MOUNTS % ":", "sh", "65532", "65532", str(BIN / "fathom"), "--version"]
    done = subprocess.run(tried, capture_output=True, text=True)
    if done.returncode != 0:
        print(f"pods have no mounts and no user of their own here: {done.stderr.strip()}", file=sys.stderr)
    return done.returncode == 0


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
        """SERVICE.NAMESPACE.svc: the pod behind the Service, as the manifests say; POD.SERVICE.NAMESPACE.svc: that pod."""
        *pod_name, name = host.split(".")[:-2]
        service = next(d for d in self.docs if d["kind"] == "Service" and d["metadata"]["name"] == name)
        selector = dict(service["spec"]["selector"])
        pod_name += filter(None, [selector.pop("statefulset.kubernetes.io/pod-name", None)])
        behind = [p for p in self.pods if all(p.labels.get(k) == v for k, v in selector.items())]
        return next(p for p in behind if set(pod_name) <= {p.name}).address

    def start(self, doc, name, wait=True):
        spec = charts.pod_of(doc)
        pod = Pod(name, self.address(name), spec, self.folder / name)
        pod.labels = charts.labels_of(doc)
        pod.folder.mkdir()
        pod.folder.chmod(0o755)
        variables = {}
        for one in pod.container.get("env", []):
            variables[one["name"]] = one.get("value") or {"metadata.name": name}[one["valueFrom"]["fieldRef"]["fieldPath"]]
        arguments = [self.argument(pod, a, variables) for a in pod.container["command"] + pod.container["args"]]
        arguments[0] = str(BIN / arguments[0])
        if isolates():
            security = spec["securityContext"]
            arguments = ["unshare", "-m", "sh", "-c", MOUNTS % "\n".join(self.mounts(pod)), "sh", str(security["runAsUser"]),
                         str(security["runAsGroup"]), *arguments]
        variables["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
        pod.process = subprocess.Popen(arguments, env=variables, cwd="/", text=True, stdin=subprocess.DEVNULL,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        pod.readers = [threading.Thread(target=lambda: pod.log.extend(pod.process.stderr)),
                       threading.Thread(target=lambda: pod.lines.extend(pod.process.stdout))]
        for reader in pod.readers:
            reader.start()
        self.pods.append(pod)
        return pod

    def argument(self, pod, text, variables):
        text = re.sub(r"\$\((\w+)\)", lambda m: variables[m.group(1)], str(text))
        text = text.replace("0.0.0.0", pod.address)
        text = re.sub(r"[\w.-]+\.llm\.svc", lambda m: self.resolve(m.group(0)), text)
        for mount in [] if isolates() else pod.container.get("volumeMounts", []):
            folder = self.volume(pod, mount["name"])
            text = re.sub(rf"={re.escape(mount['mountPath'])}(?=/|$)", f"={folder}", text)
        return text

    def mounts(self, pod):
        """Commands that mount the volumes of the pod. The checkout must not disappear below one of them."""
        volumes = {v["name"]: v for v in pod.spec.get("volumes", [])}
        for mount in pod.container.get("volumeMounts", []):
            path, empty = mount["mountPath"], volumes.get(mount["name"], {}).get("emptyDir", {})
            if any(str(p).startswith(path + "/") for p in (charts.ROOT, BIN.resolve(), self.folder)):
                continue
            yield f"place {path}"
            if empty.get("medium") == "Memory":
                yield f"mount -t tmpfs -o mode=1777,size={empty['sizeLimit'].removesuffix('i')} tmpfs {path}"
            else:
                yield f"mount --bind {self.volume(pod, mount['name'])} {path}"

    def volume(self, pod, name):
        folder = pod.folder / name
        if not folder.exists():
            folder.mkdir()
            if os.geteuid() == 0:
                os.chown(folder, 0, pod.spec["securityContext"]["fsGroup"])
            folder.chmod(0o2775 if isolates() else 0o700)
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
        return self.finish(pod, pod.spec.get("terminationGracePeriodSeconds", 30))

    @staticmethod
    def finish(pod, seconds=120):
        """Waits for the end of the pod by itself. Returns the exit code; all output is then in its lines and its log."""
        code = pod.process.wait(seconds * SLOW)
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
