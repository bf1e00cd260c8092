"""Tool calls, reasoning and the thinking budget of a real cluster, through the unmodified openai package and over gRPC."""
import json
import os
import signal
import unittest

import openai

from cluster import SLOW, TINY, Cluster, collect, collect_several, goldens, pb, wait_until

CASES = {g["name"]: g for g in goldens()}
MODEL = TINY.name
THINK_END = 6  # </think> of the bundled model.


def thinking_chat(**fields):
    """A ChatRequest of the golden answer that thinks."""
    chat = pb.ChatRequest(messages=[pb.ChatMessage(**m) for m in CASES["think"]["messages"]], enable_thinking=True)
    chat.sampling.temperature = fields.pop("temperature", 0)
    chat.stop.max_tokens = 300
    for name, value in fields.items():
        setattr(chat.thinking if name == "token_budget" else chat.sampling, name, value)
    return chat


class Tools(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("-tp", "2").__enter__()
        cls.client = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.cluster.ready['http_port']}/v1", api_key="any", max_retries=0, timeout=120 * SLOW)
        cls.stub = cls.cluster.client.stub
        cls.golden = CASES["tool"]
        cls.asked = dict(model=MODEL, messages=cls.golden["messages"], tools=cls.golden["tools"], temperature=0)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()

    def chat(self, **fields):
        return collect(self.stub.Chat(thinking_chat(**fields), timeout=120 * SLOW))

    # ---- Tool calls

    def test_a_call_and_its_result(self):
        choice = self.client.chat.completions.create(**self.asked).choices[0]
        self.assertEqual(choice.finish_reason, "tool_calls")
        self.assertIsNone(choice.message.content)
        call = choice.message.tool_calls[0]
        self.assertEqual(len(choice.message.tool_calls), 1)
        self.assertEqual((call.type, call.function.name, call.function.arguments), ("function", "get_weather", '{"city": "Oslo"}'))
        # The message goes back as it came, with the tool's result.
        result = {"role": "tool", "tool_call_id": call.id, "content": json.dumps({"city": "Oslo", "weather": "rainy", "temperature": 7})}
        turn = self.client.chat.completions.create(**{**self.asked, "messages": self.golden["messages"] + [choice.message, result]})
        self.assertEqual(turn.choices[0].finish_reason, "stop")
        self.assertIsNone(turn.choices[0].message.tool_calls)
        self.assertIn("7", turn.choices[0].message.content)  # The temperature is only in the result.

    def test_a_stream_has_the_same_call(self):
        options = dict(self.asked, extra_body={"request_id": "tools-stream"})
        whole = self.client.chat.completions.create(**options).choices[0].message.tool_calls[0]
        name, arguments, ids, pieces, finish = "", "", set(), 0, None
        for chunk in self.client.chat.completions.create(**options, stream=True):
            for choice in chunk.choices:
                self.assertFalse(choice.delta.content)
                finish = choice.finish_reason or finish
                for call in choice.delta.tool_calls or []:
                    self.assertEqual(call.index, 0)
                    ids |= {call.id} - {None}
                    name += call.function.name or ""
                    arguments += call.function.arguments or ""
                    pieces += 1
        self.assertEqual((name, arguments, ids, finish), (whole.function.name, whole.function.arguments, {whole.id}, "tool_calls"))
        # Over gRPC: the same id, and the same bytes.
        chat = pb.ChatRequest(messages=[pb.ChatMessage(**m) for m in self.golden["messages"]], tools_json=json.dumps(self.golden["tools"]), request_id="tools-stream")
        chat.sampling.temperature = 0
        deltas, finish = [], None
        for message in self.stub.Chat(chat, timeout=120 * SLOW):
            self.assertEqual(message.tokens.text, "")
            deltas += message.tokens.tool_calls
            finish = message.finish if message.HasField("finish") else finish
        self.assertEqual(("".join(d.name for d in deltas), "".join(d.arguments for d in deltas)), (name, arguments))
        self.assertEqual([(d.end, d.whole) for d in deltas][-1], (True, True))
        self.assertEqual("".join(d.id for d in deltas), whole.id)
        self.assertTrue(finish.calls_tools)

    def test_an_answer_that_is_cut(self):
        # In the arguments: the call is begun, and the answer has its length's end.
        choice = self.client.chat.completions.create(**self.asked, max_tokens=len(self.golden["output_ids"]) - 4).choices[0]
        self.assertEqual(choice.finish_reason, "length")
        self.assertTrue('{"city": "Oslo"}'.startswith(choice.message.tool_calls[0].function.arguments))

    def test_choices(self):
        plain = self.client.chat.completions.create(**self.asked, tool_choice="none").choices[0]
        self.assertEqual((plain.finish_reason, plain.message.tool_calls), ("stop", None))
        self.assertEqual(plain.message.content, self.golden["text"])
        # A tool that the request does not have is not called.
        other = [{"type": "function", "function": {**self.golden["tools"][0]["function"], "name": "other"}}]
        answer = self.client.chat.completions.create(**{**self.asked, "tools": other}).choices[0]
        for call in answer.message.tool_calls or []:
            self.assertEqual(call.function.name, "other")
        several = self.client.chat.completions.create(**self.asked, n=2, seed=1)
        self.assertEqual(len({c.message.tool_calls[0].id for c in several.choices}), 2)
        self.assertEqual({c.finish_reason for c in several.choices}, {"tool_calls"})

    def test_refusals(self):
        def refused(param, **options):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client.chat.completions.create(**{**self.asked, **options})
            self.assertEqual(caught.exception.param, param, caught.exception)

        refused("tools[0].function.name", tools=[{"type": "function", "function": {}}])
        refused("tools[0].function.name", tools=[{"type": "function", "function": {"name": "a b"}}])
        refused("tool_choice", tool_choice={"type": "function", "function": {"name": "nobody"}})
        refused("tool_choice", tools=[], tool_choice="required")
        refused("reasoning_effort", reasoning_effort="huge")
        refused("thinking_token_budget", extra_body={"thinking_token_budget": -1})

    def test_a_resumed_stream_has_the_rest_of_a_call(self):
        chat = pb.ChatRequest(messages=[pb.ChatMessage(**m) for m in self.golden["messages"]], tools_json=json.dumps(self.golden["tools"]))
        chat.sampling.temperature = 0
        parts = []  # After each message: the tokens that the client has, and its deltas.
        for message in self.stub.Chat(chat, timeout=120 * SLOW):
            if message.HasField("started"):
                request_id = message.started.request_id
            elif message.HasField("tokens"):
                parts.append((message.tokens.position + len(message.tokens.ids), list(message.tokens.tool_calls)))

        def text(deltas):
            return "".join(d.name + d.arguments for d in deltas)

        whole = text(d for _, deltas in parts for d in deltas)
        self.assertEqual(whole, 'get_weather{"city": "Oslo"}')
        for position in [0] + [p for p, _ in parts]:
            stream = self.stub.Resume(pb.ResumeRequest(request_id=request_id, next_positions=[position]), timeout=60 * SLOW)
            messages = list(stream)
            rest = [d for m in messages for d in m.tokens.tool_calls]
            self.assertEqual(text([d for p, deltas in parts if p <= position for d in deltas] + rest), whole, position)
            self.assertTrue(messages[-1].finish.calls_tools)  # Also if the client had the call before.

    # ---- Thinking

    def test_the_budget_is_exact(self):
        free = self.chat()
        thinking = free.ids.index(THINK_END)
        self.assertGreater(thinking, 25)
        self.assertLess(thinking, 299)
        for budget in (0, 1, 7, 25, thinking - 1, thinking, thinking + 1, 4000):
            answer = self.chat(token_budget=budget)
            if budget >= thinking:
                self.assertEqual(answer.ids, free.ids, budget)
                continue
            self.assertEqual(answer.ids[:budget + 1], free.ids[:budget] + [THINK_END], budget)
            self.assertEqual(answer.ids, self.chat(token_budget=budget).ids)
            http = self.client.chat.completions.create(model=MODEL, messages=CASES["think"]["messages"], temperature=0, max_tokens=300, extra_body={
                "thinking_token_budget": budget, "chat_template_kwargs": {"enable_thinking": True}, "return_token_ids": True}).choices[0]
            self.assertEqual(http.token_ids, answer.ids)
            self.assertEqual(getattr(http.message, "reasoning_content", None) or "", answer.reasoning)
            self.assertEqual(http.message.content, answer.text)

    def test_efforts(self):
        def ask(**options):
            return self.client.chat.completions.create(model=MODEL, messages=CASES["think"]["messages"], temperature=0, **options).choices[0].message

        self.assertFalse(getattr(ask(reasoning_effort="none"), "reasoning_content", None))
        for effort in ("low", "medium", "high"):  # The answer thinks for less than 1,024 tokens.
            self.assertEqual(ask(reasoning_effort=effort).reasoning_content + "5200", CASES["think"]["text"])

    def test_every_sequence_has_its_budget(self):
        chat = thinking_chat(temperature=0.9, seed=5, n=3, token_budget=9)
        results = collect_several(self.stub.Chat(chat, timeout=120 * SLOW), 3)
        for index, result in enumerate(results):
            self.assertIn(THINK_END, result.ids[:10], index)
        alone = self.chat(temperature=0.9, seed=5, token_budget=9)
        self.assertEqual(alone.ids, results[0].ids)

    def test_logprobs_of_a_forced_token(self):
        chat = thinking_chat(token_budget=5)
        chat.output.logprobs = 2
        answer = collect(self.stub.Chat(chat, timeout=120 * SLOW))
        self.assertEqual(answer.logprobs[5].id, THINK_END)
        self.assertNotIn(THINK_END, answer.logprobs[5].top_ids)
        self.assertLess(answer.logprobs[5].logprob, answer.logprobs[5].top_logprobs[-1])

    def test_a_killed_worker_changes_nothing(self):
        for budget in (20, 60):
            options = dict(temperature=0.8, seed=11, token_budget=budget)
            want = self.chat(**options)
            killed = []

            def kill(result, killed=killed):
                if not killed and len(result.ids) >= 3:
                    os.kill(self.cluster.children("fathom-worker")[0], signal.SIGKILL)
                    killed.append(len(result.ids))

            chat = thinking_chat(**options)
            chat.cache.salt = f"killed {budget}"
            got = collect(self.stub.Chat(chat, timeout=120 * SLOW), kill)
            self.assertIsNone(got.error)
            self.assertTrue(killed)
            self.assertEqual(got.ids, want.ids)
            self.assertIn(THINK_END, got.ids[:budget + 1])
            wait_until(lambda: self.cluster.client.admin.GetStatus(pb.GetStatusRequest()).ready, "the group is back", 60)


class Speculation(unittest.TestCase):
    def test_drafts_change_nothing(self):
        options = [dict(token_budget=b, temperature=t, seed=3) for b in (0, 4, 30) for t in (0, 0.7)]
        ids = []
        for args in ([], ["--speculative-method", "ngram"]):
            with Cluster(*args) as cluster:
                ids.append([collect(cluster.client.stub.Chat(thinking_chat(**o), timeout=120 * SLOW)).ids for o in options])
        self.assertEqual(ids[0], ids[1])
        for option, got in zip(options, ids[0]):
            self.assertIn(THINK_END, got[:option["token_budget"] + 1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
