"""tests/chaos/client.py: runs one request to its end in spite of all faults, by the rules of docs/API.md, and counts the retries."""
import collections
import random
import threading
import time

import grpc
from grpc_status import rpc_status
from google.rpc import error_details_pb2

from cluster import SLOW, pb, pb_grpc
from ledger import Answer, Fault

SILENCE_S = 3 * SLOW        # A stream is given up after this silence (a router sends a message each second).
FIRST_S = 10 * SLOW         # The same limit before its first event.
PATIENCE_S = 90 * SLOW      # After this time without a new token the answer counts as lost.


def reason_of(error):
    """The stable reason of a router's own error, or "" for an error of gRPC."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return info.reason
    return ""


class Watch(threading.Thread):
    """Cancels calls that are silent for too long."""

    def __init__(self):
        super().__init__(daemon=True)
        self._lock = threading.Lock()
        self._calls = {}
        self._over = False
        self.start()

    def expect(self, call, seconds):
        with self._lock:
            self._calls[call] = time.monotonic() + seconds

    def done(self, call):
        with self._lock:
            self._calls.pop(call, None)

    def run(self):
        while not self._over:
            time.sleep(0.1)
            with self._lock:
                late = [call for call, until in self._calls.items() if time.monotonic() > until]
            for call in late:
                call.cancel()

    def close(self):
        self._over = True
        self.join()


class Client:
    """Any number of threads may run requests on it; all use the same routers."""

    def __init__(self, ports, on_tokens):
        self.on_tokens = on_tokens  # Called with (execution, new tokens).
        self.watch = Watch()
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 200),
                   ("grpc.min_reconnect_backoff_ms", 1000)]
        self.channels = [grpc.insecure_channel(f"127.0.0.1:{port}", options) for port in ports]
        self.stubs = [pb_grpc.InferenceStub(channel) for channel in self.channels]
        self.counts = collections.Counter()
        self._lock = threading.Lock()

    def close(self):
        self.watch.close()
        for channel in self.channels:
            channel.close()

    def count(self, what, number=1):
        with self._lock:
            self.counts[what] += number

    def run(self, work, execution, rng):
        """The whole answer. Fault: it cannot be obtained, or a part of it is wrong."""
        message = type(work.message)()
        message.CopyFrom(work.message)
        message.request_id = execution
        answer = Answer()
        leaves = list(work.leaves)
        router = rng.randrange(len(self.stubs))
        resume = False
        progress_at = time.monotonic()
        backoff = 0.05
        while True:
            had = answer.next_position()
            error = self._stream(answer, message, resume, router, leaves)
            if error is None and answer.finish is not None:
                self.count("answers")
                self.count("tokens", len(answer.ids))
                return answer
            if answer.next_position() > had:
                progress_at, backoff = time.monotonic(), 0.05
            if error == "left":
                self.count("left and resumed")
                time.sleep(rng.choice([0, 0.05, 0.5]) * rng.random())
                resume = True
                router = rng.randrange(len(self.stubs))
                progress_at = time.monotonic()
                continue
            if time.monotonic() - progress_at > PATIENCE_S:
                raise Fault(f"lost: no new token for {PATIENCE_S:.0f} s, at last {self._say(error)}")
            forgotten = resume and error is not None and error.code() == grpc.StatusCode.NOT_FOUND
            self._check(error, forgotten, resume, execution)
            self.count("asked again from the start" if forgotten else "streams gone on elsewhere")
            resume = answer.started is not None and not forgotten
            if forgotten:
                continue
            router = (router + 1) % len(self.stubs)
            time.sleep(backoff * (0.5 + rng.random()))
            backoff = min(backoff * 2, 0.4)

    @staticmethod
    def _say(error):
        return "an end without a Finish" if error is None else f"{error.code().name} {reason_of(error)} {error.details()}"

    def _check(self, error, forgotten, resume, execution):
        """Raises Fault if the docs promise that a repetition never gets this error."""
        if error is None:
            raise Fault("the stream ended OK without a Finish")
        code, reason = error.code(), reason_of(error)
        lost = code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN) and not reason
        full = code == grpc.StatusCode.RESOURCE_EXHAUSTED and reason
        if not (forgotten or lost or full or code == grpc.StatusCode.UNAVAILABLE):
            raise Fault(f"{'Resume' if resume else 'a try'} of {execution} was refused: {self._say(error)}")
        self.count(f"{code.name} {reason}".strip())

    def _stream(self, answer, message, resume, router, leaves):
        """One call. None: it ended OK; "left": the client has left it; else its error."""
        stub = self.stubs[router]
        answer.begin_stream(resume)
        if resume:
            call = stub.Resume(pb.ResumeRequest(request_id=message.request_id, next_positions=[answer.next_position()]))
        else:
            call = (stub.Chat if isinstance(message, pb.ChatRequest) else stub.Generate)(message)
        self.count("streams")
        self.watch.expect(call, FIRST_S)
        try:
            for event in call:
                self.watch.expect(call, SILENCE_S)
                new = answer.take(event)
                if new:
                    self.on_tokens(message.request_id, new)
                if leaves and len(answer.ids) >= leaves[0] and answer.finish is None:
                    while leaves and len(answer.ids) >= leaves[0]:
                        leaves.pop(0)
                    call.cancel()
                    return "left"
        except grpc.RpcError as error:
            return error
        finally:
            self.watch.done(call)
            call.cancel()
        return None


class Crowd:
    """`count` threads that run the pool's requests again and again, each in its own order."""

    def __init__(self, client, on_end, pool, count, seed, name):
        self.client, self.on_end, self.pool, self.name = client, on_end, pool, name
        self.faults = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self._loop, args=(i, random.Random(f"{name} {seed} {i}")), daemon=True) for i in range(count)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        """Starts no new requests; running ones continue to their end."""
        self.over.set()
        for thread in self.threads:
            thread.join(PATIENCE_S + 60)
        stuck = sum(thread.is_alive() for thread in self.threads)
        if stuck:
            self.faults.append(f"{stuck} streams do not end")

    def _loop(self, index, rng):
        number = 0
        while not self.over.is_set():
            order = list(self.pool)
            rng.shuffle(order)
            for work in order:
                if self.over.is_set():
                    return
                execution = f"{self.name}-{index}-{number}"
                number += 1
                try:
                    difference = self.client.run(work, execution, rng).differs_from(work.want)
                    if difference:
                        raise Fault(difference)
                except Fault as fault:
                    self.faults.append(f"{execution} (request {work.number}, {work.kind}): {fault}")
                except Exception as error:  # A bug of this program must not look like a quiet run.
                    self.faults.append(f"{execution}: {error!r}")
                self.on_end(execution)
