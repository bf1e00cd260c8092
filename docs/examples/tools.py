#!/usr/bin/env python3
"""A tool call, its result and the final answer, with OpenAI's Python package. FATHOM_URL: the router."""
import json
import os

import openai

client = openai.OpenAI(base_url=os.environ.get("FATHOM_URL", "http://127.0.0.1:8000") + "/v1", api_key="not needed")
model = client.models.list().data[0].id
tools = [{"type": "function", "function": {
    "name": "get_weather", "description": "Get the current weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
messages = [{"role": "user", "content": "What is the weather in Oslo?"}]

# The arguments come as the model writes them.
calls = {}
for chunk in client.chat.completions.create(model=model, messages=messages, tools=tools, temperature=0, stream=True):
    for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
        kept = calls.setdefault(call.index, {"id": call.id, "name": call.function.name, "arguments": ""})
        kept["arguments"] += call.function.arguments or ""
for call in calls.values():
    print("call:", call["name"], json.loads(call["arguments"]))

# The calls go back to the model with a result for each of them.
messages.append({"role": "assistant", "content": None, "tool_calls": [
    {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls.values()]})
for call in calls.values():
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps({"weather": "rainy", "temperature": 7})})
answer = client.chat.completions.create(model=model, messages=messages, tools=tools, temperature=0)
print("answer:", answer.choices[0].message.content)

# Thinking comes apart from the answer, here with at most 20 tokens of it.
answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": "What is 4821 + 379?"}], temperature=0,
                                        reasoning_effort="low", extra_body={"thinking_token_budget": 20})
print("thinking:", answer.choices[0].message.reasoning_content)
print("answer:", answer.choices[0].message.content)
