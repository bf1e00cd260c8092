// modeling/layout/memory_plan.h: the bytes that one rank on the CPU needs, computed before anything
// is loaded. Pure; any thread. Matrices keep their stored type; norms, biases, KV, activations and
// logits are fp32 (docs/NUMERICS.md, "The CPU recipe").
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/engine_limits.h"
#include "modeling/config/model_config.h"
#include "modeling/spec/model_spec.h"

namespace fathom {

// The padding block and one block for a sequence.
inline constexpr int64_t kPoolBlocksMin = 2;

// The defaults of a rank on the CPU.
inline constexpr int64_t kCpuKvCacheBytes = int64_t{512} << 20;
inline constexpr int32_t kCpuBlockTokens = 16;
inline constexpr int32_t kCpuSlots = 64;
inline constexpr int32_t kCpuStepTokens = 512;

// The rows with logits of one forward pass on the CPU: enough for all sequences that decode; longer
// scored prompts take several passes.
int32_t LogitsRows(const EngineLimits& limits);

// The value of --max-model-len in tokens; 0: auto. INVALID_ARGUMENT for a value that no group can
// serve: a context needs room for one token of a prompt and one of an answer.
absl::StatusOr<int32_t> ParseContextTokens(const std::string& text);

struct MemoryRequest {
  int32_t tp = 1;
  int32_t stages = 1;
  StoredType stored_type = StoredType::kBf16;
  int32_t block_tokens = 16;
  int32_t step_tokens = 0;     // The most tokens of a step.
  int32_t logits_rows = 0;     // The most rows with logits of one Forward.
  int32_t context_tokens = 0;  // 0: the model's. The rotary tables end there, or with the pool.
  int64_t kv_cache_bytes = 0;  // The bytes that the KV pool may take on this rank.
  int64_t swap_bytes = 0;      // --swap-space of this rank; 0: none.
  // The pool is not larger than so many sequences of the context need; 0: as large as fits.
  int32_t slots = 0;
};

struct MemoryPlan {
  int64_t weights_bytes = 0;       // Without the padding of packed matrices.
  int64_t activation_bytes = 0;    // What Decoder allocates besides weights.
  int64_t kv_bytes_per_block = 0;  // In all planes of the rank's layers.
  int64_t kv_bytes_per_token = 0;
  int32_t blocks = 0;       // Of the pool, including the padding block 0.
  int64_t kv_bytes = 0;     // blocks * kv_bytes_per_block.
  int32_t host_blocks = 0;  // Of the swap space, without its padding block 0.
  int64_t swap_bytes = 0;   // (host_blocks + 1) * kv_bytes_per_block; 0: none.
  int64_t total_bytes = 0;  // weights + activations + kv + swap space.
  bool operator==(const MemoryPlan&) const = default;
};

// The plans of a rank in each stage. All have the same number of blocks, the least that fits in a
// stage: a block id is an index into the planes of every stage. INVALID_ARGUMENT if `tp` or
// `stages` does not fit the model or the CPU cannot compute the model. RESOURCE_EXHAUSTED if not
// even two blocks fit; the message has numbers that would fit. REQUIRES: block_tokens, step_tokens
// and logits_rows > 0.
absl::StatusOr<std::vector<MemoryPlan>> PlanStages(const ModelSpec& spec,
                                                   const MemoryRequest& request);

// What a rank needs that may be in any stage: the largest total, and the numbers of its stage.
absl::StatusOr<MemoryPlan> PlanMemory(const ModelSpec& spec, const MemoryRequest& request);

}  // namespace fathom
