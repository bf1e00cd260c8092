#include "cluster/wire.h"

#include <google/protobuf/unknown_field_set.h>

#include <utility>

#include "cluster.pb.h"

namespace fathom {

namespace pb = cluster::v1;

// Parts of the messages below. Static instead of unnamed, and declared here, so that the list
// templates find them beside the public ones.
static absl::StatusOr<SequenceRecord> FromWire(const pb::SequenceRecord& from);
static absl::StatusOr<BlockCopy> FromWire(const pb::BlockCopy& from);
static absl::StatusOr<Admit> FromWire(const pb::Admit& from);
static absl::StatusOr<Extend> FromWire(const pb::Extend& from);
static absl::StatusOr<Chunk> FromWire(const pb::Chunk& from);
static absl::StatusOr<ResultRow> FromWire(const pb::ResultRow& from);

namespace {

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

// Appends each message turned into a plain value; stops at the first that cannot be.
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

pb::RowFault FaultToWire(RowFault fault) {
  switch (fault) {
    case RowFault::kNone:
      return pb::ROW_FAULT_UNSPECIFIED;
    case RowFault::kNonFiniteLogits:
      return pb::ROW_FAULT_NON_FINITE_LOGITS;
    case RowFault::kTokenOutOfRange:
      return pb::ROW_FAULT_TOKEN_OUT_OF_RANGE;
    case RowFault::kBlockOutOfRange:
      return pb::ROW_FAULT_BLOCK_OUT_OF_RANGE;
  }
  return pb::ROW_FAULT_UNSPECIFIED;
}

absl::StatusOr<RowFault> FaultFromWire(pb::RowFault fault) {
  switch (fault) {
    case pb::ROW_FAULT_UNSPECIFIED:
      return RowFault::kNone;
    case pb::ROW_FAULT_NON_FINITE_LOGITS:
      return RowFault::kNonFiniteLogits;
    case pb::ROW_FAULT_TOKEN_OUT_OF_RANGE:
      return RowFault::kTokenOutOfRange;
    case pb::ROW_FAULT_BLOCK_OUT_OF_RANGE:
      return RowFault::kBlockOutOfRange;
    default:
      return Invalid("ResultRow.fault: {} is not a fault this build knows; run one version",
                     static_cast<int>(fault));
  }
}

// One log-probability per id, or none at all.
absl::Status CheckPerId(const char* field, int logprobs, int ids) {
  if (logprobs == 0 || logprobs == ids) return absl::OkStatus();
  return Invalid("{}: {} log-probabilities for {} ids; one per id or none", field, logprobs, ids);
}

}  // namespace

static void ToWire(const SessionKey& from, pb::SessionKey* to) {
  to->set_tenant(from.tenant);
  to->set_request_id(from.request_id);
}

static void ToWire(const SequenceRecord& from, pb::SequenceRecord* to) {
  CopyOut(from.ids, to->mutable_ids());
  ListToWire(from.logprobs, to->mutable_logprobs());
  to->set_finish(static_cast<pb::FinishReason>(FinishReasonToWire(from.finish)));
}

static absl::StatusOr<SequenceRecord> FromWire(const pb::SequenceRecord& from) {
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

static void ToWire(const FingerprintSpan& from, pb::FingerprintSpan* to) {
  to->set_position(from.position);
  to->set_fingerprint(from.fingerprint);
  ToWire(from.kind, to->mutable_kind());
}

static void ToWire(const BlockCopy& from, pb::BlockCopy* to) {
  to->set_kind(pb::COPY_KIND_BLOCK);  // The only CopyKind there is.
  to->set_from(from.from.value);
  to->set_to(from.to.value);
}

static absl::StatusOr<BlockCopy> FromWire(const pb::BlockCopy& from) {
  if (from.kind() != pb::COPY_KIND_BLOCK) {
    return Invalid("BlockCopy.kind: {} is not supported by this build, only COPY_KIND_BLOCK",
                   pb::CopyKind_IsValid(from.kind()) ? pb::CopyKind_Name(from.kind())
                                                     : std::to_string(from.kind()));
  }
  return BlockCopy{CopyKind::kBlock, BlockId{from.from()}, BlockId{from.to()}};
}

static void ToWire(const Admit& from, pb::Admit* to) {
  to->set_slot(from.slot.value);
  ToWire(from.request, to->mutable_params());
  to->set_seed(from.seed);
  to->set_sequence(from.sequence);
  to->set_prompt_tokens(from.prompt_tokens);
  to->set_computed_tokens(from.computed_tokens);
  CopyOut(from.ids, to->mutable_ids());
  to->set_more(from.more);
  to->set_grammar_digest(from.grammar_digest);
}

static absl::StatusOr<Admit> FromWire(const pb::Admit& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  if (from.ids_size() > kAdmitIdsMax) {
    return Invalid("Admit.ids: {} ids, an admit carries at most {}; the rest belongs into the next",
                   from.ids_size(), kAdmitIdsMax);
  }
  Admit to;
  to.slot = SlotId{from.slot()};
  if (from.has_params()) {
    FATHOM_ASSIGN_OR_RETURN(to.request, FromWire(from.params()));
  }
  to.seed = from.seed();
  to.sequence = from.sequence();
  to.prompt_tokens = from.prompt_tokens();
  to.computed_tokens = from.computed_tokens();
  to.ids = CopyIn(from.ids());
  to.more = from.more();
  to.grammar_digest = from.grammar_digest();
  return to;
}

static void ToWire(const Extend& from, pb::Extend* to) {
  to->set_slot(from.slot.value);
  to->mutable_block_ids()->Reserve(static_cast<int>(from.block_ids.size()));
  for (const BlockId block : from.block_ids) to->add_block_ids(block.value);
}

static absl::StatusOr<Extend> FromWire(const pb::Extend& from) {
  Extend to;
  to.slot = SlotId{from.slot()};
  to.block_ids.reserve(from.block_ids_size());
  for (const int32_t block : from.block_ids()) to.block_ids.push_back(BlockId{block});
  return to;
}

static void ToWire(const Chunk& from, pb::Chunk* to) {
  to->set_slot(from.slot.value);
  if (const auto* decode = std::get_if<DecodeRow>(&from.work)) {
    to->mutable_decode()->set_fed_by_step(decode->fed_by_step.value);
    to->mutable_decode()->set_draft_max(decode->draft_max);
  } else {
    to->set_count(std::get<int32_t>(from.work));
  }
  to->set_sample(from.sample);
  to->set_arithmetic(pb::ARITHMETIC_CANONICAL);
}

static absl::StatusOr<Chunk> FromWire(const pb::Chunk& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  if (from.arithmetic() != pb::ARITHMETIC_CANONICAL) {
    return Invalid("Chunk.arithmetic: {} is not supported by this build, only ARITHMETIC_CANONICAL",
                   pb::Arithmetic_IsValid(from.arithmetic())
                       ? pb::Arithmetic_Name(from.arithmetic())
                       : std::to_string(from.arithmetic()));
  }
  Chunk to;
  to.slot = SlotId{from.slot()};
  to.sample = from.sample();
  switch (from.work_case()) {
    case pb::Chunk::kCount:
      if (from.count() < 1) return Invalid("Chunk.count: {} is not at least 1", from.count());
      to.work = from.count();
      return to;
    case pb::Chunk::kDecode:
      to.work = DecodeRow{StepId{from.decode().fed_by_step()}, from.decode().draft_max()};
      return to;
    case pb::Chunk::WORK_NOT_SET:
      break;
  }
  return Invalid("Chunk.work: missing, count or decode must be set (slot {})", from.slot());
}

static void ToWire(const ResultRow& from, pb::ResultRow* to) {
  to->set_row(from.row);
  to->set_sequence(from.sequence);
  to->set_position(from.position);
  CopyOut(from.ids, to->mutable_ids());
  ListToWire(from.logprobs, to->mutable_logprobs());
  if (from.prompt_logprobs) {
    ToWire(*from.prompt_logprobs, to->mutable_prompt_logprobs());
  }
  to->set_fault(FaultToWire(from.fault));
  to->set_fault_detail(from.fault_detail);
}

static absl::StatusOr<ResultRow> FromWire(const pb::ResultRow& from) {
  FATHOM_RETURN_IF_ERROR(CheckPerId("ResultRow.logprobs", from.logprobs_size(), from.ids_size()));
  ResultRow to;
  to.row = from.row();
  to.sequence = from.sequence();
  to.position = from.position();
  to.ids = CopyIn(from.ids());
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.logprobs(), &to.logprobs));
  if (from.has_prompt_logprobs()) {
    FATHOM_ASSIGN_OR_RETURN(to.prompt_logprobs, FromWire(from.prompt_logprobs()));
  }
  FATHOM_ASSIGN_OR_RETURN(to.fault, FaultFromWire(from.fault()));
  to.fault_detail = from.fault_detail();
  return to;
}

absl::Status CheckKnownFields(const google::protobuf::Message& message) {
  const google::protobuf::UnknownFieldSet& unknown =
      message.GetReflection()->GetUnknownFields(message);
  if (unknown.empty()) return absl::OkStatus();
  return Invalid("{}: field number {} is not known to this build; run builds that are closer",
                 message.GetTypeName(), unknown.field(0).number());
}

int FinishReasonToWire(FinishReason reason) {
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
  sampling->set_temperature(from.sampling.temperature);
  sampling->set_top_k(from.sampling.top_k);
  sampling->set_top_p(from.sampling.top_p);
  sampling->set_min_p(from.sampling.min_p);
  sampling->set_repetition_penalty(from.sampling.repetition_penalty);
  sampling->set_presence_penalty(from.sampling.presence_penalty);
  sampling->set_frequency_penalty(from.sampling.frequency_penalty);
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
}

absl::StatusOr<Request> FromWire(const pb::Request& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from.sampling()));
  if (from.n() < 1) return Invalid("Request.n: {} is not at least 1", from.n());
  Request to;
  const pb::Sampling& sampling = from.sampling();
  if (sampling.has_temperature()) to.sampling.temperature = sampling.temperature();
  if (sampling.has_top_k()) to.sampling.top_k = sampling.top_k();
  if (sampling.has_top_p()) to.sampling.top_p = sampling.top_p();
  if (sampling.has_min_p()) to.sampling.min_p = sampling.min_p();
  if (sampling.has_repetition_penalty()) {
    to.sampling.repetition_penalty = sampling.repetition_penalty();
  }
  if (sampling.has_presence_penalty()) to.sampling.presence_penalty = sampling.presence_penalty();
  if (sampling.has_frequency_penalty()) {
    to.sampling.frequency_penalty = sampling.frequency_penalty();
  }
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
  return to;
}

void ToWire(const Record& from, pb::Record* to) {
  to->Clear();
  ToWire(from.key, to->mutable_key());
  to->set_model(from.model);
  ToWire(from.request, to->mutable_request());
  to->set_seed(from.seed);
  CopyOut(from.prompt_ids, to->mutable_prompt_ids());
  ListToWire(from.sequences, to->mutable_sequences());
  ListToWire(from.fingerprints, to->mutable_fingerprints());
  ListToWire(from.prompt_logprobs, to->mutable_prompt_logprobs());
}

absl::StatusOr<Record> FromWire(const pb::Record& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  if (!from.has_key()) return Invalid("Record.key: missing");
  if (!from.has_request()) return Invalid("Record.request: missing");
  Record to;
  to.key = {from.key().tenant(), from.key().request_id()};
  to.model = from.model();
  FATHOM_ASSIGN_OR_RETURN(to.request, FromWire(from.request()));
  if (from.sequences_size() != 0 && from.sequences_size() != to.request.sequences) {
    return Invalid("Record.sequences: {} of them, the request has n = {}; all or none",
                   from.sequences_size(), to.request.sequences);
  }
  to.seed = from.seed();
  to.prompt_ids = CopyIn(from.prompt_ids());
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.sequences(), &to.sequences));
  for (const pb::FingerprintSpan& span : from.fingerprints()) {
    to.fingerprints.push_back({span.position(), span.fingerprint(), FromWire(span.kind())});
  }
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.prompt_logprobs(), &to.prompt_logprobs));
  return to;
}

void ToWire(const StepPlan& from, pb::StepPlan* to) {
  to->Clear();
  to->set_term(from.term.value);
  to->set_epoch(from.epoch.value);
  to->set_step(from.step.value);
  ListToWire(from.copies, to->mutable_copies());
  for (const SlotId slot : from.releases) to->add_releases(slot.value);
  ListToWire(from.admits, to->mutable_admits());
  ListToWire(from.extends, to->mutable_extends());
  ListToWire(from.chunks, to->mutable_chunks());
}

absl::StatusOr<StepPlan> FromWire(const pb::StepPlan& from) {
  FATHOM_RETURN_IF_ERROR(CheckKnownFields(from));
  StepPlan to;
  to.term = TermId{from.term()};
  to.epoch = EpochId{from.epoch()};
  to.step = StepId{from.step()};
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.copies(), &to.copies));
  to.releases.reserve(from.releases_size());
  for (const int32_t slot : from.releases()) to.releases.push_back(SlotId{slot});
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.admits(), &to.admits));
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.extends(), &to.extends));
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.chunks(), &to.chunks));
  return to;
}

void ToWire(const StepResult& from, pb::StepResult* to) {
  to->Clear();
  to->set_term(from.term.value);
  to->set_epoch(from.epoch.value);
  to->set_step(from.step.value);
  to->set_rank(from.rank);
  ListToWire(from.rows, to->mutable_rows());
  pb::StepTimings* timings = to->mutable_timings();
  timings->set_read_to_write_us(from.timings.read_to_write_us);
  timings->set_compute_us(from.timings.compute_us);
  timings->set_collective_us(from.timings.collective_us);
  to->set_collectives(from.collectives);
}

absl::StatusOr<StepResult> FromWire(const pb::StepResult& from) {
  StepResult to;
  to.term = TermId{from.term()};
  to.epoch = EpochId{from.epoch()};
  to.step = StepId{from.step()};
  to.rank = from.rank();
  FATHOM_RETURN_IF_ERROR(ListFromWire(from.rows(), &to.rows));
  to.timings = {from.timings().read_to_write_us(), from.timings().compute_us(),
                from.timings().collective_us()};
  to.collectives = from.collectives();
  return to;
}

}  // namespace fathom
