// common/engine_limits.h: the limits that the plans of a group obey: the least of its ranks'
// limits. The buffers of the engine and of the model are sized by them, so a plan beyond a limit is
// refused.
#pragma once

#include <cstdint>

namespace fathom {

struct EngineLimits {
  int32_t context_tokens = 0;  // The longest sequence, prompt and output.
  int32_t block_tokens = 0;    // Tokens in a KV block.
  int32_t pool_blocks = 0;  // Includes the padding block 0; ids 1 to pool_blocks - 1 may be used.
  int32_t slots = 0;        // Ids 1 to slots.
  int32_t step_tokens = 0;  // Rows of one step.
  int32_t vocab = 0;
  // The most rows of a step that has decode rows; the scheduler obeys it. 0: step_tokens.
  int32_t mixed_step_tokens = 0;
  // Blocks of swap space in the host's memory, beside the pool; ids are 1 to host_blocks.
  int32_t host_blocks = 0;
  // The most drafts of a decode row (speculative decoding), at most kDraftsMax; 0: none.
  int32_t draft_max = 0;
  bool operator==(const EngineLimits&) const = default;
};

}  // namespace fathom
