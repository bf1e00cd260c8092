#include "worker/engine/slots.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "common/request_limits.h"

namespace fathom::worker {

bool Slot::penalized() const {
  const SamplingParams& sampling = request.sampling;
  return sampling.repetition_penalty != 1.0f || sampling.presence_penalty != 0.0f ||
         sampling.frequency_penalty != 0.0f;
}

Slots::Slots(const EngineLimits& limits) : limits_(limits) {
  FATHOM_CHECK(limits.slots > 0 && limits.block_tokens > 0);
  slots_.resize(static_cast<size_t>(limits.slots) + 1);
}

absl::StatusOr<Slot*> Slots::Taken(SlotId id, const char* what) {
  if (id.value < 1 || id.value > limits_.slots) {
    return Invalid("{} of slot {}; this group has slots 1 to {}", what, id.value, limits_.slots);
  }
  Slot* slot = &slots_[static_cast<size_t>(id.value)];
  if (!slot->taken) return Invalid("{} of slot {}, which is empty", what, id.value);
  return slot;
}

absl::Status Slots::CheckCopy(const BlockCopy& copy) const {
  const bool known = copy.operation == CopyOperation::kInPool ||
                     copy.operation == CopyOperation::kSwapOut ||
                     copy.operation == CopyOperation::kSwapIn;
  if (!known || copy.block_kind != BlockKind::kTokens) {
    return Invalid(
        "copy of block {} to {}: this worker does not know its operation {} or its kind of blocks "
        "{}; run one version",
        copy.from.value, copy.to.value, static_cast<int>(copy.operation),
        static_cast<int>(copy.block_kind));
  }
  const auto check = [&](BlockId block, bool in_pool) -> absl::Status {
    const int32_t last = in_pool ? limits_.pool_blocks - 1 : limits_.host_blocks;
    if (block.value >= 1 && block.value <= last) return absl::OkStatus();
    return Invalid("copy of block {} to {}; this group has blocks 1 to {} in its {}",
                   copy.from.value, copy.to.value, last, in_pool ? "pool" : "swap space");
  };
  FATHOM_RETURN_IF_ERROR(check(copy.from, copy.operation != CopyOperation::kSwapIn));
  return check(copy.to, copy.operation != CopyOperation::kSwapOut);
}

absl::Status Slots::Release(SlotId id) {
  FATHOM_ASSIGN_OR_RETURN(Slot * slot, Taken(id, "release"));
  *slot = Slot{};
  return absl::OkStatus();
}

absl::Status Slots::AppendIds(const fathom::Admit& admit, Slot* slot) const {
  const auto count = static_cast<int64_t>(admit.ids.size());
  if (count > kAdmitIdsMax) {
    return Invalid("an admit of slot {} with {} ids; at most {} fit one plan", admit.slot.value,
                   count, kAdmitIdsMax);
  }
  if (slot->length() + count > limits_.context_tokens) {
    return Invalid("slot {} is admitted with {} ids, more than the context of {}", admit.slot.value,
                   slot->length() + count, limits_.context_tokens);
  }
  slot->more = admit.more;
  slot->known_tokens += static_cast<int32_t>(count);
  for (const TokenId id : admit.ids) {
    if (id < 0 || id >= limits_.vocab) slot->fault = RowFault::kTokenOutOfRange;
    NoteThinking(id, slot->length(), slot);
    slot->ids.push_back(id);
  }
  if (!slot->more &&
      (slot->prompt_tokens > slot->length() || slot->computed_tokens >= slot->length())) {
    return Invalid("slot {} is admitted with {} ids, of which {} are prompt and {} computed",
                   admit.slot.value, slot->length(), slot->prompt_tokens, slot->computed_tokens);
  }
  return absl::OkStatus();
}

void Slots::NoteThinking(TokenId id, int32_t index, Slot* slot) {
  if (index < slot->prompt_tokens) return;
  slot->thinking.state = kernels::ThinkingAfter(slot->thinking, id, index - slot->prompt_tokens);
}

bool Slots::InVocabulary(const Request& request) const {
  const auto inside = [&](TokenId id) { return id >= 0 && id < limits_.vocab; };
  const ThinkingParams& thinking = request.thinking;
  if (thinking.end >= 0 && !(inside(thinking.begin) && inside(thinking.end))) return false;
  return std::all_of(request.stop.end_token_ids.begin(), request.stop.end_token_ids.end(),
                     inside) &&
         std::all_of(request.stop.stop_token_ids.begin(), request.stop.stop_token_ids.end(),
                     inside) &&
         std::all_of(request.sampling.logit_bias.begin(), request.sampling.logit_bias.end(),
                     [&](const auto& bias) { return inside(bias.first); });
}

absl::Status Slots::Admit(const fathom::Admit& admit) {
  if (admit.slot.value < 1 || admit.slot.value > limits_.slots) {
    return Invalid("admit of slot {}; this group has slots 1 to {}", admit.slot.value,
                   limits_.slots);
  }
  Slot* slot = &slots_[static_cast<size_t>(admit.slot.value)];
  if (slot->more) return AppendIds(admit, slot);
  if (slot->taken) return Invalid("admit of slot {}, which is taken", admit.slot.value);
  if (admit.prompt_tokens < 1 || admit.computed_tokens < 0 || admit.sequence < 0) {
    return Invalid("admit of slot {}: prompt_tokens {}, computed_tokens {}, sequence {}",
                   admit.slot.value, admit.prompt_tokens, admit.computed_tokens, admit.sequence);
  }
  const StopParams& stop = admit.request.stop;
  const auto& biases = admit.request.sampling.logit_bias;
  if (std::ssize(biases) > kLogitBiasMax || std::ssize(stop.end_token_ids) > kEndTokensMax ||
      std::ssize(stop.stop_token_ids) > kStopTokensMax) {
    return Invalid(
        "admit of slot {}: {} biases, {} end tokens and {} stop tokens; at most {}, {} and {}",
        admit.slot.value, biases.size(), stop.end_token_ids.size(), stop.stop_token_ids.size(),
        kLogitBiasMax, kEndTokensMax, kStopTokensMax);
  }
  slot->taken = true;
  slot->admission = ++admissions_;
  slot->admitted_tokens = admit.computed_tokens;
  slot->request = admit.request;
  slot->grammar_digest = admit.grammar_digest;
  slot->seed = admit.seed;
  slot->sequence = admit.sequence;
  slot->prompt_tokens = admit.prompt_tokens;
  slot->computed_tokens = admit.computed_tokens;
  slot->end_ids = stop.end_token_ids;
  slot->end_ids.insert(slot->end_ids.end(), stop.stop_token_ids.begin(), stop.stop_token_ids.end());
  if (const ThinkingParams& thinking = admit.request.thinking; thinking.end >= 0) {
    slot->thinking = {.begin = thinking.begin,
                      .end = thinking.end,
                      .budget = thinking.budget,
                      .state = thinking.opened ? 0 : kernels::kThinkingWaits};
  }
  if (!InVocabulary(admit.request)) slot->fault = RowFault::kTokenOutOfRange;
  return AppendIds(admit, slot);
}

absl::Status Slots::Append(const Extend& extend) {
  FATHOM_ASSIGN_OR_RETURN(Slot * slot, Taken(extend.slot, "extend"));
  if (extend.block_kind != BlockKind::kTokens) {
    return Invalid(
        "extend of slot {}: this worker does not know its kind of blocks {}; run one "
        "version",
        extend.slot.value, static_cast<int>(extend.block_kind));
  }
  if (slot->blocks.size() + extend.block_ids.size() > static_cast<size_t>(limits_.pool_blocks)) {
    return Invalid("slot {} is given {} blocks; the pool has {}", extend.slot.value,
                   slot->blocks.size() + extend.block_ids.size(), limits_.pool_blocks);
  }
  for (const BlockId block : extend.block_ids) {
    if (block.value < 1 || block.value >= limits_.pool_blocks)
      slot->fault = RowFault::kBlockOutOfRange;
    slot->blocks.push_back(block);
  }
  return absl::OkStatus();
}

std::optional<DraftWork> Slots::DraftsOf(const Chunk& chunk) const {
  const auto* decode = std::get_if<DecodeRow>(&chunk.work);
  if (decode == nullptr || decode->draft_max <= 0 || !chunk.sample) return std::nullopt;
  if (chunk.slot.value < 1 || chunk.slot.value > limits_.slots) return std::nullopt;
  const Slot& slot = this->slot(chunk.slot);
  // Begin refuses what is wrong with the row.
  if (!slot.taken || slot.fault != RowFault::kNone || slot.drafts) return std::nullopt;
  if (!slot.grammar_digest.empty()) return std::nullopt;  // A draft would need its own mask.
  if (slot.sampled_by != decode->fed_by_step || slot.known_tokens != slot.length()) {
    return std::nullopt;
  }
  if (slot.thinks()) return std::nullopt;
  const int64_t room = std::min(static_cast<int64_t>(slot.blocks.size()) * limits_.block_tokens,
                                int64_t{limits_.context_tokens}) -
                       slot.length();
  const auto drafts =
      static_cast<int32_t>(std::min<int64_t>({decode->draft_max, limits_.draft_max, room}));
  if (drafts <= 0) return std::nullopt;
  return DraftWork{chunk.slot, &slot, drafts};
}

absl::StatusOr<ChunkWork> Slots::Begin(StepId step, const Chunk& chunk,
                                       std::vector<TokenId> drafts) {
  FATHOM_ASSIGN_OR_RETURN(Slot * slot, Taken(chunk.slot, "chunk"));
  if (slot->last_step == step) {
    return Invalid("step {} has two chunks of slot {}", step.value, chunk.slot.value);
  }
  slot->last_step = step;
  ChunkWork work{.id = chunk.slot,
                 .admission = slot->admission,
                 .admitted_tokens = slot->admitted_tokens,
                 .slot = slot,
                 .sequence = slot->sequence,
                 .position = slot->position(),
                 .start = slot->computed_tokens,
                 .fed = slot->computed_tokens >= slot->known_tokens,
                 .fed_by = slot->sampled_by.value_or(StepId{}),
                 .sample = chunk.sample,
                 .logprobs = slot->request.output.logprobs.has_value(),
                 .guided = !slot->grammar_digest.empty(),
                 .fault = slot->fault};
  FATHOM_RETURN_IF_ERROR(CheckChunk(step, chunk, *slot, &work));
  const int64_t room = static_cast<int64_t>(slot->blocks.size()) * limits_.block_tokens;
  if (work.fault == RowFault::kNone && (work.end() > room || work.end() > limits_.context_tokens)) {
    work.fault = slot->fault = RowFault::kBlockOutOfRange;
  }
  if (work.sample) slot->sampled_by = step;
  // After a fault nothing is appended. Chunks that were planned before the scheduler knew of the
  // fault are then ignored and are no error.
  if (work.fault != RowFault::kNone) return work;
  slot->computed_tokens = work.end();
  if (!drafts.empty()) {
    slot->drafts = true;
    work.count += static_cast<int32_t>(drafts.size());
    work.drafts = std::move(drafts);
  }
  if (slot->request.output.prompt_logprobs) {
    work.scores = std::max(0, std::min(work.end() + 1, slot->prompt_tokens) - (work.start + 1));
  }
  if (work.sample) slot->ids.push_back(0);
  return work;
}

void Slots::Learn(const LearnedSamples& samples) {
  Slot& slot = slots_[static_cast<size_t>(samples.id.value)];
  if (!slot.taken || slot.admission != samples.admission) return;
  if (samples.drafts) slot.drafts = false;
  if (samples.ids.empty()) return;  // A fault; the device faults all later rows of the slot.
  FATHOM_CHECK(samples.at == slot.known_tokens && samples.at < slot.length(),
               "slot {}: samples at {} of {} known and {} tokens", samples.id.value, samples.at,
               slot.known_tokens, slot.length());
  for (size_t i = 0; i < samples.ids.size(); ++i) {
    NoteThinking(samples.ids[i], samples.at + static_cast<int32_t>(i), &slot);
  }
  slot.ids[static_cast<size_t>(samples.at)] = samples.ids.front();
  slot.ids.insert(slot.ids.end(), samples.ids.begin() + 1, samples.ids.end());
  slot.computed_tokens += static_cast<int32_t>(samples.ids.size()) - 1;
  slot.known_tokens += static_cast<int32_t>(samples.ids.size());
}

// Checks what the chunk computes and samples against the slot, and sets work->count.
absl::Status Slots::CheckChunk(StepId step, const Chunk& chunk, const Slot& slot,
                               ChunkWork* work) const {
  const int32_t open = slot.length() - slot.computed_tokens;
  if (slot.drafts) {
    return Invalid("step {}: a chunk of slot {}, whose row with drafts has no result yet",
                   step.value, chunk.slot.value);
  }
  if (const auto* decode = std::get_if<DecodeRow>(&chunk.work)) {
    if (slot.sampled_by != decode->fed_by_step) {
      return Invalid(
          "step {}: the row of slot {} is fed by step {}, but its last sample was of step {}",
          step.value, chunk.slot.value, decode->fed_by_step.value,
          slot.sampled_by ? std::to_string(slot.sampled_by->value) : "none");
    }
    if (work->fault != RowFault::kNone) return absl::OkStatus();
    FATHOM_CHECK(open == 1, "slot {} has {} tokens to compute after a sample", chunk.slot.value,
                 open);
    work->count = 1;
  } else {
    work->count = std::get<int32_t>(chunk.work);
    if (work->count < 1 || (work->count > open && work->fault == RowFault::kNone)) {
      return Invalid("step {}: a chunk of {} tokens of slot {}, which has {} not computed",
                     step.value, work->count, chunk.slot.value, open);
    }
    if (work->fault != RowFault::kNone) return absl::OkStatus();
  }
  if (work->sample && (slot.more || work->end() != slot.length())) {
    return Invalid("step {}: a sample after token {} of slot {}, which has {}{}", step.value,
                   work->end(), chunk.slot.value, slot.length(),
                   slot.more ? " and more to come" : "");
  }
  if (slot.more && slot.request.output.prompt_logprobs && work->end() == slot.length()) {
    return Invalid(
        "step {}: prompt_logprobs of slot {} need the next prompt token, which is still to come",
        step.value, chunk.slot.value);
  }
  return absl::OkStatus();
}

}  // namespace fathom::worker
