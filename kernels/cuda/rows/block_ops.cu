#include "kernels/cuda/rows/block_ops.h"

#include "kernels/cuda/base/canon.cuh"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = 256;

struct Pairs {
  BlockPair at[kBlockOpsMax];
};

// from < 0: the target block is filled with zeros.
__global__ void BlockOpsKernel(const BlockOpsArgs a, const Pairs pairs) {
  WaitForPrevious();
  LetNextStart();
  const BlockPair pair = pairs.at[blockIdx.y];
  const int64_t pieces = a.block_bytes / 16;
  uint4* const plane = static_cast<uint4*>(a.planes) + int64_t{blockIdx.x} * a.pool_blocks * pieces;
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) {
    plane[pair.to * pieces + i] =
        pair.from < 0 ? make_uint4(0, 0, 0, 0) : plane[pair.from * pieces + i];
  }
}

// One thread block for each plane of each pair, so that many loads are on their way over the bus.
template <bool kOut>
__global__ void SwapKernel(const BlockOpsArgs a, const Pairs pairs) {
  WaitForPrevious();
  LetNextStart();
  const BlockPair pair = pairs.at[blockIdx.y];
  const int64_t pieces = a.block_bytes / 16;
  const int64_t in_pool = kOut ? pair.from : pair.to;
  const int64_t in_space = kOut ? pair.to : pair.from;
  uint4* const pool =
      static_cast<uint4*>(a.planes) + (int64_t{blockIdx.x} * a.pool_blocks + in_pool) * pieces;
  uint4* const space =
      static_cast<uint4*>(a.swap_space) + (in_space * a.planes_count + blockIdx.x) * pieces;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < pieces; i += kThreads) {
    if constexpr (kOut) {
      space[i] = pool[i];
    } else {
      pool[i] = space[i];
    }
  }
}

template <bool kOut>
cudaError_t LaunchSwap(const LaunchContext& context, const BlockOpsArgs& args,
                       const BlockPair* pairs, int count) {
  if (count < 0 || count > kBlockOpsMax || args.block_bytes % 16 != 0) return cudaErrorInvalidValue;
  Pairs all = {};
  for (int i = 0; i < count; ++i) {
    const int32_t in_pool = kOut ? pairs[i].from : pairs[i].to;
    const int32_t in_space = kOut ? pairs[i].to : pairs[i].from;
    if (in_pool < 0 || in_pool >= args.pool_blocks || in_space < 0 ||
        in_space >= args.swap_blocks) {
      return cudaErrorInvalidValue;
    }
    all.at[i] = pairs[i];
  }
  if (count == 0) return cudaSuccess;
  return Launch(context, dim3(args.planes_count, count), dim3(kThreads), 0, SwapKernel<kOut>, args,
                all);
}

cudaError_t LaunchPairs(const LaunchContext& context, const BlockOpsArgs& args, const Pairs& pairs,
                        int count) {
  if (count == 0) return cudaSuccess;
  if (args.block_bytes % 16 != 0) return cudaErrorInvalidValue;
  return Launch(context, dim3(args.planes_count, count), dim3(kThreads), 0, BlockOpsKernel, args,
                pairs);
}

bool InPool(const BlockOpsArgs& args, int32_t block) {
  return block >= 0 && block < args.pool_blocks;
}

}  // namespace

cudaError_t CopyBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                       const BlockPair* pairs, int count) {
  if (count < 0 || count > kBlockOpsMax) return cudaErrorInvalidValue;
  Pairs all = {};
  for (int i = 0; i < count; ++i) {
    if (!InPool(args, pairs[i].from) || !InPool(args, pairs[i].to)) return cudaErrorInvalidValue;
    all.at[i] = pairs[i];
  }
  return LaunchPairs(context, args, all, count);
}

cudaError_t SwapOutBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                          const BlockPair* pairs, int count) {
  return LaunchSwap<true>(context, args, pairs, count);
}

cudaError_t SwapInBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                         const BlockPair* pairs, int count) {
  return LaunchSwap<false>(context, args, pairs, count);
}

cudaError_t ZeroBlocks(const LaunchContext& context, const BlockOpsArgs& args,
                       const int32_t* blocks, int count) {
  if (count < 0 || count > kBlockOpsMax) return cudaErrorInvalidValue;
  Pairs all = {};
  for (int i = 0; i < count; ++i) {
    if (!InPool(args, blocks[i])) return cudaErrorInvalidValue;
    all.at[i] = {-1, blocks[i]};
  }
  return LaunchPairs(context, args, all, count);
}

}  // namespace fathom::kernels::cuda
