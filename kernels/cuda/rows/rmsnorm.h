// kernels/cuda/rows/rmsnorm.h: y = round(x * r * w) with r = 1 / sqrt(mean(x^2) + eps), in the
// order of docs/NUMERICS.md, "The CUDA recipe": 128 lanes of vectors of 8. With `addend`, the op
// computes x = round(x + addend) first (the residual, which is a rounding point of its own). With
// `gather`, row i of y is the norm of row gather[i].
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

struct RmsNormArgs {
  DType dtype = DType::kBf16;
  void* x = nullptr;                // [.][width]; written only with `addend`.
  const void* addend = nullptr;     // [rows][width] or null. REQUIRES: `gather` is null if set.
  const float* weight = nullptr;    // [width], fp32.
  const int32_t* gather = nullptr;  // [rows] or null.
  void* y = nullptr;                // [rows][width]; null: the op only adds the residual.
  float eps = 0;
  int rows = 0;
  int width = 0;  // A multiple of 8.
};
cudaError_t RmsNorm(const LaunchContext& context, const RmsNormArgs& args);

}  // namespace fathom::kernels::cuda
