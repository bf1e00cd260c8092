// The vector versions of attention against the reference, bit for bit; the reference against
// softmax in double.
#include "kernels/paged_attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tests/kernels/compare.h"

namespace fathom::kernels {
namespace {

struct Shape {
  int32_t heads, kv_heads, head_dim, block_tokens;
};

void PrintTo(const Shape& s, std::ostream* out) {
  *out << s.heads << '/' << s.kv_heads << " heads of " << s.head_dim << ", blocks of "
       << s.block_tokens;
}

constexpr int32_t kTokens = 1100;  // Two segments and a part.

// A sequence's keys and values in shuffled blocks, and queries at chosen positions.
struct Case {
  Case(const Shape& s, const std::vector<int32_t>& at, Values kind, float query_scale) : shape(s) {
    std::mt19937_64 random(TestSeed());
    const int32_t count = kTokens / s.block_tokens + 1;
    for (int32_t b = 0; b < count; ++b) blocks.push_back(b);
    std::shuffle(blocks.begin(), blocks.end(), random);
    const size_t plane = size_t{1} * count * s.kv_heads * s.block_tokens * s.head_dim;
    keys = MakeValues(plane, kind, random);
    values = MakeValues(plane, kind, random);
    for (const int32_t position : at) rows.push_back({blocks.data(), position});
    stride = s.heads * s.head_dim + 16;
    q = MakeValues(rows.size() * static_cast<size_t>(stride), kind, random);
    for (float& v : q) v *= query_scale;
  }

  template <class Op>
  std::vector<float> Run(Op op) {
    std::vector<float> y(q.size(), -7.0f);
    op(PagedAttentionArgs{.q = q.data(),
                          .q_stride = stride,
                          .heads = shape.heads,
                          .planes = {.keys = keys.data(),
                                     .values = values.data(),
                                     .kv_heads = shape.kv_heads,
                                     .head_dim = shape.head_dim,
                                     .block_tokens = shape.block_tokens},
                          .rows = rows.data(),
                          .row_count = static_cast<int64_t>(rows.size()),
                          .y = y.data(),
                          .y_stride = stride});
    return y;
  }

  const Shape shape;
  std::vector<int32_t> blocks;
  std::vector<float> keys, values, q;
  std::vector<SequenceRow> rows;
  int64_t stride = 0;
};

std::vector<int32_t> Range(int32_t begin, int32_t end) {
  std::vector<int32_t> positions;
  for (int32_t p = begin; p < end; ++p) positions.push_back(p);
  return positions;
}

class PagedAttentionTest : public testing::TestWithParam<Shape> {};

TEST_P(PagedAttentionTest, VectorsEqualTheReference) {
  ThreadPool pool(2);
  const std::vector<std::vector<int32_t>> batches = {{0},
                                                     {15},
                                                     {63},
                                                     {64},
                                                     {511},
                                                     {512},
                                                     {1099},
                                                     Range(0, 70),
                                                     Range(505, 520),
                                                     {3, 4, 5, 900, 901, 17, 62, 63, 64, 65}};
  for (const auto& positions : batches) {
    for (const float scale :
         {0.5f, 6.0f}) {  // The second makes the maximum jump past the threshold.
      for (const Values kind : {Values::kNormal, Values::kHard}) {
        if (kind == Values::kHard && scale > 1) continue;
        Case c(GetParam(), positions, kind, scale);
        const auto want = c.Run([](const auto& args) { PagedAttentionRef(args); });
        ForEachIsa([&] {
          ASSERT_TRUE(
              SameValues(c.Run([&pool](const auto& args) { PagedAttentionCpu(args, pool); }), want))
              << "rows from " << positions.front() << ", scale " << scale;
        });
        if (HasFatalFailure()) return;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttentionTest,
                         testing::Values(Shape{4, 2, 64, 16}, Shape{4, 4, 128, 16},
                                         Shape{14, 2, 128, 32}, Shape{8, 2, 64, 64},
                                         Shape{3, 1, 96, 128}, Shape{6, 3, 32, 16},
                                         Shape{2, 1, 80, 16}));

// Values after a row's own position, even NaN, have no effect.
TEST(PagedAttentionMaskTest, LaterTokensAreNotRead) {
  ThreadPool pool(1);
  Case clean({4, 2, 64, 16}, {70, 71, 72, 73}, Values::kNormal, 1.0f);
  const auto want = clean.Run([](const auto& args) { PagedAttentionRef(args); });
  const Shape& s = clean.shape;
  for (int32_t t = 74; t < 128; ++t) {
    for (int32_t h = 0; h < s.kv_heads; ++h) {
      const int32_t block = clean.blocks[static_cast<size_t>(t / 16)];
      const int32_t at = ((block * s.kv_heads + h) * 16 + t % 16) * s.head_dim;
      for (int32_t d = at; d < at + s.head_dim; ++d) {
        clean.keys[static_cast<size_t>(d)] = clean.values[static_cast<size_t>(d)] = NAN;
      }
    }
  }
  EXPECT_TRUE(SameValues(clean.Run([](const auto& args) { PagedAttentionRef(args); }), want));
  ForEachIsa([&] {
    EXPECT_TRUE(
        SameValues(clean.Run([&pool](const auto& args) { PagedAttentionCpu(args, pool); }), want));
  });
}

TEST(PagedAttentionOracleTest, TheReferenceIsSoftmax) {
  Case c({2, 1, 64, 16}, {0, 100, 600, 1099}, Values::kNormal, 1.0f);
  const auto got = c.Run([](const auto& args) { PagedAttentionRef(args); });
  for (size_t r = 0; r < c.rows.size(); ++r) {
    for (int32_t h = 0; h < 2; ++h) {
      const float* q = c.q.data() + static_cast<int64_t>(r) * c.stride + h * 64;
      std::vector<double> out(64, 0.0);
      double sum = 0;
      for (int32_t t = 0; t <= c.rows[r].position; ++t) {
        const int64_t at = (c.blocks[static_cast<size_t>(t / 16)] * 16 + t % 16) * 64;
        double s = 0;
        for (int d = 0; d < 64; ++d)
          s += double{q[d]} * double{c.keys[static_cast<size_t>(at + d)]};
        const double p = std::exp(s / 8.0);
        sum += p;
        for (int d = 0; d < 64; ++d) {
          out[static_cast<size_t>(d)] += p * double{c.values[static_cast<size_t>(at + d)]};
        }
      }
      for (int d = 0; d < 64; ++d) {
        const size_t at = r * static_cast<size_t>(c.stride) + static_cast<size_t>(h * 64 + d);
        EXPECT_NEAR(got[at], out[static_cast<size_t>(d)] / sum, 1e-5);
      }
    }
  }
}

}  // namespace
}  // namespace fathom::kernels
