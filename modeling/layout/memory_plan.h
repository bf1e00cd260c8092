// modeling/layout/memory_plan.h: bytes that one rank needs, before anything is loaded. Pure; any
// thread. On the CPU matrices stay as stored; norms, biases, KV, activations and logits are fp32
// (docs/NUMERICS.md, "The CPU recipe").
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "modeling/config/model_config.h"
#include "modeling/spec/model_spec.h"

namespace fathom::worker {

// Padding, and one for a sequence.
inline constexpr int64_t kPoolBlocksMin = 2;

// The value of --max-model-len as tokens; 0: auto. INVALID_ARGUMENT for what no group can serve: a
// context has room for a token of a prompt and one of an answer.
absl::StatusOr<int32_t> ParseContextTokens(const std::string& text);

struct MemoryRequest {
  int32_t tp = 1;
  StoredType stored_type = StoredType::kBf16;
  int32_t block_tokens = 16;
  int32_t step_tokens = 0;     // Most tokens of one step.
  int32_t logits_rows = 0;     // Most rows of one Forward with logits.
  int32_t context_tokens = 0;  // 0: the model's. The rotary tables end there, or with the pool.
  int64_t kv_cache_bytes = 0;  // What the KV pool may take on this rank.
};

struct MemoryPlan {
  int64_t weights_bytes = 0;       // Without the padding of packed matrices.
  int64_t activation_bytes = 0;    // What Decoder allocates beside weights.
  int64_t kv_bytes_per_block = 0;  // All layers, all planes.
  int64_t kv_bytes_per_token = 0;
  int32_t blocks = 0;       // That fit; block 0, the padding, included.
  int64_t kv_bytes = 0;     // blocks * kv_bytes_per_block.
  int64_t total_bytes = 0;  // weights + activations + kv.
  bool operator==(const MemoryPlan&) const = default;
};

// INVALID_ARGUMENT when `tp` does not fit the model or the CPU does not compute it,
// RESOURCE_EXHAUSTED when not even two blocks fit; with the numbers that would do. REQUIRES:
// block_tokens, step_tokens and logits_rows > 0.
absl::StatusOr<MemoryPlan> PlanMemory(const ModelSpec& spec, const MemoryRequest& request);

}  // namespace fathom::worker
