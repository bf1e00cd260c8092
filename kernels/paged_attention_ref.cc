#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/canon.h"
#include "kernels/paged_attention.h"

namespace fathom::kernels {
namespace {

constexpr float kNone = -INFINITY;

// The running maximum m, the sum of weights relative to m, and the weighted sum of values.
struct Accumulator {
  explicit Accumulator(int32_t dim) : o(static_cast<size_t>(dim), 0.0f) {}
  float m = kNone;
  float l = 0;
  std::vector<float> o;
};

// One query head of one row, with the keys and values of its sequence.
class Query {
 public:
  Query(const PagedAttentionArgs& args, int64_t row, int32_t head)
      : kv_(args.planes),
        kv_head_(head / (args.heads / args.planes.kv_heads)),
        blocks_(args.rows[row].blocks),
        position_(args.rows[row].position),
        q_(args.q + row * args.q_stride + int64_t{head} * args.planes.head_dim),
        scale_(canon::AttentionScale(args.planes.head_dim)) {}

  void Attend(float* y) const {
    Accumulator all(kv_.head_dim);
    for (int32_t start = 0; start <= position_; start += canon::kSegmentTokens) {
      Accumulator segment(kv_.head_dim);
      const int32_t end = start + canon::kSegmentTokens;
      for (int32_t b = start; b < end && b <= position_; b += canon::kSubBlockTokens) {
        AddSubBlock(b, segment);
      }
      Merge(segment, all);
    }
    for (size_t d = 0; d < all.o.size(); ++d) y[d] = all.o[d] / all.l;
  }

 private:
  // The offset of token t's head in a plane.
  int64_t Offset(int32_t t) const {
    const int64_t block = blocks_[t / kv_.block_tokens];
    return ((block * kv_.kv_heads + kv_head_) * kv_.block_tokens + t % kv_.block_tokens) *
           kv_.head_dim;
  }

  // Adds tokens [start, start + 64) up to the row's own position. A later token has a weight of +0
  // and is not read.
  void AddSubBlock(int32_t start, Accumulator& a) const {
    const int32_t end = std::min(start + canon::kSubBlockTokens, position_ + 1);
    float s[canon::kSubBlockTokens];
    float x = kNone;
    for (int32_t t = start; t < end; ++t) {
      s[t - start] = canon::Dot(q_, kv_.keys + Offset(t), kv_.head_dim);
      x = canon::Max(x, s[t - start]);
    }
    if (a.m == kNone) {
      a.m = x;
    } else if ((x - a.m) * scale_ > canon::kRescaleThreshold) {
      const float factor = canon::Ex2((a.m - x) * scale_);
      a.l *= factor;
      for (float& o : a.o) o *= factor;
      a.m = x;
    }
    const float n = a.m * scale_;
    for (int32_t t = start; t < end; ++t) {
      const float p = canon::Ex2(canon::Fma(s[t - start], scale_, -n));
      const float* v = kv_.values + Offset(t);
      for (int32_t d = 0; d < kv_.head_dim; ++d) {
        a.o[static_cast<size_t>(d)] = canon::Fma(p, v[d], a.o[static_cast<size_t>(d)]);
      }
      a.l += p;
    }
  }

  void Merge(const Accumulator& segment, Accumulator& all) const {
    const float m = canon::Max(all.m, segment.m);
    const float fa = canon::Ex2((all.m - m) * scale_);
    const float fb = canon::Ex2((segment.m - m) * scale_);
    all.l = all.l * fa + segment.l * fb;
    for (size_t d = 0; d < all.o.size(); ++d) all.o[d] = all.o[d] * fa + segment.o[d] * fb;
    all.m = m;
  }

  const KvPlanes& kv_;
  const int32_t kv_head_;
  const int32_t* const blocks_;
  const int32_t position_;
  const float* const q_;
  const float scale_;
};

}  // namespace

void PagedAttentionRef(const PagedAttentionArgs& args) {
  for (int64_t r = 0; r < args.row_count; ++r) {
    for (int32_t h = 0; h < args.heads; ++h) {
      Query(args, r, h).Attend(args.y + r * args.y_stride + int64_t{h} * args.planes.head_dim);
    }
  }
}

}  // namespace fathom::kernels
