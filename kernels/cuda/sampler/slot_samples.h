// kernels/cuda/sampler/slot_samples.h: what the stages of a pipeline know of slots. The last stage
// packs the samples and faults of a step into a message, and the first stage takes them. A stage
// that is not the last one gives the faults of its rows as its outputs, and passes them on.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"
#include "kernels/cuda/sampler/sampler.h"

namespace fathom::kernels::cuda {

// What the last stage tells of a row with logits.
struct SlotSample {
  int32_t slot = 0;    // 0: the row samples and scores nothing.
  int32_t token = -1;  // The sample, 0 if the row has a fault; -1: the row was scored.
  int32_t fault = 0;   // FaultBits.
};

struct PackSamplesArgs {
  const SampleRow* rows = nullptr;  // [count]
  const SampleOut* outs = nullptr;  // [count], of the sampler.
  SlotSample* samples = nullptr;    // [count]
  int count = 0;
};
cudaError_t PackSamples(const LaunchContext& context, const PackSamplesArgs& args);

// Changes the slots as the sampler did (slot_tokens, slot_faults). A slot whose sequence is newer
// than the samples is left alone: they belong to the sequence that was there before.
struct TakeSamplesArgs {
  const SlotSample* samples = nullptr;  // [count]
  uint32_t step = 0;                    // Of the samples, modulo 2^32.
  const uint32_t* since = nullptr;      // [slots]: the step in which the slot's sequence began.
  int32_t* slot_tokens = nullptr;       // [slots]
  int32_t* slot_faults = nullptr;       // [slots]
  int count = 0;
  int slots_count = 0;
};
cudaError_t TakeSamples(const LaunchContext& context, const TakeSamplesArgs& args);

// The end of a stage that is not the last one. A row with logits has no token there; its output is
// the fault of its row or of its slot, which the slot keeps. The fault words of all rows are copied
// for the next stage, which adds them to its own (TakeFaults). REQUIRES: as for the rows of a
// sampler.
struct StageFaultsArgs {
  const SampleRow* rows = nullptr;  // [count]; logits_row < 0 is padding.
  const int32_t* faults = nullptr;  // [faults_count]: of the rows of the forward pass.
  int32_t* slot_faults = nullptr;   // [slots]
  SampleOut* out = nullptr;         // [count]; token, fault and logprob are written.
  int32_t* copies = nullptr;        // [faults_count]
  int count = 0;
  int faults_count = 0;
};
cudaError_t StageFaults(const LaunchContext& context, const StageFaultsArgs& args);

struct TakeFaultsArgs {
  const int32_t* copies = nullptr;  // [count]
  int32_t* faults = nullptr;        // [count]; bits are added.
  int count = 0;
};
cudaError_t TakeFaults(const LaunchContext& context, const TakeFaultsArgs& args);

}  // namespace fathom::kernels::cuda
