#include "kernels/canon.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {
namespace {

FATHOM_SIMD float SumOfSquares(const float* x, int64_t dim) {
  Vec acc[kHalves];
  for (int h = 0; h < kHalves; ++h) acc[h] = Zero();
  int64_t d = 0;
  for (; d + canon::kLanes <= dim; d += canon::kLanes) {
    for (int h = 0; h < kHalves; ++h) {
      const Vec v = Load(x + d + h * kVecFloats);
      acc[h] = Fma(v, v, acc[h]);
    }
  }
  float lanes[canon::kLanes];
  for (int h = 0; h < kHalves; ++h) Store(lanes + h * kVecFloats, acc[h]);
  for (int j = 0; d < dim; ++d, ++j) lanes[j] = canon::Fma(x[d], x[d], lanes[j]);
  return canon::ReduceLanes(lanes);
}

}  // namespace

void RmsNorm(const RmsNormArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t r = row_begin; r < row_end; ++r) {
    for (int64_t g = 0; g < args.groups; ++g) {
      const float* x = args.x + r * args.x_stride + g * args.dim;
      float* y = args.y + r * args.y_stride + g * args.dim;
      const float factor = canon::NormFactor(SumOfSquares(x, args.dim), args.dim, args.eps);
      for (int64_t d = 0; d < args.dim; ++d) y[d] = x[d] * factor * args.weight[d];
    }
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
