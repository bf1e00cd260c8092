"""Guided output through real processes: every answer follows its grammar, checked by independent validators, and survives kills."""
import json
import os
import random
import re
import signal
import unittest

import grpc
import jsonschema
import openai

from cluster import SLOW, TINY, Cluster, collect, collect_several, pb, request, wait_until

SEED = int(os.environ.get("FATHOM_SEED", "20261201"))
NGRAM = ("--speculative-config", '{"method": "ngram", "num_speculative_tokens": 4, "prompt_lookup_min": 1, "prompt_lookup_max": 3}')


def schema(rng, depth=2):
    """A random JSON Schema whose values are all short."""
    kinds = ["string", "enum", "integer", "boolean", "null", "const", "pattern"] + ["object", "array", "anyOf"] * (depth > 0)
    kind = rng.choice(kinds)
    if kind == "string":
        return {"type": "string", "maxLength": rng.randrange(1, 9)}
    if kind == "enum":
        return {"enum": rng.sample(["red", "green", 7, None, True, "with \"quotes\"", "\u4f60\u597d"], rng.randrange(1, 5))}
    if kind == "integer":
        low = rng.randrange(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randrange(1, 500)}
    if kind == "const":
        return {"const": rng.choice(["fixed", 12, False])}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-f]{2,4}$", "^(yes|no)$", "^[0-9]{4}-[0-9]{2}$"])}
    if kind == "object":
        names = rng.sample(["name", "size", "colour", "tags", "at", "ok"], rng.randrange(1, 4))
        return {"type": "object", "properties": {n: schema(rng, depth - 1) for n in names},
                "required": [n for n in names if rng.random() < 0.7]}
    if kind == "array":
        return {"type": "array", "items": schema(rng, depth - 1), "minItems": rng.randrange(2), "maxItems": rng.randrange(2, 4)}
    if kind == "anyOf":
        return {"anyOf": [schema(rng, depth - 1) for _ in range(2)]}
    return {"type": kind}


def ask(text, guide, value, **kw):
    r = request(text=text, **{"temperature": 0.8, "seed": 5, "max_tokens": 300, **kw})
    if guide == "choice":
        r.guided.choice.texts.extend(value)
    else:
        setattr(r.guided, guide, value)
    return r


class Guided(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.cluster = Cluster("-tp", "2").__enter__()
        cls.port = cls.cluster.ready["http_port"]
        cls.client = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.port}/v1", api_key="any", max_retries=0, timeout=120 * SLOW)

    @classmethod
    def tearDownClass(cls):
        cls.cluster.wait_idle()
        cls.cluster.__exit__()

    def one(self, r):
        result = collect(self.cluster.client.stub.Generate(r, timeout=120 * SLOW))
        self.assertIsNone(result.error)
        return result

    def test_answers_follow_random_schemas(self):
        rng = random.Random(SEED)
        schemas = [schema(rng) for _ in range(32)]
        reqs = [ask(f"Item {i}:", "json_schema", json.dumps(s), temperature=rng.choice([0.0, 0.7, 1.2])) for i, s in enumerate(schemas)]
        results = self.cluster.client.many(reqs)
        stopped = 0
        for s, r, result in zip(schemas, reqs, results):
            self.assertIsNone(result.error, s)
            if result.finish.reason != pb.FINISH_REASON_STOP:
                self.assertEqual(result.finish.reason, pb.FINISH_REASON_LENGTH)
                self.assertEqual(len(result.ids), r.stop.max_tokens)
                continue
            stopped += 1
            try:
                jsonschema.validate(json.loads(result.text), s, jsonschema.Draft202012Validator)
            except (ValueError, jsonschema.ValidationError) as error:
                self.fail(f"FATHOM_SEED={SEED}: {result.text!r} of {s}: {error}")
        self.assertGreaterEqual(stopped, 28, f"FATHOM_SEED={SEED}")
        for i in range(0, len(reqs), 7):  # The batch changes no token.
            self.assertEqual(self.one(reqs[i]).bits(), results[i].bits(), schemas[i])

    def test_every_kind_of_grammar(self):
        for pattern in (r"[A-Z][a-z]{2,6} [0-9]{1,3}", r"(ab|cd){1,4};", r"\u4f60\u597d{1,3}!"):
            text = self.one(ask("Name:", "regex", pattern)).text
            self.assertTrue(re.fullmatch(pattern, text), (pattern, text))
        choices = ["positive", "negative", "neutral \"so so\""]
        texts = {self.one(ask("Mood:", "choice", choices, seed=seed, temperature=2.0)).text for seed in range(6)}
        self.assertLessEqual(texts, set(choices))
        rules = 'root ::= "[" item ("," item){0,3} "]"\nitem ::= [a-c]{1,2} | root'
        text = self.one(ask("List:", "grammar", rules)).text
        self.assertTrue(re.fullmatch(r"[\[\],a-c]+", text) and text.count("[") == text.count("]"), text)
        tag = {"type": "structural_tag", "format": {"type": "tag", "begin": "<call>", "end": "</call>", "content": {
            "type": "json_schema", "json_schema": {"type": "object", "properties": {"x": {"enum": [1, 2]}}, "required": ["x"]}}}}
        text = self.one(ask("Call:", "structural_tag", json.dumps(tag))).text
        self.assertIn(json.loads(re.fullmatch(r"<call>(.*)</call>", text, re.S).group(1))["x"], (1, 2))
        text = self.one(ask("An object:", "json_object", True, max_tokens=400)).text
        self.assertTrue(text.lstrip().startswith("{"), text)

    def test_the_openai_package(self):
        form = {"type": "json_schema", "json_schema": {"name": "person", "strict": True, "schema": {
            "type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 1, "maximum": 99}},
            "required": ["name", "age"], "additionalProperties": False}}}
        options = dict(model=TINY.name, messages=[{"role": "user", "content": "Describe a person."}], seed=3, temperature=0.9,
                       response_format=form, max_completion_tokens=200)
        answer = self.client.chat.completions.create(**options).choices[0]
        self.assertEqual(answer.finish_reason, "stop")
        person = json.loads(answer.message.content)
        self.assertTrue(set(person) == {"name", "age"} and 1 <= person["age"] <= 99 and len(person["name"]) <= 12, person)
        stream = self.client.chat.completions.create(**options, stream=True)
        self.assertEqual("".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices), answer.message.content)
        cut = self.client.chat.completions.create(**{**options, "max_completion_tokens": 3}).choices[0]
        self.assertEqual(cut.finish_reason, "length")
        self.assertTrue(answer.message.content.startswith(cut.message.content))
        for extra in ({"guided_regex": "[0-9]{3}"}, {"structured_outputs": {"regex": "[0-9]{3}"}}):
            answer = self.client.completions.create(model=TINY.name, prompt="Number:", extra_body=extra, max_tokens=20)
            self.assertTrue(re.fullmatch("[0-9]{3}", answer.choices[0].text), answer.choices[0].text)

    def test_refusals_name_the_field(self):
        for extra, field in (({"guided_regex": "a("}, "guided_regex"), ({"guided_json": {"type": "nonsense"}}, "guided_json"),
                             ({"guided_regex": "a", "guided_choice": ["b"]}, "guided_choice"),
                             ({"guided_regex": "a", "min_tokens": 2}, "min_tokens"), ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
                             ({"guided_json": {"type": "string", "maxLength": 10**6}}, "guided_json")):
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client.completions.create(model=TINY.name, prompt="x", extra_body=extra)
            self.assertIn(field, str(caught.exception))
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.cluster.client.stub.Generate(ask("x", "grammar", "root ::= missing"), timeout=60))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.INVALID_ARGUMENT)

    def test_kills_and_two_sequences(self):
        """n = 2; a worker and the scheduler die in the middle: the tokens are those of a quiet run."""
        rules = "root ::= \"{\" pair (\", \" pair){60,80} \"}\"\npair ::= [a-z]{1,5} \": \" [0-9]{1,4}"
        ask_two = lambda: ask("Pairs:", "grammar", rules, n=2, max_tokens=240, logprobs=1, temperature=1.0)
        stub = self.cluster.client.stub
        want = collect_several(stub.Generate(ask_two(), timeout=200), 2)
        self.assertNotEqual(want[0].ids, want[1].ids)
        self.assertGreater(len(want[0].ids), 100)
        for victim in ("fathom-worker", "fathom-scheduler"):
            killed = []

            def kill(results, victim=victim, killed=killed):
                if len(results[1].ids) >= 30 and not killed:
                    killed.append(self.cluster.children(victim)[0])
                    os.kill(killed[0], signal.SIGKILL)

            got = collect_several(stub.Generate(ask_two(), timeout=200), 2, kill)
            self.assertTrue(killed, victim)
            self.assertIsNone(got[0].error, victim)
            self.assertEqual([r.bits() for r in got], [r.bits() for r in want], victim)
            wait_until(lambda: self.cluster.client.admin.GetStatus(pb.GetStatusRequest()).ready, "the cluster is ready again")


class Speculating(unittest.TestCase):
    def test_drafts_change_no_guided_token(self):
        reqs = [ask("one two one two one two", "regex", "(one two )+three", max_tokens=60, seed=i) for i in range(4)]
        reqs += [request(text="one two one two one two", max_tokens=60, temperature=0.0)]
        with Cluster() as c:
            want = c.client.many(reqs)
        with Cluster(*NGRAM) as c:
            got = c.client.many(reqs)
            self.assertEqual([r.bits() for r in got], [r.bits() for r in want])
            self.assertEqual([r.finish.usage.drafted_tokens for r in got[:4]], [0] * 4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
