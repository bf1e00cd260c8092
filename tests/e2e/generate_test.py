"""A real gRPC client against a real cluster: streams, cancels, deadlines, refusals."""
import json
import pathlib
import subprocess
import tempfile
import threading
import unittest

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status
from google.rpc import error_details_pb2

from cluster import BIN, Cluster, Client, collect, goldens, pb, request, wait_until

CASES = {g["name"]: g for g in goldens()}


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("-tp", "2").__enter__()
        cls.stub = cls.cluster.client.stub
        cls.generate = staticmethod(cls.cluster.generate)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()

    def refused(self, call, code, reason, field, *says):
        """The call fails with code and google.rpc details, and the message has the expected texts."""
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        error = caught.exception
        self.assertEqual(error.code(), code, error.details())
        for text in says:
            self.assertIn(text, error.details())
        info, violation = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(info)
            detail.Unpack(violation)
        self.assertEqual(info.domain, "fathom")
        if reason:
            self.assertEqual(info.reason, reason)
        if field:
            self.assertEqual([v.field for v in violation.field_violations], [field], error.details())

    def test_streams_the_golden_answer(self):
        golden = CASES["capital"]
        result = self.generate(ids=golden["prompt_ids"], max_tokens=64, logprobs=2)
        self.assertIsNone(result.error)
        self.assertEqual(result.ids, golden["output_ids"])
        self.assertEqual(result.text, golden["text"])
        self.assertEqual(result.finish.reason, pb.FINISH_REASON_STOP)
        self.assertEqual(result.finish.position, len(golden["output_ids"]))
        self.assertEqual(result.finish.usage.completion_tokens, len(golden["output_ids"]))
        self.assertEqual(result.started.prompt_tokens, len(golden["prompt_ids"]))
        self.assertTrue(result.started.fingerprint)
        for got, want in zip(result.logprobs, golden["logprobs"]):
            self.assertAlmostEqual(got.logprob, want, delta=2e-3)
            self.assertEqual(len(got.top_ids), 2)

    def test_chat_renders_and_splits_thinking(self):
        golden = CASES["think"]
        chat = pb.ChatRequest(enable_thinking=True)
        for m in golden["messages"]:
            chat.messages.add(role=m["role"], content=m["content"])
        chat.sampling.temperature = 0
        result = collect(self.stub.Chat(chat, timeout=60))
        self.assertIsNone(result.error)
        self.assertEqual(result.ids, golden["output_ids"])
        self.assertEqual(result.reasoning + result.text, golden["text"])
        self.assertEqual(result.text, "5200")

    def test_validate_says_what_started_says(self):
        chat = pb.ChatRequest(messages=[pb.ChatMessage(role="user", content="Hello")])
        chat.stop.max_tokens = 3
        validated = self.stub.Validate(pb.ValidateRequest(chat=chat), timeout=60)
        self.assertEqual(validated.prompt_tokens, len(self.stub.Tokenize(pb.TokenizeRequest(chat=pb.ChatMessages(messages=chat.messages))).ids))
        chat.request_id = validated.request_id
        self.assertEqual(collect(self.stub.Chat(chat, timeout=60)).started, validated)
        generate = pb.GenerateRequest(text="x" * 40000)
        self.refused(self.whole(generate), grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_LENGTH_EXCEEDED", "prompt", "4096")

    def whole(self, generate):
        yield self.stub.Validate(pb.ValidateRequest(generate=generate), timeout=60)

    def test_user_text_is_not_markup(self):
        messages = [pb.ChatMessage(role="user", content="say <｜end▁of▁sentence｜> and </think>")]
        plain = self.stub.Tokenize(pb.TokenizeRequest(chat=pb.ChatMessages(messages=messages)))
        trusted = self.stub.Tokenize(pb.TokenizeRequest(chat=pb.ChatMessages(messages=messages, allow_special_in_content=True)))
        self.assertEqual(plain.rendered, trusted.rendered)
        self.assertNotIn(1, plain.ids)
        self.assertIn(1, trusted.ids)

    def test_tokenize_and_back(self):
        text = "naïve 中文 🚀\n"
        ids = self.stub.Tokenize(pb.TokenizeRequest(text=text)).ids
        self.assertEqual(self.stub.Detokenize(pb.DetokenizeRequest(ids=ids)).text, text)
        with_bos = self.stub.Tokenize(pb.TokenizeRequest(text=text, add_special_tokens=True)).ids
        self.assertEqual(list(with_bos), [0, *ids])

    def test_model_and_health_and_reflection(self):
        model = self.stub.GetModel(pb.GetModelRequest())
        self.assertEqual((model.context_tokens, model.vocab, list(model.end_token_ids)), (4096, 4096, [1]))
        self.assertEqual((model.device, model.dtype), ("cpu", "float32"))
        ports = [self.cluster.ready["grpc_port"], self.cluster.ready["scheduler_port"]] + [w["port"] for w in self.cluster.ready["workers"]]
        services = ["fathom.v1.Inference", "fathom.cluster.v1.Scheduler", "grpc.health.v1.Health", "grpc.health.v1.Health"]
        for port, service in zip(ports, services):
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
                self.assertEqual(health.status, health_pb2.HealthCheckResponse.SERVING, port)
                self.assertIn(service, ProtoReflectionDescriptorDatabase(channel).get_services())

    def test_cancel_in_mid_stream_frees_the_blocks(self):
        stream = self.stub.Generate(request(ids=[0, 3, 73], max_tokens=3000, ignore_eos=True))
        seen = 0
        for message in stream:
            if message.WhichOneof("event") == "tokens":
                seen += len(message.tokens.ids)
            if seen >= 5:
                break
        wait_until(lambda: self.cluster.metrics()["fathom_scheduler_blocks_used"] > 0, "blocks are in use")
        stream.cancel()
        self.cluster.wait_idle()

    def test_deadline(self):
        result = self.generate(ids=[0, 3, 73], max_tokens=4000, ignore_eos=True, deadline_ms=150)
        self.assertIsNone(result.error)
        self.assertEqual(result.finish.reason, pb.FINISH_REASON_DEADLINE)
        self.assertEqual(result.finish.position, len(result.ids))
        self.assertLess(len(result.ids), 4000)

    def test_grpc_deadline_frees_the_blocks(self):
        result = collect(self.stub.Generate(request(ids=[0, 3, 73], max_tokens=4000, ignore_eos=True), timeout=0.3))
        self.assertTrue(result.finish is not None or result.error.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
        self.cluster.wait_idle()

    def test_stop_string_across_tokens_is_held_back_and_cut(self):
        golden = CASES["count"]
        whole = golden["text"]
        stop = whole[7:10]
        result = self.generate(ids=golden["prompt_ids"], max_tokens=64, strings=[stop])
        self.assertEqual(result.text, whole[: whole.index(stop)])
        self.assertEqual(result.finish.stop_string, stop)
        self.assertEqual(result.finish.usage.completion_tokens, len(result.ids))
        kept = self.generate(ids=golden["prompt_ids"], max_tokens=64, strings=[stop], include_stop=True)
        self.assertEqual(kept.text, whole[: whole.index(stop) + len(stop)])
        self.cluster.wait_idle()

    def test_sampling_parameters_reach_the_sampler(self):
        asked = dict(temperature=0.9, top_k=40, top_p=0.8, min_p=0.01, repetition_penalty=1.1, presence_penalty=0.2, frequency_penalty=0.1,
                     typical_p=0.6)
        results = [self.generate(ids=[0, 3, 73], max_tokens=8, seed=5, ignore_eos=True, **asked) for _ in range(2)]
        for name, value in asked.items():
            self.assertAlmostEqual(getattr(results[0].started.sampling, name), value, places=6)
        self.assertEqual(results[0].ids, results[1].ids)
        # The tokens at the least distance from the entropy are few.
        def first_tokens(**params):
            return {self.generate(ids=[0, 3, 73], max_tokens=1, temperature=2.0, top_p=1.0, seed=seed, **params).ids[0] for seed in range(12)}
        self.assertLess(len(first_tokens(typical_p=1e-6)), len(first_tokens()))

    def test_refusals_name_field_value_and_limit(self):
        ids = [0, 3, 73]
        bad = grpc.StatusCode.INVALID_ARGUMENT
        table = [
            (dict(ids=[3] * 5000), "prompt", ("5000", "4096")),
            (dict(ids=ids, max_tokens=5000), "stop.max_tokens", ("5000", "4096")),
            (dict(ids=[0, 4096]), "token_ids", ("4096",)),
            (dict(ids=[0, -1]), "token_ids", ("-1",)),
            (dict(ids=ids, temperature=3.0), "sampling.temperature", ("3", "2")),
            (dict(ids=ids, temperature=float("nan")), "sampling.temperature", ("nan",)),
            (dict(ids=ids, top_p=0.0), "sampling.top_p", ("0",)),
            (dict(ids=ids, top_k=-1), "sampling.top_k", ("-1",)),
            (dict(ids=ids, typical_p=0.0), "sampling.typical_p", ("0",)),
            (dict(ids=ids, logit_bias={9999: 1.0}), "sampling.logit_bias", ("9999",)),
            (dict(ids=ids, logprobs=1000), "output.logprobs", ("1000", "20")),
            (dict(ids=ids, request_id="a b"), "request_id", ("a b",)),
            (dict(ids=ids, deadline_ms=-5), "deadline_ms", ("-5",)),
            (dict(ids=ids, model="other"), "model", ("other",)),
            (dict(ids=[]), "prompt", ()),
        ]
        for fields, field, says in table:
            with self.subTest(field=field, fields=str(fields)[:60]), self.assertRaises(grpc.RpcError) as caught:
                list(self.stub.Generate(request(**fields), timeout=10))
            error = caught.exception
            self.assertIn(error.code(), (bad, grpc.StatusCode.NOT_FOUND), f"{field}: {error.details()}")
            violation = error_details_pb2.BadRequest()
            for detail in rpc_status.from_call(error).details:
                detail.Unpack(violation)
            self.assertTrue(violation.field_violations and violation.field_violations[0].field.startswith(field.split(".")[0]),
                            f"{field}: {violation} {error.details()}")
            for text in says:
                self.assertIn(text, error.details())

    def test_invalid_utf8_is_refused(self):
        # The client's protobuf refuses such a proto3 string, so a generic call sends the raw bytes.
        raw = b"\x22\x03a\xff\xfe"  # Field 4 (text), three bytes, not UTF-8.
        call = self.cluster.client.channel.unary_stream("/fathom.v1.Inference/Generate", request_serializer=lambda x: x,
                                                        response_deserializer=lambda x: x)
        with self.assertRaises(grpc.RpcError) as caught:
            list(call(raw, timeout=10))
        self.assertIn(caught.exception.code(), (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL))

    def test_64_streams_at_once_each_equal_to_its_run_alone(self):
        prompts = [CASES[name]["prompt_ids"] for name in ("hello", "capital", "count", "copy", "sort", "poem", "json", "add")]
        requests = [request(ids=prompts[i % 8][: 4 + i % 9] + prompts[i % 8][-3:], max_tokens=24, logprobs=1, temperature=0.8, seed=i,
                            ignore_eos=True) for i in range(64)]
        together = self.cluster.client.many(requests)
        for i in range(0, 64, 7):
            alone = collect(self.stub.Generate(requests[i], timeout=60))
            self.assertIsNone(together[i].error)
            self.assertEqual(together[i].bits(), alone.bits(), i)
        self.assertTrue(all(r.finish is not None and len(r.ids) == 24 for r in together))

    def test_a_resume_that_nobody_knows_does_not_stand_in_the_way_of_its_id(self):
        ids = [0, 3, 73]
        want = self.generate(ids=ids, max_tokens=12, temperature=0.9, seed=77, ignore_eos=True)
        lost = collect(self.stub.Resume(pb.ResumeRequest(request_id="abc-1", next_positions=[5]), timeout=30))
        self.assertEqual(lost.error.code(), grpc.StatusCode.NOT_FOUND)
        got = self.generate(ids=ids, max_tokens=12, temperature=0.9, seed=77, ignore_eos=True, request_id="abc-1")
        self.assertIsNone(got.error)
        self.assertEqual(got.bits(), want.bits())

    def test_what_a_repeated_request_may_leave_out_and_change(self):
        # Another router, which has not seen the first try, gets the request with the id of Started, with and without the seed of Started,
        # and then with the key and a shorter deadline.
        second = self.cluster.add_router()

        def both(**kw):
            first = self.generate(ids=[0, 3, 73], max_tokens=12, temperature=1.0, ignore_eos=True, deadline_ms=20_000, **kw)
            repeats = [dict(kw, request_id=first.started.request_id), dict(kw, request_id=first.started.request_id, seed=first.started.seed)]
            if kw:
                repeats.append(kw)
            for client in (self.cluster.client, second):
                for repeat in repeats:
                    again = client.generate(ids=[0, 3, 73], max_tokens=12, temperature=1.0, ignore_eos=True, deadline_ms=9_000, **repeat)
                    self.assertIsNone(again.error, repeat)
                    self.assertEqual((again.started.request_id, again.started.seed), (first.started.request_id, first.started.seed), repeat)
                    self.assertEqual(again.bits(), first.bits(), repeat)

        both()
        both(idempotency_key="by key")
        both(request_id="by-id")
        second.close()

    def test_the_same_idempotency_key_attaches_to_the_same_session(self):
        def ask():
            return self.generate(ids=[0, 3, 73], max_tokens=12, temperature=1.0, idempotency_key="once", ignore_eos=True)
        first, second = ask(), ask()
        self.assertEqual(first.started.request_id, second.started.request_id)
        self.assertEqual(first.bits(), second.bits())
        other = self.generate(ids=[0, 3, 74], max_tokens=12, temperature=1.0, idempotency_key="once", ignore_eos=True)
        self.assertTrue(other.error is not None or other.started.request_id != first.started.request_id)

    def test_resume_after_the_client_went_away(self):
        whole = self.generate(ids=[0, 3, 73], max_tokens=60, seed=5, temperature=0.9, ignore_eos=True)
        stream = self.stub.Generate(request(ids=[0, 3, 73], max_tokens=60, seed=5, temperature=0.9, ignore_eos=True, request_id="gone"))
        ids, text = [], ""
        for message in stream:
            ids += message.tokens.ids
            text += message.tokens.text
            if len(ids) >= 10:
                break
        stream.cancel()
        rest = self.stub.Resume(pb.ResumeRequest(request_id="gone", next_positions=[len(ids)]), timeout=60)
        for message in rest:
            event = message.WhichOneof("event")
            if event == "tokens":
                self.assertEqual(message.tokens.position, len(ids))
                ids += message.tokens.ids
                text += message.tokens.text
        self.assertEqual(ids, whole.ids)
        self.assertEqual(text, whole.text)

    def check_profile(self, worker):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder, "trace.json")
            done = subprocess.run([BIN / "fathom", "profile", "--steps", "20", "--worker", worker, "--out", out], capture_output=True,
                                  text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.startswith("20 steps in "), done.stdout)
            events = json.loads(out.read_text(encoding="utf-8"))["traceEvents"]
        rows = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
        slices = {name: [e for e in events if e["ph"] == "X" and rows[e["tid"]] == name] for name in rows.values()}
        self.assertEqual(set(slices), {"engine", "device", "result"})
        self.assertEqual(len(slices["device"]), 20)
        self.assertTrue(all(e["name"] == "decode 1" or e["name"] == "no rows" or e["name"].startswith("prefill ") for e in slices["device"]))
        self.assertIn("read", {e["name"] for e in slices["engine"]})
        self.assertIn("write", {e["name"] for e in slices["result"]})
        for row in slices.values():
            for before, after in zip(row, row[1:]):
                self.assertLessEqual(before["ts"] + before["dur"], after["ts"])

    def check_profile_of_all_ranks(self):
        """Without --worker: every rank that the router knows, on one clock."""
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder, "trace.json")
            done = subprocess.run([BIN / "fathom", "profile", "--steps", "20", "--server", f"127.0.0.1:{self.cluster.ready['grpc_port']}",
                                   "--out", out], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertRegex(done.stdout, r"(?m)^group 1 rank 0 on .*: 20 steps in ")
            self.assertRegex(done.stdout, r"(?m)^group 1 rank 1 on .*: 20 steps in ")
            events = json.loads(out.read_text(encoding="utf-8"))["traceEvents"]
        names = {e["pid"]: e["args"]["name"].split(" on ")[0] for e in events if e["name"] == "process_name"}
        self.assertEqual(names, {1: "group 1 rank 0", 2: "group 1 rank 1"})
        device = {pid: {e["args"]["step"]: e for e in events if e["ph"] == "X" and e["pid"] == pid and e["tid"] == 2} for pid in names}
        common = set(device[1]) & set(device[2])
        self.assertTrue(common)
        for step in common:  # The ranks of a stage meet in each step.
            one, two = device[1][step], device[2][step]
            self.assertLess(one["ts"], two["ts"] + two["dur"])
            self.assertLess(two["ts"], one["ts"] + one["dur"])

    def test_profile_traces_steps_while_a_request_streams(self):
        stop = threading.Event()

        def stream():
            while not stop.is_set():
                collect(self.stub.Generate(request(ids=[0, 3, 73], max_tokens=100, ignore_eos=True), timeout=60))
        streaming = threading.Thread(target=stream)
        streaming.start()
        try:
            for worker in self.cluster.ready["workers"]:
                self.check_profile(f"127.0.0.1:{worker['port']}")
            self.check_profile_of_all_ranks()
        finally:
            stop.set()
            streaming.join()
        done = subprocess.run([BIN / "fathom", "profile", "--worker", f"127.0.0.1:{self.cluster.ready['grpc_port']}"], capture_output=True,
                              text=True, check=False)
        self.assertEqual(done.returncode, 64, done.stderr)  # The port of a router.
        self.assertIn("not a worker's port", done.stderr)

    def test_metrics_of_all_three(self):
        self.generate(ids=[0, 3, 73], max_tokens=4)
        for role in ("scheduler", "router", "worker"):
            names = self.cluster.metrics(role)
            self.assertTrue(any(n.startswith(f"fathom_{role}_") for n in names), role)


if __name__ == "__main__":
    unittest.main(verbosity=2)
