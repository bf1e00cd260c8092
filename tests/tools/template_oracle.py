#!/usr/bin/env python3
"""Random conversations and the results of Python's Jinja, for templates that use the features of published ones.

Prints lines as `fathom render --vectors` reads them: python3 tests/tools/template_oracle.py TEMPLATE COUNT SEED
"""
import json
import pathlib
import random
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import make_chat_vectors

WORDS = ["a", "be", "Cat", "ein", "Straße", "ΟΔΟΣ", "中文", "🚀", "é", "it's", "12", "3.7", "-4", "x_y", "<think>", "</think>", "\n", "\n\n",
         "  ", "\t", "\"q\"", "\\", "{{ x }}", "%s", "<result>", "</result>", "ﬁn", "\u00a0", "\u2028", "\r\n", "O'Neil", "[b]", "&amp;", "aab"]
TYPES = ["string", "integer", "number", "boolean"]


def text(rng, most=9):
    return "".join(rng.choice(WORDS) + rng.choice(["", " ", " "]) for _ in range(rng.randrange(most)))


def schema(rng, depth=0):
    kind = rng.randrange(5 if depth < 2 else 2)
    if kind == 0:
        return {"type": rng.choice(TYPES), "description": text(rng, 4)}
    if kind == 1:
        return {"type": "string", "enum": [text(rng, 3) for _ in range(rng.randrange(1, 4))]}
    if kind == 2:
        return {"type": "array", "items": schema(rng, depth + 1)}
    if kind == 3:
        return {"type": ["string", "null"]}
    return parameters(rng, depth + 1)


def parameters(rng, depth=0):
    names = rng.sample(["zeta", "Alpha", "beta", "n", "größe"], rng.randrange(4))
    return {"type": "object", "properties": {name: schema(rng, depth) for name in names}, "required": names[:1]}


def value(rng, depth=0):
    kind = rng.randrange(8 if depth < 2 else 6)
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind == 7:
        return {rng.choice(WORDS): value(rng, depth + 1) for _ in range(rng.randrange(3))}
    return [text(rng, 3), rng.randrange(-10**6, 10**6), rng.random() * 10**rng.randrange(-8, 20), None, True, 2**64 + rng.randrange(10**9)][kind]


def message(rng, role):
    out = {"role": role, "content": text(rng)}
    if role == "assistant":
        if rng.random() < 0.3:
            out["reasoning_content"] = text(rng, 4)
        if rng.random() < 0.3:
            out["content"] = rng.choice([None, out["content"]])
            arguments = {rng.choice("abc"): value(rng) for _ in range(rng.randrange(3))}
            out["tool_calls"] = [{"id": f"call_{i}", "type": "function", "function": {
                "name": rng.choice(["look", "find_it"]), "arguments": rng.choice([arguments, json.dumps(arguments)])}}
                for i in range(rng.randrange(1, 3))]
    elif rng.random() < 0.1:
        out["content"] = [{"type": "text", "text": text(rng, 4)} for _ in range(rng.randrange(3))]
    if role == "tool":
        out["tool_call_id"] = "call_0"
    return out


def conversation(rng):
    messages = [message(rng, "system")] if rng.random() < 0.4 else []
    for i in range(rng.randrange(1, 6)):
        if rng.random() < 0.9:
            messages.append(message(rng, ["user", "assistant"][i % 2]))
        else:
            messages.append(message(rng, rng.choice(["user", "assistant", "tool", "system"])))
    return messages


def main():
    path, count, seed = pathlib.Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    rng = random.Random(f"{seed} {path.name}")
    template = make_chat_vectors.environment().from_string(path.read_text(encoding="utf-8"))
    for _ in range(count):
        tools = [{"type": "function", "function": {"name": f"tool_{i}", "description": text(rng, 5), "parameters": parameters(rng)}}
                 for i in range(rng.randrange(1, 4))] if rng.random() < 0.5 else None
        options = {}
        if rng.random() < 0.5:
            options[rng.choice(["thinking", "enable_thinking"])] = rng.random() < 0.5
        messages = conversation(rng)
        row = {"template": path.name, "messages": json.dumps(messages), "tools": tools and json.dumps(tools), "options": options,
               "add_generation_prompt": rng.random() < 0.7, "bos": "<s>", "eos": "</s>"}
        try:
            row["text"] = template.render(messages=messages, tools=tools, documents=None, bos_token="<s>", eos_token="</s>",
                                          add_generation_prompt=row["add_generation_prompt"], **options)
        except Exception as error:  # For any exception of Python, our engine must give an error too.
            row["error"] = f"{type(error).__name__}: {error}"
        print(json.dumps(row))


if __name__ == "__main__":
    main()
