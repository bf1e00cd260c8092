// kernels/cuda/linear/norm_after.cuh: the device side of kernels/cuda/linear/norm_after.h.
#pragma once

#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/linear/norm_after.h"
#include "kernels/cuda/rows/norm_vectors.cuh"

namespace fathom::kernels::cuda {

// Vectors of one lane.
inline constexpr int kNormAfterVectors = kNormAfterWidthMax / 8 / kNormLanes;
// The layout of the shared memory of NormWrittenRows, aligned to 16 bytes: the sums of groups, then
// each lane's weights.
inline constexpr int kNormAfterSumsBytes = 32;
static_assert(kNormAfterSharedBytes == kNormAfterSumsBytes + kNormAfterWidthMax * 4);

// Waits until all thread blocks have counted. The last of `waiting` thread blocks resets the
// counters.
FATHOM_DEVICE void WaitForBlocks(int32_t* counters, int waiting) {
  while (ptx::LoadAcquire(counters) < static_cast<int>(gridDim.x)) {
  }
  if (atomicAdd(counters + 1, 1) == waiting - 1) counters[0] = counters[1] = 0;
}

// 128 threads that norm rows first, first + step, ... of x [rows][width].
struct NormTeam {
  int team = 0, lane = 0, first = 0, step = 0;
  uint32_t sums = 0;  // In shared memory; the weights follow the sums.
  __device__ __forceinline__ void Sync() const { ptx::SyncThreads(2 + team, kNormLanes); }
  // The address of the two halves of the weights of this lane's i-th vector.
  __device__ __forceinline__ uint32_t WeightsAt(int i, int half) const {
    return sums + kNormAfterSumsBytes + (2 * i + half) * kNormLanes * 16 + lane * 16;
  }
};

template <class T>
FATHOM_DEVICE void NormWrittenRow(const NormAfter& norm, const NormTeam& team, const uint4* from,
                                  uint4* to, int vectors, float inverse_width, int turn) {
  uint4 kept[kNormAfterVectors];
#pragma unroll
  for (int i = 0; i < kNormAfterVectors; ++i) {
    const int v = team.lane + i * kNormLanes;
    // The load bypasses L1, which may hold values from before other thread blocks wrote them.
    kept[i] = v < vectors ? __ldcg(from + v) : make_uint4(0, 0, 0, 0);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kNormAfterVectors; ++i) sum = AddSquares<T>(kept[i], sum);
  sum = SumGroup(sum);
  const uint32_t sums = team.sums + turn * 16;
  if (team.lane % 32 == 0) ptx::StoreShared(sums + team.lane / 32 * 4, __float_as_int(sum));
  team.Sync();
  const auto floats = [](uint4 x) {
    return make_float4(__uint_as_float(x.x), __uint_as_float(x.y), __uint_as_float(x.z),
                       __uint_as_float(x.w));
  };
  const float4 groups = floats(ptx::LoadShared16(sums));
  sum = SumGroups(groups.x, groups.y, groups.z, groups.w);
  const float factor = NormFactor(sum, inverse_width, norm.eps);
#pragma unroll
  for (int i = 0; i < kNormAfterVectors; ++i) {
    const int v = team.lane + i * kNormLanes;
    if (v >= vectors) break;
    to[v] = NormVector<T>(kept[i], factor, floats(ptx::LoadShared16(team.WeightsAt(i, 0))),
                          floats(ptx::LoadShared16(team.WeightsAt(i, 1))));
  }
}

template <class T>
FATHOM_DEVICE void NormWrittenRows(const NormAfter& norm, const NormTeam& team, const void* x,
                                   int rows, int vectors, float inverse_width) {
  // The weights are loaded while other thread blocks still store.
  const auto* const weights = reinterpret_cast<const uint4*>(norm.weight);
#pragma unroll
  for (int i = 0; i < kNormAfterVectors; ++i) {
    const int v = team.lane + i * kNormLanes;
    if (v >= vectors) break;
    ptx::StoreShared16(team.WeightsAt(i, 0), __ldg(weights + 2 * v));
    ptx::StoreShared16(team.WeightsAt(i, 1), __ldg(weights + 2 * v + 1));
  }
  if (team.lane == 0) WaitForBlocks(norm.counters, min(rows, team.step));
  team.Sync();
  for (int row = team.first, turn = 0; row < rows; row += team.step, turn ^= 1) {
    const int64_t at = int64_t{row} * vectors;
    NormWrittenRow<T>(norm, team, static_cast<const uint4*>(x) + at,
                      static_cast<uint4*>(norm.y) + at, vectors, inverse_width, turn);
  }
}

// The first `threads` threads (a multiple of 32) of a thread block call this function after the
// thread block's last store to x [rows][width]. `teams` * 128 of them norm rows. Only a few thread
// blocks norm, so that the others can exit early. inverse_width = float(1 / width). `shared` has
// teams * kNormAfterSharedBytes bytes that nothing else uses any more.
template <class T>
FATHOM_DEVICE void NormAfterStores(const NormAfter& norm, const void* x, int rows, int width,
                                   float inverse_width, int threads, int teams, uint32_t shared) {
  if (norm.weight == nullptr) return;
  __threadfence();
  ptx::SyncThreads(1, threads);
  if (threadIdx.x == 0) ptx::AddRelease(norm.counters, 1);
  NormTeam team;
  team.team = static_cast<int>(threadIdx.x / kNormLanes);
  team.lane = static_cast<int>(threadIdx.x % kNormLanes);
  team.first = static_cast<int>(blockIdx.x) * teams + team.team;
  team.step = static_cast<int>(gridDim.x) * teams;
  team.sums = shared + team.team * kNormAfterSharedBytes;
  if (team.team < teams && team.first < rows) {
    NormWrittenRows<T>(norm, team, x, rows, width / 8, inverse_width);
  }
}

}  // namespace fathom::kernels::cuda
