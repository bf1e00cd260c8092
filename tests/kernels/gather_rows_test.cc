#include "kernels/gather_rows.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/kernels/compare.h"

namespace fathom::kernels {
namespace {

TEST(GatherRowsTest, EqualsTheReferenceAndTouchesNothingElse) {
  std::mt19937_64 random(TestSeed());
  for (const int64_t dim : {1, 3, 16, 224, 257}) {
    const int64_t stride = dim + 5;
    const auto x = MakeValues(40 * stride, Values::kHard, random);
    std::vector<int32_t> index(60);
    for (int32_t& i : index) i = static_cast<int32_t>(random() % 40);
    std::vector<float> want(60 * stride, -1.0f), got(want);
    GatherRowsArgs args{.x = x.data(),
                        .x_stride = stride,
                        .index = index.data(),
                        .rows = 60,
                        .dim = dim,
                        .y = want.data(),
                        .y_stride = stride};
    GatherRowsRef(args);
    args.y = got.data();
    GatherRowsCpu(args);
    ASSERT_TRUE(SameValues(got, want)) << "dim " << dim;
    EXPECT_EQ(got[static_cast<size_t>(dim)], -1.0f);  // Between the rows.
  }
}

TEST(GatherRowsTest, InPlaceWhenTheIndexAscends) {
  std::mt19937_64 random(TestSeed());
  const auto x = MakeValues(30 * 17, Values::kHard, random);
  std::vector<int32_t> index;
  for (int32_t i = 0; i < 30; ++i) {
    if (random() % 2 == 0) index.push_back(i);
  }
  auto want = x, got = x;
  GatherRowsArgs args{.x = x.data(),
                      .x_stride = 17,
                      .index = index.data(),
                      .rows = std::ssize(index),
                      .dim = 17,
                      .y = want.data(),
                      .y_stride = 17};
  GatherRowsRef(args);
  args.x = args.y = got.data();
  GatherRowsCpu(args);
  EXPECT_TRUE(SameValues(got, want));
}

}  // namespace
}  // namespace fathom::kernels
