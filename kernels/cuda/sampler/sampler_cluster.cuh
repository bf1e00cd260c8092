// kernels/cuda/sampler/sampler_cluster.cuh: a row of logits in the shared memory of a cluster of 8
// thread blocks, and the functions by which the blocks agree on a value or select tokens. Every
// thread of the cluster must call Exchange and Select in the same order with the same parameters;
// otherwise the cluster's barriers do not match and the kernel hangs.
//
// A cluster barrier lies between a block's access to another block's memory and the next use of
// that memory. The buffers are used in turn: between two uses of a buffer there is a barrier that a
// block passes only when all blocks have finished the first use.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/sampler/sampler_pick.h"
#include "kernels/cuda/sampler/sampler_select.cuh"

namespace fathom::kernels::cuda {

inline constexpr int kSampleThreads = kClusterSampleThreads;
inline constexpr int kSampleWarps = kSampleThreads / 32;
static_assert(kSampleThreads == kSelectBins, "A thread has a bin.");

// The values that a cluster agrees on: a maximum, a sum, a minimum.
struct Summary {
  uint64_t max = 0;
  uint64_t sum = 0;
  uint64_t min = ~uint64_t{0};
};
// As a maximum it says that some logit is not finite. No token has this key.
inline constexpr uint64_t kNotFinite = ~uint64_t{0};

struct SampleShared {
  BinCounters bins[2];
  BinSearch search;
  Summary warps[kSampleWarps];
  Summary exchange[2][kSampleBlocks];
  // Used in the cluster's first block only.
  float groups[kSampleLanes / 32];  // Sums of exp of 32 lanes.
  uint64_t tops[kLogprobsMax];      // PlaceKey of each alternative, in any order.
  int tops_count;
  int forced;  // The token that is drawn whatever the scores are; -1: none.
  // Read early, while the logits are loaded.
  int fault;
  SamplerSlot slot;
};

// A thread block's part of a row. Every thread has its own copy of this struct.
struct BlockRow {
  SampleShared* shared = nullptr;
  float* z = nullptr;  // [4 * quads], by local index; -inf past `count`.
  int block = 0;       // Index of the block in the cluster.
  int vocab = 0;
  int count = 0;
  int quads = 0;  // ceil(count / 4). Quads t, t + 512, ... belong to thread t.
  int exchange_turn = 0;
  int select_turn = 0;
};

FATHOM_DEVICE Summary Combine(const Summary& a, const Summary& b) {
  return {a.max > b.max ? a.max : b.max, a.sum + b.sum, a.min < b.min ? a.min : b.min};
}
FATHOM_DEVICE Summary CombineWarp(Summary s) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    s = Combine(s, {__shfl_xor_sync(~0u, s.max, distance), __shfl_xor_sync(~0u, s.sum, distance),
                    __shfl_xor_sync(~0u, s.min, distance)});
  }
  return s;
}

// Combines the summaries of all threads of the cluster and gives the result to all of them. It is a
// barrier for all their writes.
FATHOM_DEVICE Summary Exchange(BlockRow* row, Summary mine) {
  SampleShared* shared = row->shared;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  Summary* slots = shared->exchange[row->exchange_turn];
  row->exchange_turn ^= 1;
  mine = CombineWarp(mine);
  if (lane == 0) shared->warps[warp] = mine;
  __syncthreads();
  if (warp == 0) {
    const Summary all = CombineWarp(lane < kSampleWarps ? shared->warps[lane] : Summary{});
    if (lane < kSampleBlocks) *ptx::InBlock(slots + row->block, lane) = all;
  }
  ptx::ClusterArrive();
  ptx::ClusterWait();
  Summary all = slots[0];
#pragma unroll
  for (int block = 1; block < kSampleBlocks; ++block) all = Combine(all, slots[block]);
  return all;
}

// Calls f(local index, z) for each of this thread's elements.
template <class F>
FATHOM_DEVICE void ForOwn(const BlockRow& row, F f) {
  for (int quad = static_cast<int>(threadIdx.x); quad < row.quads; quad += kSampleThreads) {
    const float4 four = reinterpret_cast<const float4*>(row.z)[quad];
    const float values[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (quad * 4 + i < row.count) f(quad * 4 + i, values[i]);
    }
  }
}

// The row as a source of keys, and the cluster's histogram
// (kernels/cuda/sampler/sampler_select.cuh).
struct RowSource {
  const BlockRow* row;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    ForOwn(*row, [&](int local, float z) { f(IdOfLocal(local, row->block), z); });
  }
};
struct ClusterBins {
  BlockRow* row;
  int turn = 0;

  template <bool kMasses>
  __device__ __forceinline__ void Clear() {
    turn = row->select_turn;
    row->select_turn ^= 1;
    ClearBins<kMasses>(Own());
    __syncthreads();
  }
  __device__ __forceinline__ BinCounters* Own() const { return &row->shared->bins[turn]; }
  template <bool kMasses>
  __device__ __forceinline__ FoundBin Find(uint64_t target) const {
    ptx::ClusterArrive();
    ptx::ClusterWait();
    const int bin = kSelectBins - 1 - static_cast<int>(threadIdx.x);
    uint32_t count = 0;
    uint64_t weight = 0;
#pragma unroll
    for (int block = 0; block < kSampleBlocks; ++block) {
      AddBin<kMasses>(*ptx::InBlock(Own(), block), bin, &count, &weight);
    }
    return ScanBins(&row->shared->search, count, weight, target);
  }
};

}  // namespace fathom::kernels::cuda
