"""Who reaches whom by the rendered NetworkPolicies: exactly the flows that the cluster needs, for pods of the release,
clients of the namespace, pods of other releases and namespaces, and Prometheus."""
import itertools
import unittest

import charts
from charts import labels_of, pod_of, render

OUTSIDE = {  # name -> (namespace, labels); not pods of the release.
    "client": ("llm", {"app": "web"}), "stranger": ("other", {"app": "web"}),
    "prometheus": ("monitoring", {"app": "prometheus"}), "dns": ("kube-system", {"k8s-app": "kube-dns"}),
    "worker of another release": ("llm", {"app.kubernetes.io/name": "fathom", "app.kubernetes.io/instance": "b",
                                          "app.kubernetes.io/component": "worker"}),
}
HTTP = {"router": "http", "scheduler": "metrics", "worker": "metrics"}


def expected(component, ranks_meet):
    """{(from, to, name of the port)} with pods of the release at one end or both."""
    flows = {("router", "scheduler", "cluster"), ("worker", "scheduler", "cluster")}
    clients = ("client", "worker of another release", "acceptance")
    flows |= {(who, "router", port) for who in clients for port in ("grpc", "http")}
    flows |= {(who, to, port) for who in ("prometheus", "acceptance") for to, port in HTTP.items()}
    flows |= {(pod, "dns", "53") for pod in component}
    if ranks_meet:
        flows |= {("worker", "worker", port) for port in ("metrics", "health", "any")}
    return flows


class Network:
    def __init__(self, docs):
        self.policies = [d["spec"] for d in docs if d["kind"] == "NetworkPolicy"]
        self.pods = {labels_of(d)["app.kubernetes.io/component"]: d for d in docs if pod_of(d)}
        self.ends = {name: ("llm", labels_of(doc)) for name, doc in self.pods.items()} | OUTSIDE

    def ports(self, name):
        """{name: number} of the ports of an end; "any" is one that nobody names. Ranks differ only in their number."""
        if name not in self.pods:
            return {"53": 53, "any": 9}
        named = {p["name"]: p["containerPort"] for p in pod_of(self.pods[name])["containers"][0].get("ports", [])}
        last = {k.rsplit("-", 1)[0]: v for k, v in named.items()}  # Of several ranks the last one.
        return {**last, "any": 9}

    def allowed(self, source, target, port):
        return (self.side("egress", source, target, target, port)) and (self.side("ingress", target, source, target, port))

    def side(self, direction, owner, other, target, port):
        """Whether the policies of `owner` allow the direction; without a policy for it everything is allowed."""
        namespace, labels = self.ends[owner]
        mine = [p for p in self.policies if namespace == "llm" and self.matches(p["podSelector"], labels)
                and direction.title() in p["policyTypes"]]
        if not mine:
            return True
        key = {"ingress": "from", "egress": "to"}[direction]
        return any(self.rule(rule, key, other, target, port) for p in mine for rule in p.get(direction) or [])

    def rule(self, rule, key, other, target, port):
        return (key not in rule or any(self.peer(p, other) for p in rule[key])) and (
            "ports" not in rule or any(self.port(p, target, port) for p in rule["ports"]))

    def peer(self, peer, other):
        namespace, labels = self.ends[other]
        if "namespaceSelector" in peer:
            fits = self.matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
        else:
            fits = namespace == "llm"
        return fits and self.matches(peer.get("podSelector", {}), labels)

    def port(self, allowed, target, port):
        number = self.ports(target)[port]
        first = allowed["port"]
        if isinstance(first, str):
            return self.ports(target).get(first) == number
        return first <= number <= allowed.get("endPort", first)

    @staticmethod
    def matches(selector, labels):
        return all(labels.get(k) == v for k, v in selector.get("matchLabels", {}).items())


class NetworkTest(unittest.TestCase):
    def test_exactly_the_flows_that_are_needed(self):
        for case in charts.CASES.keys() - {"all-on", "lease"}:  # They admit a collector and an API server besides.
            with self.subTest(case=case):
                network = Network(render(case))
                flows = set()
                for source, target in itertools.product(network.ends, repeat=2):
                    if network.pods.keys() & {source, target}:
                        ports = [port for port in network.ports(target) if network.allowed(source, target, port)]
                        flows |= {(source, target, port) for port in ports}
                self.assertEqual(flows, expected(network.pods.keys(), ranks_meet=case == "67b-two-nodes"))

    def test_without_policies_everybody_reaches_everything(self):
        """That is: the test above sees what the policies do."""
        network = Network(render(values={"networkPolicy": {"enabled": False}}))
        self.assertTrue(network.allowed("stranger", "scheduler", "cluster"))


if __name__ == "__main__":
    unittest.main()
