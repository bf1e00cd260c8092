// cluster/wire_parts.h: converts the parts of a stream's messages. Only cluster/wire.h's
// implementation includes this header: these FromWire functions do not check ranges, because the
// whole message was checked before. Pure functions; a ToWire replaces the content of the message.
#pragma once

#include <google/protobuf/repeated_field.h>
#include <google/protobuf/repeated_ptr_field.h>

#include <utility>
#include <vector>

#include "cluster.pb.h"
#include "cluster/messages.h"
#include "cluster/plan.h"
#include "cluster/request.h"
#include "cluster/request_timings.h"
#include "cluster/wire.h"
#include "common/status.h"

namespace fathom {

// ---- record_wire.cc (wire.h has ComputeKind) ----

void ToWire(const SessionKey& from, cluster::v1::SessionKey* to);
void ToWire(const TokenLogprob& from, cluster::v1::TokenLogprob* to);
void ToWire(const PromptLogprobs& from, cluster::v1::PromptLogprobs* to);
void ToWire(const Request& from, cluster::v1::Request* to);
void ToWire(const Grammar& from, cluster::v1::Grammar* to);
void ToWire(const Record& from, cluster::v1::Record* to);

SessionKey FromWire(const cluster::v1::SessionKey& from);
absl::StatusOr<TokenLogprob> FromWire(const cluster::v1::TokenLogprob& from);
absl::StatusOr<PromptLogprobs> FromWire(const cluster::v1::PromptLogprobs& from);
absl::StatusOr<Request> FromWire(const cluster::v1::Request& from);
absl::StatusOr<SequenceRecord> FromWire(const cluster::v1::SequenceRecord& from);
absl::StatusOr<GrammarRef> FromWire(const cluster::v1::Grammar& from);
absl::StatusOr<Record> FromWire(const cluster::v1::Record& from);

cluster::v1::FinishReason FinishReasonToWire(FinishReason reason);
// Returns kNone for a number that this build does not know.
FinishReason FinishReasonFromWire(int reason);

// INVALID_ARGUMENT, with the message's name and the field's number, if the peer's build set a field
// that this build does not know. proto3 would drop such a field silently, although it may decide
// tokens. FromWire calls this function for the messages that decide tokens.
absl::Status CheckKnownFields(const google::protobuf::Message& message);
// INVALID_ARGUMENT: a field is set that is for later use. No plain struct has such a field, so a
// FromWire that passed it over would do something else than the sender asked for.
absl::Status NotBuilt(const char* field);
// Checks that there is one log-probability for each id, or none.
absl::Status CheckPerId(const char* field, int logprobs, int ids);

// ---- hello_wire.cc ----

// INVALID_ARGUMENT: a message of `stream` is empty or of a kind that this build does not know.
absl::Status UnknownMessage(const char* stream);

void ToWire(const StartMark& from, cluster::v1::StartMark* to);
std::vector<StartMark> MarksFromWire(
    const google::protobuf::RepeatedPtrField<cluster::v1::StartMark>& from);

void ToWire(const EngineLimits& from, cluster::v1::WorkerLimits* to);
void ToWire(const Hello& from, cluster::v1::Hello* to);
void ToWire(const Heartbeat& from, cluster::v1::Heartbeat* to);

EngineLimits FromWire(const cluster::v1::WorkerLimits& from);
absl::StatusOr<Hello> FromWire(const cluster::v1::Hello& from);
Heartbeat FromWire(const cluster::v1::Heartbeat& from);

// ---- timings_wire.cc ----

void ToWire(const RequestTimings& from, cluster::v1::Timings* to);
RequestTimings FromWire(const cluster::v1::Timings& from);

// ---- step_wire.cc ----

void ToWire(const StepPlan& from, cluster::v1::StepPlan* to);
void ToWire(const StepResult& from, cluster::v1::StepResult* to);
absl::StatusOr<BlockCopy> FromWire(const cluster::v1::BlockCopy& from);
absl::StatusOr<Admit> FromWire(const cluster::v1::Admit& from);
absl::StatusOr<Extend> FromWire(const cluster::v1::Extend& from);
absl::StatusOr<Chunk> FromWire(const cluster::v1::Chunk& from);
absl::StatusOr<ResultRow> FromWire(const cluster::v1::ResultRow& from);
absl::StatusOr<StepPlan> FromWire(const cluster::v1::StepPlan& from);
absl::StatusOr<StepResult> FromWire(const cluster::v1::StepResult& from);

// ---- Lists. They follow all FromWire, because the template would not find later ones ----

template <class Int>
void CopyOut(const std::vector<Int>& from, google::protobuf::RepeatedField<Int>* to) {
  to->Add(from.begin(), from.end());
}

template <class Int>
std::vector<Int> CopyIn(const google::protobuf::RepeatedField<Int>& from) {
  return {from.begin(), from.end()};
}

template <class From, class To>
void ListToWire(const std::vector<From>& from, google::protobuf::RepeatedPtrField<To>* to) {
  to->Reserve(static_cast<int>(from.size()));
  for (const From& item : from) ToWire(item, to->Add());
}

// Appends the plain value of each message; stops at the first one that cannot be converted.
template <class From, class To>
absl::Status ListFromWire(const google::protobuf::RepeatedPtrField<From>& from,
                          std::vector<To>* to) {
  to->reserve(from.size());
  for (const From& item : from) {
    FATHOM_ASSIGN_OR_RETURN(To value, FromWire(item));
    to->push_back(std::move(value));
  }
  return absl::OkStatus();
}

}  // namespace fathom
