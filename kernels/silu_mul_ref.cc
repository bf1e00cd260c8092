#include "kernels/canon.h"
#include "kernels/silu_mul.h"

namespace fathom::kernels {

void SiluMulRef(const SiluMulArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    for (int64_t d = 0; d < args.dim; ++d) {
      const float gate = args.gate[r * args.stride + d];
      args.y[r * args.y_stride + d] = canon::Silu(gate) * args.up[r * args.stride + d];
    }
  }
}

}  // namespace fathom::kernels
