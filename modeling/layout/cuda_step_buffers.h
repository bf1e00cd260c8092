// modeling/layout/cuda_step_buffers.h: the buffers of a rank on a GPU besides its weights and its
// KV blocks, by the limits of a step. worker/cuda/ looks a buffer up by its name. Pure; any thread;
// no CUDA needed.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "common/engine_limits.h"
#include "kernels/cuda/comm/peer_region.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/spec/rank_model.h"

namespace fathom {

inline constexpr int64_t kCudaBufferAlignment = 256;

// The most rows with logits in a step: one row for each sequence, and some rows for scored prompts.
int32_t CudaLogitsRows(const EngineLimits& limits);

// Bytes of an element of an activation and of a KV block.
inline constexpr int64_t kCudaElementBytes = 2;

// The buffers that the rank has, in the order of the arenas activations, logits, attention,
// sampler, inputs. A buffer that all layers use has the size of the widest layer; what only the
// last stage computes with (logits, the sampler) only its ranks have. REQUIRES: every limit > 0,
// except pool_blocks, which may be 0.
std::vector<CudaBuffer> CudaStepBuffers(const RankModel& model, const EngineLimits& limits);

// The memory that a rank shares with the other ranks of its stage (worker/comm/device_comm.h):
// partial sums, and in the last stage its slice of the logits and its samples. REQUIRES: tp > 1.
kernels::cuda::PeerRegionSizes PeerSizesOf(const RankModel& model, const EngineLimits& limits);

// The steps of a group with so many stages that are planned and have no result: the scheduler
// plans one more than there are stages.
constexpr int32_t StepsAhead(int32_t stages) { return stages + 1; }

// What a row is between two stages: its residual, and behind all of them their fault words.
inline int64_t StageRowsBytes(int64_t rows, int64_t hidden) {
  return rows * (hidden * kCudaElementBytes + int64_t{sizeof(int32_t)});
}

// The memory by which a rank gets messages of the ranks of other stages with its tp rank: rows of
// the stage before, and in the first stage the samples of the last one. Samples have places for
// all steps in flight; so the last stage never waits for the first one, which may wait for it.
// REQUIRES: stages > 1.
struct StagePeerSizes {
  kernels::cuda::PeerRegionSizes rows;
  kernels::cuda::PeerRegionSizes samples;
};
StagePeerSizes StageSizesOf(const RankModel& model, const EngineLimits& limits);

// The bytes of the regions of PeerSizesOf and of StageSizesOf; 0: the rank has none.
int64_t PeerBytes(const RankModel& model, const EngineLimits& limits);
int64_t StageBytes(const RankModel& model, const EngineLimits& limits);

// The bytes of an arena ("" for all arenas), with each buffer at a multiple of
// kCudaBufferAlignment.
int64_t SumOf(const std::vector<CudaBuffer>& buffers, std::string_view arena = {});

}  // namespace fathom
