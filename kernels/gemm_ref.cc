#include <vector>

#include "kernels/canon.h"
#include "kernels/gemm.h"

namespace fathom::kernels {

void GemmRef(const GemmArgs& args) {
  const int64_t k_size = args.weight.cols;
  std::vector<float> w(static_cast<size_t>(k_size));
  for (int64_t n = 0; n < args.weight.rows; ++n) {
    for (int64_t k = 0; k < k_size; ++k) w[static_cast<size_t>(k)] = WeightAt(args.weight, n, k);
    for (int64_t r = 0; r < args.rows; ++r) {
      float y = canon::Dot(args.x + r * args.x_stride, w.data(), k_size);
      if (args.bias != nullptr) y += args.bias[n];
      if (args.residual != nullptr) y += args.residual[r * args.residual_stride + n];
      args.y[r * args.y_stride + n] = y;
    }
  }
}

}  // namespace fathom::kernels
