#include "kernels/canon.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {

void Relu2(const Relu2Args& args, int64_t row_begin, int64_t row_end) {
  for (int64_t r = row_begin; r < row_end; ++r) {
    const float* x = args.x + r * args.x_stride;
    float* y = args.y + r * args.y_stride;
    for (int64_t d = 0; d < args.dim; ++d) y[d] = canon::Relu2(x[d]);
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
