// Converts plans and results, and the messages of Steps.
#include <string>
#include <utility>

#include "cluster/wire.h"
#include "cluster/wire_parts.h"
#include "cluster/wire_ranges.h"

namespace fathom {

namespace pb = cluster::v1;

namespace {

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

pb::BlockKind BlockKindToWire(BlockKind kind) {
  switch (kind) {
    case BlockKind::kTokens:
      break;  // The default is not written: an older worker reads such a plan too.
  }
  return pb::BLOCK_KIND_UNSPECIFIED;
}

absl::StatusOr<BlockKind> BlockKindFromWire(const char* field, pb::BlockKind kind) {
  if (kind == pb::BLOCK_KIND_UNSPECIFIED || kind == pb::BLOCK_KIND_TOKENS) {
    return BlockKind::kTokens;
  }
  return Invalid("{}: {} is not a kind of blocks this build knows; run one version", field,
                 static_cast<int>(kind));
}

}  // namespace

static void ToWire(const BlockCopy& from, pb::BlockCopy* to) {
  switch (from.operation) {
    case CopyOperation::kInPool:
      to->set_kind(pb::COPY_KIND_BLOCK);
      break;
    case CopyOperation::kSwapOut:
      to->set_kind(pb::COPY_KIND_SWAP_OUT);
      break;
    case CopyOperation::kSwapIn:
      to->set_kind(pb::COPY_KIND_SWAP_IN);
      break;
  }
  to->set_from(from.from.value);
  to->set_to(from.to.value);
  to->set_block_kind(BlockKindToWire(from.block_kind));
}

static absl::StatusOr<CopyOperation> OperationFromWire(pb::CopyKind kind) {
  switch (kind) {
    case pb::COPY_KIND_BLOCK:
      return CopyOperation::kInPool;
    case pb::COPY_KIND_SWAP_OUT:
      return CopyOperation::kSwapOut;
    case pb::COPY_KIND_SWAP_IN:
      return CopyOperation::kSwapIn;
    default:
      return Invalid("BlockCopy.kind: {} is not a copy that this build knows; run one version",
                     static_cast<int>(kind));
  }
}

absl::StatusOr<BlockCopy> FromWire(const pb::BlockCopy& from) {
  FATHOM_ASSIGN_OR_RETURN(const CopyOperation operation, OperationFromWire(from.kind()));
  FATHOM_ASSIGN_OR_RETURN(const BlockKind block_kind,
                          BlockKindFromWire("BlockCopy.block_kind", from.block_kind()));
  return BlockCopy{operation, BlockId{from.from()}, BlockId{from.to()}, block_kind};
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
  if (!from.traceparent.empty()) to->set_traceparent(from.traceparent);
  if (!from.grammar_digest.empty()) to->set_grammar_digest(from.grammar_digest);
}

absl::StatusOr<Admit> FromWire(const pb::Admit& from) {
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
  to.traceparent = from.traceparent();
  to.grammar_digest = from.grammar_digest();
  return to;
}

static void ToWire(const Extend& from, pb::Extend* to) {
  to->set_slot(from.slot.value);
  to->mutable_block_ids()->Reserve(static_cast<int>(from.block_ids.size()));
  for (const BlockId block : from.block_ids) to->add_block_ids(block.value);
  to->set_block_kind(BlockKindToWire(from.block_kind));
}

absl::StatusOr<Extend> FromWire(const pb::Extend& from) {
  Extend to;
  to.slot = SlotId{from.slot()};
  to.block_ids.reserve(from.block_ids_size());
  for (const int32_t block : from.block_ids()) to.block_ids.push_back(BlockId{block});
  FATHOM_ASSIGN_OR_RETURN(to.block_kind, BlockKindFromWire("Extend.block_kind", from.block_kind()));
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

absl::StatusOr<Chunk> FromWire(const pb::Chunk& from) {
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
  to->set_drafted(from.drafted);
}

absl::StatusOr<ResultRow> FromWire(const pb::ResultRow& from) {
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
  to.drafted = from.drafted();
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
  for (const std::string& digest : from.grammar_drops) to->add_grammar_drops(digest);
  for (const GrammarRef& grammar : from.grammars) ToWire(*grammar, to->add_grammars());
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
  to.grammar_drops.assign(from.grammar_drops().begin(), from.grammar_drops().end());
  for (const pb::Grammar& grammar : from.grammars()) {
    FATHOM_ASSIGN_OR_RETURN(to.grammars.emplace_back(), FromWire(grammar));
  }
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
  timings->set_swap_us(from.timings.swap_us);
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
                from.timings().collective_us(), from.timings().swap_us()};
  to.collectives = from.collectives();
  return to;
}

// ---- The stream ----

void ToWire(const StepsHello& from, pb::StepsUp* to) {
  pb::StepsHello* hello = to->mutable_hello();
  hello->set_term(from.term.value);
  hello->set_epoch(from.epoch.value);
  hello->set_rank(from.rank);
  hello->set_process_id(from.process_id);
}

void ToWire(const StepResult& from, pb::StepsUp* to) { ToWire(from, to->mutable_result()); }

absl::StatusOr<StepsUpMessage> FromWire(pb::StepsUp&& from) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  switch (from.message_case()) {
    case pb::StepsUp::kHello:
      return StepsHello{TermId{from.hello().term()}, EpochId{from.hello().epoch()},
                        from.hello().rank(), from.hello().process_id()};
    case pb::StepsUp::kResult: {
      FATHOM_ASSIGN_OR_RETURN(StepResult result, FromWire(from.result()));
      return result;
    }
    case pb::StepsUp::MESSAGE_NOT_SET:
      break;
  }
  return UnknownMessage("Steps");
}

void ToWire(const StepPlan& from, pb::StepsDown* to) { ToWire(from, to->mutable_plan()); }

absl::StatusOr<StepPlan> FromWire(pb::StepsDown&& from) {
  FATHOM_RETURN_IF_ERROR(CheckRanges(from));
  return FromWire(from.plan());
}

}  // namespace fathom
