#include "tests/sim/timed/timed_group.h"

#include <algorithm>
#include <cmath>

#include "tests/sim/model.h"

namespace fathom::sim {

TokenId TimedToken(uint64_t seed, int32_t position) {
  return static_cast<TokenId>(Mix(seed, static_cast<uint64_t>(position)) % 32'000);
}

TimedGroup::TimedGroup(const scheduler::GroupUp& up, const GroupCosts& costs)
    : up_(up), costs_(costs), slots_(static_cast<size_t>(up.limits.slots) + 1) {}

absl::StatusOr<TimedGroup::Step> TimedGroup::Execute(const StepPlan& plan) {
  if (plan.epoch != up_.epoch || plan.term != up_.term) return Invalid("a plan of another epoch");
  if (plan.step != next_step_) return Invalid("step {}, not {}", plan.step.value, next_step_.value);
  ++next_step_.value;
  if (plan.chunks.empty() && plan.admits.empty()) {
    return Invalid("step {} has no rows", plan.step.value);
  }
  FATHOM_RETURN_IF_ERROR(ApplyChanges(plan));
  Step step{.result = {.term = plan.term, .epoch = plan.epoch, .step = plan.step}};
  bool decodes = false;
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    decodes = decodes || std::holds_alternative<DecodeRow>(plan.chunks[i].work);
    ResultRow row{.row = static_cast<int32_t>(i)};
    FATHOM_RETURN_IF_ERROR(Run(plan.chunks[i], plan.step, &step.work, &row));
    if (plan.chunks[i].sample) step.result.rows.push_back(std::move(row));
  }
  FATHOM_RETURN_IF_ERROR(CheckRows(step.work, decodes));
  step.us = std::max<TimeUs>(1, std::llround(StepUs(costs_, step.work)));
  for (const BlockCopy& copy : plan.copies) {
    if (copy.operation != CopyOperation::kInPool) ++step.swapped_blocks;
  }
  const TimeUs swap_us =
      std::llround(CopyUs(costs_, 1.0 * step.swapped_blocks * up_.limits.block_tokens));
  step.result.timings = {
      .read_to_write_us = step.us + swap_us, .compute_us = step.us, .swap_us = swap_us};
  step.us += swap_us;
  return step;
}

absl::Status TimedGroup::CheckRows(const StepWork& work, bool decodes) const {
  const scheduler::GroupLimits& limits = up_.limits;
  if (work.rows > limits.step_tokens) return Invalid("{} rows in a step", work.rows);
  const int32_t mixed = limits.mixed_step_tokens;
  if (decodes && mixed > 0 && work.rows > std::max(mixed, limits.slots)) {
    return Invalid("{} rows in a step that decodes", work.rows);
  }
  return absl::OkStatus();
}

absl::StatusOr<TimedGroup::Slot*> TimedGroup::Taken(SlotId id) {
  const bool exists = id.value >= 1 && static_cast<size_t>(id.value) < slots_.size();
  if (!exists || !slots_[static_cast<size_t>(id.value)].taken) {
    return Invalid("slot {} is empty", id.value);
  }
  return &slots_[static_cast<size_t>(id.value)];
}

absl::Status TimedGroup::ApplyChanges(const StepPlan& plan) {
  for (const SlotId id : plan.releases) {
    FATHOM_ASSIGN_OR_RETURN(Slot * slot, Taken(id));
    *slot = {};
  }
  size_t ids = 0;
  for (const Admit& admit : plan.admits) {
    ids += admit.ids.size();
    FATHOM_RETURN_IF_ERROR(TakeAdmit(admit));
  }
  if (ids > static_cast<size_t>(kAdmitIdsMax)) return Invalid("{} ids in one plan", ids);
  for (const Extend& extend : plan.extends) {
    FATHOM_ASSIGN_OR_RETURN(Slot * slot, Taken(extend.slot));
    slot->blocks += std::ssize(extend.block_ids);
  }
  return absl::OkStatus();
}

absl::Status TimedGroup::TakeAdmit(const Admit& admit) {
  if (admit.slot.value < 1 || static_cast<size_t>(admit.slot.value) >= slots_.size()) {
    return Invalid("admit to slot {}", admit.slot.value);
  }
  Slot& slot = slots_[static_cast<size_t>(admit.slot.value)];
  if (slot.taken && !slot.more) return Invalid("admit to the taken slot {}", admit.slot.value);
  if (!slot.taken) {
    slot = {.taken = true,
            .seed = admit.seed,
            .sequence = admit.sequence,
            .prompt_tokens = admit.prompt_tokens,
            .computed = admit.computed_tokens};
  }
  slot.known += static_cast<int32_t>(admit.ids.size());
  slot.more = admit.more;
  if (slot.computed > slot.known) return Invalid("slot {} knows too few ids", admit.slot.value);
  return absl::OkStatus();
}

absl::Status TimedGroup::Run(const Chunk& chunk, StepId step, StepWork* work, ResultRow* row) {
  FATHOM_ASSIGN_OR_RETURN(Slot * slot, Taken(chunk.slot));
  int32_t count = 1;
  if (const auto* decode = std::get_if<DecodeRow>(&chunk.work)) {
    if (!slot->sampled || slot->sampled_in != decode->fed_by_step) {
      return Invalid("slot {} decodes a sample of step {}", chunk.slot.value,
                     decode->fed_by_step.value);
    }
    work->decode_context += slot->computed + 1;
  } else {
    count = std::get<int32_t>(chunk.work);
    if (count < 1) return Invalid("a chunk of {} tokens", count);
    const double end = slot->computed + count;
    work->chunk_context += end;
    work->chunk_pairs += count * (end - (count - 1) / 2.0);
  }
  slot->computed += count;
  work->rows += count;
  if (slot->computed > slot->known) return Invalid("slot {} has no such ids", chunk.slot.value);
  if (slot->computed > slot->blocks * up_.limits.block_tokens) {
    return Invalid("token {} of slot {} has no block", slot->computed, chunk.slot.value);
  }
  if (!chunk.sample) return absl::OkStatus();
  if (slot->more || slot->computed != slot->known) return Invalid("a sample before the last id");
  ++work->sampled;
  row->sequence = slot->sequence;
  row->position = slot->known - slot->prompt_tokens;
  row->ids = {TimedToken(slot->seed, row->position)};
  ++slot->known;
  slot->sampled = true;
  slot->sampled_in = step;
  return absl::OkStatus();
}

}  // namespace fathom::sim
