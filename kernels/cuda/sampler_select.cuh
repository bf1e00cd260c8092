// kernels/cuda/sampler_select.cuh: which tokens of a row are its first by an order, exactly and
// without sorting: the span of keys in which the last kept one lies is narrowed by histograms of
// 512 bins, whose integer sums need no order. Ties go to the lower id.
#pragma once

#include "kernels/cuda/sampler_cluster.cuh"

namespace fathom::kernels::cuda {

// Kept are the keys above `key`, and of those equal to it the ids up to `last_id`.
struct Cut {
  uint64_t key = 0;
  int32_t last_id = 0;
};
FATHOM_DEVICE bool Keeps(const Cut& cut, uint64_t key, int32_t id) {
  return key > cut.key || (key == cut.key && id <= cut.last_id);
}

// Keys of every token by score; each weighs 1.
struct ScoreKeys {
  static constexpr bool kMasses = false;
  const BlockRow* row;
  float best;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    ForOwn(*row, [&](int local, float z) { f(ScoreKey(z, best), uint64_t{1}, local); });
  }
  __device__ __forceinline__ void Tighten(KeySpan* span) const { TightenScores(span, best); }
  __device__ __forceinline__ uint64_t WeightOf(uint64_t) const { return 1; }
};

// Keys of the tokens that have a mass; each weighs its mass.
struct MassKeys {
  static constexpr bool kMasses = true;
  const BlockRow* row;
  float best;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    ForOwn(*row, [&](int local, float z) {
      if (best - z > kMasslessBelow) return;
      const uint64_t mass = canon::Mass(z, best);
      if (mass != 0) f(MassKey(mass), mass, local);
    });
  }
  __device__ __forceinline__ void Tighten(KeySpan*) const {}
  __device__ __forceinline__ uint64_t WeightOf(uint64_t key) const { return MassOfKey(key); }
};

// Of the tokens whose key is `tie`, the lower id first.
template <class Keys>
struct IdKeys {
  static constexpr bool kMasses = false;
  const Keys* keys;
  uint64_t tie;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    const BlockRow& row = *keys->row;
    keys->ForEach([&](uint64_t key, uint64_t, int local) {
      if (key == tie) f(KeyOf(IdOfLocal(local, row.block)), uint64_t{1}, local);
    });
  }
  __device__ __forceinline__ void Tighten(KeySpan*) const {}
  FATHOM_DEVICE uint64_t KeyOf(int32_t id) {
    return static_cast<uint64_t>(kSampleVocabMax - 1 - id);
  }
};

template <bool kMasses>
FATHOM_DEVICE void ClearBins(SampleShared* shared, int turn) {
  shared->count[turn][threadIdx.x] = 0;
  if constexpr (kMasses) {
#pragma unroll
    for (int limb = 0; limb < kMassLimbs; ++limb) shared->limbs[turn][limb][threadIdx.x] = 0;
  }
  __syncthreads();
}

// The cluster's bin in which the weights from the highest bin on reach `target`. A thread has the
// bin 511 - its number.
template <bool kMasses>
FATHOM_DEVICE FoundBin FindBin(SampleShared* shared, int turn, uint64_t target) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int bin = kSelectBins - 1 - thread;
  uint32_t count = 0;
  uint64_t weight = 0;
#pragma unroll
  for (int block = 0; block < kSampleBlocks; ++block) {
    const SampleShared* other = ptx::InBlock(shared, block);
    count += other->count[turn][bin];
    if constexpr (kMasses) {
      weight += MassOfLimbs(other->limbs[turn][0][bin], other->limbs[turn][1][bin],
                            other->limbs[turn][2][bin]);
    }
  }
  if constexpr (!kMasses) weight = count;
  uint64_t through = weight;  // Of this bin and all above it.
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint64_t before = __shfl_up_sync(~0u, through, distance);
    if (lane >= distance) through += before;
  }
  if (lane == 31) shared->warp_sums[thread / 32] = through;
  __syncthreads();
  for (int warp = 0; warp < thread / 32; ++warp) through += shared->warp_sums[warp];
  const uint64_t above = through - weight;
  if (above < target && target <= through) shared->found = {bin, count, above, weight};
  __syncthreads();
  return shared->found;
}

// Narrows the span to one key, or to keys that are all kept; returns whether it is the latter.
template <class Keys>
__device__ bool Narrow(BlockRow* row, const Keys& keys, KeySpan* span) {
  SampleShared* shared = row->shared;
  while (span->low < span->high) {
    const int turn = row->select_turn;
    row->select_turn ^= 1;
    const int shift = ShiftOf(*span);
    const uint64_t low = span->low, high = span->high;
    ClearBins<Keys::kMasses>(shared, turn);
    keys.ForEach([&](uint64_t key, uint64_t weight, int) {
      if (key < low || key > high) return;
      const auto bin = static_cast<uint32_t>((key - low) >> shift);
      atomicAdd(&shared->count[turn][bin], 1u);
      if constexpr (Keys::kMasses) {
#pragma unroll
        for (int limb = 0; limb < kMassLimbs; ++limb) {
          atomicAdd(&shared->limbs[turn][limb][bin], MassLimb(weight, limb));
        }
      }
    });
    ptx::ClusterArrive();
    ptx::ClusterWait();
    const FoundBin found = FindBin<Keys::kMasses>(shared, turn, span->target);
    NarrowToBin(span, found.bin, shift, found.above);
    if (found.count == 1 || found.weight == span->target) return true;
    keys.Tighten(span);
  }
  return false;
}

// The first keys, until their weights reach span.target. `total` is the weight of all in the span.
template <class Keys>
__device__ Cut Select(BlockRow* row, const Keys& keys, KeySpan span) {
  if (Narrow(row, keys, &span)) return {span.low, kSampleVocabMax};
  const uint64_t weight = keys.WeightOf(span.low);
  const IdKeys<Keys> ids{&keys, span.low};
  KeySpan id_span{0, kSampleVocabMax - 1, (span.target + weight - 1) / weight};
  Narrow(row, ids, &id_span);
  return {span.low, static_cast<int32_t>(kSampleVocabMax - 1 - id_span.low)};
}

}  // namespace fathom::kernels::cuda
