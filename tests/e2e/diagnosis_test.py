"""What an operator is told: where each rank is, which rank hangs and in which layer, how a group started, and why workers form no group."""
import json
import os
import signal
import subprocess
import threading
import time
import unittest

from cluster import BIN, SLOW, TINY, Client, Cluster, collect, pb, request, wait_until
from layouts_test import rank_of, workers



def status(client):
    return client.admin.GetStatus(pb.GetStatusRequest())


def fathom_status(port, *flags):
    run = subprocess.run([BIN / "fathom", "status", "--server", f"127.0.0.1:{port}", *flags], capture_output=True, text=True, timeout=30 * SLOW)
    return run.returncode, run.stdout


class Load:
    """Requests, one after the other in each of some threads, until join."""

    def __init__(self, client, count=4):
        self.results = []
        self.enough = threading.Event()

        def run(i):
            while not self.enough.is_set():
                asked = request(ids=[0, 3, 5 + i], max_tokens=100, ignore_eos=True)
                self.results.append(collect(client.stub.Generate(asked, timeout=240 * SLOW)))

        self.threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
        for thread in self.threads:
            thread.start()

    def join(self):
        self.enough.set()
        for thread in self.threads:
            thread.join()
        return self.results


class Diagnosis(unittest.TestCase):
    def test_status_start_and_a_rank_that_stops(self):
        with Cluster("-tp", "2", "--nccl-debug", "INFO", "--nccl-interface", "lo") as c:
            self.start_of(c)
            for i in range(2):  # On the CPU NCCL writes nothing.
                self.assertTrue(os.path.exists(f"{c.ready['run_dir']}/worker-{i}.nccl.log"))
            # What a rank does can be seen while it works.
            load = Load(c.client)
            seen = set()

            def see():
                for rank in status(c.client).ranks:
                    if rank.HasField("layer"):
                        self.assertIn(rank.layer, range(8))
                        self.assertIn(rank.activity, ("attention", "MLP"))
                        seen.add(rank.rank)
                return seen == {0, 1}

            wait_until(see, "both ranks are seen in a layer", 40)
            self.struck(c, load, 1, signal.SIGSTOP, "no heartbeat for")
            load = Load(c.client)
            wait_until(lambda: all(rank.phase == "STEPPING" for rank in status(c.client).ranks), "both ranks are seen in a step", 40)
            self.struck(c, load, 0, signal.SIGKILL, "(control|steps) stream ended")

    def start_of(self, c):
        wait_until(lambda: len(status(c.client).ranks) == 2, "the router has heard of the ranks")
        code, text = fathom_status(c.ready["grpc_port"])
        self.assertEqual(code, 0, text)
        self.assertRegex(text, r"group 1 rank 0 on \S+: between steps")
        code, text = fathom_status(c.ready["grpc_port"], "--startup")
        self.assertRegex(text, r"group 1 \(epoch 1\): 2 ranks up after [\d.]+ s, rank [01] was ready last")
        self.assertRegex(text, r"  rank 1 on \S+( \(slowest\))?: process [\d.]+, .*weights [\d.]+ \([\d.]+ GB\).* communicator [\d.]+, ready [\d.]+")
        self.assertTrue(any("was ready last" in line for line in c.log), "serve prints the timeline too")
        all_of = json.loads(fathom_status(c.ready["grpc_port"], "--json")[1])
        self.assertEqual([rank["rank"] for rank in all_of["ranks"]], [0, 1])
        start = all_of["starts"][0]
        for rank in start["ranks"]:
            parts = {part["phase"]: part for part in rank["parts"]}
            self.assertEqual(set(parts), {"process", "device", "checkpoint", "memory", "weights", "registered", "joined", "communicator", "ready"})
            times = [part["at_us"] for part in rank["parts"]]
            self.assertEqual(times, sorted(times))
            self.assertLessEqual(times[-1], start["total_us"])
            self.assertGreater(parts["weights"]["bytes"], 0)
        names = c.metrics("worker")
        for name in ("step", "step_layer", "step_collectives"):
            self.assertIn(f"fathom_worker_{name}", names)
        self.assertIn("fathom_scheduler_rank_still_seconds", c.metrics())

    def struck(self, c, load, victim, how, why):
        """Strikes a worker while the load runs, and looks for its rank and its place in status and log."""
        pid, rank = workers(c)[victim], rank_of(c, victim)
        before = status(c.client).last_loss
        os.kill(pid, how)
        begin = time.monotonic()
        wait_until(lambda: status(c.client).last_loss != before, f"rank {rank} is named", 20)
        took = time.monotonic() - begin
        if how == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        loss = status(c.client).last_loss
        print(f"{how.name}: named after {took:.2f} s: {loss}")
        self.assertRegex(loss, rf"^rank {rank}: {why}.*; last heard: (step \d+, |between steps)")
        with open(f"{c.ready['run_dir']}/scheduler.log", encoding="utf-8") as file:
            line = [json.loads(line)["msg"] for line in file if " lost: " in line][-1]
        self.assertRegex(line, rf"rank {rank}.*last heard: rank {rank}: .*; rank {1 - rank}: ")
        for result in load.join():
            self.assertIsNone(result.error)
            self.assertEqual(len(result.ids), 100)

    def test_a_network_interface_that_is_not_there(self):
        run = subprocess.run([BIN / "fathom", "serve", "--model", TINY, "--device", "cpu", "--http-port", "0", "--grpc-port", "0", "--scheduler-port",
                              "0", "--scheduler-metrics-port", "0", "--nccl-interface", "no-such0"], capture_output=True, text=True,
                             timeout=60 * SLOW)
        self.assertEqual(run.returncode, 64, run.stderr)
        self.assertRegex(run.stderr, r"--nccl-interface no-such0: this host has no such network interface; it has .*\blo\b")

    def test_ranks_on_the_cpu_of_two_hosts(self):
        processes = []

        def start(program, *flags):
            process = subprocess.Popen([BIN / program, *flags], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            processes.append(process)
            for line in process.stdout:
                if '"role"' in line:
                    return json.loads(line)
            raise RuntimeError(f"{program} did not start")

        def worker(rank, host):
            return start("fathom-worker", "--model", TINY, "--device", "cpu", "-tp", "2", "--rank", str(rank), "--host-id", host, "--threads", "1",
                         "--scheduler", f"127.0.0.1:{port}", "--port", "0", "--metrics-port", "0")

        try:
            port = start("fathom-scheduler", "--port", "0", "--metrics-port", "0")["port"]
            router = start("fathom-router", "--model", TINY, "--scheduler", f"127.0.0.1:{port}", "--grpc-port", "0", "--http-port", "0")
            client = Client(router["grpc_port"])
            worker(0, "host-a")
            wait_until(lambda: "missing: rank 1" in status(client).waiting, "the missing rank is named")
            worker(1, "host-b")
            wait_until(lambda: "host-b" in status(client).waiting, "the ranks on two hosts are named")
            waiting = status(client).waiting
            self.assertRegex(waiting, r"rank 0 on \S+ \(machine host-a, /dev/shm \S+\); rank 1 on \S+ \(machine host-b, ")
            self.assertIn("start all of a group's ranks on one host", waiting)
            code, text = fathom_status(router["grpc_port"])
            self.assertEqual(code, 69)
            self.assertIn("waiting      2 free workers for groups of 2 (tp 2, pp 1, cpu, float32)", text)
            worker(1, "host-a")
            wait_until(lambda: status(client).ready, "two ranks of one host are a group")
            self.assertIsNone(client.generate(ids=[0, 3, 5], max_tokens=4).error)
            client.close()
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(20 * SLOW)
                process.stdout.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
