#include "kernels/cuda/linear/medium_epilogue.cuh"
#include "kernels/cuda/linear/medium_launch.cuh"

namespace fathom::kernels::cuda {

cudaError_t MediumResidual(const LaunchContext& context, const MediumWeight& w, const void* x,
                           int rows, void* residual, const NormAfter& norm) {
  if (norm.weight != nullptr && (w.n % 8 != 0 || w.n > kNormAfterWidthMax)) {
    return cudaErrorInvalidValue;
  }
  const medium::ResidualEpilogue epilogue{residual, norm, static_cast<float>(1.0 / w.n)};
  return medium::LaunchMedium<32, 40, 48, 56, 64>(MediumOp::kResidual, {context, w, x, rows},
                                                  epilogue);
}

cudaError_t MediumPartial(const LaunchContext& context, const MediumWeight& w, const void* x,
                          int rows, void* y) {
  return medium::LaunchMedium<32, 40, 48, 56, 64>(MediumOp::kResidual, {context, w, x, rows},
                                                  medium::PartialEpilogue{y});
}

}  // namespace fathom::kernels::cuda
