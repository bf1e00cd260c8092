#include "kernels/gather_rows.h"

namespace fathom::kernels {

void GatherRowsRef(const GatherRowsArgs& args) {
  for (int64_t i = 0; i < args.rows; ++i) {
    for (int64_t d = 0; d < args.dim; ++d) {
      args.y[i * args.y_stride + d] = args.x[args.index[i] * args.x_stride + d];
    }
  }
}

}  // namespace fathom::kernels
