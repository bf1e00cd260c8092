#include "worker/engine/engine.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "worker/engine/proposer.h"

namespace fathom::worker {
namespace {

TokenLogprob LogprobOf(const RowOutput& output) {
  TokenLogprob scored;
  scored.id = output.token;
  scored.logprob = output.logprob;
  scored.top_ids.assign(output.top_ids.begin(), output.top_ids.end());
  scored.top_logprobs.assign(output.top_logprobs.begin(), output.top_logprobs.end());
  return scored;
}

// The first of `samples` that are samples of the sequence: one, and one for each draft that is
// kept. A fault after a kept draft is left to the next step, which computes that draft again as its
// token: the tokens before it are those of a sequence without drafts.
std::span<const RowOutput> KeptOf(const ChunkWork& chunk, std::span<const RowOutput> samples) {
  size_t kept = std::min<size_t>(samples.size(), 1);
  while (kept < samples.size() && samples[kept - 1].token == chunk.drafts[kept - 1] &&
         samples[kept].fault == RowFault::kNone) {
    ++kept;
  }
  return samples.first(kept);
}

// Of a device that waits for masks before it queues a step.
constexpr int kGuideThreads = 4;

// The content of Engine::faults_.
uint64_t FaultMark(uint32_t admission, int32_t clean_tokens) {
  return uint64_t{admission} << 32 | static_cast<uint32_t>(clean_tokens);
}

// A fault of one output voids all outputs of the chunk.
void FillRow(const ChunkWork& chunk, std::span<const RowOutput> outputs, ResultRow* row) {
  const auto scores = static_cast<size_t>(chunk.scores);
  const std::span<const RowOutput> samples = KeptOf(chunk, outputs.subspan(scores));
  outputs = outputs.first(scores + samples.size());
  for (const RowOutput& output : outputs) {
    if (row->fault == RowFault::kNone) row->fault = output.fault;
  }
  if (row->fault != RowFault::kNone || outputs.empty()) return;
  row->drafted = static_cast<int32_t>(chunk.drafts.size());
  for (const RowOutput& drawn : samples) {
    row->ids.push_back(drawn.token);
    if (chunk.logprobs) row->logprobs.push_back(LogprobOf(drawn));
  }
  outputs = outputs.first(scores);
  if (outputs.empty()) return;
  PromptLogprobs& prompt = row->prompt_logprobs.emplace();
  prompt.start = chunk.start + 1;
  for (const RowOutput& output : outputs) prompt.logprobs.push_back(LogprobOf(output));
}

}  // namespace

Engine::Engine(Device* device, const GroupSeat& seat)
    : device_(*device),
      seat_(seat),
      slots_(seat.limits),
      outcomes_(static_cast<size_t>(seat.limits.slots) + 1),
      faults_(static_cast<size_t>(seat.limits.slots) + 1) {
  FATHOM_CHECK(device->steps_in_flight() > 0);
  const GroupShape shape = seat.shape();
  const EpochComm& comm = *device->comm();
  FATHOM_CHECK(comm.rank() == shape.TpRankOf(seat.rank) && comm.size() == shape.tp);
  FATHOM_CHECK(comm.stage() == shape.StageOf(seat.rank) && comm.stages() == shape.pp);
  if (device->proposer() != nullptr) device->proposer()->Begin();
  if (device->grammars() != nullptr && comm.is_last_stage()) {
    // While a device computes in Submit, one thread beside it has the time of a whole step.
    const int threads = device->steps_in_flight() == 1 ? 1 : kGuideThreads;
    guides_ = std::make_unique<Guides>(device->grammars(), seat.limits.slots, threads);
  }
}

absl::Status Engine::Submit(const StepPlan& plan, SubmittedStep* step) {
  if (plan.term != seat_.term || plan.epoch != seat_.epoch || plan.step != next_step_) {
    return Invalid("a plan of term {}, epoch {}, step {}; term {}, epoch {}, step {} was to come",
                   plan.term.value, plan.epoch.value, plan.step.value, seat_.term.value,
                   seat_.epoch.value, next_step_.value);
  }
  ++next_step_.value;
  step->term = plan.term;
  step->epoch = plan.epoch;
  step->step = batch_.step = plan.step;
  if (speculates()) TakeLearned(plan);
  FATHOM_RETURN_IF_ERROR(ApplyDeltas(plan));
  if (speculates()) FATHOM_RETURN_IF_ERROR(ProposeDrafts(plan));
  FATHOM_RETURN_IF_ERROR(BeginChunks(plan, step));
  return device_.Submit(batch_);
}

absl::Status Engine::ApplyDeltas(const StepPlan& plan) {
  for (const BlockCopy& copy : plan.copies) FATHOM_RETURN_IF_ERROR(slots_.CheckCopy(copy));
  batch_.copies = plan.copies;
  batch_.zeroed.clear();
  for (const SlotId id : plan.releases) {
    if (id.value >= 1 && id.value <= seat_.limits.slots) ZeroAfterFault(slots_.slot(id), id);
    FATHOM_RETURN_IF_ERROR(slots_.Release(id));
    if (guides_ != nullptr) guides_->Release(id);
  }
  FATHOM_RETURN_IF_ERROR(ApplyAdmits(plan));
  for (const Extend& extend : plan.extends) FATHOM_RETURN_IF_ERROR(slots_.Append(extend));
  return absl::OkStatus();
}

absl::Status Engine::ApplyAdmits(const StepPlan& plan) {
  if (guides_ != nullptr) {
    for (const std::string& digest : plan.grammar_drops) guides_->Drop(digest);
    for (const GrammarRef& grammar : plan.grammars) guides_->Add(grammar);
  }
  batch_.admits.clear();
  for (const Admit& admit : plan.admits) {
    FATHOM_RETURN_IF_ERROR(slots_.Admit(admit));
    if (!admit.traceparent.empty()) {
      LogDebug("step {}: slot {} has sequence {} with {} prompt tokens; trace {}",
               batch_.step.value, admit.slot.value, admit.sequence, admit.prompt_tokens,
               admit.traceparent);
    }
    const Slot& slot = slots_.slot(admit.slot);
    const int32_t start = slot.length() - static_cast<int32_t>(admit.ids.size());
    batch_.admits.push_back({admit.slot, &slot, start, admit.ids});
    if (slot.grammar_digest.empty() || !device_.comm()->is_last_stage()) continue;
    if (guides_ == nullptr) {
      return Invalid("an admit of slot {} names a grammar, and this worker has no grammar engine",
                     admit.slot.value);
    }
    FATHOM_RETURN_IF_ERROR(guides_->Admit(admit.slot, slot, start, admit.ids));
  }
  return absl::OkStatus();
}

void Engine::ZeroAfterFault(const Slot& slot, SlotId id) {
  const uint64_t mark = faults_[static_cast<size_t>(id.value)].exchange(0);
  if (mark == 0 || mark >> 32 != slot.admission) return;  // Of a sequence before it in the slot.
  const auto clean_tokens = static_cast<size_t>(static_cast<uint32_t>(mark));
  const auto first = clean_tokens / static_cast<size_t>(seat_.limits.block_tokens);
  for (size_t i = first; i < slot.blocks.size(); ++i) {
    const BlockId block = slot.blocks[i];
    // A copy of this plan may have filled the block for its next sequence; copies come first.
    const bool filled = std::ranges::any_of(batch_.copies, [block](const BlockCopy& copy) {
      return copy.operation != CopyOperation::kSwapOut && copy.to == block;
    });
    if (block.value >= 1 && block.value < seat_.limits.pool_blocks && !filled) {
      batch_.zeroed.push_back(block);
    }
  }
}

void Engine::NoteOutcome(const ChunkWork& chunk, const ResultRow& row) {
  Outcome& outcome = outcomes_[static_cast<size_t>(chunk.id.value)];
  if (outcome.admission != chunk.admission) {
    outcome = {chunk.admission, chunk.admitted_tokens, false};
  }
  if (row.fault == RowFault::kNone) {
    // Each sample attends to all tokens before it. Drafts that were not kept may hold anything.
    const auto drafts = static_cast<int32_t>(chunk.drafts.size());
    const int32_t kept = std::max(static_cast<int32_t>(row.ids.size()) - 1, 0);
    if (chunk.sample && !outcome.faulted) outcome.clean_tokens = chunk.end() - drafts + kept;
  } else if (!std::exchange(outcome.faulted, true)) {
    faults_[static_cast<size_t>(chunk.id.value)].store(
        FaultMark(outcome.admission, outcome.clean_tokens));
  }
}

void Engine::NoteGuided(const ChunkWork& chunk, ResultRow* row) {
  if (row->fault == RowFault::kNone) {
    return guides_->Learn(chunk.id, chunk.admission, chunk.position, row->ids);
  }
  guides_->Fail(chunk.id, chunk.admission);
  if (row->fault == RowFault::kTokenOutOfRange) {
    row->fault_detail = "no token of the vocabulary may follow by the request's grammar";
  }
}

absl::Status Engine::BeginChunks(const StepPlan& plan, SubmittedStep* step) {
  step->chunks.clear();
  size_t drafted = 0;
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    std::vector<TokenId> drafts;
    if (drafted < draft_chunks_.size() && draft_chunks_[drafted] == i) {
      drafts = std::move(drafts_[drafted++].drafts);
    }
    FATHOM_ASSIGN_OR_RETURN(step->chunks.emplace_back(),
                            slots_.Begin(plan.step, plan.chunks[i], std::move(drafts)));
  }
  PlaceChunks(step);
  if (batch_.rows > seat_.limits.step_tokens) {
    return Invalid("step {} has {} rows; this group computes at most {} in a step", plan.step.value,
                   batch_.rows, seat_.limits.step_tokens);
  }
  return absl::OkStatus();
}

void Engine::PlaceChunks(SubmittedStep* step) {
  batch_.chunks.clear();
  batch_.rows = batch_.outputs = 0;
  batch_.masks = nullptr;
  for (const bool decodes : {true, false}) {
    for (ChunkWork& chunk : step->chunks) {
      if (chunk.fault != RowFault::kNone || chunk.decodes() != decodes) continue;
      chunk.first_row = std::exchange(batch_.rows, batch_.rows + chunk.count);
      chunk.first_output = std::exchange(batch_.outputs, batch_.outputs + chunk.outputs());
      batch_.chunks.push_back(&chunk);
      if (chunk.guided && chunk.sample) batch_.masks = guides_.get();
    }
  }
  step->outputs = batch_.outputs;
}

void Engine::TakeLearned(const StepPlan& plan) {
  uint64_t needed = 0;
  for (const Chunk& chunk : plan.chunks) {
    const auto* decode = std::get_if<DecodeRow>(&chunk.work);
    if (decode == nullptr || chunk.slot.value < 1 || chunk.slot.value > seat_.limits.slots)
      continue;
    // The step was submitted, so it will be collected. Slots::Begin refuses another one.
    const Slot& slot = slots_.slot(chunk.slot);
    if (slot.sampled_by != decode->fed_by_step) continue;
    if (decode->draft_max > 0 || slot.drafts) {
      needed = std::max(needed, decode->fed_by_step.value + 1);
    }
  }
  std::unique_lock lock(mutex_);
  learned_more_.wait(lock, [&] { return learned_steps_ >= needed; });
  for (const LearnedSamples& samples : learned_) slots_.Learn(samples);
  learned_.clear();
}

absl::Status Engine::ProposeDrafts(const StepPlan& plan) {
  drafts_.clear();
  draft_chunks_.clear();
  Proposer* const proposer = device_.proposer();
  if (proposer == nullptr) return absl::OkStatus();
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    std::optional<DraftWork> row = slots_.DraftsOf(plan.chunks[i]);
    if (!row || (row->slot->penalized() && !device_.drafts_penalized())) continue;
    drafts_.push_back(*std::move(row));
    draft_chunks_.push_back(i);
  }
  if (drafts_.empty()) return absl::OkStatus();
  FATHOM_RETURN_IF_ERROR(proposer->Propose(drafts_));
  for (const DraftWork& row : drafts_) {
    FATHOM_CHECK(std::ssize(row.drafts) <= row.draft_max, "{} drafts of {}", row.drafts.size(),
                 row.draft_max);
  }
  return absl::OkStatus();
}

void Engine::Learn(StepId step, std::vector<LearnedSamples> samples) {
  {
    const std::lock_guard lock(mutex_);
    for (LearnedSamples& each : samples) learned_.push_back(std::move(each));
    learned_steps_ = step.value + 1;
  }
  learned_more_.notify_one();
}

StepResult Engine::Collect(const SubmittedStep& step, StepStream* stream) {
  const StepOutputs outputs = device_.Collect();
  FATHOM_CHECK(std::ssize(outputs.rows) == step.outputs, "{} outputs of {}", outputs.rows.size(),
               step.outputs);
  StepResult result{step.term, step.epoch, step.step, seat_.rank, {}, {}, outputs.collectives};
  result.timings.compute_us = outputs.compute_us;
  result.timings.collective_us = outputs.collective_us;
  result.timings.swap_us = outputs.swap_us;
  stream->collected_at_us = outputs.collected_at_us;
  stream->device_us = outputs.device_us;
  stream->device_idle_us = outputs.device_idle_us;
  stream->graph = outputs.graph;
  std::vector<LearnedSamples> learned;
  result.rows.reserve(step.chunks.size());
  for (const ChunkWork& chunk : step.chunks) {
    ResultRow& row = result.rows.emplace_back();
    row.row = static_cast<int32_t>(result.rows.size()) - 1;
    row.sequence = chunk.sequence;
    row.position = chunk.position;
    row.fault = chunk.fault;
    FillRow(chunk,
            outputs.rows.subspan(static_cast<size_t>(chunk.first_output),
                                 static_cast<size_t>(chunk.outputs())),
            &row);
    if (speculates() && chunk.sample) {
      // The first sample follows the one token of a decode row, or the last one of a prompt.
      const int32_t at = chunk.end() - static_cast<int32_t>(chunk.drafts.size());
      learned.push_back({chunk.id, chunk.admission, at, !chunk.drafts.empty(), row.ids});
    }
    NoteOutcome(chunk, row);
    if (guides_ != nullptr && chunk.guided && chunk.sample) NoteGuided(chunk, &row);
    if (row.fault == RowFault::kNonFiniteLogits) {
      row.fault_detail = device_.NonFiniteDetail(chunk.first_row, chunk.count);
    }
  }
  if (speculates()) Learn(step.step, std::move(learned));
  if (seat_.rank != seat_.shape().answering_rank()) result.rows.clear();
  return result;
}

}  // namespace fathom::worker
