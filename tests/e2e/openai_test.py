"""OpenAI's API of a real cluster, through the unmodified openai package and plain HTTP."""
import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import struct
import subprocess
import unittest

import openai

from cluster import BIN, SLOW, TINY, Cluster, collect, goldens, pb, post, request, wait_until

CASES = {g["name"]: g for g in goldens()}
MODEL = TINY.name


def client_of(port, **options):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0, timeout=120 * SLOW, **options)


def bits(number):
    """A log-probability is a float of 32 bits; its shortest decimal text reads as the same one."""
    return struct.pack("f", number)


def events(response):
    """The (id, data) of each event of an http.client response, as they come; data is parsed, or "[DONE]"."""
    last = None
    for raw in response:
        line = raw.decode().rstrip("\n")
        if line.startswith("id: "):
            last = line[4:]
        elif line.startswith("data: "):
            data = line[6:]
            yield last, data if data == "[DONE]" else json.loads(data)


class OpenAi(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("-tp", "2").__enter__()
        cls.port = cls.cluster.ready["http_port"]
        cls.client = client_of(cls.port)
        cls.stub = cls.cluster.client.stub

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()

    # ---- Answers

    def test_chat_equals_grpc(self):
        golden = CASES["think"]
        kwargs = {"enable_thinking": True}
        answer = self.client.chat.completions.create(model=MODEL, messages=golden["messages"], temperature=0,
                                                     extra_body={"chat_template_kwargs": kwargs, "return_token_ids": True})
        choice = answer.choices[0]
        self.assertEqual(choice.token_ids, golden["output_ids"])
        self.assertEqual(choice.message.reasoning_content + choice.message.content, golden["text"])
        self.assertEqual(choice.message.content, "5200")
        self.assertEqual(choice.finish_reason, "stop")
        self.assertEqual(answer.usage.completion_tokens, len(golden["output_ids"]))
        self.assertTrue(answer.system_fingerprint)

    def test_a_stream_is_the_whole_answer(self):
        messages = [{"role": "user", "content": "Tell me a story."}]
        options = dict(model=MODEL, messages=messages, seed=7, temperature=0.9, max_completion_tokens=60, logprobs=True, top_logprobs=3)
        whole = self.client.chat.completions.create(**options)
        text, logprobs, usage, finish = "", [], None, None
        for chunk in self.client.chat.completions.create(**options, stream=True, stream_options={"include_usage": True}):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                logprobs += choice.logprobs.content if choice.logprobs else []
                finish = choice.finish_reason or finish
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(logprobs, whole.choices[0].logprobs.content)
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(usage.prompt_tokens, whole.usage.prompt_tokens)
        self.assertEqual(finish, whole.choices[0].finish_reason)
        # The same over gRPC, to the bits of the log-probabilities.
        chat = pb.ChatRequest(messages=[pb.ChatMessage(role="user", content="Tell me a story.")])
        chat.sampling.seed, chat.sampling.temperature, chat.stop.max_tokens, chat.output.logprobs = 7, 0.9, 60, 3
        other = collect(self.stub.Chat(chat, timeout=120))
        self.assertEqual(other.reasoning + other.text, (getattr(whole.choices[0].message, "reasoning", None) or "") + text)
        self.assertEqual([bits(p.logprob) for p in other.logprobs], [bits(p.logprob) for p in logprobs])

    def test_completions(self):
        golden = CASES["capital"]
        answer = self.client.completions.create(model=MODEL, prompt=golden["prompt_ids"], temperature=0, max_tokens=64, logprobs=2)
        self.assertEqual(answer.choices[0].text, golden["text"])
        self.assertEqual(len(answer.choices[0].logprobs.token_logprobs), len(golden["output_ids"]))
        for got, want in zip(answer.choices[0].logprobs.token_logprobs, golden["logprobs"]):
            self.assertAlmostEqual(got, want, delta=2e-3)
        # A list of prompts gives each prompt's own answer.
        prompts = ["The capital of France is", "Once upon a time", "1, 2, 3,"]
        together = self.client.completions.create(model=MODEL, prompt=prompts, temperature=0, max_tokens=12)
        self.assertEqual([c.index for c in together.choices], [0, 1, 2])
        for prompt, choice in zip(prompts, together.choices):
            alone = self.client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=12)
            self.assertEqual(choice.text, alone.choices[0].text)
        streamed = {}
        for chunk in self.client.completions.create(model=MODEL, prompt=prompts, temperature=0, max_tokens=12, stream=True):
            streamed[chunk.choices[0].index] = streamed.get(chunk.choices[0].index, "") + chunk.choices[0].text
        self.assertEqual(streamed, {c.index: c.text for c in together.choices})

    def test_echo_and_prompt_logprobs(self):
        prompt = "The capital of France"
        answer = self.client.completions.create(model=MODEL, prompt=prompt, temperature=0, max_tokens=4, echo=True, logprobs=1,
                                                extra_body={"prompt_logprobs": 1, "return_token_ids": True})
        choice = answer.choices[0]
        self.assertTrue(choice.text.startswith(prompt))
        logprobs = choice.logprobs
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertEqual(len(logprobs.tokens), len(choice.prompt_token_ids) + len(choice.token_ids))
        reference = self.cluster.generate(ids=choice.prompt_token_ids, max_tokens=4, logprobs=1, prompt_logprobs=1)
        want = [p.logprob for p in reference.prompt_logprobs] + [p.logprob for p in reference.logprobs]
        self.assertEqual([bits(p) for p in logprobs.token_logprobs[1:]], [bits(p) for p in want])
        self.assertEqual(choice.text[logprobs.text_offset[len(choice.prompt_token_ids)]:], choice.text[len(prompt):])
        self.assertEqual(len(choice.prompt_logprobs), len(choice.prompt_token_ids))
        # A stream has the same, those of the prompt in its first chunk.
        chunks = [c.choices[0] for c in self.client.completions.create(
            model=MODEL, prompt=prompt, temperature=0, max_tokens=4, echo=True, logprobs=1, stream=True, extra_body={"prompt_logprobs": 1})]
        self.assertEqual("".join(c.text for c in chunks), choice.text)
        self.assertEqual(sum((c.logprobs.token_logprobs for c in chunks if c.logprobs), []), logprobs.token_logprobs)
        self.assertEqual(sum((c.logprobs.text_offset for c in chunks if c.logprobs), []), logprobs.text_offset)
        self.assertEqual(chunks[0].prompt_logprobs, choice.prompt_logprobs)

    def test_several_choices(self):
        options = dict(model=MODEL, prompt=["Once upon a time", "The"], seed=3, temperature=1, max_tokens=12)
        alone = self.client.completions.create(**options)
        whole = self.client.completions.create(**options, n=3)
        self.assertEqual([c.index for c in whole.choices], list(range(6)))
        self.assertEqual([whole.choices[0].text, whole.choices[3].text], [c.text for c in alone.choices])
        self.assertGreater(len({c.text for c in whole.choices[:3]}), 1)
        streamed = [""] * 6
        for chunk in self.client.completions.create(**options, n=3, stream=True):
            streamed[chunk.choices[0].index] += chunk.choices[0].text
        self.assertEqual(streamed, [c.text for c in whole.choices])
        self.assertEqual(whole.usage.completion_tokens, 6 * 12)

    def test_models_and_tokens(self):
        models = self.client.models.list().data
        self.assertEqual([(m.id, m.max_model_len) for m in models], [(MODEL, 4096)])
        self.assertEqual(self.client.models.retrieve(MODEL).id, MODEL)
        text = "naïve 中文 🚀"
        ids = json.load(post(self.port, "/tokenize", {"prompt": text, "add_special_tokens": False}))["tokens"]
        self.assertEqual(ids, list(self.stub.Tokenize(pb.TokenizeRequest(text=text)).ids))
        self.assertEqual(json.load(post(self.port, "/detokenize", {"tokens": ids}))["prompt"], text)
        chat = json.load(post(self.port, "/tokenize", {"messages": [{"role": "user", "content": "Hello"}]}))
        grpc_chat = pb.ChatMessages(messages=[pb.ChatMessage(role="user", content="Hello")])
        self.assertEqual(chat["tokens"], list(self.stub.Tokenize(pb.TokenizeRequest(chat=grpc_chat)).ids))

    def test_ids_keys_and_timings(self):
        options = dict(model=MODEL, prompt="Once", max_tokens=8)
        first = self.client.completions.with_raw_response.create(**options, extra_headers={"Idempotency-Key": "k1"})
        again = self.client.completions.with_raw_response.create(**options, extra_headers={"Idempotency-Key": "k1"})
        self.assertEqual(first.headers["x-request-id"], again.headers["x-request-id"])
        self.assertEqual(first.parse().choices, again.parse().choices)
        with self.assertRaises(openai.ConflictError) as caught:
            self.client.completions.create(**{**options, "prompt": "Other"}, extra_headers={"Idempotency-Key": "k1"})
        self.assertEqual(caught.exception.code, "idempotency_key_reused")
        named = self.client.completions.with_raw_response.create(**options, extra_headers={"X-Request-Id": "mine-1"}, extra_body={"timings": True})
        self.assertEqual(named.headers["x-request-id"], "mine-1")
        self.assertEqual(named.parse().id, "cmpl-mine-1")
        timings = named.parse().choices[0].timings
        self.assertGreaterEqual(timings["total_us"], timings["decode_us"])
        explained = self.stub.Explain(pb.ExplainRequest(request_id="mine-1"))
        self.assertEqual(explained.usage.completion_tokens, 8)

    # ---- Errors

    def test_errors_are_openais(self):
        def refused(kind, param, code, **options):
            with self.assertRaises(kind) as caught:
                self.client.chat.completions.create(**{"model": MODEL, "messages": [{"role": "user", "content": "x"}], **options})
            self.assertEqual((caught.exception.param, caught.exception.code), (param, code), caught.exception)
            self.assertNotIn(str(TINY), str(caught.exception))

        refused(openai.NotFoundError, "model", "model_not_found", model="gpt-4")
        refused(openai.BadRequestError, "temperature", "out_of_range", temperature=3)
        refused(openai.BadRequestError, "max_completion_tokens", "context_length_exceeded", max_completion_tokens=5000)
        refused(openai.BadRequestError, "messages", "context_length_exceeded", messages=[{"role": "user", "content": "x y " * 9000}])
        refused(openai.BadRequestError, "temprature", "unknown_field", extra_body={"temprature": 1})
        refused(openai.BadRequestError, "tools[0].type", "not_implemented", tools=[{"type": "custom", "custom": {"name": "f"}}])
        refused(openai.BadRequestError, "web_search_options", "not_implemented", web_search_options={})
        refused(openai.BadRequestError, "stop[0]", "out_of_range", stop=[""])

    # ---- Leaving

    def running(self):
        return self.cluster.metrics()["fathom_scheduler_requests_running"]

    def test_a_hang_up_frees_the_blocks(self):
        body = {"prompt": "Once", "max_tokens": 3900, "ignore_eos": True}
        for stream in (True, False):
            link = http.client.HTTPConnection("127.0.0.1", self.port)
            link.request("POST", "/v1/completions", json.dumps({**body, "stream": stream}), {"Content-Type": "application/json"})
            wait_until(lambda: self.running() == 1, "the request runs")
            link.close()
            self.cluster.wait_idle()
        stream = self.client.completions.create(model=MODEL, prompt="Once", max_tokens=3900, stream=True, extra_body={"ignore_eos": True})
        for _, _ in zip(range(3), stream):
            pass
        stream.close()
        self.cluster.wait_idle()

    def test_a_deadline_cuts(self):
        answer = self.client.completions.create(model=MODEL, prompt="Once", max_tokens=4000, extra_body={"ignore_eos": True, "deadline_ms": 200})
        self.assertEqual((answer.choices[0].finish_reason, answer.choices[0].stop_reason), ("length", "deadline"))

    # ---- Many

    def test_200_streams_at_once(self):
        def one(i):
            text = ""
            for chunk in self.client.completions.create(model=MODEL, prompt=f"Story {i % 20}:", max_tokens=16, temperature=0.8, seed=i % 20, stream=True):
                text += chunk.choices[0].text
            return text

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            texts = list(pool.map(one, range(200)))
        for i in range(20):
            self.assertEqual(set(texts[i::20]), {texts[i]}, i)
        reference = self.cluster.generate(text="Story 3:", max_tokens=16, temperature=0.8, seed=3)
        self.assertEqual(texts[3], reference.text)


class Failures(unittest.TestCase):
    """Processes are killed in the middle of streams; the clients see the undisturbed answers."""

    BODY = {"prompt": "Once upon a time", "max_tokens": 250, "ignore_eos": True, "temperature": 0.8, "seed": 5, "stream": True,
            "stream_options": {"include_usage": True}}

    def pid_of(self, cluster, role):
        for line in subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True, check=True).stdout.splitlines()[1:]:
            pid, parent, args = line.split(None, 2)
            if int(parent) == cluster.process.pid and pathlib.Path(args.split()[0]).name == f"fathom-{role}":
                return int(pid)
        raise AssertionError(f"no fathom-{role}")

    def read(self, response, kill=None):
        """The text, the usage and the last id; `kill` is called after some chunks."""
        text, usage, last, done = "", None, None, False
        try:
            for number, (last_id, data) in enumerate(events(response)):
                last = last_id
                if data == "[DONE]":
                    done = True
                    continue
                self.assertNotIn("error", data)
                usage = data["usage"] or usage
                text += "".join(choice["text"] for choice in data["choices"])
                if number == 20 and kill:
                    kill()
                    kill = None
        except (http.client.HTTPException, ConnectionError):
            self.assertFalse(done)
        return text, usage, last, done

    def test_kill_9(self):
        with Cluster() as cluster:
            port = cluster.ready["http_port"]
            whole, usage, _, done = self.read(post(port, "/v1/completions", self.BODY))
            self.assertTrue(done)
            self.assertEqual(usage["completion_tokens"], 250)
            for role in ("worker", "scheduler"):
                kill = lambda: os.kill(self.pid_of(cluster, role), signal.SIGKILL)
                text, usage, _, done = self.read(post(port, "/v1/completions", self.BODY), kill)
                self.assertTrue(done, role)
                self.assertEqual(text, whole, role)
                self.assertEqual(usage["completion_tokens"], 250)
                wait_until(lambda: json.load(post(port, "/v1/completions", {"prompt": "x", "max_tokens": 1})).get("choices"), "requests are answered", 60)

    def test_last_event_id_at_another_router(self):
        with Cluster() as cluster:
            port = cluster.ready["http_port"]
            whole, _, _, _ = self.read(post(port, "/v1/completions", self.BODY))
            second = self.http_port_of_second_router(cluster)
            router = self.pid_of(cluster, "router")
            text, _, last, done = self.read(post(port, "/v1/completions", self.BODY), lambda: os.kill(router, signal.SIGKILL))
            self.assertFalse(done)
            self.assertTrue(last)
            rest, usage, _, done = self.read(post(second, "/v1/completions", self.BODY, Last_Event_ID=last))
            self.assertTrue(done)
            self.assertEqual(text + rest, whole)
            self.assertEqual(usage["completion_tokens"], 250)
            lost = post(second, "/v1/completions", self.BODY, Last_Event_ID="nobody:3")
            self.assertEqual(lost.status, 404)
            self.assertEqual(json.load(lost)["error"]["code"], "session_not_found")

    def http_port_of_second_router(self, cluster):
        process = subprocess.Popen([BIN / "fathom-router", "--model", TINY, "--scheduler", f"127.0.0.1:{cluster.ready['scheduler_port']}",
                                    "--grpc-port", "0", "--http-port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        cluster.extra.append(process)
        port = next(json.loads(line) for line in process.stdout if '"role"' in line)["http_port"]
        wait_until(lambda: client_of(port).models.list() and self.is_ready(port), "the second router is ready")
        return port

    def is_ready(self, port):
        link = http.client.HTTPConnection("127.0.0.1", port)
        link.request("GET", "/health/ready")
        return link.getresponse().status == 200

    def test_heartbeats_and_the_clients_own_retry(self):
        with Cluster() as cluster:
            port = cluster.ready["http_port"]
            worker = self.pid_of(cluster, "worker")
            response = post(port, "/v1/completions", {**self.BODY, "max_tokens": 20})
            os.kill(worker, signal.SIGSTOP)
            lines = []
            while b": heartbeat\n" not in lines:
                lines.append(response.readline())
                self.assertTrue(lines[-1], "the stream ended")
            os.kill(worker, signal.SIGCONT)
            rest, _, _, done = self.read(response)
            self.assertTrue(done)
            # OpenAI's client reads heartbeats between events with ids, and repeats what is refused with 503.
            os.kill(worker, signal.SIGKILL)
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=10, timeout=60)
            text = "".join(c.choices[0].text for c in client.completions.create(model=MODEL, prompt="Once", max_tokens=8, stream=True))
            self.assertTrue(text)


if __name__ == "__main__":
    unittest.main()
