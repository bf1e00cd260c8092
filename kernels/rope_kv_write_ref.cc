#include "kernels/canon.h"
#include "kernels/rope_kv_write.h"

namespace fathom::kernels {
namespace {

// y may be x.
void Rotate(const float* x, const float* cos, const float* sin, int32_t head_dim, float* y) {
  const int32_t half = head_dim / 2;
  for (int32_t i = 0; i < half; ++i) {
    const float a = x[i];
    const float b = x[i + half];
    y[i] = canon::RotateFirst(a, b, cos[i], sin[i]);
    y[i + half] = canon::RotateSecond(a, b, cos[i], sin[i]);
  }
}

}  // namespace

void RopeKvWriteRef(const RopeKvWriteArgs& args) {
  const KvPlanes& kv = args.planes;
  const int32_t dim = kv.head_dim;
  for (int64_t r = 0; r < args.row_count; ++r) {
    const int32_t position = args.rows[r].position;
    const int64_t block = args.rows[r].blocks[position / kv.block_tokens];
    const int32_t token = position % kv.block_tokens;
    const float* cos = args.cos + int64_t{position} * (dim / 2);
    const float* sin = args.sin + int64_t{position} * (dim / 2);
    for (int32_t h = 0; h < args.heads; ++h) {
      float* q = args.q + r * args.stride + int64_t{h} * dim;
      Rotate(q, cos, sin, dim, q);
    }
    for (int32_t h = 0; h < kv.kv_heads; ++h) {
      const int64_t to = ((block * kv.kv_heads + h) * kv.block_tokens + token) * dim;
      Rotate(args.k + r * args.stride + int64_t{h} * dim, cos, sin, dim, kv.keys + to);
      const float* v = args.v + r * args.stride + int64_t{h} * dim;
      for (int32_t d = 0; d < dim; ++d) kv.values[to + d] = v[d];
    }
  }
}

}  // namespace fathom::kernels
