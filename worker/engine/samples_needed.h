// worker/engine/samples_needed.h: which samples the first of several stages takes before a step.
// Pure; any thread.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/types.h"
#include "worker/engine/device.h"

namespace fathom::worker {

// The first stage takes the samples of all steps before this one, before it computes `batch`. Those
// that feed a chunk it waits for. The scheduler had the results of all steps before the stages + 1
// in flight when it made the plan, so the samples of those are there, or will be without this step.
// Every rank of the stage takes the samples of the same steps, so all of them know the same faults.
inline StepId SamplesNeeded(const StepBatch& batch, int32_t stages) {
  const auto in_flight = static_cast<uint64_t>(stages) + 1;
  uint64_t end = batch.step.value + 1 > in_flight ? batch.step.value + 1 - in_flight : 0;
  for (const ChunkWork* chunk : batch.chunks) {
    if (chunk->fed) end = std::max(end, chunk->fed_by.value + 1);
  }
  return {end};
}

}  // namespace fathom::worker
