// modeling/layout/cuda_step_buffers.h: what a rank on a GPU allocates beside its weights and its KV
// blocks, by the limits of its steps; the names are those that worker/cuda/ looks up. Pure; any
// thread; no CUDA needed.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/engine_limits.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/spec/rank_model.h"

namespace fathom::worker {

inline constexpr int64_t kCudaBufferAlignment = 256;

// Rows with logits of one step: a row for each sequence, and some for scored prompts.
int32_t CudaLogitsRows(const EngineLimits& limits);

// Bytes of an activation and of an element of a KV block.
inline constexpr int64_t kCudaElementBytes = 2;

// In the order of the arenas activations, logits, attention, sampler, inputs. Buffers that all
// layers use have the widest one's size. REQUIRES: every limit > 0 but pool_blocks, which may be 0.
std::vector<CudaBuffer> CudaStepBuffers(const RankModel& model, const EngineLimits& limits);

// Of an arena ("" for all), each buffer at a multiple of kCudaBufferAlignment.
int64_t SumOf(const std::vector<CudaBuffer>& buffers, std::string_view arena = {});

}  // namespace fathom::worker
