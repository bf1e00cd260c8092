#include "kernels/cuda/linear/medium_config.h"

#include <algorithm>
#include <cmath>

namespace fathom::kernels::cuda {
namespace {

constexpr int kResidualTiles[] = {32, 40, 48, 56, 64};
constexpr int kQkvTiles[] = {48, 80, 96, 128};
constexpr int kGateUpTiles[] = {160, 176, 224};
constexpr int kHeadTiles[] = {128, 160};

constexpr int kColumnBytes = 128;  // In a stage: 64 elements.
constexpr int kMediumStagesMax = 24;
constexpr int kBarrierBytes = 1024;
constexpr int kAlignment = 1024;  // The swizzle's pattern needs it.

// Rates of an H100 in millions of 16-bit elements per microsecond: what memory and L2 deliver, what
// one multiprocessor reads, what all multiprocessors read, and the cost of the last tile. Only
// their ratios matter. The rates and the power in Time() were fitted so that the choices come
// closest to the fastest tile and cluster of the published shapes at 32, 64 and 128 rows, measured
// with medium_bench (docs/PERFORMANCE.md says where they miss).
constexpr double kMemoryRate = 1.55, kL2Rate = 3.9, kPortRate = 0.056, kPortsRate = 5.5;
constexpr double kLastTileRate = 0.1;

int WStageBytes(const MediumConfig& c) { return c.n_tile * kColumnBytes * (c.chunk / 64); }
int XStageBytes(const MediumConfig& c) { return 64 * c.row_groups * kColumnBytes * (c.chunk / 64); }

// Estimates how long the tensor cores wait for the two rings, which share the memory. The wait
// grows when fewer weights are loaded ahead. A stage of x takes twice as long as a stage of
// weights, because all thread blocks of a cluster release and send it. More than `enough` bytes of
// weights gain nothing (with more rows of x, `enough` is larger). The numbers were fitted to the
// best split of every published shape (medium_bench on an H100, 2 to 12 stages of x) and come
// within 1 % of it.
double Waiting(const MediumConfig& c) {
  const double enough = c.row_groups == 1 ? 100 * 1024 : 150 * 1024;
  const double x_ahead = c.x_stages * WStageBytes(c), w_ahead = c.w_stages * WStageBytes(c);
  return 2 / std::min(x_ahead, enough) + 1 / w_ahead;
}
// Thread blocks that run at the same time. With clusters of four this can be fewer than the
// multiprocessors, because the number of multiprocessors in a GPC may not be a multiple of four.
int BlocksMax(const MediumDevice& device, int cluster) {
  if (cluster == 4 && device.blocks_of_four > 0) return device.blocks_of_four;
  return device.sms / cluster * cluster;
}
// The time of one element of k: the longest of reading the weights, of what L2 delivers (x once per
// cluster), of what one multiprocessor reads and of what all of them read; more if several of these
// are close to the longest. A thread block with fewer weight rows ends sooner after its last
// element.
double Time(const MediumConfig& c, const MediumShape& shape) {
  const double x_rows = 64 * c.row_groups, tiles = c.grid * c.passes;
  double sum = 0;
  for (const double one :
       {shape.n / kMemoryRate, (shape.n + x_rows * tiles / c.cluster) / kL2Rate,
        c.passes * (c.n_tile + x_rows) / kPortRate, tiles * (c.n_tile + x_rows) / kPortsRate}) {
    sum += std::pow(one, 8);
  }
  return std::pow(sum, 1.0 / 8) + c.passes * c.n_tile / kLastTileRate;
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
      shape.n % 16 != 0 || shape.n < 1 || device.sms < 2) {
    return std::nullopt;
  }
  std::optional<MediumConfig> best;
  for (const int cluster : {2, 4}) {
    if (cluster == 4 && device.blocks_of_four == 0) continue;
    for (const int n_tile : MediumTiles(shape.op)) {
      const auto config = MediumWithTile(shape, device, n_tile, cluster);
      if (config && (!best || Time(*config, shape) < Time(*best, shape))) best = config;
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
  config.chunk = MediumChunk(n_tile);
  // A thread block takes all of the shared memory. With half of it, the next kernel's thread blocks
  // could start earlier, but this is 6 to 40 % slower (docs/PERFORMANCE.md).
  std::optional<MediumConfig> picked;
  for (int x_stages = 2; x_stages <= kMediumStagesMax; ++x_stages) {
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
  config.w_stages = std::min((Room(device) - x_ring_bytes) / WStageBytes(config), kMediumStagesMax);
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
