#include "kernels/canon.h"
#include "kernels/embedding.h"

namespace fathom::kernels {

void EmbeddingRef(const EmbeddingArgs& args) {
  const int64_t dim = args.table.cols;
  for (int64_t r = 0; r < args.rows; ++r) {
    const int64_t first = args.tokens[r] * dim;
    for (int64_t d = 0; d < dim; ++d) {
      args.y[r * args.y_stride + d] = canon::Widen(args.table.dtype, args.table.data, first + d);
    }
  }
}

}  // namespace fathom::kernels
