#include "kernels/cuda/linear/skinny_config.h"

#include <algorithm>

namespace fathom::kernels::cuda {
namespace {

// Memory bandwidth of an H100, used to compare configurations. Other cards of sm_90 have the same
// proportions.
constexpr double kReadBytesPerUs = 3.10e6;
// The most that one multiprocessor can read, as a multiple of its fair share of the bandwidth.
constexpr double kFairShares = 1.3;
// The loss if all multiprocessors but one are idle. It decides between configurations that are
// otherwise equal.
constexpr double kIdleLoss = 0.03;
// The cost of one more pass (one more epilogue), and of thinner tiles, which read x more often.
constexpr double kPassUs = 0.1;
constexpr double kXShare = 0.25;

// The smallest ring beside the normed rows. If less is left, another kernel computes the norm.
constexpr int kRingBesideNormedMin = 96 * 1024;
// With fewer stages than this the ring's steps are coarse; each missing stage costs some time.
constexpr int kStagesWanted = 6;
constexpr double kStageLoss = 0.02;
constexpr int kSkinnyStagesMax = 24;
// With more warps than this, warps wait longer for each other at each step.
constexpr int kTilesFree = 7;
constexpr double kTileLoss = 0.01;

int BucketOf(int rows) { return rows <= 1 ? 1 : rows <= 8 ? 8 : 16; }

bool Possible(const SkinnyShape& s, const SkinnyDevice& d) {
  return d.sm == 90 && d.sms > 0 && s.rows >= 1 && s.rows <= kSkinnyRowsMax && s.n > 0 &&
         s.n % 8 == 0 && s.k >= 64 && s.k % 64 == 0;
}

bool FusesNorm(const SkinnyShape& s, const SkinnyDevice& d) {
  const int bucket = BucketOf(s.rows);
  return s.norm && bucket < 16 &&
         SkinnyAligned(bucket * s.k * 2) + kRingBesideNormedMin + 2048 <= d.shared_bytes;
}

}  // namespace

SkinnyDevice SkinnyBeside(SkinnyDevice device, int other_bytes) {
  device.shared_bytes -= other_bytes + 1024;
  return device;
}

std::optional<SkinnyConfig> SkinnyMakeConfig(const SkinnyShape& shape, const SkinnyDevice& device,
                                             int tiles, int chunk, int stages, int shared_bytes) {
  if (!Possible(shape, device) || tiles < 1 || tiles > kSkinnyTilesMax || chunk < 64 ||
      chunk % 64 != 0 || chunk > 512 || shared_bytes > device.shared_bytes) {
    return std::nullopt;
  }
  SkinnyConfig c;
  c.row_bucket = BucketOf(shape.rows);
  c.tiles = tiles;
  c.chunk = chunk;
  c.fuses_norm = FusesNorm(shape, device);
  c.evict_first = true;
  c.stages = stages;
  if (stages == 0) {
    const int left = shared_bytes - SkinnySharedBytes(c, shape.k);
    c.stages = left < 0 ? 0 : std::min(left / (SkinnyStageBytes(c) + 16), kSkinnyStagesMax);
  }
  c.shared_bytes = SkinnySharedBytes(c, shape.k);
  if (c.stages < 2 || c.shared_bytes > shared_bytes) return std::nullopt;
  // The smallest number of thread blocks that gives the same number of passes, so that all end at
  // the same time.
  const int groups = SkinnyGroups(c, shape.n);
  const int passes = (groups + device.sms - 1) / device.sms;
  c.grid = (groups + passes - 1) / passes;
  return c;
}

double SkinnyPredictUs(const SkinnyShape& shape, const SkinnyDevice& device,
                       const SkinnyConfig& config) {
  const double share = kReadBytesPerUs / device.sms;
  const int groups = SkinnyGroups(config, shape.n);
  const int passes = (groups + config.grid - 1) / config.grid;
  const double group_bytes = 2.0 * config.tiles * kSkinnyTileRows * shape.k;
  // Until the last pass all thread blocks share the bandwidth. In the last pass only those with
  // work share it, each up to the limit of a multiprocessor.
  const double total = 2.0 * shape.n * shape.k;
  const double own_us = group_bytes / (share * kFairShares);
  const double before = group_bytes * (passes - 1) * config.grid;
  const double us = (passes - 1) * std::max(group_bytes * config.grid / kReadBytesPerUs, own_us) +
                    std::max((total - before) / kReadBytesPerUs, own_us);
  const double x_bytes = config.fuses_norm ? 0.0 : 2.0 * config.row_bucket * shape.k * passes;
  const double idle = 1.0 - 1.0 * config.grid / device.sms;
  const double missing = std::max(0, kStagesWanted - config.stages);
  const double crowd = std::max(0, config.tiles - kTilesFree);
  return us * (1.0 + kIdleLoss * idle + kStageLoss * missing + kTileLoss * crowd) +
         kPassUs * (passes - 1) + kXShare * x_bytes / (kFairShares * share);
}

std::optional<SkinnyConfig> SkinnyPickConfig(const SkinnyShape& shape, const SkinnyDevice& device) {
  if (!Possible(shape, device)) return std::nullopt;
  // A thread block takes all of the shared memory. With half of it, the next kernel's thread blocks
  // could start earlier, but this costs 7 % at one row (docs/PERFORMANCE.md): a deep ring hides
  // more latency than an early start.
  const int budget = device.shared_bytes;
  std::optional<SkinnyConfig> best;
  double best_us = 0;
  for (int tiles = 1; tiles <= kSkinnyTilesMax; ++tiles) {
    // The widest chunk (long runs of memory) that still leaves enough stages.
    std::optional<SkinnyConfig> config;
    for (int chunk = 256; chunk >= 64; chunk /= 2) {
      if (chunk > 64 && chunk / 2 >= shape.k) continue;
      config = SkinnyMakeConfig(shape, device, tiles, chunk, 0, budget);
      if (config && config->stages >= kStagesWanted) break;
    }
    if (!config) continue;
    const double us = SkinnyPredictUs(shape, device, *config);
    if (!best || us < best_us - 1e-9) best = config, best_us = us;
  }
  return best;
}

std::string ToString(const SkinnyConfig& config) {
  return "rows " + std::to_string(config.row_bucket) + ", tiles " + std::to_string(config.tiles) +
         ", chunk " + std::to_string(config.chunk) + ", stages " + std::to_string(config.stages) +
         (config.fuses_norm ? ", norm inside" : "") + (config.evict_first ? ", evict first" : "") +
         ", " + std::to_string(config.shared_bytes / 1024) + " KiB, grid " +
         std::to_string(config.grid);
}

}  // namespace fathom::kernels::cuda
