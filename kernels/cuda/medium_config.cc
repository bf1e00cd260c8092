#include "kernels/cuda/medium_config.h"

#include <algorithm>

namespace fathom::kernels::cuda {
namespace {

constexpr int kResidualTiles[] = {32, 40, 48, 56, 64};
constexpr int kQkvTiles[] = {48, 80, 96, 128};
constexpr int kGateUpTiles[] = {160, 176, 224};
constexpr int kHeadTiles[] = {128, 160};

constexpr int kColumnBytes = 128;  // Of a stage: 64 elements.
constexpr int kStagesMax = 24;
constexpr int kBarrierBytes = 1024;
constexpr int kAlignment = 1024;  // Of the swizzle's pattern.

// Elements of 16 bits a microsecond and thousand: what memory and L2 deliver to all
// multiprocessors, and one multiprocessor takes in (64 bytes a clock). An H100's; only their ratios
// matter.
constexpr double kMemoryRate = 3.1 / 2, kL2Rate = 5.7 / 2, kPortRate = 0.112 / 2;

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
// Thread blocks that run at once: a group of multiprocessors may not be a multiple of four.
int BlocksMax(const MediumDevice& device, int cluster) {
  if (cluster == 4 && device.blocks_of_four > 0) return device.blocks_of_four;
  return device.sms / cluster * cluster;
}
// The time of one element of k: the longest of reading the weights, of what L2 delivers (x once a
// cluster) and of what the busiest multiprocessor takes in.
double Time(const MediumConfig& c, const MediumShape& shape) {
  const double x_rows = 64 * c.row_groups;
  return std::max({shape.n / kMemoryRate,
                   (shape.n + x_rows * c.grid * c.passes / c.cluster) / kL2Rate,
                   c.passes * (c.n_tile + x_rows) / kPortRate});
}
int Room(const MediumDevice& device) { return device.shared_bytes - kBarrierBytes - kAlignment; }

// The shorter time; then fewer weight rows for the busiest thread block, so that all work until the
// end; then the larger tile.
bool Better(const MediumConfig& a, const MediumConfig& b, const MediumShape& shape) {
  const double time_a = Time(a, shape), time_b = Time(b, shape);
  if (time_a != time_b) return time_a < time_b;
  const int rows_a = a.passes * a.n_tile, rows_b = b.passes * b.n_tile;
  return rows_a != rows_b ? rows_a < rows_b : a.n_tile > b.n_tile;
}

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
      shape.n % 16 != 0 || shape.n < 1 || device.sms < 2) {
    return std::nullopt;
  }
  std::optional<MediumConfig> best;
  for (const int cluster : {2, 4}) {
    if (cluster == 4 && device.blocks_of_four == 0) continue;
    for (const int n_tile : MediumTiles(shape.op)) {
      const auto config = MediumWithTile(shape, device, n_tile, cluster);
      if (config && (!best || Better(*config, *best, shape))) best = config;
    }
  }
  return best;
}

std::optional<MediumConfig> MediumWithTile(const MediumShape& shape, const MediumDevice& device,
                                           int n_tile, int cluster) {
  MediumConfig config;
  const int tiles = (shape.n + n_tile - 1) / n_tile;
  config.n_tile = n_tile;
  config.cluster = cluster;
  config.passes = (tiles + BlocksMax(device, cluster) - 1) / BlocksMax(device, cluster);
  const int blocks = (tiles + config.passes - 1) / config.passes;
  config.grid = (blocks + cluster - 1) / cluster * cluster;
  config.row_groups = shape.rows > 64 ? 2 : 1;
  config.chunk = n_tile <= 64 ? 128 : 64;
  // All of the memory: half, which would let the next kernel's blocks in beside, is 6 to 40 %
  // slower (docs/PERFORMANCE.md).
  std::optional<MediumConfig> picked;
  for (int x_stages = 2; x_stages <= kStagesMax; ++x_stages) {
    const auto staged = MediumWithStages(config, device, x_stages);
    if (!staged) break;
    if (!picked || Waiting(*staged) < Waiting(*picked)) picked = staged;
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
