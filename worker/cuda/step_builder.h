// worker/cuda/step_builder.h: turns a plan into the inputs of a GPU step and into what its results
// will mean. Pure but for the slots that it moves on: a token that is still to be drawn is a
// placeholder in its slot here, for the device feeds it to the next step itself. Thread: the
// engine thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "cluster/plan.h"
#include "common/status.h"
#include "kernels/cuda/attention/prefill_attention.h"
#include "kernels/cuda/sampler/sampler.h"
#include "modeling/layout/cuda_step_layout.h"
#include "worker/engine/slots.h"

namespace fathom::worker {

// How a chunk's results become its ResultRow.
struct PlannedRow {
  ResultRow row;  // Without tokens and log-probabilities; `fault` when known already.
  int32_t slot = 0;
  int32_t first_row = 0;  // Of the forward pass.
  int32_t row_count = 0;
  int32_t sample = -1;      // Index of its draw among the step's samples; -1: none.
  int32_t logprobs = -1;    // Alternatives of the drawn token; -1: no log-probability.
  int32_t score_begin = 0;  // Its scored prompt rows among the samples.
  int32_t score_count = 0;
  int32_t score_start = 0;  // Prompt position of the first scored token.
  int32_t score_top = 0;
};

struct BuiltStep {
  CudaStepShape shape;  // Padded when `graphable`.
  CudaStepLayout layout;
  bool graphable = false;    // One-token rows only, each with its own logits row.
  int32_t live_rows = 0;     // Without padding.
  int32_t segments_sum = 0;  // Of the decode rows.
  std::vector<kernels::cuda::PrefillChunk> chunks;
  std::vector<PlannedRow> rows;  // One per chunk of the plan.
};

class StepBuilder {
 public:
  // `logits_rows`: rows with logits of one pass of the head; `partial_segments`: what the attention
  // workspace holds.
  StepBuilder(const EngineLimits& limits, int32_t logits_rows, int32_t partial_segments,
              bool graphs);

  // Writes `layout.bytes` bytes to `input` (CudaStepBytesMax(limits) are there). INVALID_ARGUMENT:
  // the plan is wrong as a whole and the epoch must end.
  absl::Status Build(const StepPlan& plan, Slots* slots, std::byte* input, BuiltStep* step);

 private:
  absl::Status BeginChunks(const StepPlan& plan, Slots* slots, BuiltStep* step);
  absl::Status Measure(const StepPlan& plan, BuiltStep* step) const;
  void FillRows(std::byte* input, BuiltStep* step);
  void FillSamples(std::byte* input, BuiltStep* step) const;
  void FillPadding(std::byte* input, const BuiltStep& step) const;

  // A chunk with something to compute.
  struct Work {
    ChunkWork chunk;
    int32_t planned = 0;  // Index into BuiltStep::rows.
    int32_t first_row = 0;
    bool fed = false;  // Its one token is the slot's last sample.
    int32_t scores() const { return chunk.prompt_logprobs_last() - chunk.prompt_logprobs_first(); }
    int32_t samples() const { return scores() + (chunk.sample ? 1 : 0); }
  };

  const EngineLimits limits_;
  const int32_t logits_rows_;
  const int32_t partial_segments_;
  const bool graphs_;
  std::vector<Work> works_;  // Kept for its memory: one-token ones first.
};

}  // namespace fathom::worker
