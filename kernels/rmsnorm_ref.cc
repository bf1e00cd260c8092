#include "kernels/canon.h"
#include "kernels/rmsnorm.h"

namespace fathom::kernels {

void RmsNormRef(const RmsNormArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    for (int64_t g = 0; g < args.groups; ++g) {
      const float* x = args.x + r * args.x_stride + g * args.dim;
      float* y = args.y + r * args.y_stride + g * args.dim;
      const float factor = canon::NormFactor(canon::Dot(x, x, args.dim), args.dim, args.eps);
      for (int64_t d = 0; d < args.dim; ++d) y[d] = x[d] * factor * args.weight[d];
    }
  }
}

}  // namespace fathom::kernels
