// kernels/cuda/sampler/sampler_config.h: the pure arithmetic of the sampler's kernels: which thread
// block of a row's cluster has which ids, and the integer keys by which tokens are selected. The
// file has no CUDA code: the same functions run in the kernels and in
// tests/kernels/sampler_select_test.cc.
//
// The lane of an id is id mod 1,024 (the lanes of sums over the vocabulary, docs/NUMERICS.md).
// Block b of 8 has the lanes [128 b, 128 b + 128), so it can add its lanes without the other
// blocks. A block numbers its ids locally, ascending: local index 128 j + l is id 1,024 j + 128 b +
// l.
#pragma once

#include <cstdint>

#include "kernels/canon.h"

namespace fathom::kernels::cuda {

#ifdef __CUDACC__
#define FATHOM_PURE static __host__ __device__ __forceinline__
#else
#define FATHOM_PURE static inline
#endif

inline constexpr int kSampleBlocks = 8;    // Thread blocks of a cluster, which holds one row.
inline constexpr int kSampleLanes = 1024;  // Lanes of a sum over the vocabulary.
inline constexpr int kBlockLanes = kSampleLanes / kSampleBlocks;
// Limited by the bits of an id and the room in a bin's limbs.
inline constexpr int kSampleVocabMax = 1 << 18;
inline constexpr int kSelectBins = 512;  // 9 bits of a key.

FATHOM_PURE int LocalCount(int vocab, int block) {
  const int extra = vocab % kSampleLanes - block * kBlockLanes;
  const int bounded = extra < 0 ? 0 : extra > kBlockLanes ? kBlockLanes : extra;
  return vocab / kSampleLanes * kBlockLanes + bounded;
}
// REQUIRES: arguments that are not negative. They are treated as unsigned, so that divisions become
// shifts.
FATHOM_PURE int IdOfLocal(int local, int block) {
  const auto index = static_cast<uint32_t>(local);
  return static_cast<int>(index / kBlockLanes * kSampleLanes + index % kBlockLanes) +
         block * kBlockLanes;
}
FATHOM_PURE int BlockOfId(int id) {
  return static_cast<int>(static_cast<uint32_t>(id) % kSampleLanes / kBlockLanes);
}
FATHOM_PURE int LocalOfId(int id) {
  const auto index = static_cast<uint32_t>(id);
  return static_cast<int>(index / kSampleLanes * kBlockLanes + index % kBlockLanes);
}

// Unsigned integers in the order of the floats; both zeros are equal. The second function returns
// the float.
FATHOM_PURE uint32_t Orderable(float x) {
  const uint32_t bits = canon::Bits(x);
  if (bits == 0x80000000u) return 0x80000000u;
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
FATHOM_PURE float FromOrderable(uint32_t key) {
  return canon::FromBits((key & 0x80000000u) != 0 ? key & 0x7FFFFFFFu : ~key);
}

// The key of (value descending, id ascending): the first token has the largest key.
FATHOM_PURE uint64_t PlaceKey(float value, int32_t id) {
  return uint64_t{Orderable(value)} << 32 | static_cast<uint32_t>(~id);
}
FATHOM_PURE int32_t IdOfPlace(uint64_t key) { return ~static_cast<int32_t>(key); }

// The keys in [low, high]; the largest of them are kept until their weights reach `target`. low <=
// high always holds; `target` is in [1, the weight of all keys].
struct KeySpan {
  uint64_t low = 0;
  uint64_t high = 0;
  uint64_t target = 0;
};
// Bins of equal width, at most kSelectBins: the bin of a key is (key - low) >> shift.
FATHOM_PURE int ShiftOf(const KeySpan& span) {
  const uint64_t width = span.high - span.low;
  if (width < kSelectBins) return 0;
#ifdef __CUDA_ARCH__
  return 64 - __clzll(static_cast<long long>(width)) - 9;
#else
  return 64 - __builtin_clzll(width) - 9;
#endif
}
// Narrows the span to one bin; `above` is the weight of the bins above it.
FATHOM_PURE void NarrowToBin(KeySpan* span, int bin, int shift, uint64_t above) {
  const uint64_t width = uint64_t{1} << shift;
  span->low += static_cast<uint64_t>(bin) << shift;
  if (span->high - span->low >= width) span->high = span->low + width - 1;
  span->target -= above;
}

// The key of a score (top_k, alternatives). The upper bits say in which of 512 steps of 1/16 below
// the best score the score lies; the bits of the float follow. So the first bins are evenly filled
// (with the bits of the floats alone, three bins would hold half of the row). (best - z) * 16 falls
// as z rises, so the order of keys is the order of z.
FATHOM_PURE uint32_t StepOf(float z, float best) {
  const float steps = (best - z) * 16.0f;
  return steps < 511.0f ? static_cast<uint32_t>(steps) : 511u;
}
FATHOM_PURE uint64_t ScoreKey(float z, float best) {
  return uint64_t{511u - StepOf(z, best)} << 32 | Orderable(z);
}
FATHOM_PURE KeySpan AllScores(uint64_t target) { return {0, (uint64_t{512} << 32) - 1, target}; }
// Narrows a span of one whole step to the floats that can lie in that step, with a margin of one
// step.
FATHOM_PURE void TightenScores(KeySpan* span, float best) {
  const uint64_t front = span->low >> 32;
  if (front == 0 || span->high - span->low != 0xFFFFFFFFu) return;
  const auto step = static_cast<float>(511 - static_cast<int>(front));
  span->low = front << 32 | Orderable(best - (step + 2.0f) * 0.0625f);
  span->high = front << 32 | Orderable(best - (step - 1.0f) * 0.0625f);
}

// The key of a mass (top_p): the bits of the mass as a double, whose low 12 bits are always 0. Bins
// then have equal ratios instead of equal differences. A mass of 0 has no key.
FATHOM_PURE uint64_t MassKey(uint64_t mass) {
  return __builtin_bit_cast(uint64_t, static_cast<double>(mass)) >> 12;
}
FATHOM_PURE uint64_t MassOfKey(uint64_t key) {
  return static_cast<uint64_t>(__builtin_bit_cast(double, key << 12));
}
// The key of a distance (typical_p), which is below 2^37: the least distance has the largest key.
inline constexpr uint64_t kDistanceKeyMax = (uint64_t{1} << 37) - 1;
FATHOM_PURE uint64_t DistanceKey(uint64_t distance) { return kDistanceKeyMax - distance; }
// A score this far below the best has a mass of 0: e^-30 * 2^40 rounds to 0.
inline constexpr float kMasslessBelow = 30.0f;

// A bin's sum of masses has three 32-bit counters for 14, 14 and 13 bits of each mass, because a
// 64-bit atomic addition in shared memory is a loop. REQUIRES: at most 2^18 masses.
inline constexpr int kMassLimbs = 3;
inline constexpr int kMassLimbBits = 14;
FATHOM_PURE uint32_t MassLimb(uint64_t mass, int limb) {
  return static_cast<uint32_t>(mass >> (kMassLimbBits * limb)) & ((1u << kMassLimbBits) - 1);
}
FATHOM_PURE uint64_t MassOfLimbs(uint32_t low, uint32_t middle, uint32_t high) {
  return low + (uint64_t{middle} << kMassLimbBits) + (uint64_t{high} << (2 * kMassLimbBits));
}

// The `seen` table: a bit for prompt or output, and the saturating count in the output.
inline constexpr uint32_t kSeenBit = 0x8000u;
inline constexpr uint32_t kSeenCountMax = canon::kSeenCountMax;
FATHOM_PURE uint16_t SeenAgain(uint32_t seen) {
  const uint32_t count = seen & kSeenCountMax;
  return static_cast<uint16_t>(kSeenBit | (count < kSeenCountMax ? count + 1 : count));
}

// kNoiseMin is below the noise of any word (which is at least -2.82). NoiseBound is above the noise
// of a word with this many leading zeros: -log(-log1p(-v)) <= -log v, and v >= 2^-(zeros + 1).
inline constexpr float kNoiseMin = -2.9f;
FATHOM_PURE float NoiseBound(int leading_zeros) {
  return static_cast<float>(leading_zeros + 1) * 0.69314718f + 0.01f;
}

#undef FATHOM_PURE

}  // namespace fathom::kernels::cuda
