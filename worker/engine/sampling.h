// worker/engine/sampling.h: the one place where a request's sampling parameters become a sampler's
// arguments. Pure.
#pragma once

#include "worker/engine/slots.h"

namespace fathom::worker {

// `Args` is kernels::SampleArgs or kernels::cuda::SamplerSlot, whose members have equal names. What
// has variable length (bias, end ids, seen tokens) each device keeps in its own way.
template <class Args>
void SetSampling(const Slot& slot, Args* args) {
  args->seed = slot.seed;
  args->sequence = slot.sequence;
  CopySamplingValues(slot.request.sampling, &args->params);
}

}  // namespace fathom::worker
