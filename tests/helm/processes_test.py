"""What the containers of the chart run, as processes of this machine from the rendered arguments, with the rendered probes:
a cluster of two groups answers, a rank that is killed or stands still starts again while the other one keeps its weights,
the acceptance test passes, and all end on SIGTERM."""
import json
import os
import pathlib
import re
import signal
import subprocess
import unittest

import charts
from pods import BIN, SLOW, Pods, isolates, wait_until

from cluster import TINY, collect, grpc, pb_grpc, request  # noqa: E402  (pods.py has added its folder)


def values():
    """The example for kind, with the model of this checkout and two groups."""
    said = json.loads(json.dumps(charts.CASES["cpu"]))
    said["model"] = {"path": str(TINY)}
    said["worker"]["groups"] = 2
    said["worker"]["stallSeconds"] = 1
    said["router"]["drainSeconds"] = 5
    return said


def has_accept():
    return " accept " in subprocess.run([BIN / "fathom", "--help"], capture_output=True, text=True).stdout


class ProcessesTest(unittest.TestCase):
    def test_the_rendered_cluster(self):
        docs = charts.render(values=values())
        with Pods(docs) as pods:
            scheduler = pods.start(charts.find(docs, "StatefulSet", "scheduler"), "chat-fathom-scheduler-0")
            pods.wait(scheduler)
            groups = [pods.start(charts.find(docs, "StatefulSet", "worker"), f"chat-fathom-worker-{i}") for i in range(2)]
            router = pods.start(charts.find(docs, "Deployment", "router"), "chat-fathom-router-x")
            started = [router, *groups]
            for pod in started:
                pods.wait(pod)
            for pod in [scheduler, *started]:
                for probe in ("readiness", "liveness"):
                    with self.subTest(pod=pod.name, probe=probe):
                        pods.wait(pod, probe)
            if isolates():
                self.assertEqual(os.stat(f"/proc/{router.process.pid}").st_uid, 65532)
                self.assertTrue(pathlib.Path("/proc", str(scheduler.process.pid), "root", "var/lib/fathom/term").exists())
            self.address = f"{router.address}:{router.ports()['grpc']}"
            wait_until(lambda: len(self.groups_up()) == 2, "both groups are up")
            self.ask()
            ranks = [sorted(w["rank"] for w in pods.event(g, "ready")["workers"]) for g in groups]
            self.assertEqual(ranks, [[0, 1], [2, 3]])
            self.a_rank_dies(pods, groups[0], signal.SIGKILL, "worker-1 was ended by signal 9, SIGKILL")
            self.a_rank_dies(pods, groups[1], signal.SIGSTOP, "worker-1 has not answered for 1 s; it is killed")
            self.the_acceptance_test(docs, pods)
            for pod in [router, *groups, scheduler]:
                self.assertEqual(pods.stop(pod), 0, f"{pod.name}: {''.join(pod.log[-10:])}")
            # A collector of logs reads JSON lines, each with the name of its process.
            lines = [json.loads(line) for line in groups[0].log if line.startswith("{")]
            self.assertEqual({line["process"] for line in lines}, {"worker-0", "worker-1"})

    def ask(self):
        with grpc.insecure_channel(self.address) as channel:
            asked = request(text="The capital of France is", max_tokens=4)
            answer = collect(pb_grpc.InferenceStub(channel).Generate(asked, timeout=60 * SLOW))
        self.assertIsNone(answer.error)
        self.assertIn("Paris", answer.text)

    def groups_up(self):
        """Their numbers, when no worker waits for a group."""
        command = [BIN / "fathom", "status", "--json", "--server", self.address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * SLOW)
        status = json.loads(done.stdout) if done.returncode == 0 else {"waiting": "for the router"}
        return set() if status["waiting"] else {rank["group"] for rank in status["ranks"]}

    def a_rank_dies(self, pods, group, how, line):
        """Or stands still. The supervisor of the pod starts it again, and the group is up with a new number."""
        wait_until(lambda: len(self.groups_up()) == 2, "both groups are up")
        before = self.groups_up()
        first, second = (w["pid"] for w in pods.event(group, "ready")["workers"])
        os.kill(second, how)
        self.ask()
        wait_until(lambda: len(up := self.groups_up()) == 2 and up != before, "the group is up again")
        pods.wait(group, "readiness")
        self.assertIsNone(group.process.poll())
        os.kill(first, 0)  # The other rank is the same process.
        self.assertTrue(any(line in text for text in group.log), group.log)

    def the_acceptance_test(self, docs, pods):
        if not has_accept():
            return
        pod = pods.start(charts.find(docs, "Pod", "acceptance"), "chat-fathom-acceptance")
        self.assertEqual(pods.finish(pod), 0, "".join(pod.lines + pod.log))

    def test_the_models_of_the_examples_fit(self):
        """On the cards that the examples name, in their layout; the floor of the acceptance test is the plan's."""
        for case, shape, card in (("7b-one-gpu", "deepseek-llm-7b", "24G"), ("33b-tp4", "deepseek-coder-33b", "h100"),
                                  ("67b-two-nodes", "deepseek-llm-67b", "h100")):
            worker = charts.CASES[case]["worker"]
            layout = ["-tp", str(worker.get("tensorParallel", 1)), "-pp", str(worker.get("pipelineParallel", 1))]
            command = [BIN / "fathom", "plan", "--model", TINY.parent / f"shapes/{shape}.json", "--gpu", card, *layout]
            done = subprocess.run(command, capture_output=True, text=True)
            with self.subTest(case=case):
                self.assertEqual(done.returncode, 0, done.stderr)
                floor = charts.CASES[case].get("acceptance", {}).get("floorMs")
                if floor:
                    self.assertRegex(done.stdout, rf"(?m)^ +1 at once +{floor} ms")

    def test_every_rendered_flag_is_one_of_the_program(self):
        helps = {}
        for case in charts.CASES.keys() - {"lease"}:
            for doc in filter(charts.pod_of, charts.render(case)):
                container = charts.pod_of(doc)["containers"][0]
                words = container["command"] + [a for a in container["args"][:1] if not a.startswith("-")]
                if doc["kind"] == "Pod" and not has_accept():
                    continue
                if tuple(words) not in helps:
                    helps[tuple(words)] = self.help(words)
                for argument in container["args"]:
                    if argument.startswith("--"):
                        with self.subTest(case=case, program=words, argument=argument):
                            self.assertRegex(helps[tuple(words)], rf"(?m)^ +(-\w+,)?{re.escape(argument.split('=')[0])}\b")

    @staticmethod
    def help(words):
        return subprocess.run([BIN / words[0], *words[1:], "--help"], capture_output=True, text=True, check=True).stdout

    def test_a_bad_model_ends_the_container_with_its_code(self):
        """The kubelet then shows the code and the last line; nothing is started again and again in the pod."""
        docs = charts.render(values={**values(), "model": {"path": "/nowhere/model"}})
        with Pods(docs) as pods:
            pods.start(charts.find(docs, "StatefulSet", "scheduler"), "chat-fathom-scheduler-0")
            worker = pods.start(charts.find(docs, "StatefulSet", "worker"), "chat-fathom-worker-0")
            self.assertEqual(worker.process.wait(60 * SLOW), 66)
            pods.stop(worker)
            self.assertIn("/nowhere/model", worker.log[-1])


if __name__ == "__main__":
    unittest.main()
