"""The spans of requests at an OpenTelemetry collector of the test, parsed by the published protobuf classes (opentelemetry-proto)."""
import base64
import http.server
import json
import pathlib
import subprocess
import tempfile
import threading
import unittest

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from cluster import BIN, TINY, Cluster, collect, request, wait_until

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def parse(body):
    """An ExportTraceServiceRequest. OTLP's JSON has ids in hexadecimal, protobuf's own JSON has base64."""
    message = json.loads(body)
    for resource in message["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for name in ("traceId", "spanId", "parentSpanId"):
                    if name in span:
                        span[name] = base64.b64encode(bytes.fromhex(span[name])).decode()
    return json_format.ParseDict(message, trace_service_pb2.ExportTraceServiceRequest(), ignore_unknown_fields=False)


class Collector:
    """Keeps the spans of every POST /v1/traces; answers with the codes in `answers` first, then with 200."""

    def __init__(self, answers=()):
        self.spans, self.posts, self.answers = [], 0, list(answers)
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.path == "/v1/traces" and self.headers["content-type"] == "application/json", (self.path, self.headers)
                collector.posts += 1
                code = collector.answers.pop(0) if collector.answers else 200
                if code == 200:
                    message = parse(body)
                    for resource in message.resource_spans:
                        names = {a.key: a.value.string_value for a in resource.resource.attributes}
                        assert names["service.name"] == "fathom-router", names
                        for scope in resource.scope_spans:
                            collector.spans += scope.spans
                self.send_response(code)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def trace_of(self, request_id):
        """(root, children) of a request; waits for them."""
        def root():
            return [s for s in self.spans if s.name == "llm_request" and attributes(s)["gen_ai.response.id"] == request_id]
        wait_until(root, f"the span of {request_id}")
        found = root()
        assert len(found) == 1, found
        return found[0], [s for s in self.spans if s.parent_span_id == found[0].span_id]


def attributes(span):
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


class Traces(unittest.TestCase):
    def check(self, root, children):
        """The parts follow each other from the begin of the root to its end."""
        at = root.start_time_unix_nano
        for child in children:
            self.assertEqual(child.trace_id, root.trace_id)
            self.assertEqual(child.start_time_unix_nano, at)
            at = child.end_time_unix_nano
        self.assertEqual(at, root.end_time_unix_nano)

    def test_spans_of_requests(self):
        collector = Collector(answers=[503, 503])  # The first POSTs are tried again.
        try:
            with Cluster("--otlp-traces-endpoint", collector.url, "--trace-sample-ratio", "0", "--max-num-seqs", "1") as c:
                self.requests(c, collector)
                self.assertEqual(c.metrics("router")['fathom_router_events_dropped_total{what="trace"}'], 0)
        finally:
            collector.close()

    def requests(self, c, collector):
        traced = [("traceparent", f"00-{TRACE}-{PARENT}-01")]
        first = c.client.stub.Generate(request(ids=[0, 3, 73], max_tokens=500, ignore_eos=True, request_id="first"), metadata=traced)
        while next(first).WhichOneof("event") != "tokens":
            pass
        answer = collect(c.client.stub.Generate(request(ids=[0, 3, 74], max_tokens=5, ignore_eos=True, request_id="second"), metadata=traced))
        self.assertIsNone(answer.error)
        collect_rest = [None for _ in first]
        self.assertTrue(collect_rest)
        root, children = collector.trace_of("second")
        self.assertEqual(root.trace_id.hex(), TRACE)
        self.assertEqual(root.parent_span_id.hex(), PARENT)
        self.check(root, children)
        names = [child.name for child in children]
        self.assertEqual([n for n in names if n != "transport"], ["queue", "prefill", "decode"])
        queue = attributes(children[names.index("queue")])
        self.assertGreater(queue["fathom.behind.slots_seconds"], 0)
        said = attributes(root)
        self.assertEqual((said["gen_ai.provider.name"], said["gen_ai.operation.name"]), ("fathom", "text_completion"))
        self.assertEqual((said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]), (3, 5))
        self.assertIs(said["gen_ai.request.stream"], True)
        self.assertGreater(said["gen_ai.response.time_to_first_chunk"], 0)
        self.assertEqual([v.string_value for v in said["gen_ai.response.finish_reasons"].values], ["length"])
        self.assertEqual(root.kind, root.SPAN_KIND_SERVER)
        self.check(*collector.trace_of("first"))
        stopped = collect(c.client.stub.Generate(request(text="In the beginning", max_tokens=60, ignore_eos=True, strings=["e"],
                                                         request_id="stopped"), metadata=traced))
        self.assertEqual(stopped.finish.WhichOneof("stop"), "stop_string")
        self.check(*collector.trace_of("stopped"))
        # The flag of the header, and without a header the ratio, decide.
        c.generate(ids=[0, 3], max_tokens=1, request_id="no-header")
        collect(c.client.stub.Generate(request(ids=[0, 3], max_tokens=1, request_id="declined"),
                                       metadata=[("traceparent", f"00-{TRACE}-{PARENT}-00")]))
        collect(c.client.stub.Generate(request(ids=[0, 3], max_tokens=1, request_id="last"), metadata=traced))
        collector.trace_of("last")
        ids = {attributes(s)["gen_ai.response.id"] for s in collector.spans if s.name == "llm_request"}
        self.assertEqual(ids, {"first", "second", "stopped", "last"})

    def test_all_three_processes_log_the_trace(self):
        with tempfile.TemporaryDirectory() as folder:
            with Cluster("-tp", "2", "--log-level", "debug", "--run-dir", f"{folder}/run") as c:
                answer = collect(c.client.stub.Generate(request(ids=[0, 3, 73], max_tokens=3), metadata=[("traceparent", f"00-{TRACE}-{PARENT}-01")]))
                self.assertIsNone(answer.error)
            logs = {p.stem: p.read_text() for p in pathlib.Path(folder, "run").glob("**/*.log")}
            roles = {role for role in ("router", "scheduler", "worker") for name, log in logs.items() if name.startswith(role) and TRACE in log}
            self.assertEqual(roles, {"router", "scheduler", "worker"}, {name: len(log) for name, log in logs.items()})

    def test_a_dead_collector_stops_no_request(self):
        collector = Collector()
        collector.close()  # Its port is refused.
        with Cluster("--otlp-traces-endpoint", collector.url) as c:
            for result in c.client.many([request(ids=[0, 3, 73], max_tokens=3) for _ in range(20)]):
                self.assertIsNone(result.error)
        # The end of the cluster did not wait for the collector (Cluster checks its exit code).

    def test_a_bad_endpoint_is_refused(self):
        run = subprocess.run([BIN / "fathom-router", "--model", TINY, "--otlp-traces-endpoint", "https://collector:4318"], capture_output=True,
                             text=True, check=False)
        self.assertEqual(run.returncode, 64, run.stderr)
        self.assertIn("--otlp-traces-endpoint: 'https://collector:4318' is not a URL of the form http://HOST:PORT/PATH", run.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
