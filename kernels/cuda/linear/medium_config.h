// kernels/cuda/linear/medium_config.h: which tiles a product of 17 to 128 rows runs with
// (kernels/cuda/linear/medium.h). Pure: tested without a GPU. The choice changes speed only, never
// a bit.
#pragma once

#include <optional>
#include <span>
#include <string>

namespace fathom::kernels::cuda {

enum class MediumOp { kQkv, kResidual, kGateUp, kHead };

struct MediumShape {
  MediumOp op = MediumOp::kResidual;
  int rows = 0;  // Of x.
  int n = 0;     // Rows of the weight.
  int k = 0;
};

struct MediumDevice {
  int sm = 90;
  int sms = 132;
  int shared_bytes = 232448;  // Of one thread block at most.
  int blocks_of_four = 0;  // Thread blocks in clusters of four that run at once; 0: none of those.
};

// A thread block has `n_tile` weight rows over the whole of k, and all rows of x; `cluster` of them
// share what they read of x.
struct MediumConfig {
  int n_tile = 0;
  int row_groups = 0;  // Warpgroups, 64 rows of x each.
  int chunk = 0;       // Elements of k in a stage.
  int w_stages = 0;    // Of the ring of weights.
  int x_stages = 0;    // Of that of x.
  int cluster = 0;
  int grid = 0;
  int passes = 0;  // Tiles that a thread block does one after the other.
  int shared_bytes = 0;
  bool operator==(const MediumConfig&) const = default;
};

inline constexpr int kMediumRowsMax = 128;

// Elements of k in a stage of a tile: fewer waits where a stage is short, more stages where it is
// long.
constexpr int MediumChunk(int n_tile) { return n_tile <= 48 ? 128 : 64; }

// The tiles that are built for an op.
std::span<const int> MediumTiles(MediumOp op);

// nullopt: not a shape for this op.
std::optional<MediumConfig> MediumPickConfig(const MediumShape& shape, const MediumDevice& device);
// The same with a tile of MediumTiles and clusters of `cluster` thread blocks, a power of two up to
// 8 and no more than device.sms. For measuring the choice.
std::optional<MediumConfig> MediumWithTile(const MediumShape& shape, const MediumDevice& device,
                                           int n_tile, int cluster);
// The same with so many stages of x, 2 at least, and as many of weights as there is room for:
// nullopt for less than two. For measuring the choice.
std::optional<MediumConfig> MediumWithStages(MediumConfig config, const MediumDevice& device,
                                             int x_stages);
std::string ToString(const MediumConfig& config);

}  // namespace fathom::kernels::cuda
