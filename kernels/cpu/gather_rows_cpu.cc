#include <cstring>

#include "kernels/gather_rows.h"

namespace fathom::kernels {

void GatherRowsCpu(const GatherRowsArgs& args) {
  const size_t bytes = static_cast<size_t>(args.dim) * sizeof(float);
  for (int64_t i = 0; i < args.rows; ++i) {
    float* to = args.y + i * args.y_stride;
    const float* from = args.x + args.index[i] * args.x_stride;
    if (to != from) std::memcpy(to, from, bytes);
  }
}

}  // namespace fathom::kernels
