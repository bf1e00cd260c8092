#include "kernels/cuda/medium_config.h"

#include <algorithm>

namespace fathom::kernels::cuda {
namespace {

constexpr int kResidualTiles[] = {32, 40, 56, 64};
constexpr int kQkvTiles[] = {48, 80, 96, 128};
constexpr int kGateUpTiles[] = {160, 176, 224};
constexpr int kHeadTiles[] = {128, 160};

constexpr int kColumnBytes = 128;  // Of a stage: 64 elements.
constexpr int kBarrierBytes = 256;
constexpr int kAlignment = 1024;  // Of the swizzle's pattern.
// Two blocks share x. Four leave multiprocessors idle: not every group of them has a multiple of
// four.
constexpr int kCluster = 2;

}  // namespace

std::span<const int> MediumTiles(MediumOp op) {
  switch (op) {
    case MediumOp::kQkv:
      return kQkvTiles;
    case MediumOp::kResidual:
      return kResidualTiles;
    case MediumOp::kGateUp:
      return kGateUpTiles;
    case MediumOp::kHead:
      return kHeadTiles;
  }
  return {};
}

std::optional<MediumConfig> MediumPickConfig(const MediumShape& shape, const MediumDevice& device) {
  if (device.sm != 90 || shape.rows < 1 || shape.rows > kMediumRowsMax || shape.k % 64 != 0 ||
      shape.n % 16 != 0 || shape.n < 1 || device.sms < kCluster) {
    return std::nullopt;
  }
  MediumConfig best;
  int64_t best_rows = 0;
  const int blocks_max = device.sms / kCluster * kCluster;
  for (const int n_tile : MediumTiles(shape.op)) {
    // Weight rows that the busiest thread block streams: bandwidth is shared, so that is the time.
    const int tiles = (shape.n + n_tile - 1) / n_tile;
    const int passes = (tiles + blocks_max - 1) / blocks_max;
    const int64_t rows = int64_t{passes} * n_tile;
    if (best.n_tile != 0 && rows > best_rows) continue;  // The larger tile of two alike.
    best_rows = rows;
    best.n_tile = n_tile;
    best.passes = passes;
    const int blocks = (tiles + passes - 1) / passes;
    best.grid = (blocks + kCluster - 1) / kCluster * kCluster;
  }
  best.cluster = kCluster;
  best.row_groups = shape.rows > 64 ? 2 : 1;
  // All of it: half, which would let the next kernel's blocks in beside, is 6 to 40 % slower, for
  // the rows of x take much of a ring (docs/PERFORMANCE.md).
  const int room = device.shared_bytes - kBarrierBytes - kAlignment;
  best.chunk = best.n_tile <= 64 ? 128 : 64;
  const int stage_bytes = (best.n_tile + 64 * best.row_groups) * kColumnBytes * (best.chunk / 64);
  best.stages = std::min(room / stage_bytes, 8);
  if (best.stages < 2) return std::nullopt;
  best.shared_bytes = best.stages * stage_bytes + kBarrierBytes + kAlignment;
  return best;
}

std::string ToString(const MediumConfig& config) {
  return "tile " + std::to_string(config.n_tile) + " x " + std::to_string(64 * config.row_groups) +
         ", chunk " + std::to_string(config.chunk) + ", stages " + std::to_string(config.stages) +
         ", cluster " + std::to_string(config.cluster) + ", grid " + std::to_string(config.grid) +
         ", passes " + std::to_string(config.passes);
}

}  // namespace fathom::kernels::cuda
