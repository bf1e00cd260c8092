#include "modeling/layout/swap_space.h"

#include <algorithm>

namespace fathom {

absl::StatusOr<int32_t> SwapBlocks(int64_t swap_bytes, int64_t block_bytes) {
  constexpr int64_t kBlocksMax = 1 << 24;
  if (swap_bytes == 0) return 0;
  if (swap_bytes >= 2 * block_bytes) {
    return static_cast<int32_t>(std::min(swap_bytes / block_bytes, kBlocksMax) - 1);
  }
  return Invalid(
      "--swap-space: {} bytes do not hold a block of {} bytes beside the padding block; give at "
      "least {:.3g} (in GiB, or like 16G), or 0 for no swap space",
      swap_bytes, block_bytes, static_cast<double>(2 * block_bytes) / (1 << 30) + 0.001);
}

}  // namespace fathom
