// modeling/layout/swap_space.h: the size of a rank's swap space: memory of the host that keeps the
// KV of preempted sequences. It is a pool of blocks like the KV pool, with a padding block 0. Pure.
#pragma once

#include <cstdint>

#include "common/status.h"

namespace fathom {

// The blocks that a swap space of `swap_bytes` bytes can hand out, without the padding block; 0 for
// 0 bytes. `block_bytes`: of the largest block of a rank. INVALID_ARGUMENT: not one block fits.
absl::StatusOr<int32_t> SwapBlocks(int64_t swap_bytes, int64_t block_bytes);

}  // namespace fathom
