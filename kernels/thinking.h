// kernels/thinking.h: the rule of a thinking budget, for every device: a function of the tokens of
// a sequence so far (docs/NUMERICS.md, "Thinking budget"). Reasoning is open from the first
// generated token on if the prompt opened it, or behind the first generated token if that is
// `begin`. The token `end` closes it for good. If `budget` tokens were generated while it is open,
// the next token is `end`, whatever the logits are. Pure.
#pragma once

#include <cstdint>

namespace fathom::kernels {

#ifdef __CUDACC__
#define FATHOM_THINKING static __host__ __device__ __forceinline__
#else
#define FATHOM_THINKING static inline
#endif

// States below 0; another one is the position of the first token of the open reasoning.
inline constexpr int32_t kThinkingWaits = -1;  // The first generated token may open it.
inline constexpr int32_t kThinkingOver = -2;   // It is closed, or there is no budget.

struct ThinkingSlot {
  int32_t begin = -1;
  int32_t end = -1;
  int32_t budget = 0;
  int32_t state = kThinkingOver;
};

// Whether the token at `position` (of the generated ones) is forced to be slot.end.
FATHOM_THINKING bool ForcesThinkingEnd(const ThinkingSlot& slot, int32_t position) {
  return slot.state >= 0 && position - slot.state >= slot.budget;
}

// The state after `token` was generated at `position`.
FATHOM_THINKING int32_t ThinkingAfter(const ThinkingSlot& slot, int32_t token, int32_t position) {
  if (slot.state >= 0) return token == slot.end ? kThinkingOver : slot.state;
  if (slot.state != kThinkingWaits || token != slot.begin) return kThinkingOver;
  return position + 1;
}

#undef FATHOM_THINKING

}  // namespace fathom::kernels
