// kernels/cuda/rows/block_ops.h: copies and zeroes whole KV blocks, in every plane of every layer.
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
};

// All pairs are processed in parallel, so no block may be both a source and a target. At most
// kBlockOpsMax pairs.
inline constexpr int kBlockOpsMax = 64;
cudaError_t CopyBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                       const BlockPair* pairs, int count);  // `pairs` is on the host.
cudaError_t ZeroBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                       const int32_t* blocks, int count);  // `blocks` is on the host.

}  // namespace fathom::kernels::cuda
