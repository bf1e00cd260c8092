#include "kernels/cuda/medium_config.h"

#include <gtest/gtest.h>

#include <algorithm>

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

TEST(MediumConfig, PublishedShapesTakeOnePass) {
  EXPECT_EQ(MediumPickConfig({MediumOp::kResidual, 64, 4096, 11008}, kH100)->passes, 1);
  EXPECT_EQ(MediumPickConfig({MediumOp::kResidual, 64, 7168, 7168}, kH100)->passes, 1);
  EXPECT_EQ(MediumPickConfig({MediumOp::kQkv, 64, 12288, 4096}, kH100)->n_tile, 96);
  EXPECT_EQ(MediumPickConfig({MediumOp::kGateUp, 128, 22016, 4096}, kH100)->n_tile, 176);
  EXPECT_EQ(MediumPickConfig({MediumOp::kHead, 64, 102400, 4096}, kH100)->passes, 5);
}

// What L2 delivers bounds o and down at 128 rows: x goes to four blocks at once where they all run.
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
    // Weights bound these: all multiprocessors read them.
    EXPECT_EQ(MediumPickConfig({MediumOp::kGateUp, 64, 22016, 4096}, device),
              MediumPickConfig({MediumOp::kGateUp, 64, 22016, 4096}, kH100));
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
