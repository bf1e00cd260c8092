#include "kernels/cuda/sampler.h"

namespace fathom::kernels::cuda {

cudaError_t Sample(const LaunchContext& context, const SamplerArgs& args) {
  return context.sm == 90 ? SampleCluster(context, args) : SampleGeneric(context, args);
}

}  // namespace fathom::kernels::cuda
