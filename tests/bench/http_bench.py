#!/usr/bin/env python3
"""What HTTP costs beside gRPC: the time of a token of one stream, the router's CPU per token, and its memory per stream; and what
slow readers cost the others.

    build/oracles/bin/python tests/bench/http_bench.py [--streams 2000] [--readers 1000]      (FATHOM_BIN: the programs)
Both clients are Python in this process: grpcio, and a socket that reads Server-Sent Events. The rounds of both protocols
alternate; each number is a median over the rounds. The model is the bundled one on the CPU with one thread.
"""
import argparse
import json
import os
import pathlib
import selectors
import socket
import statistics
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import Cluster, request, wait_until  # noqa: E402

TOKENS, ROUNDS, PARALLEL = 300, 5, 16
BODY = {"prompt": [0, 3, 73], "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0.9, "seed": 1, "stream": True}


def cpu_s(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_kib(pid):
    with open(f"/proc/{pid}/status") as file:
        return int(next(line for line in file if line.startswith("VmRSS")).split()[1])


class Http:
    name = "HTTP"

    def __init__(self, cluster):
        self.port = cluster.ready["http_port"]

    def open(self, tokens=TOKENS, window=None, **fields):
        """`window`: the bytes that the connection takes before its client reads."""
        body = json.dumps({**BODY, "max_tokens": tokens, **fields}).encode()
        link = socket.socket()
        if window:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        link.connect(("127.0.0.1", self.port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        return link

    def read(self, link):
        """The times at which bytes with tokens came, and the number of tokens."""
        times, end = [], b""
        while b"[DONE]" not in end:
            got = link.recv(1 << 16)
            assert got, "the stream broke"
            if b'"text":"' in got:
                times.append(time.perf_counter())
            end = (end + got)[-64:]
        link.close()
        return times

    def close(self, link):
        link.close()


class Grpc:
    name = "gRPC"

    def __init__(self, cluster):
        self.stub = cluster.client.stub

    def open(self, tokens=TOKENS):
        message = request(ids=BODY["prompt"], max_tokens=tokens, ignore_eos=True, temperature=0.9, seed=1)
        message.output.ids = False
        return self.stub.Generate(message)

    def read(self, stream):
        return [time.perf_counter() for message in stream if message.WhichOneof("event") == "tokens"]

    def close(self, stream):
        stream.cancel()


def one_stream(protocol):
    times = protocol.read(protocol.open())
    return 1e6 * (times[-1] - times[0]) / (TOKENS - 1)


def router_cpu(protocol, router):
    before = cpu_s(router)
    threads = [threading.Thread(target=lambda: protocol.read(protocol.open())) for _ in range(PARALLEL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1e6 * (cpu_s(router) - before) / (PARALLEL * TOKENS)


def memory(cluster, protocol, router, streams):
    before = resident_kib(router)
    opened = [protocol.open(tokens=4000) for _ in range(streams)]
    wait_until(lambda: cluster.metrics("router")["fathom_router_streams_open"] >= streams, "all streams are open", 120)
    time.sleep(3)  # Heartbeats have gone to each of them.
    grown = resident_kib(router) - before
    for one in opened:
        protocol.close(one)
    return grown / streams


def gap_beside(readers, reads):
    """The median time between tokens of urgent streams, in us, beside many others whose clients read at once, or nothing at all."""
    with Cluster("--threads", "1", "--max-num-seqs", "16") as cluster:
        protocol = Http(cluster)
        links = [protocol.open(tokens=3000, window=4096) for _ in range(readers)]
        wait_until(lambda: cluster.metrics("router")["fathom_router_streams_open"] >= readers, "all streams are open", 120)
        stop = threading.Event()

        def drain():
            poll = selectors.DefaultSelector()
            for link in links:
                poll.register(link, selectors.EVENT_READ)
            while not stop.is_set():
                for key, _ in poll.select(0.1):
                    if not key.fileobj.recv(1 << 16):
                        poll.unregister(key.fileobj)

        drainer = threading.Thread(target=drain)
        if reads:
            drainer.start()
        gaps = []
        for _ in range(ROUNDS):
            times = protocol.read(protocol.open(priority=-1))
            gaps += [1e6 * (b - a) for a, b in zip(times, times[1:])]
        stop.set()
        if reads:
            drainer.join()
        for link in links:
            link.close()
        cluster.wait_idle()
        return statistics.median(gaps)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=2000)
    parser.add_argument("--readers", type=int, default=1000)
    arguments = parser.parse_args()
    streams = arguments.streams
    rows = {}
    with Cluster("--threads", "1", "--max-num-seqs", "16") as cluster:
        router = cluster.ready["router_pid"]
        protocols = [Grpc(cluster), Http(cluster)]
        for round_ in range(ROUNDS + 1):
            for protocol in protocols:
                gap, cpu = one_stream(protocol), router_cpu(protocol, router)
                if round_ > 0:  # The first one warms up.
                    rows.setdefault((protocol.name, "time of a token, one stream, us"), []).append(gap)
                    rows.setdefault((protocol.name, f"router's CPU per token, {PARALLEL} streams, us"), []).append(cpu)
    for protocol_of in (Grpc, Http):
        with Cluster("--threads", "1", "--max-num-seqs", "16") as cluster:  # The others wait.
            protocol = protocol_of(cluster)
            rows[protocol.name, f"router's memory per stream, {streams} streams, KiB"] = [memory(cluster, protocol, cluster.ready["router_pid"], streams)]
            cluster.wait_idle()
    for reads, what in ((True, "readers"), (False, "clients that read nothing")):
        rows["HTTP", f"time between tokens beside {arguments.readers} {what}, us"] = [gap_beside(arguments.readers, reads)]
    for (name, what), values in sorted(rows.items(), key=lambda row: row[0][1]):
        print(f"{name:5} {what:64} {statistics.median(values):10.1f}  ({', '.join(f'{v:.1f}' for v in values)})")


if __name__ == "__main__":
    main()
