// kernels/cuda/linear/skinny_config.h: the tiles of a skinny GEMM (kernels/cuda/linear/skinny.h),
// and the layout of a thread block's shared memory. Pure: tested without a GPU. The choice changes
// speed only, never a bit.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace fathom::kernels::cuda {

struct SkinnyShape {
  int rows = 0;  // Rows of x.
  int n = 0;     // Rows of the weight.
  int k = 0;
  bool norm = false;  // The op has a norm before the product.
};

struct SkinnyDevice {
  int sm = 90;
  int sms = 132;
  int shared_bytes = 232448;  // The maximum of one thread block.
};

struct SkinnyConfig {
  int row_bucket = 0;  // Rows of x that the kernel is compiled for: 1, 8 or 16.
  int tiles = 0;       // Tiles of 16 weight rows that a thread block computes at once.
  int chunk = 0;       // Elements of k in a stage.
  int stages = 0;
  bool fuses_norm = false;   // x is normed and kept whole in shared memory; else it is streamed.
  bool evict_first = false;  // Weights are evicted from L2 first.
  int shared_bytes = 0;
  int grid = 0;
  bool operator==(const SkinnyConfig&) const = default;
};

inline constexpr int kSkinnyRowsMax = 16;
inline constexpr int kSkinnyTilesMax = 12;
inline constexpr int kSkinnyTileRows = 16;
// The most threads of a thread block: a warp for each tile and one warp that loads.
inline constexpr int kSkinnyThreadsMax = 32 * (kSkinnyTilesMax + 1);

// The layout of shared memory from a base aligned to 1,024 bytes: the stages (weights, then x if it
// is streamed), the normed x, the barriers (full and empty for each stage), four partial sums.
constexpr int SkinnyAligned(int bytes) { return (bytes + 1023) / 1024 * 1024; }
constexpr int SkinnyStageWeightBytes(const SkinnyConfig& c) {
  return c.tiles * kSkinnyTileRows * c.chunk * 2;
}
constexpr int SkinnyStageXBytes(const SkinnyConfig& c) {
  return c.fuses_norm ? 0 : c.row_bucket * c.chunk * 2;
}
constexpr int SkinnyStageBytes(const SkinnyConfig& c) {
  return SkinnyAligned(SkinnyStageWeightBytes(c) + SkinnyStageXBytes(c));
}
constexpr int SkinnyNormedBytes(const SkinnyConfig& c, int k) {
  return c.fuses_norm ? SkinnyAligned(c.row_bucket * k * 2) : 0;
}
constexpr int SkinnySharedBytes(const SkinnyConfig& c, int k) {
  return 1024 + c.stages * (SkinnyStageBytes(c) + 16) + SkinnyNormedBytes(c, k) + 32;
}
// Warps that norm and multiply. The norm needs more warps than one or two tiles have.
constexpr int SkinnyWorkers(const SkinnyConfig& c) {
  return c.fuses_norm && c.tiles < 8 ? 8 : c.tiles;
}
// The number of groups of `tiles` tiles.
constexpr int SkinnyGroups(const SkinnyConfig& c, int n) {
  const int rows = c.tiles * kSkinnyTileRows;
  return (n + rows - 1) / rows;
}

// The same with tiles, chunk and stages that the caller chooses (stages 0: as many as
// `shared_bytes` holds, at least 2). For tests and for measuring the choice. nullopt: not possible.
std::optional<SkinnyConfig> SkinnyMakeConfig(const SkinnyShape& shape, const SkinnyDevice& device,
                                             int tiles, int chunk, int stages, int shared_bytes);
// The device as a GEMM sees it that runs after a kernel with thread blocks of `other_bytes`. One of
// those leaves room on a multiprocessor for a thread block of the GEMM, whose ring is filled
// meanwhile.
SkinnyDevice SkinnyBeside(SkinnyDevice device, int other_bytes);
// The time in microseconds that the cost model of the choice predicts.
double SkinnyPredictUs(const SkinnyShape& shape, const SkinnyDevice& device,
                       const SkinnyConfig& config);

// nullopt: the op does not support the shape (rows above 16, k not a multiple of 64, no sm_90,
// ...).
std::optional<SkinnyConfig> SkinnyPickConfig(const SkinnyShape& shape, const SkinnyDevice& device);
std::string ToString(const SkinnyConfig& config);

}  // namespace fathom::kernels::cuda
