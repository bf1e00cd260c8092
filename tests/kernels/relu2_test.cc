#include "kernels/relu2.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/kernels/compare.h"

namespace fathom::kernels {
namespace {

TEST(Relu2Test, IsTheSquareOfWhatIsAboveZero) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> x = {3.0f,       -3.0f,     0.0f,
                                -0.0f,      1e-30f,    1e30f,
                                -kInfinity, kInfinity, std::numeric_limits<float>::quiet_NaN()};
  std::vector<float> y(x.size());
  Relu2Ref({.x = x.data(), .rows = 1, .dim = std::ssize(x), .y = y.data()});
  EXPECT_EQ(std::vector<float>(y.begin(), y.end() - 1),
            (std::vector<float>{9.0f, 0.0f, 0.0f, 0.0f, 0.0f, kInfinity, 0.0f, kInfinity}));
  EXPECT_TRUE(std::isnan(y.back()));
}

TEST(Relu2Test, VectorsEqualTheReference) {
  std::mt19937_64 random(TestSeed());
  ThreadPool pool(3);
  for (const int64_t dim : {1, 7, 16, 33, 1376}) {
    constexpr int64_t kRows = 23;
    const int64_t x_stride = dim + 3, y_stride = dim + 5;
    auto x = MakeValues(static_cast<size_t>(kRows * x_stride), Values::kHard, random);
    x[0] = std::numeric_limits<float>::quiet_NaN();
    std::vector<float> want(static_cast<size_t>(kRows * y_stride), -1.0f);
    Relu2Args args{.x = x.data(),
                   .x_stride = x_stride,
                   .rows = kRows,
                   .dim = dim,
                   .y = want.data(),
                   .y_stride = y_stride};
    Relu2Ref(args);
    ForEachIsa([&] {
      std::vector<float> got(want.size(), -1.0f);
      args.y = got.data();
      Relu2Cpu(args, pool);
      EXPECT_TRUE(SameValues(got, want)) << "dim " << dim;
      EXPECT_EQ(got[static_cast<size_t>(dim)], -1.0f);  // Between the rows.
      std::vector<float> in_place = x;
      Relu2Cpu({in_place.data(), x_stride, kRows, dim, in_place.data(), x_stride}, pool);
      for (int64_t r = 0; r < kRows; ++r) {
        for (int64_t d = r == 0 ? 1 : 0; d < dim; ++d) {
          ASSERT_EQ(in_place[static_cast<size_t>(r * x_stride + d)],
                    want[static_cast<size_t>(r * y_stride + d)]);
        }
      }
    });
  }
}

}  // namespace
}  // namespace fathom::kernels
