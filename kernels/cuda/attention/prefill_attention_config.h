// kernels/cuda/attention/prefill_attention_config.h: which prefill attention kernel a launch uses,
// and its tiles. Pure. The choice changes speed only: both kernels give the bits of
// docs/NUMERICS.md.
#pragma once

#include <cstdint>

namespace fathom::kernels::cuda {

enum class PrefillKernel { kGeneric, kWgmma };

struct PrefillConfig {
  PrefillKernel kernel = PrefillKernel::kGeneric;
  // Query rows of one chunk and one head that a thread block computes at a time.
  int tile_rows = 64;

  // The tiles of one chunk. The launch's work is the sum over all chunks.
  constexpr int64_t Tiles(int rows, int heads) const {
    return int64_t{(rows + tile_rows - 1) / tile_rows} * heads;
  }
  friend constexpr bool operator==(const PrefillConfig&, const PrefillConfig&) = default;
};

// `sm` is the compute capability (80, 90). The wgmma kernel needs wgmma and TMA tensor maps, which
// together only sm_90a has (sm_100 has no wgmma), and one head_dim. A tensor map counts the rows of
// a plane in 31 bits, so a larger plane (`plane_rows`) takes the generic kernel.
PrefillConfig PrefillPickConfig(int sm, int head_dim, int64_t plane_rows);

}  // namespace fathom::kernels::cuda
