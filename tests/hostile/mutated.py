"""tests/hostile/mutated.py: sends mutated requests over HTTP and gRPC to a real cluster while a checked client uses it:

    build/oracles/bin/python tests/hostile/mutated.py --count 1000000

The client's answers stay equal to the last bit, every HTTP answer is an answer of HTTP, no process ends, no error has a path or a
pointer of the server, and all KV blocks are free again at the end. Prints one line of JSON.
"""
import argparse
import collections
import json
import os
import random
import re
import socket
import sys
import threading

import hostile
from cluster import Cluster, grpc, pb, request, wait_until

THREADS = 4
# The mutated request may be a valid one that asks for much: then its client leaves.
PATIENCE_S = 0.3
LEAKS = re.compile(rb"/(work|root|home|tmp|usr|proc|dev|etc|run|var)/|0x[0-9a-f]{6,}|fathom-shm|std::|\.cc:\d")
HEAD = re.compile(rb"^HTTP/1\.1 [1-5]\d\d ")
NUMBERS = [b"0", b"-1", b"1e999", b"-0.0", b"9223372036854775808", b"2147483648", b"1e-400", b"NaN", b"null", b"true", b'""', b"[]", b"{}", b'"\\ud800"',
           b"[" * 200, b"\x00", b"\xff\xfe"]


def bodies():
    chat = {"model": "fathom-tiny", "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "Hello é"}], "max_tokens": 2,
            "temperature": 0.7, "top_p": 0.9, "stop": ["x"], "n": 2, "logprobs": True, "top_logprobs": 2, "seed": 5}
    text = {"model": "fathom-tiny", "prompt": ["Hello", [0, 3, 5]], "max_tokens": 2, "echo": True, "logit_bias": {"5": 1.5}, "user": "u",
            "stream": True, "stream_options": {"include_usage": True}}
    return [("POST", "/v1/chat/completions", chat), ("POST", "/v1/completions", text), ("POST", "/tokenize", {"prompt": "a b c"}),
            ("POST", "/detokenize", {"tokens": [1, 2, 3]}), ("GET", "/v1/models", None), ("GET", "/health", None), ("GET", "/metrics", None)]


def http_requests():
    made = []
    for method, path, body in bodies():
        text = b"" if body is None else json.dumps(body).encode()
        length = b"" if body is None else b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(text)
        made.append((f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: abc\r\n".encode() + length + b"\r\n", text))
    return made


def grpc_requests():
    chat = pb.ChatRequest(messages=[pb.ChatMessage(role="user", content="Hello é")])
    chat.stop.max_tokens = 2
    one = request(ids=[0, 3, 5, 8], max_tokens=2, temperature=0.7, logprobs=2, top_p=0.9)
    return [("/fathom.v1.Inference/Generate", one.SerializeToString()), ("/fathom.v1.Inference/Chat", chat.SerializeToString()),
            ("/fathom.v1.Inference/Tokenize", pb.TokenizeRequest(text="a b").SerializeToString()),
            ("/fathom.v1.Inference/Detokenize", pb.DetokenizeRequest(ids=[1, 2]).SerializeToString()),
            ("/fathom.v1.Inference/Resume", pb.ResumeRequest(request_id="abc", next_positions=[0]).SerializeToString()),
            ("/fathom.v1.Inference/Explain", pb.ExplainRequest(request_id="abc").SerializeToString()),
            ("/fathom.v1.Inference/GetModel", b""), ("/fathom.v1.Admin/GetStatus", b"")]


def mutate(data, rng, others):
    """Up to four changes of bytes, numbers, lengths and order."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(8)
        at = rng.randrange(len(data) + 1)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randint(1, 6)))
        elif kind == 2:
            del data[at:at + rng.randint(1, 12)]
        elif kind == 3:
            del data[at:]
        elif kind == 4:
            data[at:at] = data[at:at + rng.randint(1, 60)]
        elif kind == 5:
            found = list(re.finditer(rb"-?\d+(\.\d+)?", bytes(data)))
            if found:
                one = rng.choice(found)
                data[one.start():one.end()] = rng.choice(NUMBERS)
        elif kind == 6:
            other = rng.choice(others)
            data[at:] = other[rng.randrange(len(other) + 1):]
        else:
            data[at:at] = rng.choice(NUMBERS)
    return bytes(data[:1 << 16])


class Sender(threading.Thread):
    def __init__(self, cluster, count, seed):
        super().__init__()
        self.cluster, self.count, self.rng = cluster, count, random.Random(seed)
        self.codes, self.problems = collections.Counter(), []

    def run(self):
        try:
            http, rpc = http_requests(), grpc_requests()
            texts = [body for _, body in http if body] + [message for _, message in rpc if message]
            with grpc.insecure_channel(f"127.0.0.1:{self.cluster.ready['grpc_port']}", [("grpc.use_local_subchannel_pool", 1),
                                                                                      ("grpc.enable_retries", 0)]) as channel:
                for i in range(self.count):
                    if i % 2:
                        method, message = self.rng.choice(rpc)
                        self.ask_grpc(channel, method, mutate(message, self.rng, texts))
                    else:
                        head, body = self.rng.choice(http)
                        self.ask_http(head, body, texts)
        except Exception as error:  # The thread's end would hide it.
            self.problems.append(repr(error))

    def ask_grpc(self, channel, method, message):
        try:
            for answer in channel.unary_stream(method)(message, timeout=PATIENCE_S):
                del answer
            self.codes["grpc OK"] += 1
        except grpc.RpcError as error:
            self.codes["grpc " + error.code().name] += 1
            if error.code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL):
                self.problems.append(f"{method} {message[:200]!r}: {error.code().name} {error.details()[:300]}")
            self.look(error.details().encode(), message)

    def ask_http(self, head, body, texts):
        if self.rng.random() < 0.3:
            sent = mutate(head + body, self.rng, texts)
        else:
            changed = mutate(body, self.rng, texts) if body else b""
            sent = re.sub(rb"Content-Length: \d+", b"Content-Length: %d" % len(changed), head) + changed
        with socket.create_connection(("127.0.0.1", self.cluster.ready["http_port"]), timeout=30) as link:
            try:
                link.sendall(sent)
                link.settimeout(PATIENCE_S)
                got = link.recv(1 << 16)
            except TimeoutError:
                self.codes["http left"] += 1  # A request that is not whole, or a long answer.
                return
            except OSError:
                self.codes["http closed"] += 1
                return
        if not got:
            self.codes["http closed"] += 1
        elif not HEAD.match(got):
            self.problems.append(f"{sent[:300]!r}: {got[:200]!r}")
        else:
            self.codes["http " + got[9:12].decode()] += 1
            if got[9:10] == b"5" and got[9:12] not in (b"503", b"504"):
                self.problems.append(f"{sent[:300]!r}: {got[:400]!r}")
            if got[9:10] in b"45":
                self.look(got, sent)

    def look(self, text, sent):
        """An error names nothing of the server; what the client sent may come back."""
        for found in LEAKS.finditer(text):
            if found.group() not in sent and b"/v1/" not in found.group():
                self.problems.append(f"{sent[:200]!r}: the error has {found.group()!r}: {text[:300]!r}")


def run(count, seed, say=print):
    """Returns (figures, problems)."""
    with Cluster() as cluster:
        pids = [cluster.ready["router_pid"], cluster.ready["scheduler_pid"], cluster.ready["workers"][0]["pid"]]
        before = hostile.attacks.process_facts(pids[0])
        with hostile.Checked(cluster.ready["grpc_port"]) as checked:
            senders = [Sender(cluster, count // THREADS, seed * 1000 + i) for i in range(THREADS)]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            problems = [f"the checked client: {w}" for w in checked.take()[-1]]
            wait_until(lambda: checked.answers > 0, "the client is answered after the last request", 60)
        problems += [p for sender in senders for p in sender.problems] + checked.wrong
        cluster.wait_idle()  # As many free blocks as at the start.
        for pid in pids:
            if not os.path.exists(f"/proc/{pid}"):
                problems.append(f"process {pid} ended")
        problems += [line.strip() for line in cluster.log if " ended with " in line or "was ended" in line]
        codes = sum((sender.codes for sender in senders), collections.Counter())
        after = hostile.attacks.process_facts(pids[0])
        figures = {"seed": seed, "sent": sum(codes.values()), **dict(sorted(codes.items())), "rss_before_mib": round(before["rss"]),
                   "rss_after_mib": round(after["rss"])}
        say(json.dumps(figures))
    return figures, problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("FATHOM_SEED", "1")))
    args = parser.parse_args()
    _, problems = run(args.count, args.seed)
    for problem in problems[:50]:
        print(f"FAILED {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
