// modeling/layout/cuda_memory_plan.h: every byte that a rank takes on a GPU, computed before
// anything is loaded. The plan is one list of buffers, each in a named arena; the printed table and
// the allocation (worker/cuda/device_arenas.h) both follow from it. Pure; any thread; no CUDA
// needed.
//
// gpu_memory_utilization * capacity = weights + activations + logits + attention + sampler + inputs
// + peers + stages + graphs + context + kv, where peers is what the ranks of a stage share with
// each other, and stages has the messages between stages. The memory that is left goes to kv,
// unless
// --kv-cache-memory fixes it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/engine_limits.h"
#include "kernels/tensor.h"
#include "modeling/spec/model_spec.h"

namespace fathom {

// A buffer is allocated once at start, aligned to 256 bytes in its arena.
struct CudaBuffer {
  std::string arena;
  std::string name;
  int64_t bytes = 0;
};

struct CudaArena {
  std::string name;
  int64_t bytes = 0;
  // False: not allocated with the arenas. The driver takes context and graphs, so their size is a
  // prediction; each epoch has new memory for peers and stages.
  bool ours = true;
};

struct CudaMemoryRequest {
  int64_t capacity_bytes = 0;  // The memory of the device.
  int64_t taken_bytes = 0;     // Taken by other processes at start.
  double utilization = 0.92;   // --gpu-memory-utilization
  int64_t kv_cache_bytes = 0;  // --kv-cache-memory; 0: the memory that is left.
  int64_t swap_bytes = 0;      // --swap-space, in the host's memory; 0: none.
  kernels::DType dtype = kernels::DType::kBf16;
  int32_t tp = 1;
  int32_t stages = 1;
  int32_t block_tokens = 64;
  // --max-model-len; 0: the model's context, or what the pool can hold.
  int32_t context_tokens = 0;
  int32_t draft_max = 0;    // Drafts of a decode row (speculative decoding).
  int32_t slots = 0;        // --max-num-seqs; 0: default.
  int32_t step_tokens = 0;  // --max-num-batched-tokens; 0: a default by model and card.
  // The rates of the card, for that default (modeling/layout/gpu_cards.h).
  double matrix_tflops = 700;
  double read_tbs = 3.0;  // 1e12 bytes a second.
};

struct CudaMemoryPlan {
  std::vector<CudaArena> arenas;    // In the order above; their sum is total_bytes.
  std::vector<CudaBuffer> buffers;  // The buffers of the arenas with `ours`.
  EngineLimits limits;
  int32_t logits_rows = 0;  // The most rows with logits in a step.
  // limits.context_tokens is less if asked for or if memory is short.
  int32_t model_context_tokens = 0;
  bool context_asked = false;  // --max-model-len was a number.
  int64_t kv_bytes_per_block = 0;
  int64_t capacity_bytes = 0;
  int64_t budget_bytes = 0;  // utilization * capacity, minus what other processes take.
  int64_t total_bytes = 0;   // At most budget_bytes.
  int64_t swap_bytes = 0;    // Pinned memory of the host, no part of the above.
  int64_t pool_tokens() const {
    return (int64_t{limits.pool_blocks} - 1) * limits.block_tokens;  // Block 0 is padding.
  }
  int64_t Bytes(std::string_view arena) const;
};

// RESOURCE_EXHAUSTED with the arithmetic and the nearest settings that would fit. INVALID_ARGUMENT
// for a value that no amount of memory would make valid, and for a model that a GPU cannot compute.
// Defaults: 256 sequences, fewer if the pool has less than 4 blocks for each; as many tokens per
// step as keep a step below 40 ms (256 to 8,192); the model's context, or what the pool can hold if
// that is at least 1,024 tokens. The plans are those of a rank in each stage; all have the same
// limits, which fit in the stage with the least room. REQUIRES: capacity_bytes > 0, tp > 0, stages
// > 0.
absl::StatusOr<std::vector<CudaMemoryPlan>> PlanCudaStages(const ModelSpec& spec,
                                                           const CudaMemoryRequest& request);
// The plan with the largest total.
absl::StatusOr<CudaMemoryPlan> PlanCudaMemory(const ModelSpec& spec,
                                              const CudaMemoryRequest& request);

const CudaMemoryPlan& LargestOf(const std::vector<CudaMemoryPlan>& plans);  // Not empty.

// The table that `fathom plan` and the worker's log print.
std::string ToTable(const CudaMemoryPlan& plan);
// The same for each stage, with a line before each if there are several.
std::string ToTables(const std::vector<CudaMemoryPlan>& plans);

}  // namespace fathom
