#!/usr/bin/env python3
"""gRPC with the published proto (pip install grpcio grpcio-tools). FATHOM_GRPC: host:port of the router; FATHOM_PROTO: the folder proto/."""
import os
import pathlib
import sys
import tempfile

import grpc
from grpc_tools import protoc

proto = os.environ.get("FATHOM_PROTO", str(pathlib.Path(__file__).resolve().parents[2] / "proto"))
with tempfile.TemporaryDirectory() as out:
    assert protoc.main(["protoc", f"-I{proto}", f"--python_out={out}", f"--grpc_python_out={out}", "inference.proto"]) == 0
    sys.path.insert(0, out)
    import inference_pb2 as pb
    import inference_pb2_grpc as pb_grpc

channel = grpc.insecure_channel(os.environ.get("FATHOM_GRPC", "127.0.0.1:8001"), [("grpc.enable_retries", 0)])
router = pb_grpc.InferenceStub(channel)
print("model:", router.GetModel(pb.GetModelRequest()).name)

request = pb.ChatRequest(messages=[pb.ChatMessage(role="user", content="What is the capital of France?")])
request.sampling.temperature = 0
request.stop.max_tokens = 32
print("stream: ", end="")
for event in router.Chat(request, timeout=60):
    kind = event.WhichOneof("event")
    if kind == "tokens":
        print(event.tokens.text, end="", flush=True)
    elif kind == "finish":
        print("\nfinish:", pb.FinishReason.Name(event.finish.reason), event.finish.usage.completion_tokens, "tokens")

request.sampling.temperature = 7
try:
    list(router.Chat(request, timeout=60))
except grpc.RpcError as error:
    print("refused:", error.code().name, error.details())
