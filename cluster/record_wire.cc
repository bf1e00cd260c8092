// Converts a request, its record and their parts.
#include <google/protobuf/unknown_field_set.h>

#include <utility>

#include "cluster/wire_parts.h"

namespace fathom {

namespace pb = cluster::v1;

void ToWire(const SessionKey& from, pb::SessionKey* to) {
  to->set_tenant(from.tenant);
  to->set_request_id(from.request_id);
}

SessionKey FromWire(const pb::SessionKey& from) { return {from.tenant(), from.request_id()}; }

static void ToWire(const SequenceRecord& from, pb::SequenceRecord* to) {
  CopyOut(from.ids, to->mutable_ids());
  ListToWire(from.logprobs, to->mutable_logprobs());
  to->set_finish(FinishReasonToWire(from.finish));
}

absl::StatusOr<SequenceRecord> FromWire(const pb::SequenceRecord& from) {
  FATHOM_RETURN_IF_ERROR(
      CheckPerId("SequenceRecord.logprobs", from.logprobs_size(), from.ids_size()));
  SequenceRecord to;
  to.ids = CopyIn(from.ids());
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.logprobs(), &to.logprobs));
  to.finish = FinishReasonFromWire(from.finish());
  if (to.finish == FinishReason::kNone && from.finish() != pb::FINISH_REASON_UNSPECIFIED) {
    return Invalid("SequenceRecord.finish: {} is not a reason this build knows; run one version",
                   static_cast<int>(from.finish()));
  }
  return to;
}

// The spans of all sequences are one list, so that the record of a request with one sequence is
// that of earlier builds.
static void SpansToWire(const std::vector<SequenceRecord>& from, pb::Record* to) {
  for (size_t i = 0; i < from.size(); ++i) {
    for (const FingerprintSpan& span : from[i].fingerprints) {
      pb::FingerprintSpan* there = to->add_fingerprints();
      there->set_position(span.position);
      there->set_fingerprint(span.fingerprint);
      ToWire(span.kind, there->mutable_kind());
      there->set_sequence(static_cast<int32_t>(i));
    }
  }
}

static absl::Status SpansFromWire(const pb::Record& from, Record* to) {
  // Earlier builds leave out sequences without ids, and not their spans.
  if (from.fingerprints_size() > 0) {
    to->sequences.resize(static_cast<size_t>(to->request.sequences));
  }
  for (const pb::FingerprintSpan& span : from.fingerprints()) {
    if (span.sequence() >= to->request.sequences) {
      return Invalid("FingerprintSpan.sequence: {}, the request has n = {}", span.sequence(),
                     to->request.sequences);
    }
    std::vector<FingerprintSpan>& spans =
        to->sequences[static_cast<size_t>(span.sequence())].fingerprints;
    if (!spans.empty() && span.position() < spans.back().position) {
      return Invalid("FingerprintSpan.position: {} after {}; positions do not descend",
                     span.position(), spans.back().position);
    }
    spans.push_back({span.position(), span.fingerprint(), FromWire(span.kind())});
  }
  return absl::OkStatus();
}

absl::Status CheckPerId(const char* field, int logprobs, int ids) {
  if (logprobs == 0 || logprobs == ids) return absl::OkStatus();
  return Invalid("{}: {} log-probabilities for {} ids; one per id or none", field, logprobs, ids);
}

absl::Status CheckKnownFields(const google::protobuf::Message& message) {
  const google::protobuf::UnknownFieldSet& unknown =
      message.GetReflection()->GetUnknownFields(message);
  if (unknown.empty()) return absl::OkStatus();
  return Invalid("{}: field number {} is not known to this build; run builds that are closer",
                 message.GetTypeName(), unknown.field(0).number());
}

absl::Status NotBuilt(const char* field) {
  return Invalid("{}: it is set, and this build cannot do what it asks for; run one version",
                 field);
}

pb::FinishReason FinishReasonToWire(FinishReason reason) {
  switch (reason) {
    case FinishReason::kNone:
      return pb::FINISH_REASON_UNSPECIFIED;
    case FinishReason::kEndToken:
      return pb::FINISH_REASON_END_TOKEN;
    case FinishReason::kStopToken:
      return pb::FINISH_REASON_STOP_TOKEN;
    case FinishReason::kStopString:
      return pb::FINISH_REASON_STOP_STRING;
    case FinishReason::kLength:
      return pb::FINISH_REASON_LENGTH;
    case FinishReason::kDeadline:
      return pb::FINISH_REASON_DEADLINE;
    case FinishReason::kError:
      return pb::FINISH_REASON_ERROR;
  }
  return pb::FINISH_REASON_UNSPECIFIED;
}

FinishReason FinishReasonFromWire(int reason) {
  for (const FinishReason known :
       {FinishReason::kEndToken, FinishReason::kStopToken, FinishReason::kStopString,
        FinishReason::kLength, FinishReason::kDeadline, FinishReason::kError}) {
    if (FinishReasonToWire(known) == reason) return known;
  }
  return FinishReason::kNone;
}

void ToWire(const ComputeKind& from, pb::ComputeKind* to) {
  to->set_model_digest(from.model_digest);
  to->set_dtype(from.dtype);
  to->set_device_kind(from.device_kind);
  to->set_tp(from.tp);
  to->set_recipe(from.recipe);
}

ComputeKind FromWire(const pb::ComputeKind& from) {
  return {from.model_digest(), from.dtype(), from.device_kind(), from.tp(), from.recipe()};
}

void ToWire(const TokenLogprob& from, pb::TokenLogprob* to) {
  to->Clear();
  to->set_id(from.id);
  to->set_logprob(from.logprob);
  CopyOut(from.top_ids, to->mutable_top_ids());
  CopyOut(from.top_logprobs, to->mutable_top_logprobs());
}

absl::StatusOr<TokenLogprob> FromWire(const pb::TokenLogprob& from) {
  if (from.top_ids_size() != from.top_logprobs_size()) {
    return Invalid("TokenLogprob.top_logprobs: {} values for {} top_ids; one per id",
                   from.top_logprobs_size(), from.top_ids_size());
  }
  return TokenLogprob{from.id(), from.logprob(), CopyIn(from.top_ids()),
                      CopyIn(from.top_logprobs())};
}

void ToWire(const PromptLogprobs& from, pb::PromptLogprobs* to) {
  to->Clear();
  to->set_start(from.start);
  ListToWire(from.logprobs, to->mutable_logprobs());
}

absl::StatusOr<PromptLogprobs> FromWire(const pb::PromptLogprobs& from) {
  if (from.start() < 1) {
    return Invalid("PromptLogprobs.start: {} is not at least 1; prompt token 0 has none",
                   from.start());
  }
  PromptLogprobs to;
  to.start = from.start();
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.logprobs(), &to.logprobs));
  return to;
}

void ToWire(const Request& from, pb::Request* to) {
  to->Clear();
  pb::Sampling* sampling = to->mutable_sampling();
  // Default values are left out, so that a peer of an older build takes a request that does not use
  // a field which that build does not have.
  SetSamplingFields(ChangedOnly(from.sampling), sampling);
  for (const auto& [id, bias] : from.sampling.logit_bias) {
    pb::LogitBias* entry = sampling->add_logit_bias();
    entry->set_id(id);
    entry->set_bias(bias);
  }
  to->set_max_tokens(from.stop.max_tokens);
  to->set_min_tokens(from.stop.min_tokens);
  CopyOut(from.stop.end_token_ids, to->mutable_end_token_ids());
  CopyOut(from.stop.stop_token_ids, to->mutable_stop_token_ids());
  if (from.output.logprobs) to->set_logprobs(*from.output.logprobs);
  if (from.output.prompt_logprobs) to->set_prompt_logprobs(*from.output.prompt_logprobs);
  to->set_n(from.sequences);
  if (from.thinking.end < 0) return;  // An older build refuses the field.
  to->mutable_thinking()->set_begin(from.thinking.begin);
  to->mutable_thinking()->set_end(from.thinking.end);
  to->mutable_thinking()->set_budget(from.thinking.budget);
  to->mutable_thinking()->set_opened(from.thinking.opened);
}

absl::StatusOr<Request> FromWire(const pb::Request& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from.sampling()));
  if (from.n() < 1) return Invalid("Request.n: {} is not at least 1", from.n());
  const pb::Sampling& sampling = from.sampling();
  Request to;
  to.sampling = {Resolve(SamplingFieldsOf(sampling)), {}};
  to.sampling.logit_bias.reserve(sampling.logit_bias_size());
  for (const pb::LogitBias& entry : sampling.logit_bias()) {
    if (!to.sampling.logit_bias.empty() && entry.id() <= to.sampling.logit_bias.back().first) {
      return Invalid("Request.sampling.logit_bias: id {} after id {}; ids ascend, each once",
                     entry.id(), to.sampling.logit_bias.back().first);
    }
    to.sampling.logit_bias.emplace_back(entry.id(), entry.bias());
  }
  to.stop = {from.max_tokens(), from.min_tokens(), CopyIn(from.end_token_ids()),
             CopyIn(from.stop_token_ids())};
  if (from.has_logprobs()) to.output.logprobs = from.logprobs();
  if (from.has_prompt_logprobs()) to.output.prompt_logprobs = from.prompt_logprobs();
  to.sequences = from.n();
  if (!from.has_thinking()) return to;
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from.thinking()));
  to.thinking = {from.thinking().begin(), from.thinking().end(), from.thinking().budget(),
                 from.thinking().opened()};
  return to;
}

void ToWire(const Grammar& from, pb::Grammar* to) {
  to->set_digest(from.digest);
  to->set_vocabulary(from.vocabulary);
  to->set_bytes(from.bytes);
}

absl::StatusOr<GrammarRef> FromWire(const pb::Grammar& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  if (from.digest().empty()) return Invalid("Grammar.digest: missing");
  return GrammarRef({from.digest(), from.vocabulary(), from.bytes()});
}

void ToWire(const Record& from, pb::Record* to) {
  to->Clear();
  ToWire(from.key, to->mutable_key());
  to->set_model(from.model);
  ToWire(from.request, to->mutable_request());
  to->set_seed(from.seed);
  CopyOut(from.prompt_ids, to->mutable_prompt_ids());
  ListToWire(from.sequences, to->mutable_sequences());
  SpansToWire(from.sequences, to);
  ListToWire(from.prompt_logprobs, to->mutable_prompt_logprobs());
  to->set_priority(from.priority);
  if (from.grammar) ToWire(*from.grammar, to->mutable_grammar());
  // Left out when it is the default: a peer of an older build refuses a record with it.
  if (from.cache == CacheParams{}) return;
  to->mutable_cache()->set_skip(from.cache.skip);
  to->mutable_cache()->set_salt(from.cache.salt);
}

absl::StatusOr<Record> FromWire(const pb::Record& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  if (!from.has_key()) return Invalid("Record.key: missing");
  if (!from.has_request()) return Invalid("Record.request: missing");
  Record to;
  to.key = FromWire(from.key());
  to.model = from.model();
  FATHOM_ASSIGN_OR_RETURN(to.request, FromWire(from.request()));
  if (from.sequences_size() != 0 && from.sequences_size() != to.request.sequences) {
    return Invalid("Record.sequences: {} of them, the request has n = {}; all or none",
                   from.sequences_size(), to.request.sequences);
  }
  to.seed = from.seed();
  to.prompt_ids = CopyIn(from.prompt_ids());
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.sequences(), &to.sequences));
  FATHOM_RETURN_IF_ERROR(SpansFromWire(from, &to));
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.prompt_logprobs(), &to.prompt_logprobs));
  to.priority = from.priority();
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from.cache()));
  to.cache = {from.cache().skip(), from.cache().salt()};
  if (from.has_grammar()) {
    FATHOM_ASSIGN_OR_RETURN(to.grammar, FromWire(from.grammar()));
  }
  return to;
}

}  // namespace fathom
