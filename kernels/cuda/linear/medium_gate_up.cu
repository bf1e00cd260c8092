#include "kernels/cuda/linear/medium_epilogue.cuh"
#include "kernels/cuda/linear/medium_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t MediumGateUp(const LaunchContext& context, const MediumWeight& w, const void* x,
                         int rows, void* y) {
  return medium::LaunchMedium<160, 176, 224>(MediumOp::kGateUp, {context, w, x, rows},
                                             medium::GateUpEpilogue{y});
}

}  // namespace fathom::kernels::cuda
