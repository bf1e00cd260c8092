// kernels/cuda/sampler/sampler_select.cuh: which tokens of a row are its first by an order, exactly
// and without sorting: the span of keys in which the last kept one lies is narrowed by histograms
// of 512 bins, whose integer sums need no order. Ties go to the lower id. How a row is held, and by
// how many thread blocks, is the caller's: all threads that hold a row call Select in the same
// order with the same parameters.
//
// `Bins` is the histogram of those threads: Clear<kMasses>() zeroes it, a barrier; Own() is what
// this thread block counts into; Find<kMasses>(target) is the bin in which the weights from the
// highest bin on reach `target`, a barrier before and after. `Source` is the row:
// ForEach(f(id, z)) for this thread's tokens.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/sampler/sampler.h"
#include "kernels/cuda/sampler/sampler_config.h"

namespace fathom::kernels::cuda {

struct BinCounters {
  uint32_t count[kSelectBins];
  uint32_t limbs[kMassLimbs][kSelectBins];
};
struct FoundBin {
  int bin = 0;
  uint32_t count = 0;
  uint64_t above = 0;  // Weight of the bins above it.
  uint64_t weight = 0;
};
struct BinSearch {
  uint64_t warps[32];
  FoundBin found;
};

// Kept are the keys above `key`, and of those equal to it the ids up to `last_id`.
struct Cut {
  uint64_t key = 0;
  int32_t last_id = 0;
};
FATHOM_DEVICE bool Keeps(const Cut& cut, uint64_t key, int32_t id) {
  return key > cut.key || (key == cut.key && id <= cut.last_id);
}

FATHOM_DEVICE uint64_t MassOf(float z, float best) {
  return best - z > kMasslessBelow ? 0 : canon::Mass(z, best);
}

FATHOM_DEVICE float Penalized(float z, uint32_t seen, const SamplerSlot& slot) {
  if ((seen & kSeenBit) == 0) return z;
  return canon::Penalized(z, static_cast<int32_t>(seen & kSeenCountMax), slot.repetition_penalty,
                          slot.frequency_penalty, slot.presence_penalty);
}

// --- Keys ---

// Keys of every token by score; each weighs 1.
template <class Source>
struct ScoreKeys {
  static constexpr bool kMasses = false;
  const Source* source;
  float best;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    source->ForEach([&](int32_t id, float z) { f(ScoreKey(z, best), uint64_t{1}, id); });
  }
  __device__ __forceinline__ void Tighten(KeySpan* span) const { TightenScores(span, best); }
  __device__ __forceinline__ uint64_t WeightOf(uint64_t) const { return 1; }
};
template <class Source>
ScoreKeys(const Source*, float) -> ScoreKeys<Source>;

// Keys of the tokens that have a mass; each weighs its mass.
template <class Source>
struct MassKeys {
  static constexpr bool kMasses = true;
  const Source* source;
  float best;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    source->ForEach([&](int32_t id, float z) {
      const uint64_t mass = MassOf(z, best);
      if (mass != 0) f(MassKey(mass), mass, id);
    });
  }
  __device__ __forceinline__ void Tighten(KeySpan*) const {}
  __device__ __forceinline__ uint64_t WeightOf(uint64_t key) const { return MassOfKey(key); }
};
template <class Source>
MassKeys(const Source*, float) -> MassKeys<Source>;

// Of the tokens whose key is `tie`, the lower id first.
template <class Keys>
struct IdKeys {
  static constexpr bool kMasses = false;
  const Keys* keys;
  uint64_t tie;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    keys->ForEach([&](uint64_t key, uint64_t, int32_t id) {
      if (key == tie) f(static_cast<uint64_t>(kSampleVocabMax - 1 - id), uint64_t{1}, id);
    });
  }
  __device__ __forceinline__ void Tighten(KeySpan*) const {}
};

// --- Bins ---

// To this thread's share of a thread block's counters.
template <bool kMasses>
FATHOM_DEVICE void ClearBins(BinCounters* bins) {
  for (int bin = static_cast<int>(threadIdx.x); bin < kSelectBins;
       bin += static_cast<int>(blockDim.x)) {
    bins->count[bin] = 0;
    if constexpr (kMasses) {
#pragma unroll
      for (int limb = 0; limb < kMassLimbs; ++limb) bins->limbs[limb][bin] = 0;
    }
  }
}
template <bool kMasses>
FATHOM_DEVICE void CountKey(BinCounters* bins, uint32_t bin, uint64_t weight) {
  atomicAdd(&bins->count[bin], 1u);
  if constexpr (kMasses) {
#pragma unroll
    for (int limb = 0; limb < kMassLimbs; ++limb) {
      atomicAdd(&bins->limbs[limb][bin], MassLimb(weight, limb));
    }
  }
}
// Adds a thread block's counters of a bin.
template <bool kMasses>
FATHOM_DEVICE void AddBin(const BinCounters& bins, int bin, uint32_t* count, uint64_t* weight) {
  *count += bins.count[bin];
  if constexpr (kMasses) {
    *weight += MassOfLimbs(bins.limbs[0][bin], bins.limbs[1][bin], bins.limbs[2][bin]);
  } else {
    *weight = *count;
  }
}

// The bin in which the weights from the highest bin on reach `target`, to all threads of the block.
// Thread t has the count and weight of bin 511 - t, or nothing where that is negative. Barriers.
FATHOM_DEVICE FoundBin ScanBins(BinSearch* search, uint32_t count, uint64_t weight,
                                uint64_t target) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  uint64_t through = weight;  // Of this bin and all above it.
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint64_t before = __shfl_up_sync(~0u, through, distance);
    if (lane >= distance) through += before;
  }
  if (lane == 31) search->warps[thread / 32] = through;
  __syncthreads();
  for (int warp = 0; warp < thread / 32; ++warp) through += search->warps[warp];
  const uint64_t above = through - weight;
  if (above < target && target <= through) {
    search->found = {kSelectBins - 1 - thread, count, above, weight};
  }
  __syncthreads();
  return search->found;
}

// Narrows the span to one key, or to keys that are all kept; returns whether it is the latter.
template <class Bins, class Keys>
__device__ bool Narrow(Bins* bins, const Keys& keys, KeySpan* span) {
  while (span->low < span->high) {
    const int shift = ShiftOf(*span);
    const uint64_t low = span->low, high = span->high;
    bins->template Clear<Keys::kMasses>();
    BinCounters* const own = bins->Own();
    keys.ForEach([&](uint64_t key, uint64_t weight, int32_t) {
      if (key < low || key > high) return;
      CountKey<Keys::kMasses>(own, static_cast<uint32_t>((key - low) >> shift), weight);
    });
    const FoundBin found = bins->template Find<Keys::kMasses>(span->target);
    NarrowToBin(span, found.bin, shift, found.above);
    if (found.count == 1 || found.weight == span->target) return true;
    keys.Tighten(span);
  }
  return false;
}

// The first keys, until their weights reach span.target.
template <class Bins, class Keys>
__device__ Cut Select(Bins* bins, const Keys& keys, KeySpan span) {
  if (Narrow(bins, keys, &span)) return {span.low, kSampleVocabMax};
  const uint64_t weight = keys.WeightOf(span.low);
  const IdKeys<Keys> ids{&keys, span.low};
  KeySpan id_span{0, kSampleVocabMax - 1, (span.target + weight - 1) / weight};
  Narrow(bins, ids, &id_span);
  return {span.low, static_cast<int32_t>(kSampleVocabMax - 1 - id_span.low)};
}

}  // namespace fathom::kernels::cuda
