#include "worker/engine/draft_model.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace fathom::worker {

DraftModel::DraftModel(Device* device, const EngineLimits& limits)
    : device_(*device), limits_(limits), states_(static_cast<size_t>(limits.slots) + 1) {}

void DraftModel::Begin() {
  FATHOM_CHECK(in_flight_.empty());
  std::fill(states_.begin(), states_.end(), SlotState{});
  next_step_ = {};
}

void DraftModel::Follow(const DraftWork& row) {
  const Slot& from = *row.slot;
  SlotState& state = StateOf(row);
  if (state.slot.admission != from.admission) {
    state = {};
    state.slot.taken = true;
    state.slot.admission = from.admission;
    state.slot.request = from.request;
    state.slot.request.sampling.repetition_penalty = 1;
    state.slot.request.sampling.presence_penalty = 0;
    state.slot.request.sampling.frequency_penalty = 0;
    state.slot.request.output = {};
    state.slot.seed = from.seed;
    state.slot.sequence = from.sequence;
    state.slot.prompt_tokens = from.prompt_tokens;
    state.slot.end_ids = from.end_ids;
  }
  for (const TokenId draft : state.drafts) {
    if (state.computed >= from.length() || from.ids[static_cast<size_t>(state.computed)] != draft) {
      break;
    }
    ++state.computed;
  }
  state.drafts.clear();
  // The logits of the last token are needed, so it is computed in any case.
  state.computed = std::min(state.computed, from.length() - 1);
  std::vector<TokenId>& ids = state.slot.ids;
  ids.resize(static_cast<size_t>(state.computed));
  ids.insert(ids.end(), from.ids.begin() + state.computed, from.ids.end());
  std::vector<BlockId>& blocks = state.slot.blocks;
  blocks.insert(blocks.end(), from.blocks.begin() + std::ssize(blocks), from.blocks.end());
}

absl::Status DraftModel::Propose(std::span<DraftWork> rows) {
  std::vector<DraftWork*> active;
  int32_t drafts_most = 0;
  for (DraftWork& row : rows) {
    if (row.slot->length() + row.draft_max > limits_.context_tokens) continue;
    Follow(row);
    active.push_back(&row);
    drafts_most = std::max(drafts_most, row.draft_max);
  }
  FATHOM_RETURN_IF_ERROR(CatchUp(active));
  // A draft feeds the next step on the device, so no step waits for the host.
  for (int32_t i = 1; i < drafts_most; ++i) {
    for (DraftWork* row : active) {
      if (i >= row->draft_max) continue;
      if (std::ssize(chunks_) == limits_.step_tokens) FATHOM_RETURN_IF_ERROR(Submit());
      AddChunk(row, row->slot->length() + i - 1, 1, /*fed=*/true);
    }
    FATHOM_RETURN_IF_ERROR(Submit());
  }
  while (!in_flight_.empty()) Collect();
  for (const DraftWork* row : active) {
    SlotState& state = StateOf(*row);
    state.computed = row->slot->length();
    // The last draft was drawn and not computed.
    if (!row->drafts.empty()) state.drafts.assign(row->drafts.begin(), row->drafts.end() - 1);
  }
  return absl::OkStatus();
}

absl::Status DraftModel::CatchUp(std::span<DraftWork*> rows) {
  int32_t rows_left = limits_.step_tokens;
  for (DraftWork* row : rows) {
    const int32_t length = row->slot->length();
    for (int32_t start = StateOf(*row).computed; start < length;) {
      const int32_t count = std::min(length - start, rows_left);
      AddChunk(row, start, count, /*fed=*/false);
      start += count;
      rows_left -= count;
      if (rows_left > 0) continue;
      FATHOM_RETURN_IF_ERROR(Submit());
      rows_left = limits_.step_tokens;
    }
  }
  return Submit();
}

void DraftModel::AddChunk(DraftWork* row, int32_t start, int32_t count, bool fed) {
  SlotState& state = StateOf(*row);
  const int32_t end = start + count;
  ChunkWork& chunk = chunks_.emplace_back();
  chunk.id = row->id;
  chunk.slot = &state.slot;
  chunk.admission = state.slot.admission;
  chunk.sequence = state.slot.sequence;
  chunk.start = start;
  chunk.count = count;
  chunk.fed = fed;
  if (fed) chunk.fed_by = StepId{next_step_.value - 1};
  chunk.sample = end >= row->slot->length();
  chunk.position = end - state.slot.prompt_tokens;
  of_chunks_.push_back(row);
}

absl::Status DraftModel::Submit() {
  if (chunks_.empty()) return absl::OkStatus();
  if (std::ssize(in_flight_) == device_.steps_in_flight()) Collect();
  batch_ = {.step = next_step_};
  ++next_step_.value;
  Step& step = in_flight_.emplace_back();
  for (const bool decodes : {true, false}) {
    for (size_t i = 0; i < chunks_.size(); ++i) {
      ChunkWork& chunk = chunks_[i];
      if (chunk.decodes() != decodes) continue;
      SlotState& state = StateOf(*of_chunks_[i]);
      if (!std::exchange(state.admitted, true)) {
        batch_.admits.push_back({chunk.id, &state.slot, 0, state.slot.ids});
      }
      chunk.first_row = std::exchange(batch_.rows, batch_.rows + chunk.count);
      chunk.first_output = std::exchange(batch_.outputs, batch_.outputs + chunk.outputs());
      batch_.chunks.push_back(&chunk);
      if (chunk.sample) step.drawn.push_back(of_chunks_[i]);
    }
  }
  const absl::Status status = device_.Submit(batch_);
  if (!status.ok()) in_flight_.pop_back();
  chunks_.clear();
  of_chunks_.clear();
  if (status.ok()) return status;
  while (!in_flight_.empty()) Collect();
  return status;
}

void DraftModel::Collect() {
  const StepOutputs outputs = device_.Collect();
  const Step& step = in_flight_.front();
  FATHOM_CHECK(outputs.rows.size() == step.drawn.size());
  for (size_t i = 0; i < step.drawn.size(); ++i) {
    DraftWork& row = *step.drawn[i];
    const RowOutput& drawn = outputs.rows[i];
    // After a fault all outputs of the slot fault.
    if (drawn.fault == RowFault::kNone) row.drafts.push_back(drawn.token);
  }
  in_flight_.erase(in_flight_.begin());
}

}  // namespace fathom::worker
