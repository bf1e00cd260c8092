"""Groups that leave and come while streams run: a worker that gets SIGTERM drains its group, its streams go on in another one with the
same bits, and a group that is added takes load."""
import concurrent.futures
import contextlib
import os
import random
import signal
import subprocess
import threading
import unittest

from cluster import BIN, SLOW, TINY, Cluster, collect, pb, request, wait_until

SEED = int(os.environ.get("FATHOM_SEED", "20261201"))


def load(count, max_tokens=600, seed=SEED):
    rng = random.Random(seed)
    return [request(ids=[0] + [rng.randrange(3, 400) for _ in range(rng.randrange(2, 40))], max_tokens=max_tokens, ignore_eos=True, logprobs=1,
                    temperature=rng.choice([0.0, 0.8]), seed=rng.randrange(2**63)) for _ in range(count)]


def exits_with(pid, process):
    """Waits for the end of a child of `fathom serve`; its line about the child has the exit code."""
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), f"{process} {pid} has ended", 60)


class ExtraWorker:
    """A worker beside those of `fathom serve`."""

    def __init__(self, c, *args):
        self.process = subprocess.Popen([BIN / "fathom-worker", "--model", TINY, "--device", "cpu", "--scheduler",
                                         f"127.0.0.1:{c.ready['scheduler_port']}", "--port", "0", "--metrics-port", "0", "--threads", "1", *args],
                                        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if '"role"' in line:
                self.reader = threading.Thread(target=lambda: [None for _ in self.process.stdout])
                self.reader.start()
                return
        raise RuntimeError("the worker did not start")

    def stop(self):
        self.process.terminate()
        code = self.process.wait(60 * SLOW)
        self.reader.join()
        self.process.stdout.close()
        return code


class Drain(unittest.TestCase):
    def same(self, got, want):
        for i, (a, b) in enumerate(zip(got, want)):
            self.assertIsNone(a.error, f"{i}: {a.error}; FATHOM_SEED={SEED}")
            self.assertEqual(a.bits(), b.bits(), f"{i} differs; FATHOM_SEED={SEED}")

    def running(self, c, reqs):
        """Starts the streams and returns a function that waits for their results, when each has some tokens."""
        results = [None] * len(reqs)
        lengths = [0] * len(reqs)

        def one(i):
            results[i] = collect(c.client.stub.Generate(reqs[i], timeout=200 * SLOW), lambda r: lengths.__setitem__(i, len(r.ids)))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(reqs))]
        for thread in threads:
            thread.start()
        wait_until(lambda: min(lengths) > 0, "every stream has a token", 60)

        def join():
            for thread in threads:
                thread.join()
            return results

        return join, lengths

    def test_all_cases(self):
        """At the same time, each with a cluster of its own, because each of them waits most of its time."""
        cases = [getattr(self, name) for name in dir(self) if name.startswith("case_")]
        with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
            running = [(case.__name__, pool.submit(case)) for case in cases]
            for name, future in running:
                with self.subTest(name):
                    future.result()

    def phases(self, c):
        return [rank.phase for rank in c.client.admin.GetStatus(pb.GetStatusRequest()).ranks]

    def case_a_drained_group_gives_its_streams_away_and_a_killed_one_too(self):
        reqs = load(8)
        with Cluster() as c:
            want = c.client.many(reqs)
            self.same(want, want)
        with Cluster("-dp", "2") as c:
            self.same(c.client.many(reqs), want)
            for number, how in enumerate((signal.SIGTERM, signal.SIGKILL, signal.SIGTERM)):
                workers = c.children("fathom-worker")
                self.assertEqual(len(workers), 2)
                before = c.metrics()
                join, _ = self.running(c, reqs)
                victim = workers[number % 2]
                os.kill(victim, how)
                self.same(join(), want)
                exits_with(victim, "the worker")
                after = c.metrics()
                lost = after["fathom_scheduler_failovers_total"] - before["fathom_scheduler_failovers_total"]
                groups = after["fathom_scheduler_groups_lost_total"] - before["fathom_scheduler_groups_lost_total"]
                if how == signal.SIGTERM:
                    self.assertEqual((lost, groups), (0, 0), "a drain lost something")
                    self.assertGreater(after["fathom_scheduler_suspensions_total"], before["fathom_scheduler_suspensions_total"], "no stream moved")
                else:
                    self.assertEqual(groups, 1)
                wait_until(lambda: c.client.admin.GetStatus(pb.GetStatusRequest()).groups == 2, "two groups again", 60)
            c.wait_idle()
            log = "".join(c.log)
            self.assertEqual(log.count("ended with 0"), 2, log)

    def case_alone_it_says_draining_until_its_streams_have_ended(self):
        reqs = load(2, max_tokens=1000)
        with Cluster("--drain-timeout-s", "120") as c:
            want = c.client.many(reqs)
            join, lengths = self.running(c, reqs)
            before = c.metrics()
            worker = c.children("fathom-worker")[0]
            os.kill(worker, signal.SIGTERM)
            wait_until(lambda: self.phases(c) == ["DRAINING"], "status says DRAINING")
            self.assertLess(max(lengths), 1000)
            # A new request waits for the next group.
            waits = threading.Thread(target=lambda: late.append(c.generate(timeout=100, ids=[0, 3], max_tokens=3, ignore_eos=True)))
            late = []
            waits.start()
            self.same(join(), want)
            exits_with(worker, "the worker")
            waits.join()
            self.assertIsNone(late[0].error)
            after = c.metrics()
            for name in ("fathom_scheduler_failovers_total", "fathom_scheduler_groups_lost_total", "fathom_scheduler_suspensions_total"):
                self.assertEqual(after[name], before[name], name)
            c.wait_idle()

    def case_at_its_limit_the_worker_leaves_and_its_streams_wait(self):
        reqs = load(2, max_tokens=3500)
        with Cluster("--drain-timeout-s", "1") as c:
            want = c.client.many(reqs)
            join, lengths = self.running(c, reqs)
            worker = c.children("fathom-worker")[0]
            os.kill(worker, signal.SIGTERM)
            exits_with(worker, "the worker")
            self.assertLess(max(lengths), 3500, "the streams were over before the limit")
            self.same(join(), want)

    def case_all_ranks_of_a_group_leave_with_one(self):
        reqs = load(4)
        with Cluster("-tp", "2") as c, contextlib.ExitStack() as stack:
            want = c.client.many(reqs)
            extra = [ExtraWorker(c, "-tp", "2", "--local-workers", "4") for _ in range(2)]
            for worker in extra:
                stack.callback(worker.process.kill)
            wait_until(lambda: c.client.admin.GetStatus(pb.GetStatusRequest()).groups == 2, "a group is added", 60)
            join, _ = self.running(c, reqs)
            self.assertEqual(extra[0].stop(), 0)
            self.same(join(), want)
            wait_until(lambda: c.client.admin.GetStatus(pb.GetStatusRequest()).groups == 1, "its group is gone")
            self.assertIsNone(extra[1].process.poll(), "the other rank waits for a group")
            self.assertEqual(c.metrics()["fathom_scheduler_groups_lost_total"], 0)
            self.assertEqual(extra[1].stop(), 0)

    def case_an_added_group_takes_load_and_leaves_again(self):
        reqs = load(6, max_tokens=400)
        with Cluster("--max-num-seqs", "2") as c:
            want = c.client.many(reqs)
            results = []
            thread = threading.Thread(target=lambda: results.extend(c.client.many(reqs)))
            thread.start()
            wait_until(lambda: c.metrics()["fathom_scheduler_requests_waiting"] >= 2, "requests wait for a slot")
            extra = ExtraWorker(c, "--max-num-seqs", "2")
            try:
                wait_until(lambda: c.metrics()["fathom_scheduler_requests_running"] > 2, "the added group takes load", 60)
                self.assertEqual(extra.stop(), 0)
            finally:
                extra.process.kill()
            thread.join()
            self.same(results, want)
            self.assertEqual(c.metrics()["fathom_scheduler_groups_lost_total"], 0)
            c.wait_idle()


if __name__ == "__main__":
    unittest.main(verbosity=2)
