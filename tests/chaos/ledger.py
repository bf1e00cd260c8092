"""tests/chaos/ledger.py: the requests of a client, its state of an answer, and the rule that each token comes once and in order.

It is an independent client: it uses only the documented protocol (docs/API.md). Tokens that come again are compared with those that it
already has; our own client drops them without a comparison.
"""
import dataclasses
import pathlib
import random
import struct
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from cluster import goldens, pb, request  # noqa: E402

PROMPTS = [g["prompt_ids"] for g in goldens() if len(g["prompt_ids"]) < 120]
TEXTS = ["Once upon a time", "The capital of France is", "def fib(n):", "List three colours:", "北京是", "In 1969 the first"]
QUESTIONS = ["What is the capital of France?", "Count to twenty.", "Write a poem about rain.", "Who was Ada Lovelace?", "你好!", "2 + 2?"]


class Fault(Exception):
    """An error that must never happen: a wrong, missing or repeated token, an early end, a refused repetition."""


@dataclasses.dataclass
class Work:
    """One request of the pool, when the client leaves it, and its undisturbed answer."""
    number: int
    kind: str
    message: object  # A GenerateRequest or ChatRequest.
    leaves: list     # Token counts at which the client cancels and comes back with Resume.
    want: object = None  # An Answer.


def _chat(rng, **kw):
    message = pb.ChatRequest()
    message.messages.add(role="user", content=rng.choice(QUESTIONS))
    plain = request(**kw)
    message.sampling.CopyFrom(plain.sampling)
    message.stop.CopyFrom(plain.stop)
    message.output.CopyFrom(plain.output)
    return message


def make_pool(seed, count, tokens_max):
    """`count` requests with all kinds of parameters that change an answer; each has a seed of its own."""
    rng = random.Random(f"pool {seed}")
    pool = []
    for number in range(count):
        sampled = number % 2 == 1
        kw = dict(max_tokens=rng.randrange(40, tokens_max), temperature=rng.choice([0.7, 1.0, 1.3]) if sampled else 0.0, seed=rng.randrange(2**63),
                  ignore_eos=rng.random() < 0.8)
        words = ["sampled" if sampled else "greedy"]
        if sampled:
            kw.update(top_p=rng.choice([1.0, 0.9]), top_k=rng.choice([0, 50]), repetition_penalty=rng.choice([1.0, 1.2]),
                      frequency_penalty=rng.choice([0.0, 0.5]))
        if rng.random() < 0.5:
            kw.update(logprobs=rng.choice([0, 3]))
            words.append("logprobs")
        if rng.random() < 0.3:
            kw.update(strings=rng.sample([" the", "e ", ".", "\n", "tion", "on"], 2))
            if rng.random() < 0.5:
                kw.update(min_tokens=rng.randrange(5, 40))
            words.append("stop strings")
        if rng.random() < 0.2:
            kw.update(keep_special=True)
        chat = number % 3 == 2
        if not chat and rng.random() < 0.4:
            kw.update(prompt_logprobs=rng.choice([0, 2]))
            words.append("prompt logprobs")
        if chat:
            message = _chat(rng, **kw)
        elif rng.random() < 0.3:
            message = request(text=rng.choice(TEXTS), **kw)
        else:
            message = request(ids=list(rng.choice(PROMPTS))[: rng.randrange(3, 100)], **kw)
        leaves = sorted(rng.sample(range(1, 40), rng.choice([1, 2]))) if number % 4 == 3 else []
        if leaves:
            words.append("leaves")
        pool.append(Work(number, ("chat " if chat else "generate ") + ", ".join(words), message, leaves))
    return pool


def _bits(logprob):
    """A value that is equal if and only if all bits are equal."""
    values = [logprob.logprob, *logprob.top_logprobs]
    return (logprob.id, tuple(logprob.top_ids), struct.pack(f"<{len(values)}f", *values))


class Answer:
    """The client's state of one answer, over all of its streams."""

    def __init__(self):
        self.started = None
        self.ids = []
        self.logprobs = []
        self.prompt_logprobs = []
        self.text = ""
        self.reasoning = ""
        self.finish = None
        self._held = (0, 0)  # Lengths of the text and reasoning that came with ids; a resumed stream's text begins there.

    def begin_stream(self, resume):
        """A new stream begins, from the start or from next_position()."""
        self._at = len(self.ids) if resume else 0
        self._text_at, self._reasoning_at = self._held if resume else (0, 0)
        self._prompt_at = 0
        self._stream_started = False
        self._ended = resume and self.finish is not None

    def next_position(self):
        return len(self.ids) + (self.finish is not None)

    def take(self, message):
        """Applies one event of the current stream and returns the number of new tokens. Fault: the event is impossible."""
        event = message.WhichOneof("event")
        if event == "keep_alive":
            return 0
        if event == "started":
            return self._take_started(message.started)
        if not self._stream_started:
            raise Fault(f"{event} before Started")
        if event == "prompt_logprobs":
            return self._take_prompt(message.prompt_logprobs)
        if event == "tokens":
            return self._take_tokens(message.tokens)
        return self._take_finish(message.finish)

    def _take_started(self, started):
        if self._stream_started:
            raise Fault("Started twice in a stream")
        self._stream_started = True
        told = (started.request_id, started.seed, started.prompt_tokens)
        if self.started not in (None, told):
            raise Fault(f"Started told {self.started} first and {told} now")
        self.started = told
        return 0

    @staticmethod
    def _merge(held, at, new, what):
        """Applies `new` at index `at`: the known part must be equal, the rest is appended."""
        known = held[at:at + len(new)]
        if list(known) != list(new[:len(known)]):
            raise Fault(f"{what} differ from what came before, from {at}: {new[:len(known)]} instead of {list(known)}")
        return new[len(known):]

    def _take_prompt(self, prompt):
        if prompt.start != self._prompt_at + 1:
            raise Fault(f"prompt log-probabilities from {prompt.start} where {self._prompt_at + 1} is next")
        said = [_bits(p) for p in prompt.logprobs]
        self.prompt_logprobs += self._merge(self.prompt_logprobs, self._prompt_at, said, "prompt log-probabilities")
        self._prompt_at += len(said)
        return 0

    def _take_tokens(self, tokens):
        if self._ended:
            raise Fault("tokens after the end")
        if tokens.position != self._at:
            raise Fault(f"tokens at position {tokens.position} where {self._at} is next")
        ids = list(tokens.ids)
        if len(tokens.logprobs) not in (0, len(ids)):
            raise Fault(f"{len(tokens.logprobs)} log-probabilities for {len(ids)} tokens")
        new = self._merge(self.ids, self._at, ids, "tokens")
        if tokens.logprobs:
            said = [_bits(p) for p in tokens.logprobs]
            self.logprobs += self._merge(self.logprobs, self._at, said, "log-probabilities")
        if self.finish is not None and new:
            raise Fault(f"{len(new)} tokens beyond the end that was told")
        self.ids += new
        self._at += len(ids)
        self.text += self._merge(self.text, self._text_at, tokens.text, "text")
        self._text_at += len(tokens.text)
        self.reasoning += self._merge(self.reasoning, self._reasoning_at, tokens.reasoning, "reasoning")
        self._reasoning_at += len(tokens.reasoning)
        if ids and self._at == len(self.ids):
            self._held = (self._text_at, self._reasoning_at)
        return len(new)

    def _take_finish(self, finish):
        if self._ended:
            raise Fault("a second end in one stream")
        if finish.position != self._at or finish.position != len(self.ids):
            raise Fault(f"the end at {finish.position}, after {self._at} tokens of this stream and {len(self.ids)} in all")
        self._ended = True
        if self.finish is not None and self._end_of(finish) != self._end_of(self.finish):
            raise Fault(f"another end: {self._end_of(finish)}, {self._end_of(self.finish)} before")
        self.finish = finish
        return 0

    @staticmethod
    def _end_of(finish):
        stop = finish.WhichOneof("stop")
        return (finish.reason, stop, getattr(finish, stop) if stop else None, finish.position, finish.usage.prompt_tokens,
                finish.usage.completion_tokens)

    def differs_from(self, want):
        """The difference from the undisturbed answer; None: there is none."""
        for what in ("ids", "logprobs", "prompt_logprobs", "text", "reasoning"):
            got, expected = getattr(self, what), getattr(want, what)
            if got == expected:
                continue
            at = next((i for i, (a, b) in enumerate(zip(got, expected)) if a != b), min(len(got), len(expected)))
            return f"{what}: {len(got)} against {len(expected)}, the first difference is at {at}"
        if self.started[1:] != want.started[1:]:
            return f"Started: {self.started}, {want.started}"
        if self._end_of(self.finish) != self._end_of(want.finish):
            return f"end: {self._end_of(self.finish)}, {self._end_of(want.finish)}"
        return None
