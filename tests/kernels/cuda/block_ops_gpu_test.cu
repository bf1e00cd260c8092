// Copies of whole KV blocks: in the pool, to the swap space in the host's memory and back; and
// blocks of zeros.
#include "kernels/cuda/rows/block_ops.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "tests/kernels/cuda/gpu_test.h"

namespace fathom::gpu_test {
namespace {

using kernels::cuda::BlockOpsArgs;
using kernels::cuda::BlockPair;

constexpr int kPoolBlocks = 150;
constexpr int kSwapBlocks = 140;

// A pool of random words and a swap space, and what must be in them.
struct Blocks {
  Blocks(int planes, int64_t block_bytes)
      : planes(planes),
        words(block_bytes / 4),
        pool(Random(int64_t{planes} * kPoolBlocks * words)),
        device(pool),
        space(int64_t{kSwapBlocks} * planes * words, 0) {
    EXPECT_CUDA(cudaHostAlloc(&pinned, space.size() * 4, cudaHostAllocMapped));
    for (size_t i = 0; i < space.size(); ++i) pinned[i] = 0;
    args = {.planes = device.get(),
            .planes_count = planes,
            .pool_blocks = kPoolBlocks,
            .block_bytes = block_bytes,
            .swap_space = pinned,
            .swap_blocks = kSwapBlocks};
  }
  ~Blocks() { EXPECT_CUDA(cudaFreeHost(pinned)); }

  static std::vector<uint32_t> Random(int64_t count) {
    std::mt19937 rng(7);
    std::vector<uint32_t> values(static_cast<size_t>(count));
    for (uint32_t& value : values) value = rng();
    return values;
  }
  uint32_t* InPool(int plane, int block) {
    return pool.data() + (int64_t{plane} * kPoolBlocks + block) * words;
  }
  uint32_t* InSpace(int plane, int block) {
    return space.data() + (int64_t{block} * planes + plane) * words;
  }
  // The same copies on the host.
  void Expect(const std::vector<BlockPair>& pairs, bool from_space, bool to_space) {
    for (const BlockPair& pair : pairs) {
      for (int plane = 0; plane < planes; ++plane) {
        const uint32_t* from = from_space ? InSpace(plane, pair.from) : InPool(plane, pair.from);
        uint32_t* to = to_space ? InSpace(plane, pair.to) : InPool(plane, pair.to);
        std::copy_n(from, words, to);
      }
    }
  }
  void Check() {
    Finish();
    EXPECT_EQ(device.Download(), pool);
    EXPECT_TRUE(std::equal(space.begin(), space.end(), pinned));
  }

  const int planes;
  const int64_t words;
  std::vector<uint32_t> pool;
  DeviceBuffer<uint32_t> device;
  std::vector<uint32_t> space;
  uint32_t* pinned = nullptr;
  BlockOpsArgs args;
};

std::vector<BlockPair> Pairs(int count, int from, int to) {
  std::vector<BlockPair> pairs;
  for (int i = 0; i < count; ++i) pairs.push_back({from + 2 * i, to + (i * 7) % count});
  return pairs;
}

TEST(BlockOps, SwappedOutAndInByBytes) {
  for (const int64_t block_bytes : {16, 4080, 16384}) {
    for (const int planes : {1, 2, 60}) {
      for (const int count : {1, 3, kernels::cuda::kBlockOpsMax}) {
        SCOPED_TRACE(::testing::Message()
                     << block_bytes << " bytes, " << planes << " planes, " << count << " pairs");
        Blocks blocks(planes, block_bytes);
        const std::vector<BlockPair> out = Pairs(count, 1, 2), in = Pairs(count, 0, 60);
        // Between the two, other values come to the blocks that were swapped out.
        const std::vector<int32_t> zeroed = {1, 3, 149};
        EXPECT_CUDA(SwapOutBlocks(MakeContext(), blocks.args, out.data(), count));
        EXPECT_CUDA(ZeroBlocks(MakeContext(true), blocks.args, zeroed.data(), 3));
        EXPECT_CUDA(SwapInBlocks(MakeContext(true), blocks.args, in.data(), count));
        blocks.Expect(out, false, true);
        for (const int32_t block : zeroed) {
          for (int plane = 0; plane < planes; ++plane) {
            std::fill_n(blocks.InPool(plane, block), blocks.words, 0u);
          }
        }
        blocks.Expect(in, true, false);
        blocks.Check();
      }
    }
  }
}

TEST(BlockOps, CopiedInThePool) {
  Blocks blocks(6, 2048);
  const std::vector<BlockPair> pairs = {{1, 100}, {2, 101}, {1, 102}};
  EXPECT_CUDA(CopyBlocks(MakeContext(), blocks.args, pairs.data(), 3));
  blocks.Expect(pairs, false, false);
  blocks.Check();
}

TEST(BlockOps, RefuseBlocksThatAreNotThere) {
  Blocks blocks(2, 64);
  for (const BlockPair& pair :
       {BlockPair{kPoolBlocks, 1}, BlockPair{1, kSwapBlocks}, BlockPair{-1, 1}, BlockPair{1, -1}}) {
    EXPECT_EQ(SwapOutBlocks(MakeContext(), blocks.args, &pair, 1), cudaErrorInvalidValue);
    const BlockPair back = {pair.to, pair.from};
    EXPECT_EQ(SwapInBlocks(MakeContext(), blocks.args, &back, 1), cudaErrorInvalidValue);
  }
  const BlockPair pair = {1, 1};
  BlockOpsArgs odd = blocks.args;
  odd.block_bytes = 24;
  EXPECT_EQ(SwapOutBlocks(MakeContext(), odd, &pair, 1), cudaErrorInvalidValue);
  BlockOpsArgs without = blocks.args;
  without.swap_blocks = 0;
  EXPECT_EQ(SwapOutBlocks(MakeContext(), without, &pair, 1), cudaErrorInvalidValue);
  EXPECT_CUDA(SwapInBlocks(MakeContext(), blocks.args, nullptr, 0));
  blocks.Check();
}

// Blocks as large as those of a 7B model, many times; prints how fast they go over the bus.
TEST(BlockOps, LargeBlocksOverTheBus) {
  constexpr int kPlanes = 8;
  Blocks blocks(kPlanes, 64 * 128 * 32 * 2);
  const std::vector<BlockPair> out = Pairs(64, 1, 2), in = Pairs(64, 0, 60);
  cudaEvent_t begin = nullptr, end = nullptr;
  ASSERT_CUDA(cudaEventCreate(&begin));
  ASSERT_CUDA(cudaEventCreate(&end));
  for (const bool to_host : {true, false}) {
    float best = 1e9f;
    for (int run = 0; run < 5; ++run) {
      ASSERT_CUDA(cudaEventRecord(begin, Stream()));
      EXPECT_CUDA(to_host ? SwapOutBlocks(MakeContext(), blocks.args, out.data(), 64)
                          : SwapInBlocks(MakeContext(), blocks.args, in.data(), 64));
      ASSERT_CUDA(cudaEventRecord(end, Stream()));
      Finish();
      float ms = 0;
      ASSERT_CUDA(cudaEventElapsedTime(&ms, begin, end));
      best = std::min(best, ms);
    }
    const double bytes = 64.0 * kPlanes * static_cast<double>(blocks.args.block_bytes);
    std::printf("%s: %.0f us for 64 blocks of %d planes, %.1f GB/s\n",
                to_host ? "swap out" : "swap in", best * 1e3, kPlanes, bytes / best * 1e-6);
  }
  ASSERT_CUDA(cudaEventDestroy(begin));
  ASSERT_CUDA(cudaEventDestroy(end));
  blocks.Expect(out, false, true);
  blocks.Expect(in, true, false);
  blocks.Check();
}

}  // namespace
}  // namespace fathom::gpu_test
