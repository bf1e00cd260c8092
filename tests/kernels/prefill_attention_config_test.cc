#include "kernels/cuda/attention/prefill_attention_config.h"

#include <gtest/gtest.h>

#include "kernels/cuda/attention/prefill_plan.h"

namespace fathom::kernels::cuda {
namespace {

TEST(PrefillPickConfigTest, WgmmaWhereItExists) {
  EXPECT_EQ(PrefillPickConfig(90, 128, 1 << 20).kernel, PrefillKernel::kWgmma);
  for (const int sm : {80, 86, 89, 100, 120}) {
    EXPECT_EQ(PrefillPickConfig(sm, 128, 1 << 20).kernel, PrefillKernel::kGeneric) << sm;
  }
  EXPECT_EQ(PrefillPickConfig(90, 64, 1 << 20).kernel, PrefillKernel::kGeneric);
}

TEST(PrefillPickConfigTest, PlanesThatATensorMapCannotCountAreGeneric) {
  EXPECT_EQ(PrefillPickConfig(90, 128, 0x7FFFFFFF).kernel, PrefillKernel::kWgmma);
  EXPECT_EQ(PrefillPickConfig(90, 128, int64_t{1} << 31).kernel, PrefillKernel::kGeneric);
}

TEST(PrefillPickConfigTest, TilesCoverAChunk) {
  for (const int sm : {80, 90}) {
    const PrefillConfig config = PrefillPickConfig(sm, 128, 1 << 20);
    for (const int rows : {1, 63, 64, 65, 127, 128, 129, 500, 4096}) {
      EXPECT_GE(config.Tiles(rows, 1) * config.tile_rows, rows);
      EXPECT_LT((config.Tiles(rows, 1) - 1) * config.tile_rows, rows);
      EXPECT_EQ(config.Tiles(rows, 56), 56 * config.Tiles(rows, 1));
    }
  }
  EXPECT_EQ(PrefillPickConfig(90, 128, 1 << 20).tile_rows, kPrefillTileRows);
}

}  // namespace
}  // namespace fathom::kernels::cuda
