// cluster/wire.h: the one place where the cluster's plain types (cluster/request.h, cluster/plan.h)
// and their messages (cluster.proto) are turned into each other. Pure functions; a ToWire replaces
// what the message held, so that one may be used again and again. A FromWire checks what a peer may
// get wrong (enums out of range, missing oneofs, unequal lengths) and answers INVALID_ARGUMENT
// naming the message and field; it does not check what the receiver's own state decides (terms,
// slots, positions).
#pragma once

#include "cluster/plan.h"
#include "cluster/request.h"
#include "common/status.h"

namespace google::protobuf {
class Message;
}  // namespace google::protobuf

namespace fathom::cluster::v1 {
class Record;
class StepPlan;
class StepResult;
class TokenLogprob;
class PromptLogprobs;
class Request;
class SessionKey;
class ComputeKind;
}  // namespace fathom::cluster::v1

namespace fathom {

void ToWire(const Request& from, cluster::v1::Request* to);
void ToWire(const Record& from, cluster::v1::Record* to);
void ToWire(const StepPlan& from, cluster::v1::StepPlan* to);
void ToWire(const StepResult& from, cluster::v1::StepResult* to);
void ToWire(const TokenLogprob& from, cluster::v1::TokenLogprob* to);
void ToWire(const PromptLogprobs& from, cluster::v1::PromptLogprobs* to);

void ToWire(const ComputeKind& from, cluster::v1::ComputeKind* to);
ComputeKind FromWire(const cluster::v1::ComputeKind& from);

absl::StatusOr<Request> FromWire(const cluster::v1::Request& from);
absl::StatusOr<Record> FromWire(const cluster::v1::Record& from);
absl::StatusOr<StepPlan> FromWire(const cluster::v1::StepPlan& from);
absl::StatusOr<StepResult> FromWire(const cluster::v1::StepResult& from);
absl::StatusOr<TokenLogprob> FromWire(const cluster::v1::TokenLogprob& from);
absl::StatusOr<PromptLogprobs> FromWire(const cluster::v1::PromptLogprobs& from);

// INVALID_ARGUMENT naming the message and the field's number when the peer's build set a field that
// this one does not know: proto3 would drop it silently, and it may decide tokens. FromWire checks
// what decides them by this.
absl::Status CheckKnownFields(const google::protobuf::Message& message);

// Enum numbers on the wire. REQUIRES for ToWire*: nothing. FromWire: kNone for unknown numbers.
int FinishReasonToWire(FinishReason reason);
FinishReason FinishReasonFromWire(int reason);

}  // namespace fathom
