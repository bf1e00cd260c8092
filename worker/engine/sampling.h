// worker/engine/sampling.h: the only function that turns the sampling parameters of a request into
// the arguments of a sampler. Pure.
#pragma once

#include "worker/engine/slots.h"

namespace fathom::worker {

// `Args` is kernels::SampleArgs or kernels::cuda::SamplerSlot, whose members have the same names.
// Each device stores the parameters of variable length (biases, end ids, seen tokens) in its own
// way.
template <class Args>
void SetSampling(const Slot& slot, Args* args) {
  const SamplingParams& sampling = slot.request.sampling;
  args->seed = slot.seed;
  args->sequence = slot.sequence;
  args->temperature = sampling.temperature;
  args->top_k = sampling.top_k;
  args->top_p = sampling.top_p;
  args->min_p = sampling.min_p;
  args->repetition_penalty = sampling.repetition_penalty;
  args->presence_penalty = sampling.presence_penalty;
  args->frequency_penalty = sampling.frequency_penalty;
}

}  // namespace fathom::worker
