#!/usr/bin/env python3
"""OpenAI's Python package (pip install openai) with a Fathom router. FATHOM_URL: the router."""
import os

import openai

client = openai.OpenAI(base_url=os.environ.get("FATHOM_URL", "http://127.0.0.1:8000") + "/v1", api_key="not needed")
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "What is the capital of France?"}]

answer = client.chat.completions.create(model=model, messages=messages, temperature=0, max_completion_tokens=32)
print("answer:", answer.choices[0].message.content)
print("usage:", answer.usage.prompt_tokens, "+", answer.usage.completion_tokens)

print("stream: ", end="")
stream = client.chat.completions.create(model=model, messages=messages, temperature=0, max_completion_tokens=32, stream=True,
                                        stream_options={"include_usage": True})
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
    if chunk.usage:
        print("\nusage of the stream:", chunk.usage.prompt_tokens, "+", chunk.usage.completion_tokens)

scored = client.completions.create(model=model, prompt="The capital of France", max_tokens=4, temperature=0, logprobs=2)
for token, logprob in zip(scored.choices[0].logprobs.tokens, scored.choices[0].logprobs.token_logprobs):
    print(f"{token!r}: {logprob:.3f}")

try:
    client.chat.completions.create(model=model, messages=messages, temperature=7)
except openai.BadRequestError as error:
    print(f"refused: {error.param}: {error.body['message']}")
