#include "kernels/cuda/linear/medium_config.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace fathom::kernels::cuda {
namespace {

constexpr MediumDevice kH100;

TEST(MediumConfig, CoversTheWeightAndFitsTheDevice) {
  for (const MediumOp op :
       {MediumOp::kQkv, MediumOp::kResidual, MediumOp::kGateUp, MediumOp::kHead}) {
    for (int n = 16; n < 160000; n = n * 5 / 4 / 16 * 16 + 16) {
      for (const int rows : {1, 17, 64, 65, 128}) {
        const auto config = MediumPickConfig({op, rows, n, 4096}, kH100);
        ASSERT_TRUE(config) << n << " " << rows;
        EXPECT_GE(int64_t{config->n_tile} * config->grid * config->passes, n) << ToString(*config);
        EXPECT_LE(config->grid, kH100.sms);
        EXPECT_EQ(config->grid % config->cluster, 0);
        EXPECT_LE(config->shared_bytes, kH100.shared_bytes);
        EXPECT_GE(config->w_stages, 2);
        EXPECT_GE(config->x_stages, 2);
        const int columns = config->chunk / 64;
        EXPECT_LE((config->w_stages * config->n_tile + config->x_stages * 64 * config->row_groups) *
                          128 * columns +
                      16 * (config->w_stages + config->x_stages) + 1024,
                  config->shared_bytes);
        EXPECT_GE(config->row_groups * 64, rows);
        const auto tiles = MediumTiles(op);
        EXPECT_TRUE(std::ranges::find(tiles, config->n_tile) != tiles.end());
      }
    }
  }
}

struct Pick {
  MediumOp op;
  int rows, n, k, tile, cluster, passes;
};
// The fastest configuration of each measured shape (docs/PERFORMANCE.md); those of the 7B model,
// then of the 33B model.
constexpr Pick kPicks[] = {
    {MediumOp::kQkv, 64, 12288, 4096, 96, 2, 1},
    {MediumOp::kQkv, 128, 12288, 4096, 96, 2, 1},
    {MediumOp::kResidual, 64, 4096, 4096, 32, 2, 1},
    {MediumOp::kResidual, 64, 4096, 11008, 32, 2, 1},
    {MediumOp::kResidual, 128, 4096, 4096, 48, 4, 1},
    {MediumOp::kResidual, 128, 4096, 11008, 48, 4, 1},
    {MediumOp::kGateUp, 64, 22016, 4096, 176, 2, 1},
    {MediumOp::kGateUp, 128, 22016, 4096, 176, 2, 1},
    {MediumOp::kHead, 64, 102400, 4096, 160, 2, 5},
    {MediumOp::kHead, 128, 102400, 4096, 160, 2, 5},
    {MediumOp::kQkv, 64, 9216, 7168, 80, 4, 1},
    {MediumOp::kQkv, 128, 9216, 7168, 80, 4, 1},
    {MediumOp::kResidual, 64, 7168, 7168, 56, 2, 1},
    {MediumOp::kResidual, 64, 7168, 19200, 56, 2, 1},
    {MediumOp::kResidual, 128, 7168, 7168, 64, 4, 1},
    {MediumOp::kResidual, 128, 7168, 19200, 64, 4, 1},
    {MediumOp::kGateUp, 64, 38400, 7168, 160, 4, 2},
};

TEST(MediumConfig, PublishedShapesTakeTheFastest) {
  MediumDevice device = kH100;
  device.blocks_of_four = 120;
  for (const Pick& want : kPicks) {
    const auto config = MediumPickConfig({want.op, want.rows, want.n, want.k}, device);
    ASSERT_TRUE(config);
    const std::string shape = std::to_string(want.rows) + " rows, " + std::to_string(want.n) +
                              " by " + std::to_string(want.k) + ": " + ToString(*config);
    EXPECT_EQ(config->n_tile, want.tile) << shape;
    EXPECT_EQ(config->cluster, want.cluster) << shape;
    EXPECT_EQ(config->passes, want.passes) << shape;
  }
}

// L2 bandwidth limits o and down at 128 rows, so x is sent to four thread blocks at once if four
// run at the same time.
TEST(MediumConfig, ClustersOfFourWhereTheyRunAtOnce) {
  MediumDevice device = kH100;
  for (const int blocks : {112, 120, 128, 132}) {
    device.blocks_of_four = blocks;
    for (const int n : {4096, 5120, 7168}) {
      const auto config = MediumPickConfig({MediumOp::kResidual, 128, n, 4096}, device);
      ASSERT_TRUE(config);
      EXPECT_EQ(config->cluster, 4) << ToString(*config);
      EXPECT_EQ(config->passes, 1) << ToString(*config);
      EXPECT_LE(config->grid, blocks);
    }
  }
}

TEST(MediumConfig, AnyTileAndClusterCoversTheWeight) {
  for (const int tile : MediumTiles(MediumOp::kResidual)) {
    for (const int cluster : {1, 2, 4, 8}) {
      const auto config =
          MediumWithTile({MediumOp::kResidual, 128, 7168, 7168}, kH100, tile, cluster);
      ASSERT_TRUE(config);
      EXPECT_EQ(config->n_tile, tile);
      EXPECT_EQ(config->grid % cluster, 0);
      EXPECT_LE(config->grid, kH100.sms);
      EXPECT_GE(tile * config->grid * config->passes, 7168);
      EXPECT_LE(config->shared_bytes, kH100.shared_bytes);
    }
  }
}

TEST(MediumConfig, RefusesWhatItDoesNotDo) {
  EXPECT_FALSE(MediumPickConfig({MediumOp::kQkv, 129, 4096, 4096}, kH100));
  EXPECT_FALSE(MediumPickConfig({MediumOp::kQkv, 64, 4096, 224}, kH100));
  EXPECT_FALSE(MediumPickConfig({MediumOp::kQkv, 64, 4096, 4096}, {.sm = 80}));
}

}  // namespace
}  // namespace fathom::kernels::cuda
