#include "kernels/cuda/medium_epilogue.cuh"
#include "kernels/cuda/medium_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t MediumResidual(const LaunchContext& context, const MediumWeight& w, const void* x,
                           int rows, void* residual) {
  return medium::LaunchMedium<32, 40, 56, 64>(MediumOp::kResidual, {context, w, x, rows},
                                              medium::ResidualEpilogue{residual});
}

}  // namespace fathom::kernels::cuda
