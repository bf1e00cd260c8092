#include "kernels/cuda/medium_config.h"

#include <algorithm>

namespace fathom::kernels::cuda {
namespace {

constexpr int kResidualTiles[] = {32, 40, 56, 64};
constexpr int kQkvTiles[] = {48, 80, 96, 128};
constexpr int kGateUpTiles[] = {160, 176, 224};
constexpr int kHeadTiles[] = {128, 160};

constexpr int kColumnBytes = 128;  // Of a stage: 64 elements.
constexpr int kStagesMax = 24;
constexpr int kBarrierBytes = 1024;
constexpr int kAlignment = 1024;  // Of the swizzle's pattern.
// Two blocks share x. Four leave multiprocessors idle: not every group of them has a multiple of
// four.
constexpr int kCluster = 2;

int WStageBytes(const MediumConfig& c) { return c.n_tile * kColumnBytes * (c.chunk / 64); }
int XStageBytes(const MediumConfig& c) { return 64 * c.row_groups * kColumnBytes * (c.chunk / 64); }

// How the two rings share the memory. What waits for either is the longer the fewer weights lie
// ahead of the tensor cores while it is on its way; x, released and sent by all of a cluster, is on
// its way twice as long, and nothing is gained beyond some bytes (of weights; more rows of x take
// longer). The numbers are those that come closest to the best split of every published shape
// (medium_bench on an H100, 2 to 12 stages of x): within 1 % of it.
double Waiting(const MediumConfig& c) {
  const double enough = c.row_groups == 1 ? 100 * 1024 : 150 * 1024;
  const double x_ahead = c.x_stages * WStageBytes(c), w_ahead = c.w_stages * WStageBytes(c);
  return 2 / std::min(x_ahead, enough) + 1 / w_ahead;
}
int Room(const MediumDevice& device) { return device.shared_bytes - kBarrierBytes - kAlignment; }

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
  best.chunk = best.n_tile <= 64 ? 128 : 64;
  // All of the memory: half, which would let the next kernel's blocks in beside, is 6 to 40 %
  // slower (docs/PERFORMANCE.md).
  std::optional<MediumConfig> picked;
  for (int x_stages = 2; x_stages <= kStagesMax; ++x_stages) {
    const auto config = MediumWithStages(best, device, x_stages);
    if (!config) break;
    if (!picked || Waiting(*config) < Waiting(*picked)) picked = config;
  }
  return picked;
}

std::optional<MediumConfig> MediumWithStages(MediumConfig config, const MediumDevice& device,
                                             int x_stages) {
  const int x_ring_bytes = x_stages * XStageBytes(config);
  config.x_stages = x_stages;
  config.w_stages = std::min((Room(device) - x_ring_bytes) / WStageBytes(config), kStagesMax);
  if (config.w_stages < 2 || x_stages < 2) return std::nullopt;
  config.shared_bytes =
      config.w_stages * WStageBytes(config) + x_ring_bytes + kBarrierBytes + kAlignment;
  return config;
}

std::string ToString(const MediumConfig& config) {
  return "tile " + std::to_string(config.n_tile) + " x " + std::to_string(64 * config.row_groups) +
         ", chunk " + std::to_string(config.chunk) + ", stages " + std::to_string(config.w_stages) +
         " + " + std::to_string(config.x_stages) + ", cluster " + std::to_string(config.cluster) +
         ", grid " + std::to_string(config.grid) + ", passes " + std::to_string(config.passes);
}

}  // namespace fathom::kernels::cuda
