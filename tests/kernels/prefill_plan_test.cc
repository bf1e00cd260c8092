#include "kernels/cuda/attention/prefill_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace fathom::kernels::cuda {
namespace {

// Checks that every (row tile, head) of a chunk occurs once.
void ExpectCovers(const PrefillPlanChunk& chunk, int heads) {
  const int tiles = PrefillRowTiles(chunk.rows) * heads;
  std::vector<int> seen(tiles);
  for (int i = 0; i < tiles; ++i) {
    const PrefillTile tile = PrefillTileAt(i, chunk.rows, heads, chunk.group_heads);
    ASSERT_GE(tile.head, 0);
    ASSERT_LT(tile.head, heads);
    ASSERT_EQ(tile.row % kPrefillTileRows, 0);
    ASSERT_LT(tile.row, chunk.rows);
    ++seen[tile.row / kPrefillTileRows * heads + tile.head];
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), tiles);
}

TEST(PrefillPlan, EveryTileOnce) {
  for (const auto& [heads, kv_heads] :
       {std::pair(32, 32), std::pair(40, 40), std::pair(56, 8), std::pair(28, 4)}) {
    std::vector<PrefillPlanChunk> chunks;
    for (const int rows : {1, 0, 127, 128, 129, 2048, 64}) {
      for (const int position : {0, 500, 100000}) chunks.push_back({0, rows, position, 0});
    }
    const PrefillPlan plan = PlanPrefill(chunks, heads, kv_heads);
    ASSERT_EQ(plan.chunks, 18);
    int tiles = 0, end = INT32_MAX;
    for (const PrefillPlanChunk& chunk : std::span(plan.chunk, plan.chunks)) {
      EXPECT_EQ(chunk.tile_begin, tiles);
      EXPECT_LE(chunk.position_begin + chunk.rows, end);
      end = chunk.position_begin + chunk.rows;
      EXPECT_GE(chunk.group_heads, heads / kv_heads);
      EXPECT_LE(chunk.group_heads, heads);
      ExpectCovers(chunk, heads);
      tiles += PrefillRowTiles(chunk.rows) * heads;
    }
    EXPECT_EQ(plan.tiles, tiles);
  }
}

TEST(PrefillPlan, HeaviestFirstInGroupsThatFitL2) {
  const PrefillPlanChunk chunk = {7, 16384, 0, 3};
  const PrefillPlan plan = PlanPrefill({&chunk, 1}, 32, 32);
  EXPECT_EQ(plan.chunk[0].row_begin, 7);
  EXPECT_EQ(plan.chunk[0].table_row, 3);
  EXPECT_EQ(plan.chunk[0].group_heads, 4);  // 8 MiB of keys and values each.
  const PrefillTile first = PrefillTileAt(0, 16384, 32, 4);
  EXPECT_EQ(first.row, 16384 - kPrefillTileRows);
  EXPECT_EQ(first.head, 0);
  EXPECT_EQ(PrefillTileAt(3, 16384, 32, 4).head, 3);
  EXPECT_EQ(PrefillTileAt(4, 16384, 32, 4).row, 16384 - 2 * kPrefillTileRows);
  EXPECT_EQ(PrefillTileAt(4 * 128, 16384, 32, 4).head, 4);
  // 56 query heads on 8 kv heads: whole kv heads.
  const PrefillPlan grouped = PlanPrefill({&chunk, 1}, 56, 8);
  EXPECT_EQ(grouped.chunk[0].group_heads, 28);
}

TEST(PrefillPlan, NothingToDo) {
  const PrefillPlanChunk none = {};
  EXPECT_EQ(PlanPrefill({&none, 1}, 32, 32).tiles, 0);
  EXPECT_EQ(PlanPrefill({}, 32, 32).chunks, 0);
}

}  // namespace
}  // namespace fathom::kernels::cuda
