#!/usr/bin/env python3
"""Anthropic's Python package (pip install anthropic) with a Fathom router. FATHOM_URL: the router."""
import os

import anthropic

client = anthropic.Anthropic(base_url=os.environ.get("FATHOM_URL", "http://127.0.0.1:8000"), api_key="not needed")
model = client.models.list().data[0].id
messages = [{"role": "user", "content": "What is the capital of France?"}]

print("tokens:", client.messages.count_tokens(model=model, messages=messages).input_tokens)
answer = client.messages.create(model=model, max_tokens=32, extra_body={"temperature": 0}, system="Be brief.", messages=messages)
print("answer:", answer.content[0].text)
print("usage:", answer.usage.input_tokens + answer.usage.cache_read_input_tokens, "+", answer.usage.output_tokens, answer.stop_reason)

print("stream: ", end="")
with client.messages.stream(model=model, max_tokens=32, extra_body={"temperature": 0}, messages=messages) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print("\nend of the stream:", stream.get_final_message().stop_reason)

try:
    client.messages.create(model=model, max_tokens=32, extra_body={"temperature": 7}, messages=messages)
except anthropic.BadRequestError as error:
    print("refused:", error.body["error"]["message"])
