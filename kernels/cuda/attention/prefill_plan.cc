#include "kernels/cuda/attention/prefill_plan.h"

#include <algorithm>

namespace fathom::kernels::cuda {
namespace {

// The part of L2 that the keys and values of a group of heads may fill, and the bytes of one token
// of one kv head (head_dim 128, two bytes each).
constexpr int64_t kGroupBytes = int64_t{32} << 20;
constexpr int64_t kTokenBytes = 2 * 128 * 2;

int EndOf(const PrefillPlanChunk& chunk) { return chunk.position_begin + chunk.rows; }

}  // namespace

PrefillPlan PlanPrefill(std::span<const PrefillPlanChunk> chunks, int heads, int kv_heads) {
  PrefillPlan plan;
  for (const PrefillPlanChunk& chunk : chunks) {
    if (chunk.rows > 0) plan.chunk[plan.chunks++] = chunk;
  }
  std::stable_sort(plan.chunk, plan.chunk + plan.chunks,
                   [](const auto& a, const auto& b) { return EndOf(a) > EndOf(b); });
  for (PrefillPlanChunk& chunk : std::span(plan.chunk, plan.chunks)) {
    const int64_t kv_group = std::max<int64_t>(1, kGroupBytes / (EndOf(chunk) * kTokenBytes));
    chunk.group_heads = static_cast<int>(std::min<int64_t>(heads, kv_group * (heads / kv_heads)));
    chunk.tile_begin = plan.tiles;
    plan.tiles += PrefillRowTiles(chunk.rows) * heads;
  }
  return plan;
}

}  // namespace fathom::kernels::cuda
