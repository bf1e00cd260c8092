// modeling/layout/cuda_step_buffers.h: what a rank on a GPU allocates beside its weights and its KV
// blocks, by the limits of its steps; the names are those that worker/cuda/ looks up. Pure; any
// thread; no CUDA needed.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "modeling/config/model_config.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/layout/engine_limits.h"

namespace fathom::worker {

inline constexpr int64_t kCudaBufferAlignment = 256;

// Rows with logits of one step: a row for each sequence, and some for scored prompts.
int32_t CudaLogitsRows(const EngineLimits& limits);

// Bytes of a block of 64 tokens on one of `tp` ranks: all layers, keys and values.
int64_t CudaBlockBytes(const ModelConfig& config, int32_t tp);

// In the order of the arenas activations, logits, attention, sampler, inputs. REQUIRES:
// CheckTensorParallel(config, tp) is OK; every limit > 0 but pool_blocks, which may be 0.
std::vector<CudaBuffer> CudaStepBuffers(const ModelConfig& config, const EngineLimits& limits,
                                        int32_t tp);

// Of an arena ("" for all), each buffer at a multiple of kCudaBufferAlignment.
int64_t SumOf(const std::vector<CudaBuffer>& buffers, std::string_view arena = {});

}  // namespace fathom::worker
