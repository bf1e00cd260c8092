#include "worker/engine/engine.h"

#include <utility>

#include "common/check.h"
#include "common/log.h"

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

// A fault of one output voids all outputs of the chunk.
void FillRow(const ChunkWork& chunk, std::span<const RowOutput> outputs, ResultRow* row) {
  for (const RowOutput& output : outputs) {
    if (row->fault == RowFault::kNone) row->fault = output.fault;
  }
  if (row->fault != RowFault::kNone || outputs.empty()) return;
  if (chunk.sample) {
    const RowOutput& drawn = outputs.back();
    row->ids.push_back(drawn.token);
    if (chunk.logprobs) row->logprobs.push_back(LogprobOf(drawn));
    outputs = outputs.first(outputs.size() - 1);
  }
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
      faulted_(static_cast<size_t>(seat.limits.slots) + 1) {
  FATHOM_CHECK(device->steps_in_flight() > 0);
  const GroupShape shape = seat.shape();
  const EpochComm& comm = *device->comm();
  FATHOM_CHECK(comm.rank() == shape.TpRankOf(seat.rank) && comm.size() == shape.tp);
  FATHOM_CHECK(comm.stage() == shape.StageOf(seat.rank) && comm.stages() == shape.pp);
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
  FATHOM_RETURN_IF_ERROR(ApplyDeltas(plan));
  FATHOM_RETURN_IF_ERROR(BeginChunks(plan, step));
  return device_.Submit(batch_);
}

absl::Status Engine::ApplyDeltas(const StepPlan& plan) {
  for (const BlockCopy& copy : plan.copies) FATHOM_RETURN_IF_ERROR(slots_.CheckCopy(copy));
  batch_.copies = plan.copies;
  batch_.zeroed.clear();
  for (const SlotId id : plan.releases) {
    if (id.value >= 1 && id.value <= seat_.limits.slots &&
        faulted_[static_cast<size_t>(id.value)].exchange(false)) {
      ZeroBlocksOf(slots_.slot(id));
    }
    FATHOM_RETURN_IF_ERROR(slots_.Release(id));
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
    if (start == 0) faulted_[static_cast<size_t>(admit.slot.value)].store(false);
    batch_.admits.push_back({admit.slot, &slot, start, admit.ids});
  }
  for (const Extend& extend : plan.extends) FATHOM_RETURN_IF_ERROR(slots_.Append(extend));
  return absl::OkStatus();
}

void Engine::ZeroBlocksOf(const Slot& slot) {
  for (const BlockId block : slot.blocks) {
    if (block.value >= 1 && block.value < seat_.limits.pool_blocks) batch_.zeroed.push_back(block);
  }
}

absl::Status Engine::BeginChunks(const StepPlan& plan, SubmittedStep* step) {
  step->chunks.clear();
  for (const Chunk& chunk : plan.chunks) {
    FATHOM_ASSIGN_OR_RETURN(step->chunks.emplace_back(), slots_.Begin(plan.step, chunk));
  }
  batch_.chunks.clear();
  batch_.rows = batch_.outputs = 0;
  for (const bool one_token : {true, false}) {
    for (ChunkWork& chunk : step->chunks) {
      if (chunk.fault != RowFault::kNone || (chunk.count == 1) != one_token) continue;
      chunk.first_row = std::exchange(batch_.rows, batch_.rows + chunk.count);
      chunk.first_output = std::exchange(batch_.outputs, batch_.outputs + chunk.outputs());
      batch_.chunks.push_back(&chunk);
    }
  }
  step->outputs = batch_.outputs;
  if (batch_.rows > seat_.limits.step_tokens) {
    return Invalid("step {} has {} rows; this group computes at most {} in a step", plan.step.value,
                   batch_.rows, seat_.limits.step_tokens);
  }
  return absl::OkStatus();
}

StepResult Engine::Collect(const SubmittedStep& step, StepStream* stream) {
  const StepOutputs outputs = device_.Collect();
  FATHOM_CHECK(std::ssize(outputs.rows) == step.outputs, "{} outputs of {}", outputs.rows.size(),
               step.outputs);
  StepResult result{step.term, step.epoch, step.step, seat_.rank, {}, {}, outputs.collectives};
  result.timings.compute_us = outputs.compute_us;
  result.timings.collective_us = outputs.collective_us;
  stream->collected_at_us = outputs.collected_at_us;
  stream->device_us = outputs.device_us;
  stream->device_idle_us = outputs.device_idle_us;
  stream->graph = outputs.graph;
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
    if (row.fault == RowFault::kNone) continue;
    faulted_[static_cast<size_t>(chunk.id.value)].store(true);
    if (row.fault == RowFault::kNonFiniteLogits) {
      row.fault_detail = device_.NonFiniteDetail(chunk.first_row, chunk.count);
    }
  }
  if (seat_.rank != seat_.shape().answering_rank()) result.rows.clear();
  return result;
}

}  // namespace fathom::worker
