#!/usr/bin/env python3
"""What HTTP costs beside gRPC: the time of a token of one stream, the router's CPU per token, and its memory per stream.

    build/oracles/bin/python tests/bench/http_bench.py [--streams 2000]      (FATHOM_BIN: the programs)
Both clients are Python in this process: grpcio, and a socket that reads Server-Sent Events. The rounds of both protocols
alternate; each number is a median over the rounds. The model is the bundled one on the CPU with one thread.
"""
import argparse
import json
import os
import pathlib
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

    def open(self, tokens=TOKENS):
        body = json.dumps({**BODY, "max_tokens": tokens}).encode()
        link = socket.create_connection(("127.0.0.1", self.port))
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--streams", type=int, default=2000)
    streams = parser.parse_args().streams
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
    for (name, what), values in sorted(rows.items(), key=lambda row: row[0][1]):
        print(f"{name:5} {what:50} {statistics.median(values):10.1f}  ({', '.join(f'{v:.1f}' for v in values)})")


if __name__ == "__main__":
    main()
