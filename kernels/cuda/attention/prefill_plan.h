// kernels/cuda/attention/prefill_plan.h: the order in which the wgmma prefill attention computes
// its tiles. A tile is 128 rows of one chunk and one head. Pure: tested without a GPU; the kernel
// calls PrefillTileAt. The order changes speed only, never a bit.
//
// Chunks with the most keys come first, so that only short tiles are left at the end of a launch.
// In a chunk, heads are computed in groups whose keys and values stay in L2. In a group, the last
// rows come first, because they have the most keys.
#pragma once

#include <cstdint>
#include <span>

namespace fathom::kernels::cuda {

inline constexpr int kPrefillTileRows = 128;
inline constexpr int kPrefillPlanChunks = 64;

struct PrefillPlanChunk {
  int32_t row_begin = 0;
  int32_t rows = 0;
  int32_t position_begin = 0;
  int32_t table_row = 0;
  // PlanPrefill sets the two below: the chunk's first tile, and the heads of a group.
  int32_t tile_begin = 0;
  int32_t group_heads = 0;
};

// Passed to the kernel as a parameter.
struct PrefillPlan {
  int32_t chunks = 0;
  int32_t tiles = 0;
  PrefillPlanChunk chunk[kPrefillPlanChunks];
};

constexpr int PrefillRowTiles(int rows) { return (rows + kPrefillTileRows - 1) / kPrefillTileRows; }

// Drops chunks without rows. REQUIRES: chunks.size() <= kPrefillPlanChunks.
PrefillPlan PlanPrefill(std::span<const PrefillPlanChunk> chunks, int heads, int kv_heads);

struct PrefillTile {
  int head = 0;
  int row = 0;  // In the chunk; a multiple of kPrefillTileRows.
};

// Tile `index` of a chunk, which has PrefillRowTiles(rows) * heads tiles.
constexpr PrefillTile PrefillTileAt(int index, int rows, int heads, int group_heads) {
  const int row_tiles = PrefillRowTiles(rows);
  const int group = index / (group_heads * row_tiles);
  const int in_group = index - group * group_heads * row_tiles;
  const int left = heads - group * group_heads;
  const int wide = left < group_heads ? left : group_heads;
  return {group * group_heads + in_group % wide,
          (row_tiles - 1 - in_group / wide) * kPrefillTileRows};
}

}  // namespace fathom::kernels::cuda
