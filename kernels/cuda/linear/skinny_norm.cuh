// kernels/cuda/linear/skinny_norm.cuh: the norm inside a skinny GEMM. Every thread block norms all
// rows of x for itself, in the recipe's order, and keeps them in shared memory in the form that its
// tensor cores read.
#pragma once

#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/rows/norm_vectors.cuh"

namespace fathom::kernels::cuda::skinny {

// The input rows. `weight` may be read before the end of the previous kernel, the others only after
// it.
struct NormInput {
  const void* x = nullptr;
  const float* weight = nullptr;    // Null: x needs no norm.
  const int32_t* gather = nullptr;  // Null: row i is row i.
  float eps = 0;
  float inverse_width = 0;
  int rows = 0;
  int k = 0;
};

// The address of vector `v` (8 elements) of a row. Columns of 64 elements follow each other; a
// column has the rows of the bucket, 128 bytes each; pieces of 16 bytes are swizzled by their
// address as TMA's 128-byte swizzle does it. `base` is aligned to 1,024.
template <int kBucket>
FATHOM_DEVICE uint32_t NormedAt(uint32_t base, int row, int v) {
  const uint32_t line = base + static_cast<uint32_t>(v / 8 * kBucket + row) * 128;
  return line + ((static_cast<uint32_t>(v % 8) ^ (line >> 7 & 7)) << 4);
}

// A barrier of all warps except the one that loads.
FATHOM_DEVICE void SyncWorkers(int threads) { ptx::SyncThreads(1, threads); }

// Norms vectors v, v + step, ... of a row in place. Several are computed at a time, because their
// weights come from L2.
template <class T, int kBucket>
FATHOM_DEVICE void NormRow(uint32_t base, int row, int v, int step, int vectors, float factor,
                           const float* weight) {
  constexpr int kAtOnce = 4;
  for (; v < vectors; v += kAtOnce * step) {
    float4 low[kAtOnce], high[kAtOnce];
    uint4 x[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = min(v + i * step, vectors - 1);
      low[i] = __ldg(reinterpret_cast<const float4*>(weight) + 2 * at);
      high[i] = __ldg(reinterpret_cast<const float4*>(weight) + 2 * at + 1);
      if (v + i * step < vectors) x[i] = ptx::LoadShared16(NormedAt<kBucket>(base, row, at));
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (v + i * step >= vectors) break;
      ptx::StoreShared16(NormedAt<kBucket>(base, row, v + i * step),
                         NormVector<T>(x[i], factor, low[i], high[i]));
    }
  }
}

// Does the same as NormRow for all rows: a thread has the same vectors of each row.
template <class T, int kBucket>
FATHOM_DEVICE void NormRows(uint32_t base, int rows, int threads, int vectors, uint32_t factors,
                            const float* weight) {
  constexpr int kAtOnce = 2;
  for (int v = threadIdx.x; v < vectors; v += kAtOnce * threads) {
    float4 low[kAtOnce], high[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = min(v + i * threads, vectors - 1);
      low[i] = __ldg(reinterpret_cast<const float4*>(weight) + 2 * at);
      high[i] = __ldg(reinterpret_cast<const float4*>(weight) + 2 * at + 1);
    }
    for (int row = 0; row < rows; ++row) {
      const float factor = __int_as_float(ptx::LoadShared(factors + 4 * row));
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (v + i * threads >= vectors) break;
        const uint32_t at = NormedAt<kBucket>(base, row, v + i * threads);
        ptx::StoreShared16(at, NormVector<T>(ptx::LoadShared16(at), factor, low[i], high[i]));
      }
    }
  }
}

// Copies the vectors of `kGroups` of the recipe's four groups of 32 lanes in a row, starting with
// group `group`, and adds their squares: sums[g] is this thread's lane of group + g.
template <class T, int kBucket, int kGroups>
FATHOM_DEVICE void CopyRow(const uint4* from, int vectors, uint32_t base, int row, int group,
                           float* sums) {
  constexpr int kSteps = 8 / kGroups;  // Eight loads are in flight.
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int g = 0; g < kGroups; ++g) sums[g] = 0.0f;
  for (int start = 0; start < vectors; start += kSteps * 128) {
    uint4 x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int v = start + i / kGroups * 128 + (group + i % kGroups) * 32 + lane;
      x[i] = v < vectors ? from[v] : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int v = start + i / kGroups * 128 + (group + i % kGroups) * 32 + lane;
      sums[i % kGroups] = AddSquares<T>(x[i], sums[i % kGroups]);
      if (v < vectors) ptx::StoreShared16(NormedAt<kBucket>(base, row, v), x[i]);
    }
  }
#pragma unroll
  for (int g = 0; g < kGroups; ++g) sums[g] = SumGroup(sums[g]);
}

// All of the `workers` warps call this function (at least 4). With one row, each group of lanes has
// a warp for the sums, and then all warps norm. With more rows, each row has a warp, which computes
// all 128 lanes of the sums; then every thread norms its vectors of all rows, so that a weight is
// read once and all reads are in flight together. `scratch` has room for four sums or eight
// factors.
template <class T, int kBucket>
FATHOM_DEVICE void StageRows(const NormInput& in, int workers, uint32_t base, uint32_t scratch) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, vectors = in.k / 8;
  const auto row_of = [&](int row) {
    const int64_t from = in.gather != nullptr ? in.gather[row] : row;
    return static_cast<const uint4*>(in.x) + from * vectors;
  };
  if constexpr (kBucket == 1) {
    if (warp < 4) {
      float sum;
      CopyRow<T, 1, 1>(row_of(0), vectors, base, 0, warp, &sum);
      if (lane == 0) ptx::StoreShared(scratch + 4 * warp, __float_as_int(sum));
    }
    SyncWorkers(workers * 32);
    if (in.weight == nullptr) return;
    float sums[4];
#pragma unroll
    for (int g = 0; g < 4; ++g) sums[g] = __int_as_float(ptx::LoadShared(scratch + 4 * g));
    const float sum = SumGroups(sums[0], sums[1], sums[2], sums[3]);
    const float factor = NormFactor(sum, in.inverse_width, in.eps);
    NormRow<T, 1>(base, 0, threadIdx.x, workers * 32, vectors, factor, in.weight);
  } else {
    for (int row = warp; row < in.rows; row += workers) {
      float sums[4];
      CopyRow<T, kBucket, 4>(row_of(row), vectors, base, row, 0, sums);
      const float sum = SumGroups(sums[0], sums[1], sums[2], sums[3]);
      const float factor = NormFactor(sum, in.inverse_width, in.eps);
      if (lane == 0) ptx::StoreShared(scratch + 4 * row, __float_as_int(factor));
    }
    SyncWorkers(workers * 32);
    if (in.weight == nullptr) return;
    NormRows<T, kBucket>(base, in.rows, workers * 32, vectors, scratch, in.weight);
  }
  SyncWorkers(workers * 32);
}

}  // namespace fathom::kernels::cuda::skinny
