#!/usr/bin/env python3
"""A stream that is taken up again: the connection is closed in the middle, and Last-Event-ID names the last event that came.

The text is the same as that of an undisturbed stream. FATHOM_URL: the router.
"""
import json
import os
import urllib.request

URL = os.environ.get("FATHOM_URL", "http://127.0.0.1:8000") + "/v1/completions"
BODY = {"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0.8, "seed": 1, "ignore_eos": True, "stream": True}


def read(last_id=None, events=None):
    """The text and the id of the last event; leaves after `events` events. Without `last_id` from the begin."""
    headers = {"Content-Type": "application/json"} | ({"Last-Event-ID": last_id} if last_id else {})
    text = ""
    with urllib.request.urlopen(urllib.request.Request(URL, json.dumps(BODY).encode(), headers)) as response:
        for line in response:
            line = line.decode().rstrip("\n")
            if line.startswith("id: "):
                last_id = line[4:]
            if line == "data: [DONE]":
                return text, last_id
            if line.startswith("data: "):
                data = json.loads(line[6:])
                if "error" in data:
                    raise RuntimeError(data["error"]["message"])
                text += data["choices"][0]["text"]
                if events is not None and (events := events - 1) == 0:
                    return text, last_id
    raise ConnectionError("the stream broke")


whole, _ = read()
first, last = read(events=5)
print("came before the connection was lost:", json.dumps(first))
rest, _ = read(last)
print("came after it was taken up again:", json.dumps(rest))
assert first + rest == whole, (first, rest, whole)
