#include "tests/sim/fake_group.h"

#include <algorithm>
#include <set>
#include <utility>

#include "tests/sim/model.h"

namespace fathom::sim {

FakeGroup::FakeGroup(const scheduler::GroupUp& up) : up_(up) {
  kv_.assign(static_cast<size_t>(up.limits.blocks) * static_cast<size_t>(up.limits.block_tokens),
             0);
  swap_space_.assign(
      static_cast<size_t>(up.limits.host_blocks + 1) * static_cast<size_t>(up.limits.block_tokens),
      0);
}

absl::StatusOr<StepResult> FakeGroup::Execute(const StepPlan& plan) {
  if (plan.term != up_.term || plan.epoch != up_.epoch) return Invalid("plan of another epoch");
  if (plan.step != next_step_) {
    return Invalid("step {}, not {}", plan.step.value, next_step_.value);
  }
  ++next_step_.value;
  if (plan.chunks.empty() && plan.admits.empty()) {
    return Invalid("step {} has no rows", plan.step.value);
  }
  copied_.clear();
  int64_t swapped = 0;
  for (const BlockCopy& copy : plan.copies) {
    FATHOM_RETURN_IF_ERROR(Copy(copy));
    swapped += copy.operation == CopyOperation::kInPool ? 0 : 1;
  }
  for (SlotId slot : plan.releases) FATHOM_RETURN_IF_ERROR(Release(slot));
  for (const std::string& digest : plan.grammar_drops) {
    if (grammars_.erase(digest) == 0) return Invalid("drop of the unknown grammar {}", digest);
  }
  for (const GrammarRef& grammar : plan.grammars) {
    if (!grammars_.insert(grammar.digest()).second) {
      return Invalid("grammar {} is sent again", grammar.digest());
    }
    if (grammar->vocabulary != up_.limits.grammar_vocabulary) return Invalid("vocabulary");
  }
  size_t ids = 0;
  for (const Admit& admit : plan.admits) {
    ids += admit.ids.size();
    FATHOM_RETURN_IF_ERROR(TakeAdmit(admit));
  }
  if (ids > static_cast<size_t>(kAdmitIdsMax)) return Invalid("{} ids in one plan", ids);
  for (const Extend& extend : plan.extends) {
    FATHOM_RETURN_IF_ERROR(TakeExtend(up_.limits, extend));
  }
  StepResult result{.term = plan.term, .epoch = plan.epoch, .step = plan.step};
  std::set<SlotId> seen;
  int32_t rows = 0;
  for (size_t i = 0; i < plan.chunks.size(); ++i) {
    if (!seen.insert(plan.chunks[i].slot).second) return Invalid("two chunks of one slot");
    FATHOM_ASSIGN_OR_RETURN(ResultRow row, Run(plan.chunks[i], plan.step, &rows));
    row.row = static_cast<int32_t>(i);
    result.rows.push_back(std::move(row));
  }
  if (rows > up_.limits.step_tokens) return Invalid("{} rows in a step", rows);
  const bool decodes = std::ranges::any_of(
      plan.chunks, [](const Chunk& c) { return std::holds_alternative<DecodeRow>(c.work); });
  const int32_t mixed = up_.limits.mixed_step_tokens;
  if (decodes && mixed > 0 && rows > std::max(mixed, up_.limits.slots)) {
    return Invalid("{} rows in a step that decodes", rows);
  }
  rows_most_ = std::max<int64_t>(rows_most_, rows);
  // Times at which it is sometimes faster to swap, and sometimes to compute again.
  result.timings.compute_us = 100 + 10 * int64_t{rows};
  const auto draw = static_cast<int64_t>(Mix(plan.step.value, plan.epoch.value) % 60);
  result.timings.swap_us = swapped * draw;
  return result;
}

absl::Status FakeGroup::Copy(const BlockCopy& copy) {
  const bool from_pool = copy.operation != CopyOperation::kSwapIn;
  const bool to_pool = copy.operation != CopyOperation::kSwapOut;
  const auto place = [&](BlockId block, bool in_pool) -> absl::StatusOr<uint64_t*> {
    const int32_t end = in_pool ? up_.limits.blocks : up_.limits.host_blocks + 1;
    if (block.value < 1 || block.value >= end) return Invalid("copy of block {}", block.value);
    return &(in_pool ? kv_ : swap_space_)[static_cast<size_t>(block.value) *
                                          static_cast<size_t>(up_.limits.block_tokens)];
  };
  FATHOM_ASSIGN_OR_RETURN(const uint64_t* from, place(copy.from, from_pool));
  FATHOM_ASSIGN_OR_RETURN(uint64_t * to, place(copy.to, to_pool));
  // The source may be of a slot that this plan admits: a block that the prefix cache kept, or one
  // that an earlier copy of the plan filled. A wrong source shows in the tokens.
  std::copy_n(from, up_.limits.block_tokens, to);
  if (to_pool) copied_.push_back(copy.to);
  return absl::OkStatus();
}

absl::Status FakeGroup::Release(SlotId id) {
  auto it = slots_.find(id);
  if (it == slots_.end()) return Invalid("release of the empty slot {}", id.value);
  const Slot& slot = it->second;
  const auto width = static_cast<size_t>(up_.limits.block_tokens);
  for (size_t i = 0; i < slot.blocks.size(); ++i) {
    const BlockId block = slot.blocks[i];
    --holders_[block];
    const bool unproven = static_cast<size_t>(slot.clean) < (i + 1) * width;
    if (!slot.faulted || !unproven || std::ranges::count(copied_, block) > 0) continue;
    std::fill_n(kv_.begin() + static_cast<ptrdiff_t>(static_cast<size_t>(block.value) * width),
                width, 0xDEAD);
  }
  slots_.erase(it);
  return absl::OkStatus();
}

absl::Status FakeGroup::TakeAdmit(const Admit& admit) {
  if (admit.slot.value < 1 || admit.slot.value > up_.limits.slots) {
    return Invalid("admit to slot {}", admit.slot.value);
  }
  if (admit.ids.empty()) return Invalid("admit without ids");
  auto [it, fresh] = slots_.try_emplace(admit.slot);
  Slot& slot = it->second;
  if (!fresh && !slot.more) return Invalid("admit to the taken slot {}", admit.slot.value);
  if (fresh) {
    if (admit.computed_tokens < 0 || admit.prompt_tokens < 1) return Invalid("admit's counts");
    if (!admit.grammar_digest.empty() && !grammars_.contains(admit.grammar_digest)) {
      return Invalid("admit with the unknown grammar {}", admit.grammar_digest);
    }
    slot.guided = !admit.grammar_digest.empty();
    slot.computed = slot.clean = admit.computed_tokens;
    slot.request = admit.request;
    slot.seed = admit.seed;
    slot.sequence = admit.sequence;
    slot.prompt_tokens = admit.prompt_tokens;
  }
  slot.ids.insert(slot.ids.end(), admit.ids.begin(), admit.ids.end());
  slot.more = admit.more;
  if (!slot.more && slot.computed >= static_cast<int32_t>(slot.ids.size())) {
    return Invalid("slot {} is admitted with nothing to compute", admit.slot.value);
  }
  return absl::OkStatus();
}

absl::Status FakeGroup::TakeExtend(const scheduler::GroupLimits& limits, const Extend& extend) {
  auto it = slots_.find(extend.slot);
  if (it == slots_.end()) return Invalid("extend of the empty slot {}", extend.slot.value);
  for (BlockId block : extend.block_ids) {
    if (block.value < 1 || block.value >= limits.blocks) return Invalid("block {}", block.value);
    if (std::ranges::count(it->second.blocks, block) > 0)
      return Invalid("block {} twice", block.value);
    ++holders_[block];
    it->second.blocks.push_back(block);
  }
  return absl::OkStatus();
}

absl::StatusOr<ResultRow> FakeGroup::Run(const Chunk& chunk, StepId step, int32_t* rows) {
  auto it = slots_.find(chunk.slot);
  if (it == slots_.end()) return Invalid("chunk of the empty slot {}", chunk.slot.value);
  Slot& slot = it->second;
  ResultRow row{.sequence = slot.sequence};
  const auto known = static_cast<int32_t>(slot.ids.size());
  if (const auto* decode = std::get_if<DecodeRow>(&chunk.work)) {
    if (!slot.sampled || slot.more || slot.sampled_in != decode->fed_by_step || !chunk.sample) {
      return Invalid("decode of slot {} fed by step {}", chunk.slot.value,
                     decode->fed_by_step.value);
    }
    if (slot.computed + 1 != known) return Invalid("decode before the prompt is computed");
    const int32_t drafts_max = slot.guided ? 0 : up_.limits.draft_max;
    if (decode->draft_max < 0 || decode->draft_max > drafts_max) {
      return Invalid("{} drafts", decode->draft_max);
    }
    *rows += 1 + decode->draft_max;
    FATHOM_RETURN_IF_ERROR(Compute(slot, 1, &row));
    FATHOM_RETURN_IF_ERROR(Sample(slot, step, &row));
    FATHOM_RETURN_IF_ERROR(Check(slot, step, decode->draft_max, &row));
    return row;
  } else {
    const int32_t count = std::get<int32_t>(chunk.work);
    if (count < 1 || slot.computed + count > known || slot.sampled)
      return Invalid("{} tokens", count);
    if (chunk.sample != (slot.computed + count == known && !slot.more)) {
      return Invalid("sample of a chunk that is not the last, or none of one that is");
    }
    *rows += count;
    FATHOM_RETURN_IF_ERROR(Compute(slot, count, &row));
  }
  if (chunk.sample) FATHOM_RETURN_IF_ERROR(Sample(slot, step, &row));
  return row;
}

absl::StatusOr<uint64_t*> FakeGroup::Cell(Slot& slot, int32_t index) {
  const auto at = static_cast<size_t>(index);
  const auto block_tokens = static_cast<size_t>(up_.limits.block_tokens);
  if (at / block_tokens >= slot.blocks.size()) return Invalid("token {} has no block", index);
  const auto block = static_cast<size_t>(slot.blocks[at / block_tokens].value);
  return &kv_[block * block_tokens + at % block_tokens];
}

absl::Status FakeGroup::Compute(Slot& slot, int32_t count, ResultRow* row) {
  const bool scores = slot.request.output.prompt_logprobs.has_value();
  for (int32_t i = 0; i < count; ++i) {
    const int32_t index = slot.computed++;
    uint64_t prefix = 0;
    if (index > 0) {
      FATHOM_ASSIGN_OR_RETURN(const uint64_t* before, Cell(slot, index - 1));
      prefix = *before;
    }
    FATHOM_ASSIGN_OR_RETURN(uint64_t * cell, Cell(slot, index));
    const BlockId block = slot.blocks[static_cast<size_t>(index / up_.limits.block_tokens)];
    if (holders_[block] != 1) return Invalid("block {} is shared and written", block.value);
    *cell = PrefixWith(prefix, slot.ids[static_cast<size_t>(index)]);
    if (scores && index + 1 < slot.prompt_tokens &&
        static_cast<size_t>(index) + 1 < slot.ids.size()) {
      if (!row->prompt_logprobs) row->prompt_logprobs = PromptLogprobs{index + 1, {}};
      row->prompt_logprobs->logprobs.push_back(
          LogprobAt(*cell, slot.ids[static_cast<size_t>(index) + 1]));
    }
  }
  return absl::OkStatus();
}

absl::Status FakeGroup::Sample(Slot& slot, StepId step, ResultRow* row) {
  const auto known = static_cast<int32_t>(slot.ids.size());
  FATHOM_ASSIGN_OR_RETURN(const uint64_t* prefix, Cell(slot, known - 1));
  const int32_t position = known - slot.prompt_tokens;
  const TokenId id = TokenAt(slot.seed, position, *prefix, up_.fingerprint, slot.sequence);
  if (row->ids.empty()) row->position = position;
  if (position == FaultAt(slot.seed)) {
    row->fault = RowFault::kNonFiniteLogits;
    slot.faulted = true;
  } else {
    if (!slot.faulted) slot.clean = known;
    row->ids.push_back(id);
    if (slot.request.output.logprobs) row->logprobs.push_back(LogprobAt(*prefix, id));
  }
  slot.ids.push_back(id);
  slot.sampled_in = step;
  slot.sampled = true;
  return absl::OkStatus();
}

absl::Status FakeGroup::Check(Slot& slot, StepId step, int32_t count, ResultRow* row) {
  if (count == 0 || row->fault != RowFault::kNone) return absl::OkStatus();
  if (row->position + count >= slot.request.stop.max_tokens) {
    return Invalid("{} drafts after position {}, beyond max_tokens", count, row->position);
  }
  row->drafted = count;
  const int32_t first = slot.computed;
  bool right = true;
  for (int32_t index = first; index < first + count; ++index) {
    FATHOM_ASSIGN_OR_RETURN(uint64_t * cell, Cell(slot, index));
    *cell = ~uint64_t{0};  // What a wrong draft leaves in the block.
    right = right && Mix(slot.seed, static_cast<uint64_t>(index)) % 3 != 0 &&
            index + 1 - slot.prompt_tokens != FaultAt(slot.seed);
    if (!right) continue;
    ++drafts_kept_;
    FATHOM_RETURN_IF_ERROR(Compute(slot, 1, row));
    FATHOM_RETURN_IF_ERROR(Sample(slot, step, row));
  }
  return absl::OkStatus();
}

}  // namespace fathom::sim
