// kernels/cuda/sampler/sampler_cluster.cuh: a row of logits held in the shared memory of a cluster
// of 8 thread blocks, and how they agree on a value or select tokens. Every thread of the cluster
// calls Exchange and Select in the same order with the same parameters.
//
// What a block reads of another's memory, or writes there, is separated from its next use by a
// cluster barrier, and each buffer is used alternately: between two uses lies a barrier that a
// block passes only when all have done with the first.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/sampler/sampler_pick.h"
#include "kernels/cuda/sampler/sampler_select.cuh"

namespace fathom::kernels::cuda {

inline constexpr int kSampleThreads = kClusterSampleThreads;
inline constexpr int kSampleWarps = kSampleThreads / 32;
static_assert(kSampleThreads == kSelectBins, "A thread has a bin.");

// What a cluster agrees on: the largest, the sum, the smallest.
struct Summary {
  uint64_t max = 0;
  uint64_t sum = 0;
  uint64_t min = ~uint64_t{0};
};
// As a maximum: some logit is not finite. No token's key is it.
inline constexpr uint64_t kNotFinite = ~uint64_t{0};

struct SampleShared {
  BinCounters bins[2];
  BinSearch search;
  Summary warps[kSampleWarps];
  Summary exchange[2][kSampleBlocks];
  // Of the cluster's first block.
  float groups[kSampleLanes / 32];  // Sums of exp of 32 lanes.
  uint64_t tops[kLogprobsMax];      // PlaceKey of the alternatives, in any order.
  int tops_count;
  // Read early, while the logits come.
  int fault;
  SamplerSlot slot;
};

// A block's part of a row; every thread has its own copy.
struct BlockRow {
  SampleShared* shared = nullptr;
  float* z = nullptr;  // [4 * quads]: by local index; past `count` -inf.
  int block = 0;       // In the cluster.
  int vocab = 0;
  int count = 0;
  int quads = 0;  // ceil(count / 4). Thread t alone has the quads t, t + 512, ...
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

// The summary of all threads of the cluster, to all of them. A barrier for all their writes.
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

// The row as a source of keys, and the cluster's bins (kernels/cuda/sampler/sampler_select.cuh).
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
