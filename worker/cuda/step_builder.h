// worker/cuda/step_builder.h: writes a batch as the inputs of a GPU step, in one pass over the
// engine's slots. Pure. Thread: the engine thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cuda/attention/prefill_attention.h"
#include "kernels/cuda/sampler/sampler.h"
#include "modeling/layout/cuda_step_layout.h"
#include "worker/engine/device.h"

namespace fathom::worker {

struct BuiltStep {
  CudaStepShape shape;  // Padded when `graphable`.
  CudaStepLayout layout;
  bool graphable = false;    // One-token rows only, each with its own logits row.
  int32_t live_rows = 0;     // Without padding.
  int32_t segments_sum = 0;  // Of the decode rows.
  std::vector<kernels::cuda::PrefillChunk> chunks;
};

class StepBuilder {
 public:
  // `logits_rows`: rows with logits of one pass of the head; `partial_segments`: what the attention
  // workspace holds.
  StepBuilder(const EngineLimits& limits, int32_t logits_rows, int32_t partial_segments,
              bool graphs);

  // Writes `layout.bytes` bytes to `input` (CudaStepBytesMax(limits) are there). The batch's
  // outputs are, in their order, the sample rows that have a logits row.
  void Build(const StepBatch& batch, std::byte* input, BuiltStep* step) const;

 private:
  void Measure(const StepBatch& batch, BuiltStep* step) const;
  void FillRows(const StepBatch& batch, std::byte* input, BuiltStep* step) const;
  void FillSamples(const StepBatch& batch, std::byte* input, const BuiltStep& step) const;
  void FillPadding(std::byte* input, const BuiltStep& step) const;

  const EngineLimits limits_;
  const int32_t logits_rows_;
  const int32_t partial_segments_;
  const bool graphs_;
};

}  // namespace fathom::worker
