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
  args->seed = slot.seed;
  args->sequence = slot.sequence;
  CopySamplingValues(slot.request.sampling, &args->params);
}

}  // namespace fathom::worker
