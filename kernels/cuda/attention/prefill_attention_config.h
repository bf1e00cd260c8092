// kernels/cuda/attention/prefill_attention_config.h: which prefill attention kernel a launch takes,
// and its tiles. Pure. The choice changes speed only: both kernels give the bits of
// docs/NUMERICS.md.
#pragma once

#include <cstdint>

namespace fathom::kernels::cuda {

enum class PrefillKernel { kGeneric, kWgmma };

struct PrefillConfig {
  PrefillKernel kernel = PrefillKernel::kGeneric;
  int tile_rows = 64;  // Query rows of one chunk and head that a thread block has at a time.

  // Of a chunk; the launch's work is the sum over chunks.
  constexpr int64_t Tiles(int rows, int heads) const {
    return int64_t{(rows + tile_rows - 1) / tile_rows} * heads;
  }
  friend constexpr bool operator==(const PrefillConfig&, const PrefillConfig&) = default;
};

// `sm`: compute capability (80, 90). wgmma and its tensor maps are sm_90a's alone (100 has
// neither), and that kernel has one head size. Its planes are tensor maps, whose rows are counted
// in 31 bits.
PrefillConfig PrefillPickConfig(int sm, int head_dim, int64_t plane_rows);

}  // namespace fathom::kernels::cuda
