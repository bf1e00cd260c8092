// worker/cuda/step_builder.h: writes a batch as the inputs of a GPU step, directly from the slots
// of the engine. Pure. Thread: the engine thread.
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
  CudaStepShape shape;  // Padded if `graphable`.
  CudaStepLayout layout;
  bool graphable = false;    // Only chunks of one token, each with a row of logits.
  int32_t live_rows = 0;     // Rows without padding.
  int32_t segments_sum = 0;  // Segments of all decode rows.
  std::vector<kernels::cuda::PrefillChunk> chunks;
};

class StepBuilder {
 public:
  // `logits_rows`: the rows with logits of one pass of the LM head. `partial_segments`: the
  // segments that the attention workspace has room for.
  StepBuilder(const EngineLimits& limits, int32_t logits_rows, int32_t partial_segments,
              bool graphs);

  // Writes `layout.bytes` bytes to `input`, which has CudaStepBytesMax(limits) bytes. The outputs
  // of the batch are, in their order, the sample rows whose logits_row is not negative.
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
