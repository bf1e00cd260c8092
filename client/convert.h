// client/convert.h: converts plain types to messages of inference.proto and back, and gRPC's status
// to absl::Status with detail. Pure functions. FromWire refuses unknown values (DATA_LOSS with the
// name of the field).
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
class Explanation;
}  // namespace fathom::v1

namespace fathom::client {

void ToWire(const GenerateRequest& from, v1::GenerateRequest* to);
void ToWire(const ChatRequest& from, v1::ChatRequest* to);
void ToWire(const Conversation& from, v1::ChatMessages* to);

// nullopt: the message is a KeepAlive.
absl::StatusOr<std::optional<Event>> FromWire(v1::GenerateResponse& from);
Model FromWire(const v1::Model& from);
ClusterStatus FromWire(const v1::ClusterStatus& from);
Explanation FromWire(const v1::Explanation& from);

// Keeps code and message; google.rpc's ErrorInfo, BadRequest and RetryInfo become the ErrorDetail.
absl::Status FromGrpc(const grpc::Status& status);

}  // namespace fathom::client
