// kernels/cuda/comm/all_reduce_rows.cuh: the kernel that makes the results of whole rows: the
// one-shot all-reduce (kSources ranks, whose partials it sums) and the second half of the two-shot
// (kSources = 1: the sums of the rank that has the row). A thread is a lane of the norm.
#pragma once

#include <algorithm>

#include "kernels/cuda/comm/all_reduce.h"
#include "kernels/cuda/comm/all_reduce_config.h"
#include "kernels/cuda/comm/peer_barrier.cuh"
#include "kernels/cuda/comm/rank_sum.cuh"

namespace fathom::kernels::cuda {

// 16-byte loads that a thread has in flight: more would not fit into its registers.
inline constexpr int kCommLoadsMax = 32;

struct AllReduceRowsArgs {
  AllReduceArgs op;
  float inverse_width = 0;
};

// Where the vectors of a row come from.
template <int kSources>
struct RowSources {
  const uint4* from[kSources];
};
template <int kSources>
FATHOM_DEVICE RowSources<kSources> SourcesOf(const AllReduceArgs& a, int row) {
  RowSources<kSources> sources;
  const int64_t row_bytes = int64_t{a.width} * 2;
  if constexpr (kSources == 1) {
    const int owner = row / RowsPerRank(a.rows, a.group.ranks);
    const int local = row - owner * RowsPerRank(a.rows, a.group.ranks);
    sources.from[0] =
        InRegion<const uint4>(a.group, owner, a.group.layout.sums + local * row_bytes);
  } else {
#pragma unroll
    for (int r = 0; r < kSources; ++r) {
      sources.from[r] =
          InRegion<const uint4>(a.group, r, a.group.layout.partials[a.buffer] + row * row_bytes);
    }
  }
  return sources;
}

// Takes the sum of a vector: stores it, adds the residual, and adds the squares of the result.
template <class T>
FATHOM_DEVICE uint4 TakeSum(const AllReduceArgs& a, int64_t index, uint4 sum, uint4 x,
                            float* squares) {
  if (a.sum != nullptr) static_cast<uint4*>(a.sum)[index] = sum;
  if (a.x == nullptr) return sum;
  const uint4 added = AddRounded<T>(x, sum);
  static_cast<uint4*>(a.x)[index] = added;
  *squares = AddSquares<T>(added, *squares);
  return added;
}

// Sums kGroup vectors of this lane, of which the first has index `vector`; all loads come first.
template <class T, int kSources, int kGroup>
FATHOM_DEVICE void TakeGroup(const AllReduceArgs& a, const RowSources<kSources>& sources,
                             int64_t row_begin, int vector, int vectors, uint4* kept,
                             float* squares) {
  uint4 parts[kGroup][kSources], x[kGroup];
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    const int at = vector + i * kNormLanes;
#pragma unroll
    for (int r = 0; r < kSources; ++r) {
      parts[i][r] = at < vectors ? ptx::LoadPeer16(sources.from[r] + at) : make_uint4(0, 0, 0, 0);
    }
    x[i] = a.x != nullptr && at < vectors ? static_cast<const uint4*>(a.x)[row_begin + at]
                                          : make_uint4(0, 0, 0, 0);
  }
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    const int at = vector + i * kNormLanes;
    if (at >= vectors) continue;
    kept[i] = TakeSum<T>(a, row_begin + at, SumRanks<T>(parts[i], kSources), x[i], squares);
  }
}

template <class T>
FATHOM_DEVICE uint4 NormedVector(const AllReduceArgs& a, uint4 x, float factor, int vector) {
  const float4* const w = reinterpret_cast<const float4*>(a.weight) + 2 * vector;
  return NormVector<T>(x, factor, __ldg(w), __ldg(w + 1));
}

// kKept: the vectors of a lane, which stay in registers. 0: any number; x is read again.
template <class T, int kSources, int kKept>
__global__ void __launch_bounds__(kNormLanes)
    AllReduceRowsKernel(const __grid_constant__ AllReduceRowsArgs args) {
  // In turn, so that a slow warp still finds its row's sums while others are one row ahead.
  __shared__ float groups[2][kNormLanes / 32];
  constexpr int kGroup = std::clamp(kCommLoadsMax / (kSources + 1), 1, std::max(kKept, 1));
  const AllReduceArgs& a = args.op;
  LetNextStart();  // The next kernel loads its weights while the ranks meet.
  WaitForPrevious();
  if (!MeetPeers(a.group, kSources == 1 ? CommOp::kTwoShotFinish : CommOp::kOneShot)) return;
  const int vectors = a.width / 8, lane = threadIdx.x;
  int turn = 0;
  for (int row = blockIdx.x; row < a.rows; row += gridDim.x, turn ^= 1) {
    const RowSources<kSources> sources = SourcesOf<kSources>(a, row);
    const int64_t begin = int64_t{row} * vectors;
    uint4 kept[kKept > 0 ? kKept : 1];
    float squares = 0.0f;
    if constexpr (kKept > 0) {
#pragma unroll
      for (int i = 0; i < kKept; i += kGroup) {
        TakeGroup<T, kSources, std::min(kGroup, kKept)>(a, sources, begin, lane + i * kNormLanes,
                                                        vectors, kept + i, &squares);
      }
    } else {
      for (int v = lane; v < vectors; v += kNormLanes) {
        TakeGroup<T, kSources, 1>(a, sources, begin, v, vectors, kept, &squares);
      }
    }
    if (a.y == nullptr) continue;
    squares = SumGroup(squares);
    if (lane % 32 == 0) groups[turn][lane / 32] = squares;
    __syncthreads();
    const float* const g = groups[turn];
    const float factor = NormFactor(SumGroups(g[0], g[1], g[2], g[3]), args.inverse_width, a.eps);
    uint4* const y = static_cast<uint4*>(a.y) + begin;
    if constexpr (kKept > 0) {
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        const int v = lane + i * kNormLanes;
        if (v < vectors) y[v] = NormedVector<T>(a, kept[i], factor, v);
      }
    } else {
      const uint4* const x = static_cast<const uint4*>(a.x) + begin;
      for (int v = lane; v < vectors; v += kNormLanes) {
        y[v] = NormedVector<T>(a, x[v], factor, v);
      }
    }
  }
}

template <class T, int kSources>
auto AllReduceRowsInstance(int kept) {
  return kept == 1   ? AllReduceRowsKernel<T, kSources, 1>
         : kept == 2 ? AllReduceRowsKernel<T, kSources, 2>
         : kept == 4 ? AllReduceRowsKernel<T, kSources, 4>
         : kept == 8 ? AllReduceRowsKernel<T, kSources, 8>
                     : AllReduceRowsKernel<T, kSources, 0>;
}

template <class T, int kSources>
cudaError_t LaunchAllReduceRows(const LaunchContext& context, const AllReduceArgs& args,
                                const AllReduceConfig& config) {
  const AllReduceRowsArgs kernel_args = {args, static_cast<float>(1.0 / args.width)};
  return Launch(context, dim3(config.blocks), dim3(config.threads), 0,
                AllReduceRowsInstance<T, kSources>(config.kept), kernel_args);
}

template <class T, int kSources>
cudaError_t PreloadAllReduceRows() {
  for (const int kept : {0, 1, 2, 4, 8}) {
    cudaFuncAttributes attributes;
    const cudaError_t error =
        cudaFuncGetAttributes(&attributes, AllReduceRowsInstance<T, kSources>(kept));
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

// What both ways of an all-reduce require.
inline bool IsValid(const AllReduceArgs& a) {
  return IsDeviceType(a.dtype) && (a.buffer == 0 || a.buffer == 1) &&
         (a.y == nullptr || (a.x != nullptr && a.weight != nullptr));
}

}  // namespace fathom::kernels::cuda
