#include "kernels/relu2.h"

#include "kernels/canon.h"

namespace fathom::kernels {

void Relu2Ref(const Relu2Args& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    for (int64_t d = 0; d < args.dim; ++d) {
      args.y[r * args.y_stride + d] = canon::Relu2(args.x[r * args.x_stride + d]);
    }
  }
}

}  // namespace fathom::kernels
