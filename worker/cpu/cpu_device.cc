#include "worker/cpu/cpu_device.h"

#include <algorithm>

#include "common/check.h"
#include "common/request_limits.h"
#include "kernels/logprob.h"
#include "kernels/non_finite.h"
#include "worker/engine/samples_needed.h"
#include "worker/engine/sampling.h"

namespace fathom::worker {

void SeenTokens::Add(TokenId id, bool output) {
  const auto [it, added] = index_.try_emplace(id, tokens_.size());
  if (added) tokens_.push_back({id, 0});
  if (output) ++tokens_[it->second].output_count;
}

CpuDevice::CpuDevice(const CpuDeviceParts& parts)
    : parts_(parts),
      stages_(parts.comm, parts.limits.slots),
      states_(static_cast<size_t>(parts.limits.slots) + 1) {
  FATHOM_CHECK(parts.logits_rows > 0);
}

absl::Status CpuDevice::Submit(const StepBatch& batch) {
  masks_ = batch.masks;
  FATHOM_RETURN_IF_ERROR(CopyBlocks(batch.copies));
  for (const BlockId block : batch.zeroed) FATHOM_RETURN_IF_ERROR(parts_.kv->Zero(block));
  for (const AdmitWork& admit : batch.admits) Admit(batch.step, admit);
  const TimeUs begin = parts_.clock->Now();
  const int64_t collective_us = parts_.comm->collective_us();
  FATHOM_RETURN_IF_ERROR(TakeSamples(batch));
  FATHOM_RETURN_IF_ERROR(ChooseChunks(batch));
  PlanRows(batch);
  for (size_t from = 0, end = 0; from < rows_.size(); from = end) {
    int32_t with_logits = 0;
    for (; end < rows_.size(); ++end) {
      with_logits += rows_[end].logits ? 1 : 0;
      if (with_logits > parts_.logits_rows) break;
    }
    FATHOM_RETURN_IF_ERROR(Compute(batch, from, end));
  }
  FATHOM_RETURN_IF_ERROR(SendSamples(batch));
  outputs_.rows = row_outputs_;
  outputs_.collected_at_us = parts_.clock->Now();
  outputs_.compute_us = outputs_.collected_at_us - begin;
  outputs_.collective_us = parts_.comm->collective_us() - collective_us;
  outputs_.collectives = parts_.comm->collectives();
  return absl::OkStatus();
}

absl::Status CpuDevice::CopyBlocks(std::span<const BlockCopy> copies) {
  outputs_.swap_us = 0;
  if (copies.empty()) return absl::OkStatus();
  const TimeUs begin = parts_.clock->Now();
  KvCache& pool = *parts_.kv;
  bool swaps = false;
  for (const auto& [operation, from, to, kind] : copies) {
    swaps = swaps || operation != CopyOperation::kInPool;
    switch (operation) {
      case CopyOperation::kInPool:
        FATHOM_RETURN_IF_ERROR(pool.Copy(from, to));
        break;
      case CopyOperation::kSwapOut:
        FATHOM_RETURN_IF_ERROR(parts_.swap_space->CopyFrom(pool, from, to));
        break;
      case CopyOperation::kSwapIn:
        FATHOM_RETURN_IF_ERROR(pool.CopyFrom(*parts_.swap_space, from, to));
        break;
    }
  }
  if (swaps) outputs_.swap_us = parts_.clock->Now() - begin;
  return absl::OkStatus();
}

void CpuDevice::Admit(StepId step, const AdmitWork& admit) {
  SlotState& state = StateOf(admit.id);
  if (admit.start == 0) state = {.seen = {}, .since = step};
  state.thinking = admit.slot->thinking;
  if (!admit.slot->penalized() || !links().is_last_stage()) return;
  for (int32_t i = 0; i < std::ssize(admit.ids); ++i) {
    state.seen.Add(admit.ids[static_cast<size_t>(i)], admit.start + i >= admit.slot->prompt_tokens);
  }
}

absl::Status CpuDevice::TakeSamples(const StepBatch& batch) {
  if (!has_stages() || !links().is_first_stage()) return absl::OkStatus();
  if (batch.step == StepId{}) next_samples_ = {};
  const StepId end = SamplesNeeded(batch, links().stages());
  for (; next_samples_ < end; ++next_samples_.value) {
    FATHOM_ASSIGN_OR_RETURN(const std::span<const SlotSample> samples,
                            stages_.ReceiveSamples(next_samples_));
    for (const SlotSample& sample : samples) {
      SlotState& state = StateOf(sample.slot);
      if (next_samples_ < state.since) continue;  // Of a sequence that was in the slot before.
      state.sampled = sample.token;
      if (state.fault == RowFault::kNone) state.fault = sample.fault;
    }
  }
  return absl::OkStatus();
}

absl::Status CpuDevice::ChooseChunks(const StepBatch& batch) {
  computed_.assign(batch.chunks.size(), 1);
  if (links().is_first_stage()) {
    for (size_t i = 0; i < computed_.size(); ++i) {
      computed_[i] = StateOf(batch.chunks[i]->id).fault == RowFault::kNone ? 1 : 0;
    }
  } else {
    FATHOM_RETURN_IF_ERROR(stages_.ReceiveChunks(batch.step, computed_));
    for (size_t i = 0; i < computed_.size(); ++i) {
      RowFault& fault = StateOf(batch.chunks[i]->id).fault;
      if (computed_[i] == 0 && fault == RowFault::kNone) fault = RowFault::kNonFiniteLogits;
    }
  }
  return links().is_last_stage() ? absl::OkStatus() : stages_.SendChunks(batch.step, computed_);
}

absl::Status CpuDevice::SendSamples(const StepBatch& batch) {
  if (!has_stages() || !links().is_last_stage()) return absl::OkStatus();
  samples_.clear();
  for (const ChunkWork* chunk : batch.chunks) {
    if (chunk->outputs() == 0) continue;
    const SlotState& state = StateOf(chunk->id);
    samples_.push_back({chunk->id, state.sampled, state.fault});
  }
  return stages_.SendSamples(batch.step, samples_);
}

void CpuDevice::PlanRows(const StepBatch& batch) {
  rows_.clear();
  block_tables_.clear();
  row_outputs_.assign(static_cast<size_t>(batch.outputs), {});
  top_ids_.resize(row_outputs_.size() * kTopLogprobsMax);
  top_logprobs_.resize(top_ids_.size());
  for (const ChunkWork* chunk : batch.chunks) {
    const Slot& slot = *chunk->slot;
    const SlotState& state = StateOf(chunk->id);
    const auto sequence = static_cast<int32_t>(block_tables_.size());
    const bool computed = computed_[block_tables_.size()] != 0;
    block_tables_.push_back(slot.blocks);
    for (int32_t i = 0; i < chunk->outputs(); ++i) {
      const int64_t output = chunk->first_output + int64_t{i};
      row_outputs_[static_cast<size_t>(output)].fault = state.fault;
    }
    if (!computed) continue;
    for (int32_t at = chunk->start; at < chunk->end(); ++at) {
      const TokenId token = chunk->fed && at == chunk->start ? state.sampled : chunk->TokenAt(at);
      rows_.push_back({token, at, sequence, chunk->OutputAt(at) >= 0});
    }
  }
}

absl::Status CpuDevice::Compute(const StepBatch& batch, size_t begin, size_t end) {
  const auto rows = std::span<const ForwardRow>(rows_).subspan(begin, end - begin);
  const auto hidden = static_cast<size_t>(parts_.decoder->hidden());
  if (!links().is_first_stage()) {
    hidden_.resize(rows.size() * hidden);
    FATHOM_RETURN_IF_ERROR(stages_.ReceiveRows(hidden_));
  }
  FATHOM_ASSIGN_OR_RETURN(std::span<const float> values,
                          parts_.decoder->Forward({rows, block_tables_, hidden_}));
  const bool last = links().is_last_stage();
  if (!last) FATHOM_RETURN_IF_ERROR(stages_.SendRows(values));
  const auto width = last ? static_cast<size_t>(parts_.limits.vocab) : hidden;
  for (const ForwardRow& row : rows) {
    if (last && !row.logits) continue;
    FATHOM_CHECK(width <= values.size());
    const ChunkWork& chunk = *batch.chunks[static_cast<size_t>(row.sequence)];
    if (last) {
      UseLogits(chunk, row.position, values.first(width));
    } else if (row.logits) {
      UseHidden(chunk, row.position, values.first(width));
    }
    values = values.subspan(width);
  }
  return absl::OkStatus();
}

void CpuDevice::UseHidden(const ChunkWork& chunk, int32_t position, std::span<const float> hidden) {
  RowFault& fault = StateOf(chunk.id).fault;
  if (fault == RowFault::kNone && kernels::HasNonFiniteCpu(hidden)) {
    fault = RowFault::kNonFiniteLogits;
  }
  row_outputs_[static_cast<size_t>(chunk.OutputAt(position))].fault = fault;
}

void CpuDevice::UseLogits(const ChunkWork& chunk, int32_t position, std::span<const float> logits) {
  const OutputParams& asked = chunk.slot->request.output;
  const int32_t index = chunk.OutputAt(position);
  const int32_t sampled = index - chunk.first_output - chunk.scores;
  const bool sample = sampled >= 0;
  RowOutput& output = row_outputs_[static_cast<size_t>(index)];
  if (sampled > 0 && !Keeps(chunk, sampled, logits)) {
    output.fault = RowFault::kNonFiniteLogits;  // Ends what is kept (device.h).
    return;
  }
  RowFault& fault = StateOf(chunk.id).fault;
  if (fault == RowFault::kNone && kernels::HasNonFiniteCpu(logits)) {
    fault = RowFault::kNonFiniteLogits;
  }
  if (fault == RowFault::kNone) {
    output.token = sample ? Sample(chunk, chunk.position + sampled, logits)
                          : chunk.slot->ids[static_cast<size_t>(position) + 1];
    // Biases and masks have left no token to sample.
    if (output.token < 0) fault = RowFault::kTokenOutOfRange;
  }
  output.fault = fault;
  const std::optional<int32_t>& top = sample ? asked.logprobs : asked.prompt_logprobs;
  if (fault == RowFault::kNone && top) Score(logits, *top, index);
}

bool CpuDevice::Keeps(const ChunkWork& chunk, int32_t index, std::span<const float> logits) {
  const SlotState& state = StateOf(chunk.id);
  return state.fault == RowFault::kNone && state.kept == index &&
         state.sampled == chunk.drafts[static_cast<size_t>(index) - 1] &&
         !kernels::HasNonFiniteCpu(logits);
}

TokenId CpuDevice::Sample(const ChunkWork& chunk, int32_t position, std::span<const float> logits) {
  const Slot& slot = *chunk.slot;
  SlotState& state = StateOf(chunk.id);
  if (kernels::ForcesThinkingEnd(state.thinking, position)) {
    state.sampled = state.thinking.end;
  } else {
    kernels::SampleArgs args;
    SetSampling(slot, &args);
    args.logits = logits;
    args.bias = slot.request.sampling.logit_bias;
    if (position < slot.request.stop.min_tokens) args.banned = slot.end_ids;
    if (chunk.guided && masks_ != nullptr) args.mask = masks_->MaskFor(chunk);
    args.seen = state.seen.tokens();
    args.position = position;
    args.scratch = &scratch_;
    state.sampled = kernels::SampleCpu(args);
  }
  state.thinking.state = kernels::ThinkingAfter(state.thinking, state.sampled, position);
  state.kept = position - chunk.position + 1;
  if (state.sampled >= 0 && slot.penalized()) state.seen.Add(state.sampled, true);
  return state.sampled;
}

// Only the answering rank sends log-probabilities.
void CpuDevice::Score(std::span<const float> logits, int32_t top, int32_t output) {
  if (parts_.comm->rank() != 0) return;
  RowOutput& scored = row_outputs_[static_cast<size_t>(output)];
  const auto begin = static_cast<size_t>(output) * kTopLogprobsMax;
  const auto best =
      std::min({static_cast<size_t>(std::max(top, 0)), size_t{kTopLogprobsMax}, logits.size()});
  const auto top_ids = std::span(top_ids_).subspan(begin, best);
  const auto top_logprobs = std::span(top_logprobs_).subspan(begin, best);
  scored.logprob =
      kernels::LogprobCpu({logits, parts_.comm->size(), scored.token, top_ids, top_logprobs});
  scored.top_ids = top_ids;
  scored.top_logprobs = top_logprobs;
}

}  // namespace fathom::worker
