// The vector versions of each op against its reference, bit for bit, over shapes with all kinds of
// tails.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <tuple>

#include "kernels/add.h"
#include "kernels/canon.h"
#include "kernels/embedding.h"
#include "kernels/gemm.h"
#include "kernels/non_finite.h"
#include "kernels/rmsnorm.h"
#include "kernels/rope_kv_write.h"
#include "kernels/silu_mul.h"
#include "tests/kernels/compare.h"

namespace fathom::kernels {
namespace {

// A matrix in its stored type, and packed.
struct Weight {
  Weight(int64_t rows, int64_t cols, DType dtype, Values kind, std::mt19937_64& random)
      : stored(static_cast<size_t>(rows * cols) * SizeOf(dtype)),
        packed(PackedBytes(rows, cols, dtype) + 64) {
    const auto values = MakeValues(static_cast<size_t>(rows * cols), kind, random);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint32_t bits = canon::Bits(values[i]);
      // For fp16 any finite half is valid; bf16 is the upper half of an fp32.
      const uint16_t half = dtype == DType::kBf16 ? static_cast<uint16_t>(bits >> 16)
                                                  : static_cast<uint16_t>(random() & 0xBFFF);
      if (dtype == DType::kF32) {
        std::memcpy(&stored[i * 4], &bits, 4);
      } else {
        std::memcpy(&stored[i * 2], &half, 2);
      }
    }
    row_major = {stored.data(), rows, cols, dtype, Layout::kRowMajor};
    const auto address = reinterpret_cast<uintptr_t>(packed.data());
    pack = PackWeight(row_major, packed.data() + (64 - address % 64) % 64);
  }
  std::vector<char> stored, packed;
  TensorView row_major, pack;
};

using GemmShape = std::tuple<int64_t, int64_t>;  // n, k.

class GemmTest : public testing::TestWithParam<GemmShape> {};

TEST_P(GemmTest, VectorsEqualTheReference) {
  const auto [n, k] = GetParam();
  std::mt19937_64 random(TestSeed());
  ThreadPool pool(2);
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    for (const Values kind : {Values::kNormal, Values::kHard}) {
      const Weight weight(n, k, dtype, kind, random);
      const auto bias = MakeValues(static_cast<size_t>(n), kind, random);
      for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 16, 40}) {
        const int64_t x_stride = k + 3;
        const int64_t y_stride = n + 5;
        const auto x = MakeValues(static_cast<size_t>(rows * x_stride), kind, random);
        const auto residual = MakeValues(static_cast<size_t>(rows * y_stride), kind, random);
        for (const bool add : {false, true}) {
          GemmArgs args{.x = x.data(),
                        .x_stride = x_stride,
                        .rows = rows,
                        .weight = weight.row_major,
                        .bias = add ? bias.data() : nullptr,
                        .residual_stride = y_stride,
                        .y_stride = y_stride};
          auto want = residual;  // In place, and guards between rows.
          args.y = want.data();
          args.residual = add ? want.data() : nullptr;
          GemmRef(args);
          args.weight = weight.pack;
          auto from_packed = residual;
          args.y = from_packed.data();
          args.residual = add ? from_packed.data() : nullptr;
          GemmRef(args);
          ASSERT_TRUE(SameValues(from_packed, want)) << "the packed layout has other elements";
          ForEachIsa([&, type = NameOf(dtype)] {
            auto got = residual;
            args.y = got.data();
            args.residual = add ? got.data() : nullptr;
            GemmCpu(args, pool);
            ASSERT_TRUE(SameValues(got, want)) << type << ", rows " << rows << ", add " << add;
          });
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, GemmTest,
                         testing::Values(GemmShape{8, 32}, GemmShape{1, 1}, GemmShape{13, 31},
                                         GemmShape{64, 88}, GemmShape{24, 224}, GemmShape{36, 256},
                                         GemmShape{17, 704}, GemmShape{40, 352},
                                         GemmShape{9, 1000}));

TEST(RmsNormTest, VectorsEqualTheReference) {
  std::mt19937_64 random(TestSeed());
  ThreadPool pool(2);
  for (const int64_t dim : {1, 15, 64, 100, 128, 224, 256, 4096}) {
    for (const Values kind : {Values::kNormal, Values::kHard}) {
      const int64_t rows = 40, groups = 3, stride = groups * dim + 7;
      const auto x = MakeValues(static_cast<size_t>(rows * stride), kind, random);
      const auto weight = MakeValues(static_cast<size_t>(dim), kind, random);
      auto want = x;
      RmsNormArgs args{.x_stride = stride,
                       .weight = weight.data(),
                       .eps = 1e-6f,
                       .rows = rows,
                       .groups = groups,
                       .dim = dim,
                       .y_stride = stride};
      args.x = args.y = want.data();
      RmsNormRef(args);
      ForEachIsa([&] {
        auto got = x;
        args.x = args.y = got.data();
        RmsNormCpu(args, pool);
        ASSERT_TRUE(SameValues(got, want)) << dim;
      });
    }
  }
}

TEST(SiluMulTest, VectorsEqualTheReference) {
  std::mt19937_64 random(TestSeed());
  ThreadPool pool(2);
  for (const int64_t dim : {1, 31, 320, 704}) {
    const int64_t rows = 17, stride = 2 * dim + 1;
    auto x = MakeValues(static_cast<size_t>(rows * stride), Values::kHard, random);
    for (size_t i = 0; i < x.size(); i += 5) x[i] *= 50;
    x[0] = INFINITY;
    auto want = x;
    const auto run = [&](std::vector<float>& values, auto op) {
      op(SiluMulArgs{.gate = values.data(),
                     .up = values.data() + dim,
                     .stride = stride,
                     .rows = rows,
                     .dim = dim,
                     .y = values.data(),
                     .y_stride = stride});
    };
    run(want, [](const SiluMulArgs& args) { SiluMulRef(args); });
    ForEachIsa([&] {
      auto got = x;
      run(got, [&pool](const SiluMulArgs& args) { SiluMulCpu(args, pool); });
      ASSERT_TRUE(SameValues(got, want)) << dim;
    });
  }
}

TEST(AddTest, VectorsEqualTheReference) {
  std::mt19937_64 random(TestSeed());
  ThreadPool pool(2);
  const auto x = MakeValues(40'001, Values::kHard, random);
  const auto y = MakeValues(40'001, Values::kHard, random);
  auto want = y;
  AddRef({.x = x.data(), .y = want.data(), .count = 40'001});
  ForEachIsa([&] {
    auto got = y;
    AddCpu({.x = x.data(), .y = got.data(), .count = 40'001}, pool);
    ASSERT_TRUE(SameValues(got, want));
  });
}

TEST(EmbeddingTest, VectorsEqualTheReference) {
  std::mt19937_64 random(TestSeed());
  ThreadPool pool(2);
  for (const DType dtype : {DType::kBf16, DType::kF16, DType::kF32}) {
    const Weight table(50, 224, dtype, Values::kHard, random);
    std::vector<int32_t> tokens(200);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % 50);
    std::vector<float> want(200 * 230, -1.0f);
    EmbeddingArgs args{.table = table.row_major,
                       .tokens = tokens.data(),
                       .rows = 200,
                       .y = want.data(),
                       .y_stride = 230};
    EmbeddingRef(args);
    ForEachIsa([&] {
      std::vector<float> got(want.size(), -1.0f);
      args.y = got.data();
      EmbeddingCpu(args, pool);
      ASSERT_TRUE(SameValues(got, want)) << NameOf(dtype);
    });
  }
}

TEST(NonFiniteTest, FindsOneAnywhere) {
  ForEachIsa([] {
    for (const size_t count : {1, 16, 33, 1000}) {
      std::vector<float> values(count, 3e38f);
      ASSERT_FALSE(HasNonFiniteCpu(values));
      for (const float bad : {NAN, INFINITY, -INFINITY}) {
        for (size_t i = 0; i < count; ++i) {
          values[i] = bad;
          ASSERT_TRUE(HasNonFiniteCpu(values)) << i;
          ASSERT_TRUE(HasNonFiniteRef(values)) << i;
          values[i] = 1e-42f;
        }
      }
    }
  });
}

TEST(RopeTest, VectorsEqualTheReference) {
  std::mt19937_64 random(TestSeed());
  ThreadPool pool(2);
  for (const int32_t dim : {32, 64, 128}) {
    for (const auto scaling :
         {RopeSpec::Scaling::kNone, RopeSpec::Scaling::kLinear, RopeSpec::Scaling::kLlama3}) {
      const RopeTable table = MakeRopeTable(
          {.head_dim = dim, .scaling = scaling, .factor = 4, .original_context = 64}, 200);
      const int32_t heads = 5, kv_heads = 2, rows = 37, stride = (heads + 2 * kv_heads) * dim + 3;
      const auto qkv = MakeValues(size_t{1} * rows * stride, Values::kHard, random);
      const std::vector<int32_t> blocks = {3, 1, 2, 5};
      std::vector<SequenceRow> sequence;
      for (int32_t r = 0; r < rows; ++r) sequence.push_back({blocks.data(), 11 + r});
      const auto run = [&](auto op) {
        std::vector<float> out = qkv;
        const size_t plane = size_t{6} * kv_heads * 16 * dim;
        std::vector<float> planes(2 * plane);
        op(RopeKvWriteArgs{.q = out.data(),
                           .k = out.data() + heads * dim,
                           .v = out.data() + (heads + kv_heads) * dim,
                           .stride = stride,
                           .heads = heads,
                           .cos = table.cos.data(),
                           .sin = table.sin.data(),
                           .rows = sequence.data(),
                           .row_count = rows,
                           .planes = {.keys = planes.data(),
                                      .values = planes.data() + plane,
                                      .kv_heads = kv_heads,
                                      .head_dim = dim,
                                      .block_tokens = 16}});
        out.insert(out.end(), planes.begin(), planes.end());
        return out;
      };
      const auto want = run([](const RopeKvWriteArgs& args) { RopeKvWriteRef(args); });
      ForEachIsa([&] {
        ASSERT_TRUE(SameValues(
            run([&pool](const RopeKvWriteArgs& args) { RopeKvWriteCpu(args, pool); }), want));
      });
    }
  }
}

}  // namespace
}  // namespace fathom::kernels
