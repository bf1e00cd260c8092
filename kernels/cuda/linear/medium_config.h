// kernels/cuda/linear/medium_config.h: the tiles of a GEMM of 17 to 128 rows
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
  int rows = 0;  // Rows of x.
  int n = 0;     // Rows of the weight.
  int k = 0;
};

struct MediumDevice {
  int sm = 90;
  int sms = 132;
  int shared_bytes = 232448;  // The maximum of one thread block.
  // Thread blocks that run at the same time in clusters of four; 0: no such clusters.
  int blocks_of_four = 0;
};

// A thread block computes `n_tile` weight rows over the whole of k for all rows of x. `cluster`
// thread blocks share their reads of x.
struct MediumConfig {
  int n_tile = 0;
  int row_groups = 0;  // Warpgroups, each with 64 rows of x.
  int chunk = 0;       // Elements of k in a stage.
  int w_stages = 0;    // Stages of the ring of weights.
  int x_stages = 0;    // Stages of the ring of x.
  int cluster = 0;
  int grid = 0;
  int passes = 0;  // Tiles that a thread block computes one after the other.
  int shared_bytes = 0;
  bool operator==(const MediumConfig&) const = default;
};

inline constexpr int kMediumRowsMax = 128;

// Elements of k in a stage of a tile. A small tile gets longer stages, which mean fewer waits; a
// large tile gets shorter ones, so that more stages fit.
constexpr int MediumChunk(int n_tile) { return n_tile <= 48 ? 128 : 64; }

// The tiles that are compiled for an op.
std::span<const int> MediumTiles(MediumOp op);

// nullopt: the op does not support the shape.
std::optional<MediumConfig> MediumPickConfig(const MediumShape& shape, const MediumDevice& device);
// The same with a tile of MediumTiles and clusters of `cluster` thread blocks (a power of two, up
// to 8 and at most device.sms). For measuring the choice.
std::optional<MediumConfig> MediumWithTile(const MediumShape& shape, const MediumDevice& device,
                                           int n_tile, int cluster);
// The same with `x_stages` stages of x (at least 2) and as many stages of weights as fit; nullopt
// if fewer than two fit. For measuring the choice.
std::optional<MediumConfig> MediumWithStages(MediumConfig config, const MediumDevice& device,
                                             int x_stages);
std::string ToString(const MediumConfig& config);

}  // namespace fathom::kernels::cuda
