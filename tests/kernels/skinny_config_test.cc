// The choice of tiles of skinny GEMMs: every choice fits its multiprocessor and covers all weight
// rows; published shapes get the tiles that were measured to be the fastest.
#include "kernels/cuda/linear/skinny_config.h"

#include <gtest/gtest.h>

namespace fathom::kernels::cuda {
namespace {

constexpr SkinnyDevice kH100;

void Check(const SkinnyShape& shape, const SkinnyDevice& device) {
  const auto config = SkinnyPickConfig(shape, device);
  ASSERT_TRUE(config.has_value()) << shape.rows << " x " << shape.n << " x " << shape.k;
  const SkinnyConfig& c = *config;
  SCOPED_TRACE(ToString(c) + " for n " + std::to_string(shape.n) + ", k " +
               std::to_string(shape.k));
  EXPECT_GE(c.row_bucket, shape.rows);
  EXPECT_TRUE(c.row_bucket == 1 || c.row_bucket == 8 || c.row_bucket == 16);
  EXPECT_GE(c.tiles, 1);
  EXPECT_LE(c.tiles, kSkinnyTilesMax);
  EXPECT_LE(32 * (SkinnyWorkers(c) + 1), kSkinnyThreadsMax);
  EXPECT_EQ(c.chunk % 64, 0);
  EXPECT_LE(c.tiles * kSkinnyTileRows, 256);  // The limit of a TMA box.
  EXPECT_GE(c.stages, 2);
  EXPECT_LE(c.shared_bytes, device.shared_bytes);
  EXPECT_EQ(c.shared_bytes, SkinnySharedBytes(c, shape.k));
  EXPECT_LE(c.grid, device.sms);
  EXPECT_LE(c.grid, SkinnyGroups(c, shape.n));
  EXPECT_GE(SkinnyGroups(c, shape.n) * c.tiles * kSkinnyTileRows, shape.n);
  if (c.fuses_norm) {
    EXPECT_TRUE(shape.norm);
    EXPECT_GE(SkinnyWorkers(c), 8);
  }
  EXPECT_FALSE(ToString(c).empty());
}

TEST(SkinnyConfig, FitsAndCoversEveryShape) {
  for (const int sms : {8, 114, 132}) {
    for (int rows = 1; rows <= kSkinnyRowsMax; ++rows) {
      for (const int n : {8, 16, 256, 264, 512, 768, 1408, 4096, 5120, 7168, 9216, 12288, 15360,
                          22016, 27648, 38400, 102400, 152064}) {
        for (const int k : {64, 256, 704, 4096, 5120, 7168, 8192, 11008, 13824, 19200, 29568}) {
          for (const bool norm : {false, true}) {
            Check({rows, n, k, norm}, {.sms = sms});
          }
        }
      }
    }
  }
}

TEST(SkinnyConfig, RefusesWhatTheKernelDoesNotDo) {
  EXPECT_FALSE(SkinnyPickConfig({0, 256, 256, false}, kH100));
  EXPECT_FALSE(SkinnyPickConfig({17, 256, 256, false}, kH100));
  EXPECT_FALSE(SkinnyPickConfig({1, 256, 224, false}, kH100));
  EXPECT_FALSE(SkinnyPickConfig({1, 252, 256, false}, kH100));
  EXPECT_FALSE(SkinnyPickConfig({1, 256, 256, false}, {.sm = 80}));
  EXPECT_FALSE(SkinnyMakeConfig({1, 4096, 4096, false}, kH100, 12, 512, 2, kH100.shared_bytes));
  EXPECT_FALSE(SkinnyMakeConfig({1, 4096, 4096, false}, kH100, 13, 64, 2, kH100.shared_bytes));
}

TEST(SkinnyConfig, PublishedShapesKeepTheMultiprocessorsAndADeepRingBusy) {
  struct Case {
    SkinnyShape shape;
    int tiles, grid;
  };
  for (const auto& [shape, tiles, grid] :
       {Case{{1, 12288, 4096, true}, 6, 128}, Case{{1, 4096, 4096, false}, 2, 128},
        Case{{1, 22016, 4096, true}, 6, 115}, Case{{1, 4096, 11008, false}, 2, 128}}) {
    const auto config = SkinnyPickConfig(shape, kH100);
    ASSERT_TRUE(config.has_value());
    EXPECT_EQ(config->tiles, tiles) << ToString(*config);
    EXPECT_EQ(config->grid, grid) << ToString(*config);
    EXPECT_GE(config->stages, 6) << ToString(*config);
  }
}

TEST(SkinnyConfig, LeavesRoomForABlockOfTheKernelBefore) {
  constexpr SkinnyDevice kDevice;
  constexpr int kOther = 70 * 1024;
  for (const int rows : {1, 8, 16}) {
    const auto config = SkinnyPickConfig({rows, 4096, 4096}, SkinnyBeside(kDevice, kOther));
    ASSERT_TRUE(config);
    // A multiprocessor has 1 KiB more than a thread block may take, and each thread block costs 1
    // KiB.
    EXPECT_LE(config->shared_bytes + kOther + 2 * 1024, kDevice.shared_bytes + 1024);
    EXPECT_GT(config->shared_bytes, 128 * 1024);
  }
}

TEST(SkinnyConfig, TheNormIsInsideWhereRowsFit) {
  EXPECT_TRUE(SkinnyPickConfig({1, 9216, 7168, true}, kH100)->fuses_norm);
  EXPECT_TRUE(SkinnyPickConfig({8, 9216, 7168, true}, kH100)->fuses_norm);
  EXPECT_FALSE(SkinnyPickConfig({16, 9216, 7168, true}, kH100)->fuses_norm);
  EXPECT_FALSE(SkinnyPickConfig({8, 9216, 29568, true}, kH100)->fuses_norm);
  EXPECT_FALSE(SkinnyPickConfig({1, 9216, 7168, false}, kH100)->fuses_norm);
}

}  // namespace
}  // namespace fathom::kernels::cuda
