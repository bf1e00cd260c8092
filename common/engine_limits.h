// common/engine_limits.h: what plans of a group keep to: the least of its ranks' limits.
// Sizes of the engine's and the model's buffers follow from it.
#pragma once

#include <cstdint>

namespace fathom {

struct EngineLimits {
  int32_t context_tokens = 0;  // Longest sequence, prompt and output.
  int32_t block_tokens = 0;    // Tokens in a KV block.
  int32_t pool_blocks = 0;     // With the padding block 0: ids 1 to pool_blocks - 1 may be used.
  int32_t slots = 0;           // Without the padding slot 0: ids 1 to slots.
  int32_t step_tokens = 0;     // Rows of one step.
  int32_t vocab = 0;
  // Rows of a step that decodes, at most, which the scheduler keeps to; 0: step_tokens.
  int32_t mixed_step_tokens = 0;
  bool operator==(const EngineLimits&) const = default;
};

}  // namespace fathom
