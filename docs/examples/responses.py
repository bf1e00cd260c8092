#!/usr/bin/env python3
"""OpenAI's responses (pip install openai) with a Fathom router: the conversation is sent whole each time. FATHOM_URL: the router."""
import os

import openai

client = openai.OpenAI(base_url=os.environ.get("FATHOM_URL", "http://127.0.0.1:8000") + "/v1", api_key="not needed")
conversation = [{"role": "user", "content": "My name is Ada."}]

first = client.responses.create(input=conversation, instructions="Be brief.", temperature=0, max_output_tokens=32, store=False)
print("answer:", first.output_text)

# The server keeps nothing: the items of the answer go back with the next question.
conversation += [item.to_dict() for item in first.output] + [{"role": "user", "content": "What is my name?"}]
for event in client.responses.create(input=conversation, temperature=0, max_output_tokens=32, store=False, stream=True):
    if event.type == "response.output_text.delta":
        print(event.delta, end="", flush=True)
    elif event.type in ("response.completed", "response.incomplete"):
        print("\nend of the stream:", event.response.status, event.response.usage.output_tokens, "tokens")
