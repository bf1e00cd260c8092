#include "kernels/canon.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {

void SiluMul(const SiluMulArgs& args, int64_t row_begin, int64_t row_end) {
  for (int64_t r = row_begin; r < row_end; ++r) {
    const float* gate = args.gate + r * args.stride;
    const float* up = args.up + r * args.stride;
    float* y = args.y + r * args.y_stride;
    for (int64_t d = 0; d < args.dim; ++d) y[d] = canon::Silu(gate[d]) * up[d];
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
