#include "kernels/canon.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/simd.h"

namespace fathom::kernels {
namespace FATHOM_ISA {
namespace {

// y may be x.
FATHOM_SIMD void Rotate(const float* x, const float* cos, const float* sin, int32_t half,
                        float* y) {
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    y[i] = canon::RotateFirst(a, b, cos[i], sin[i]);
    y[i + half] = canon::RotateSecond(a, b, cos[i], sin[i]);
  }
}

}  // namespace

void RopeKvWrite(const RopeKvWriteArgs& args, int64_t row_begin, int64_t row_end) {
  const KvPlanes& kv = args.planes;
  const int32_t dim = kv.head_dim;
  const int32_t half = dim / 2;
  for (int64_t r = row_begin; r < row_end; ++r) {
    const int32_t position = args.rows[r].position;
    const int64_t block = args.rows[r].blocks[position / kv.block_tokens];
    const int32_t token = position % kv.block_tokens;
    const float* cos = args.cos + int64_t{position} * half;
    const float* sin = args.sin + int64_t{position} * half;
    for (int32_t h = 0; h < args.heads; ++h) {
      float* q = args.q + r * args.stride + int64_t{h} * dim;
      Rotate(q, cos, sin, half, q);
    }
    for (int32_t h = 0; h < kv.kv_heads; ++h) {
      const int64_t to = ((block * kv.kv_heads + h) * kv.block_tokens + token) * dim;
      Rotate(args.k + r * args.stride + int64_t{h} * dim, cos, sin, half, kv.keys + to);
      const float* v = args.v + r * args.stride + int64_t{h} * dim;
      float* values = kv.values + to;
      for (int32_t d = 0; d < dim; ++d) values[d] = v[d];
    }
  }
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
