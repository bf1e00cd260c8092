#include "kernels/cuda/linear/medium_epilogue.cuh"
#include "kernels/cuda/linear/medium_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t MediumHead(const LaunchContext& context, const MediumWeight& w, const void* x, int rows,
                       float* logits) {
  return medium::LaunchMedium<128, 160>(MediumOp::kHead, {context, w, x, rows},
                                        medium::HeadEpilogue{logits});
}

}  // namespace fathom::kernels::cuda
