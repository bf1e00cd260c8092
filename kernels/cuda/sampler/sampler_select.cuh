// kernels/cuda/sampler/sampler_select.cuh: selects the first tokens of a row by an order, exactly
// and without sorting. Histograms of 512 bins narrow the span of keys in which the last kept key
// lies; their sums are integers, so the order of additions does not matter. The lower id wins a
// tie. The caller decides how a row is held and by how many thread blocks. All threads that hold a
// row must call Select in the same order with the same parameters.
//
// `Bins` is the histogram of those threads. Clear<kMasses>() sets it to zero and is a barrier.
// Own() returns the counters of this thread block. Find<kMasses>(target) returns the bin at which
// the sum of weights, starting at the highest bin, reaches `target`; there is a barrier before and
// after it. `Source` is the row: ForEach(f(id, z)) visits this thread's tokens.
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
  uint64_t above = 0;  // The weight of the bins above this one.
  uint64_t weight = 0;
};
struct BinSearch {
  uint64_t warps[32];
  FoundBin found;
};

// The kept tokens are those with a key above `key`, and those with an equal key and an id up to
// `last_id`.
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

// REQUIRES: the token has a mass.
FATHOM_DEVICE uint64_t TypicalKey(float z, float best, uint64_t mean_gap) {
  return DistanceKey(canon::DistanceOf(canon::Gap(z, best), mean_gap));
}

// This thread's tokens: their masses and weighted gaps.
struct GapSums {
  uint64_t masses = 0;
  uint64_t gaps = 0;
};
template <class Source>
FATHOM_DEVICE GapSums SumGaps(const Source& source, float best) {
  GapSums sums;
  source.ForEach([&](int32_t, float z) {
    const uint64_t mass = MassOf(z, best);
    if (mass == 0) return;
    sums.masses += mass;
    sums.gaps += canon::WeightedGap(mass, canon::Gap(z, best));
  });
  return sums;
}

FATHOM_DEVICE float Penalized(float z, uint32_t seen, const SamplerSlot& slot) {
  if ((seen & kSeenBit) == 0) return z;
  return canon::Penalized(z, static_cast<int32_t>(seen & kSeenCountMax),
                          slot.params.repetition_penalty, slot.params.frequency_penalty,
                          slot.params.presence_penalty);
}

// --- Keys ---

// The keys of all tokens by score; each key has a weight of 1.
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

// The keys of the tokens that have a mass; the weight of a key is the mass.
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

// The keys of the tokens that have a mass, by the distance of their gap from the mean gap; the
// weight of a key is the mass.
template <class Source>
struct TypicalKeys {
  static constexpr bool kMasses = true;
  const Source* source;
  float best;
  uint64_t mean_gap;
  template <class F>
  __device__ __forceinline__ void ForEach(F f) const {
    source->ForEach([&](int32_t id, float z) {
      const uint64_t mass = MassOf(z, best);
      if (mass != 0) f(TypicalKey(z, best, mean_gap), mass, id);
    });
  }
  __device__ __forceinline__ void Tighten(KeySpan*) const {}
};
template <class Source>
TypicalKeys(const Source*, float, uint64_t) -> TypicalKeys<Source>;

// The keys of the tokens whose key is `tie`, ordered so that the lower id comes first.
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

// Clears this thread's share of a thread block's counters.
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
// Adds a thread block's counters for one bin to the given sums.
template <bool kMasses>
FATHOM_DEVICE void AddBin(const BinCounters& bins, int bin, uint32_t* count, uint64_t* weight) {
  *count += bins.count[bin];
  if constexpr (kMasses) {
    *weight += MassOfLimbs(bins.limbs[0][bin], bins.limbs[1][bin], bins.limbs[2][bin]);
  } else {
    *weight = *count;
  }
}

// Finds, for all threads of the block, the bin at which the sum of weights, starting at the highest
// bin, reaches `target`. Thread t passes the count and weight of bin 511 - t (nothing if that is
// negative). Contains barriers.
FATHOM_DEVICE FoundBin ScanBins(BinSearch* search, uint32_t count, uint64_t weight,
                                uint64_t target) {
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  uint64_t through = weight;  // The weight of this bin and all bins above it.
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

// Narrows the span to one key, or to keys that are all kept; returns true in the second case.
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

// The first keys in order, until their weights reach span.target.
template <class Bins, class Keys>
__device__ Cut Select(Bins* bins, const Keys& keys, KeySpan span) {
  if (Narrow(bins, keys, &span)) return {span.low, kSampleVocabMax};
  const uint64_t weight = keys.WeightOf(span.low);
  const IdKeys<Keys> ids{&keys, span.low};
  KeySpan id_span{0, kSampleVocabMax - 1, (span.target + weight - 1) / weight};
  Narrow(bins, ids, &id_span);
  return {span.low, static_cast<int32_t>(kSampleVocabMax - 1 - id_span.low)};
}

// The least key that is kept, if the first keys in order are kept until their weights reach
// span.target, and with the last one all keys that are equal to it.
template <class Bins, class Keys>
__device__ uint64_t LeastKey(Bins* bins, const Keys& keys, KeySpan span) {
  Narrow(bins, keys, &span);
  return span.low;
}

}  // namespace fathom::kernels::cuda
