#include "kernels/canon.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {

void Embedding(const EmbeddingArgs& args, int64_t row_begin, int64_t row_end) {
  const int64_t dim = args.table.cols;
  const DType dtype = args.table.dtype;
  for (int64_t r = row_begin; r < row_end; ++r) {
    const int64_t first = args.tokens[r] * dim;
    float* y = args.y + r * args.y_stride;
    for (int64_t d = 0; d < dim; ++d) y[d] = canon::Widen(dtype, args.table.data, first + d);
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
