#include "kernels/cuda/sampler/sampler.h"

#include "kernels/cuda/sampler/sampler_pick.h"

namespace fathom::kernels::cuda {

cudaError_t Sample(const LaunchContext& context, const SamplerArgs& args) {
  const auto config = SamplerPickConfig(context.sm, args.vocab);
  if (!config) return cudaErrorInvalidValue;
  return config->kernel == SamplerKernel::kCluster ? SampleCluster(context, args)
                                                   : SampleGeneric(context, args);
}

}  // namespace fathom::kernels::cuda
