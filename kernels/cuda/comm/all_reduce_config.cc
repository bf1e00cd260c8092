#include "kernels/cuda/comm/all_reduce_config.h"

#include <algorithm>

#include "kernels/cuda/comm/peer_region.h"
#include "kernels/cuda/rows/row_ops_config.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kKeptPerLane[] = {1, 2, 4, 8};  // The values for which the kernels are compiled.
constexpr int kSumThreads = 256;

bool Supported(int ranks, int rows, int width, int blocks_max) {
  return ranks >= 2 && ranks <= kCommRanksMax && rows >= 0 && width > 0 && width % 8 == 0 &&
         blocks_max >= 1 && blocks_max <= kCommBlocksMax;
}

AllReduceConfig RowConfig(int rows, int width, int blocks_max) {
  AllReduceConfig config{std::min(rows, blocks_max), kNormThreads, 0};
  for (const int kept : kKeptPerLane) {
    if (width / 8 > kept * kNormThreads) continue;
    config.kept = kept;
    break;
  }
  return config;
}

}  // namespace

std::optional<AllReduceConfig> PushPickConfig(int ranks, int rows, int width, int blocks_max) {
  const auto config = OneShotPickConfig(ranks, rows, width, blocks_max);
  return config && config->kept > 0 && rows <= blocks_max ? config : std::nullopt;
}

std::optional<AllReduceConfig> OneShotPickConfig(int ranks, int rows, int width, int blocks_max) {
  if (!Supported(ranks, rows, width, blocks_max)) return std::nullopt;
  if (ranks != 2 && ranks != 4 && ranks != 8) return std::nullopt;
  return RowConfig(rows, width, blocks_max);
}

std::optional<AllReduceConfig> TwoShotSumPickConfig(int ranks, int rows, int width,
                                                    int blocks_max) {
  if (!Supported(ranks, rows, width, blocks_max)) return std::nullopt;
  const int vectors = width / 8;
  const int per_row = (vectors + kSumThreads - 1) / kSumThreads;
  // Also a rank with an empty share meets the others, with as many thread blocks as they have.
  const int64_t useful = int64_t{RowsPerRank(rows, ranks)} * per_row;
  return AllReduceConfig{static_cast<int>(std::min<int64_t>(useful, blocks_max)), kSumThreads, 0};
}

std::optional<AllReduceConfig> TwoShotFinishPickConfig(int ranks, int rows, int width,
                                                       int blocks_max) {
  if (!Supported(ranks, rows, width, blocks_max)) return std::nullopt;
  return RowConfig(rows, width, blocks_max);
}

std::string ToString(const AllReduceConfig& config) {
  return "blocks " + std::to_string(config.blocks) + ", threads " + std::to_string(config.threads) +
         ", kept " + std::to_string(config.kept);
}

}  // namespace fathom::kernels::cuda
