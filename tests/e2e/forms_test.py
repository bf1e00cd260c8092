"""/v1/responses and /v1/messages of a real cluster, through the unmodified openai and anthropic packages and plain HTTP."""
import http.client
import json
import os
import signal
import subprocess
import unittest

import anthropic
import openai

from cluster import ROOT, SLOW, TINY, Cluster, collect, goldens, pb, post, wait_until

CASES = {g["name"]: g for g in goldens()}
MODEL = TINY.name
THINK = CASES["think"]
TOOL = CASES["tool"]
FUNCTION = TOOL["tools"][0]["function"]
QUESTION = TOOL["messages"][0]["content"]
STORY = "Tell me a story."
ENDLESS = {"ignore_eos": True}
GREEDY = {"temperature": 0}  # The package has no parameter for it any more.


class Forms(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster().__enter__()
        cls.port = cls.cluster.ready["http_port"]
        cls.stub = cls.cluster.client.stub
        cls.openai = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.port}/v1", api_key="any", max_retries=0, timeout=120 * SLOW)
        cls.anthropic = anthropic.Anthropic(base_url=f"http://127.0.0.1:{cls.port}", api_key="any", max_retries=0, timeout=120 * SLOW)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()

    def grpc_story(self, **sampling):
        chat = pb.ChatRequest(messages=[pb.ChatMessage(role="user", content=STORY)])
        chat.stop.max_tokens, chat.stop.ignore_eos = 60, True
        for name, value in sampling.items():
            setattr(chat.sampling, name, value)
        return collect(self.stub.Chat(chat, timeout=120 * SLOW))

    # ---- One answer in every API

    def test_equal_answers(self):
        sampling = dict(seed=11, temperature=0.9)
        want = self.grpc_story(**sampling)
        self.assertEqual(want.finish.reason, pb.FINISH_REASON_LENGTH)
        messages = [{"role": "user", "content": STORY}]
        chat = self.openai.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=60, **sampling, extra_body=ENDLESS)
        response = self.openai.responses.create(model=MODEL, input=STORY, max_output_tokens=60, temperature=0.9, extra_body={"seed": 11, **ENDLESS})
        message = self.anthropic.messages.create(model=MODEL, messages=messages, max_tokens=60, extra_body={"temperature": 0.9, "seed": 11, **ENDLESS})
        self.assertEqual(chat.choices[0].message.content, want.text)
        self.assertEqual(response.output_text, want.text)
        self.assertEqual("".join(b.text for b in message.content if b.type == "text"), want.text)
        self.assertEqual(response.status, "incomplete")
        self.assertEqual(response.incomplete_details.reason, "max_output_tokens")
        self.assertEqual(message.stop_reason, "max_tokens")
        for usage in (response.usage.output_tokens, message.usage.output_tokens):
            self.assertEqual(usage, 60)
        self.assertEqual(response.usage.input_tokens, want.started.prompt_tokens)
        cached = message.usage.cache_read_input_tokens
        self.assertEqual(message.usage.input_tokens + cached, want.started.prompt_tokens)
        count = self.anthropic.messages.count_tokens(model=MODEL, messages=messages)
        self.assertEqual(count.input_tokens, want.started.prompt_tokens)

    # ---- Streams

    def response_of_stream(self, **options):
        """The last event's response; checks the order of the events."""
        numbers, types, text, last = [], [], {}, None
        for event in self.openai.responses.create(model=MODEL, stream=True, **options):
            numbers.append(event.sequence_number)
            types.append(event.type)
            if event.type.endswith(".delta"):
                text[event.output_index] = text.get(event.output_index, "") + event.delta
            last = event
        self.assertEqual(numbers, list(range(len(numbers))))
        self.assertEqual(types[:2], ["response.created", "response.in_progress"])
        self.assertEqual(types.count("response.output_item.added"), types.count("response.output_item.done"))
        response = last.response
        for index, item in enumerate(response.output):
            whole = item.arguments if item.type == "function_call" else item.content[0].text
            self.assertEqual(text[index], whole)
        return response

    @staticmethod
    def items(response):
        """What of a response does not depend on its id."""
        return [(i.type, i.status, i.name, i.arguments) if i.type == "function_call" else (i.type, i.status, i.content[0].text)
                for i in response.output]

    @staticmethod
    def blocks(message):
        return [(b.type, b.text if b.type == "text" else b.thinking if b.type == "thinking" else (b.name, b.input)) for b in message.content]

    def test_streams_are_the_whole_answers(self):
        options = dict(input=STORY, max_output_tokens=40, temperature=0.8, extra_body={"seed": 3})
        self.assertEqual(self.items(self.response_of_stream(**options)), self.items(self.openai.responses.create(model=MODEL, **options)))
        with self.openai.responses.stream(model=MODEL, **options) as stream:  # The package's own collector.
            text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
        self.assertEqual(text, self.openai.responses.create(model=MODEL, **options).output_text)
        options = dict(model=MODEL, messages=[{"role": "user", "content": STORY}], max_tokens=40, extra_body={"temperature": 0.8, "seed": 3})
        whole = self.anthropic.messages.create(**options)
        with self.anthropic.messages.stream(**options) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        self.assertEqual(text, whole.content[0].text)
        self.assertEqual(self.blocks(final), self.blocks(whole))
        self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)
        self.assertEqual(final.stop_reason, whole.stop_reason)

    # ---- Thinking

    def test_thinking_is_apart(self):
        question = THINK["messages"][0]["content"]
        reasoning = THINK["text"].removesuffix("5200")
        options = dict(input=question, temperature=0, extra_body={"chat_template_kwargs": {"enable_thinking": True}})
        for response in (self.openai.responses.create(model=MODEL, **options), self.response_of_stream(**options)):
            self.assertEqual(self.items(response), [("reasoning", "completed", reasoning), ("message", "completed", "5200")])
            self.assertEqual(response.usage.output_tokens, len(THINK["output_ids"]))
            spent = response.usage.output_tokens_details.reasoning_tokens
            self.assertTrue(0 < spent < len(THINK["output_ids"]), spent)
        options = dict(model=MODEL, messages=THINK["messages"], max_tokens=1000, thinking={"type": "adaptive"}, extra_body=GREEDY)
        message = self.anthropic.messages.create(**options)
        self.assertEqual(self.blocks(message), [("thinking", reasoning), ("text", "5200")])
        with self.anthropic.messages.stream(**options) as stream:
            final = stream.get_final_message()
        self.assertEqual(self.blocks(final), self.blocks(message))
        self.assertEqual(final.content[0].signature, message.content[0].signature)
        # The answer goes back with its thinking, which the template may leave out.
        turn = self.anthropic.messages.create(model=MODEL, max_tokens=8, messages=[
            *THINK["messages"], {"role": "assistant", "content": [b.to_dict() for b in final.content]}, {"role": "user", "content": "Hello"}])
        self.assertEqual(turn.role, "assistant")

    # ---- Tools

    def test_tools_of_responses(self):
        tools = [{"type": "function", "name": FUNCTION["name"], "description": FUNCTION.get("description", ""), "strict": False,
                  "parameters": FUNCTION["parameters"]}, {"type": "web_search"}]
        options = dict(input=QUESTION, temperature=0, tools=tools, store=False)
        for response in (self.openai.responses.create(model=MODEL, **options), self.response_of_stream(**options)):
            call = next(i for i in response.output if i.type == "function_call")
            self.assertEqual((call.name, json.loads(call.arguments)), (FUNCTION["name"], {"city": "Oslo"}))
            self.assertEqual(response.status, "completed")
            self.assertEqual([t.type for t in response.tools], ["function"])
        result = self.openai.responses.create(model=MODEL, temperature=0, tools=tools, input=[
            {"role": "user", "content": QUESTION}, *[i.to_dict() for i in response.output],
            {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}])
        self.assertEqual(result.status, "completed")

    def test_tools_of_messages(self):
        tools = [{"name": FUNCTION["name"], "description": FUNCTION.get("description", ""), "input_schema": FUNCTION["parameters"]}]
        messages = [{"role": "user", "content": QUESTION}]
        options = dict(model=MODEL, max_tokens=200, tools=tools, messages=messages, extra_body=GREEDY)
        message = self.anthropic.messages.create(**options)
        with self.anthropic.messages.stream(**options) as stream:
            final = stream.get_final_message()
        for answer in (message, final):
            self.assertEqual(answer.stop_reason, "tool_use")
            self.assertIn(("tool_use", (FUNCTION["name"], {"city": "Oslo"})), self.blocks(answer))
        call = next(b for b in message.content if b.type == "tool_use")
        result = self.anthropic.messages.create(**{**options, "messages": [
            *messages, {"role": "assistant", "content": [b.to_dict() for b in message.content]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]}]})
        self.assertEqual(result.stop_reason, "end_turn")
        self.assertGreater(self.anthropic.messages.count_tokens(model=MODEL, messages=messages, tools=tools).input_tokens,
                           self.anthropic.messages.count_tokens(model=MODEL, messages=messages).input_tokens)

    # ---- Other fields

    def test_stops_system_and_prefill(self):
        count = [{"role": "user", "content": "Count from 1 to 20."}]
        message = self.anthropic.messages.create(model=MODEL, messages=count, max_tokens=100, stop_sequences=[" 7"], extra_body=GREEDY)
        self.assertEqual((message.stop_reason, message.stop_sequence), ("stop_sequence", " 7"))
        self.assertEqual(message.content[0].text, "1, 2, 3, 4, 5, 6,")
        more = self.anthropic.messages.create(model=MODEL, max_tokens=100, stop_sequences=[" 9"], extra_body=GREEDY,
                                              messages=[*count, {"role": "assistant", "content": "1, 2, 3, 4, 5, 6,"}])
        self.assertEqual(more.content[0].text, " 7, 8,")
        bare = self.anthropic.messages.count_tokens(model=MODEL, messages=count).input_tokens
        self.assertGreater(self.anthropic.messages.count_tokens(model=MODEL, messages=count, system="Be kind.").input_tokens, bare)
        told = self.openai.responses.create(model=MODEL, input="Hello", instructions="Be kind.", max_output_tokens=4)
        plain = self.openai.responses.create(model=MODEL, input="Hello", max_output_tokens=4)
        self.assertGreater(told.usage.input_tokens, plain.usage.input_tokens)
        self.assertEqual(told.instructions, "Be kind.")

    def test_forbidden_tokens(self):
        """bad_words and allowed_token_ids decide the same tokens over HTTP and gRPC."""
        prompt = "The capital of France is"
        free = self.cluster.generate(text=prompt, max_tokens=24, temperature=1, seed=4, ignore_eos=True)
        one = lambda text: len(self.stub.Tokenize(pb.TokenizeRequest(text=text)).ids) == 1
        word = next(w for w in free.text.split() if w.isalpha() and one(w) and one(" " + w))
        body = dict(model=MODEL, prompt=prompt, max_tokens=24, temperature=1, seed=4)
        answer = self.openai.completions.create(**body, extra_body={"bad_words": [word], "ignore_eos": True})
        self.assertNotIn(word, answer.choices[0].text.split())
        want = self.cluster.generate(text=prompt, max_tokens=24, temperature=1, seed=4, ignore_eos=True, bad_words=[word])
        self.assertEqual(answer.choices[0].text, want.text)
        allowed = list(range(1, 4096, 4)) + list(range(2, 4096, 4)) + list(range(3, 4096, 4))
        answer = self.openai.completions.create(**body, extra_body={"allowed_token_ids": allowed, "ignore_eos": True, "return_token_ids": True})
        self.assertEqual([i for i in answer.choices[0].token_ids if i % 4 == 0], [])
        self.assertTrue([i for i in free.ids if i % 4 == 0])
        with self.assertRaises(openai.BadRequestError) as caught:
            self.openai.completions.create(**body, extra_body={"allowed_token_ids": [1, 2]})
        self.assertEqual(caught.exception.param, "allowed_token_ids")

    def test_truncation_is_that_of_grpc(self):
        ids = list(range(10, 200))
        cut = self.cluster.generate(ids=ids, max_tokens=8, truncate_prompt_tokens=50)
        self.assertEqual((cut.started.prompt_tokens, cut.ids), (50, self.cluster.generate(ids=ids[-50:], max_tokens=8).ids))
        answer = self.openai.completions.create(model=MODEL, prompt=ids, max_tokens=8, temperature=0,
                                                extra_body={"truncate_prompt_tokens": 50, "return_token_ids": True})
        self.assertEqual(answer.choices[0].token_ids, cut.ids)

    def test_ids_and_keys(self):
        body = {"input": "Once", "max_output_tokens": 8, "temperature": 1}
        first = self.openai.responses.with_raw_response.create(model=MODEL, **body, extra_headers={"Idempotency-Key": "f1"})
        again = self.openai.responses.with_raw_response.create(model=MODEL, **body, extra_headers={"Idempotency-Key": "f1"})
        self.assertEqual(first.parse().id, "resp_" + first.headers["x-request-id"])
        self.assertEqual(first.parse().output, again.parse().output)
        message = self.anthropic.messages.create(model=MODEL, max_tokens=2, messages=[{"role": "user", "content": "Hi"}],
                                                 extra_headers={"X-Request-Id": "mine-2"})
        self.assertEqual((message.id, message._request_id), ("msg_mine-2", "mine-2"))
        self.assertEqual(self.stub.Explain(pb.ExplainRequest(request_id="mine-2")).usage.completion_tokens, 2)

    # ---- Errors

    def test_errors(self):
        def refused(kind, param, code, call, **options):
            with self.assertRaises(kind) as caught:
                call(**options)
            body = caught.exception.body
            error = body.get("error", body)
            self.assertEqual((error["param"], error["code"]), (param, code), body)
            return error

        respond = lambda **o: self.openai.responses.create(**{"model": MODEL, "input": "x", **o})
        refused(openai.NotFoundError, "model", "model_not_found", respond, model="gpt-4")
        refused(openai.BadRequestError, "temperature", "out_of_range", respond, temperature=3)
        refused(openai.BadRequestError, "max_output_tokens", "context_length_exceeded", respond, max_output_tokens=5000)
        refused(openai.BadRequestError, "previous_response_id", "not_implemented", respond, previous_response_id="resp_1")
        refused(openai.BadRequestError, "store", "not_implemented", respond, store=True)
        refused(openai.BadRequestError, "input[1].role", "unknown_role", respond,
                input=[{"role": "user", "content": "a"}, {"role": "wizard", "content": "b"}])
        message = lambda **o: self.anthropic.messages.create(**{"model": MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "x"}], **o})
        error = refused(anthropic.NotFoundError, "model", "model_not_found", message, model="claude")
        self.assertEqual(error["type"], "not_found_error")
        refused(anthropic.BadRequestError, "max_tokens", "context_length_exceeded", message, max_tokens=5000)
        refused(anthropic.BadRequestError, "messages[0].content[0].type", "not_implemented", message,
                messages=[{"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://x/"}}]}])
        refused(anthropic.BadRequestError, "stop_sequences[0]", "out_of_range", message, stop_sequences=[""])
        refused(anthropic.BadRequestError, "anthropic-version", "out_of_range", message, extra_headers={"anthropic-version": "2023-01-01"})
        broken = post(self.port, "/v1/messages", {"messages": "x"})
        self.assertEqual((broken.status, json.load(broken)["type"]), (400, "error"))
        resumed = post(self.port, "/v1/responses", {"input": "x", "stream": True}, Last_Event_ID="a:1")
        self.assertEqual((resumed.status, json.load(resumed)["error"]["param"]), (400, "Last-Event-ID"))

    # ---- The page

    def get(self, path):
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60 * SLOW)
        link.request("GET", path)
        response = link.getresponse()
        return response, response.read()

    def test_the_page_and_its_policy(self):
        response, body = self.get("/")
        self.assertEqual(response.status, 200)
        self.assertTrue(response.getheader("content-type").startswith("text/html"))
        self.assertIn("default-src 'none'", response.getheader("content-security-policy"))
        self.assertNotIn(b"http://", body.replace(b"http://www.w3.org/2000/svg", b""))
        self.assertNotIn(b"https://", body)
        self.assertNotIn(b"innerHTML =", body)
        self.assertEqual(body, (ROOT / "router/frontend/http/page/index.html").read_bytes())

    def test_status_and_requests(self):
        self.cluster.generate(text="Once", max_tokens=5, request_id="page-1", ignore_eos=True)
        self.cluster.generate(text="Once", max_tokens=0, request_id="page-2")
        status = json.loads(self.get("/cluster/status")[1])
        self.assertTrue(status["ready"])
        self.assertGreater(status["blocks_total"], 0)
        self.assertEqual([(r["rank"], r["phase"] in ("IDLE", "STEPPING")) for r in status["ranks"]], [(0, True)])
        requests = json.loads(self.get("/cluster/requests")[1])["requests"]
        found = {r["request_id"]: r for r in requests}
        self.assertEqual((found["page-1"]["outcome"], found["page-1"]["completion_tokens"]), ("LENGTH", 5))
        self.assertEqual(sum(found["page-1"]["parts"].values()), found["page-1"]["whole_us"])
        self.assertEqual((found["page-2"]["outcome"], found["page-2"]["reason"]), ("INVALID_ARGUMENT", "OUT_OF_RANGE"))
        names = [r["request_id"] for r in requests]
        self.assertLess(names.index("page-2"), names.index("page-1"))  # The last one first.

    # ---- Leaving

    def running(self):
        return self.cluster.metrics()["fathom_scheduler_requests_running"]

    def test_a_hang_up_frees_the_blocks(self):
        endless = {"ignore_eos": True}
        stream = self.openai.responses.create(model=MODEL, input="Once", max_output_tokens=3900, stream=True, extra_body=endless)
        for _, _ in zip(range(6), stream):
            pass
        stream.close()
        self.cluster.wait_idle()
        with self.anthropic.messages.stream(model=MODEL, max_tokens=3900, messages=[{"role": "user", "content": "Once"}], extra_body=endless) as stream:
            for _, _ in zip(range(6), stream):
                pass
        self.cluster.wait_idle()
        # A whole answer: its client leaves while it is computed.
        link = http.client.HTTPConnection("127.0.0.1", self.port)
        link.request("POST", "/v1/messages", json.dumps({"max_tokens": 3900, "messages": [{"role": "user", "content": "Once"}], **endless}),
                     {"Content-Type": "application/json"})
        wait_until(lambda: self.running() == 1, "the request runs")
        link.close()
        self.cluster.wait_idle()

class Retries(unittest.TestCase):
    def test_both_packages_repeat_what_is_refused(self):
        """Without a worker a request is refused with 503; the packages repeat it, and the cluster starts another worker."""
        with Cluster() as cluster:
            port = cluster.ready["http_port"]
            worker = next(int(line.split()[0]) for line in subprocess.run(["ps", "-eo", "pid,ppid,args"], capture_output=True, text=True).stdout.splitlines()[1:]
                          if int(line.split()[1]) == cluster.process.pid and "fathom-worker" in line)
            options = dict(api_key="any", max_retries=20, timeout=60 * SLOW)
            os.kill(worker, signal.SIGKILL)
            client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", **options)
            self.assertTrue(client.responses.create(model=MODEL, input="Hello", temperature=0).output_text)
            client = anthropic.Anthropic(base_url=f"http://127.0.0.1:{port}", **options)
            self.assertTrue(client.messages.create(model=MODEL, max_tokens=8, messages=[{"role": "user", "content": "Hello"}]).content)


if __name__ == "__main__":
    unittest.main()
