// kernels/cuda/sampler/sampler_thinking.cuh: the thinking budgets of slots (kernels/thinking.h) in
// the kernels of the sampler. `slots` may be null: there are no budgets.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/sampler/sampler.h"

namespace fathom::kernels::cuda {

// The token that the row's budget forces; -1: none.
FATHOM_DEVICE int32_t ForcedToken(const ThinkingSlot* slots, const SampleRow& ask) {
  if (slots == nullptr || ask.target >= 0) return -1;
  const ThinkingSlot& slot = slots[ask.slot];
  return ForcesThinkingEnd(slot, ask.position) ? slot.end : -1;
}

// After `token` was drawn for the row. One thread calls it.
FATHOM_DEVICE void NoteThinking(ThinkingSlot* slots, const SampleRow& ask, int32_t token) {
  if (slots == nullptr || slots[ask.slot].state == kThinkingOver) return;
  slots[ask.slot].state = ThinkingAfter(slots[ask.slot], token, ask.position);
}

}  // namespace fathom::kernels::cuda
