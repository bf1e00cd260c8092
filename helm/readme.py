#!/usr/bin/env python3
"""Makes helm/fathom/README.md from the comments of values.yaml: python3 helm/readme.py [--check].

The comment above a key describes it. A line `# ## Title` begins a section. Every key has a comment, or one of its parents
has one. --check writes nothing and exits with 1 if the file is not current.
"""
import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).resolve().parent / "fathom"
HEAD = """<!-- Made by helm/readme.py from values.yaml: edit that file. -->
# Helm chart of Fathom
One release serves one model: routers (a Deployment), a scheduler (a StatefulSet with a term file), and groups of workers (a
StatefulSet whose pods have all ranks of a group, or a LeaderWorkerSet). Several models are several releases.

## Install
```
helm install tiny helm/fathom -f helm/fathom/examples/cpu.yaml           # the bundled model, without a GPU (kind, minikube)
helm install chat-7b helm/fathom -f helm/fathom/examples/7b-one-gpu.yaml
helm test tiny --logs                                                    # fathom accept, through the Service
```
The notes that `helm install` prints have the next commands. On kind, load the image first:
`kind load docker-image fathom:0.2.0-cpu`.
| example | what |
|---|---|
| [cpu.yaml](examples/cpu.yaml) | the bundled model on the CPU |
| [7b-one-gpu.yaml](examples/7b-one-gpu.yaml) | a 7B model on one GPU, from a PersistentVolumeClaim |
| [33b-tp4.yaml](examples/33b-tp4.yaml) | a 33B model, two groups of four GPUs, copied to the node's disk |
| [67b-two-nodes.yaml](examples/67b-two-nodes.yaml) | a 67B model, one group on two nodes, from NFS |

## What to know
- **Keys and TLS**: this version has none. The routers' Service is ClusterIP, and NetworkPolicies deny everything except
  clients to routers, routers and workers to the scheduler, the acceptance test to all, ranks of a group over several nodes
  to each other, DNS, and Prometheus.
- **A pod of workers is a group.** `fathom workers` starts a process for each rank with its GPU, restarts a rank that ends or
  stands still, and leaves the others alone: they keep their weights. Ranks of one group cannot be containers of their own,
  because each of them maps the memory of the other ranks' GPUs.
- **Probes** are HTTP, each with its own meaning. Startup of a worker: the group is up (weights are loaded, the ranks are
  connected). Live: the process turns; of a worker: a step that runs makes progress. Ready: a request would be answered
  (router), it leads and has a group (scheduler), its group is up (worker). A worker without work, scheduler or peers is
  live.
- **The scheduler is reached by a Service of its own** that also has a pod that is not ready, because the scheduler is ready
  only when workers have reached it.
- **Updates** replace one router, one group at a time, and the scheduler. Streams continue: a router drains, and the sessions
  of a group or of the scheduler continue on another one, or wait until it is back, without losing a token. With one group,
  answers wait while it loads. Clients that do not resume see the end of their router after `router.drainSeconds`.
- **CPU limits**: there are none by default, because a quota stops threads in the middle of a step. Requests are set, memory
  is limited.
- **Volumes**: the root file system is read-only. /dev/shm is a memory volume, in which the ranks meet; it counts as memory
  of the pod.

## Check it without a cluster
```
helm lint helm/fathom
helm template tiny helm/fathom -f helm/fathom/examples/cpu.yaml | kubeconform -strict -summary -kubernetes-version 1.25.0
```
With the ServiceMonitors, the PrometheusRule or a LeaderWorkerSet add `-ignore-missing-schemas`. `tests/run -R helm` does
more: Helm's own engine renders all examples, the manifests are validated against Kubernetes 1.25 and 1.37, and the rendered
commands run as processes.

## Upgrades of the chart
- 0.2.0: the first version.
- Kubernetes changes no volumeClaimTemplates: before a change of `scheduler.termFile`, delete the StatefulSet of the
  scheduler with `kubectl delete statefulset RELEASE-fathom-scheduler --cascade=orphan`, and then upgrade.

## Values
"""


def comments(text):
    """{path of a key: comment}, and {path: section} for the first key behind a section's title."""
    said, sections, stack, pending, title = {}, {}, [], [], None
    for line in text.splitlines():
        comment = re.match(r"\s*# ?(.*)", line)
        key = re.match(r"(\s*)([\w./-]+):", line)
        if comment:
            if comment.group(1).startswith("## "):
                title, pending = comment.group(1)[3:], []
            else:
                pending.append(comment.group(1))
        elif key and not line.lstrip().startswith("- "):
            depth = len(key.group(1))
            stack = [(d, k) for d, k in stack if d < depth] + [(depth, key.group(2))]
            path = ".".join(k for _, k in stack)
            if pending:
                said[path] = " ".join(pending)
            if title:
                sections[path], title = title, None
            pending = []
        else:
            pending = []
    return said, sections


def rows(values, said, sections, path=""):
    """Yields (path, default, comment) or (None, title, None), in the order of the file."""
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        if here in sections:
            yield None, sections[here], None
        deeper = any(other.startswith(here + ".") for other in said)
        if here in said and not deeper:
            yield here, json.dumps(value), said[here]
        elif isinstance(value, dict) and deeper:
            yield from rows(value, said, sections, here)
        else:
            raise SystemExit(f"values.yaml: {here} has no comment")


def readme():
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    said, sections = comments(text)
    out = HEAD
    for path, default, comment in rows(yaml.safe_load(text), said, sections):
        if path is None:
            out += f"\n### {default}\n| key | default | what it does |\n|---|---|---|\n"
        else:
            cell = comment.replace("|", "\\|")
            out += f"| `{path}` | `{default}` | {cell} |\n"
    return out


def main():
    path = CHART / "README.md"
    if "--check" in sys.argv:
        if path.read_text(encoding="utf-8") == readme():
            return 0
        print("helm/fathom/README.md is not current: python3 helm/readme.py")
        return 1
    path.write_text(readme(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
