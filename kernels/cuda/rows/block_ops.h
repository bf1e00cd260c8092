// kernels/cuda/rows/block_ops.h: copies and zeroes whole KV blocks, in every plane of every layer,
// in the pool and between the pool and the swap space in the host's memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

struct BlockPair {
  int32_t from = 0;
  int32_t to = 0;
};

struct BlockOpsArgs {
  void* planes = nullptr;  // [planes][pool_blocks][block_bytes]
  int planes_count = 0;    // 2 per layer.
  int pool_blocks = 0;
  int64_t block_bytes = 0;  // Of one block of one plane; a multiple of 16.
  // Pinned memory of the host that the device can read and write: [swap_blocks][planes]
  // [block_bytes]. The blocks come first, because a sequence's blocks then lie close together.
  void* swap_space = nullptr;
  int swap_blocks = 0;
};

// All pairs are processed in parallel, so no block may be both a source and a target. At most
// kBlockOpsMax pairs.
inline constexpr int kBlockOpsMax = 64;
cudaError_t CopyBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                       const BlockPair* pairs, int count);  // `pairs` is on the host.
// The same from blocks of the pool to blocks of the swap space, and back. The device moves the
// bytes over the bus itself.
cudaError_t SwapOutBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                          const BlockPair* pairs, int count);
cudaError_t SwapInBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                         const BlockPair* pairs, int count);
cudaError_t ZeroBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                       const int32_t* blocks, int count);  // `blocks` is on the host.

}  // namespace fathom::kernels::cuda
