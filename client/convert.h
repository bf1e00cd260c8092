// client/convert.h: plain types <-> messages of inference.proto, and gRPC's status -> absl::Status
// with detail. Pure functions. FromWire refuses what it does not know (DATA_LOSS naming the field).
#pragma once

#include <optional>

#include "client/types.h"
#include "common/status.h"

namespace grpc {
class Status;
}
namespace fathom::v1 {
class GenerateRequest;
class ChatRequest;
class ChatMessages;
class GenerateResponse;
class Model;
class ClusterStatus;
}  // namespace fathom::v1

namespace fathom::client {

void ToWire(const GenerateRequest& from, v1::GenerateRequest* to);
void ToWire(const ChatRequest& from, v1::ChatRequest* to);
void ToWire(const Conversation& from, v1::ChatMessages* to);

// nullopt: a KeepAlive.
absl::StatusOr<std::optional<Event>> FromWire(v1::GenerateResponse& from);
Model FromWire(const v1::Model& from);
ClusterStatus FromWire(const v1::ClusterStatus& from);

// Code and message as they are; google.rpc's ErrorInfo, BadRequest and RetryInfo become the
// ErrorDetail.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace fathom::client
