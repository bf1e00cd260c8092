// kernels/canon.h: the one definition of each scalar formula of the CPU recipe, and of the sampler
// on every device (docs/NUMERICS.md). All code in kernels/ calls these functions and no libm
// function, so a plain loop, AVX2, AVX-512 and a GPU give equal bits. The formulas have no
// branches, so the compiler can turn a loop over them into vector code that rounds in the same way.
// All functions are always inlined: this header is compiled for several instruction sets, and
// without inlining the linker would keep one set's copy for all. Code that includes this header
// must not be built with contraction, fast-math or flush-to-zero, because each of them changes
// bits. tests/kernels/canon_test.cc has the error bounds against libm.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace fathom::kernels::canon {

#ifdef __CUDACC__
#define FATHOM_CANON static __host__ __device__ __forceinline__
#else
#define FATHOM_CANON static inline __attribute__((always_inline))
#endif

inline constexpr int kLanes = 16;
inline constexpr float kLog2E = 1.44269504088896340736f;
inline constexpr double kLog2EDouble = 1.44269504088896340736;

#ifdef __CUDA_ARCH__
FATHOM_CANON float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FATHOM_CANON float Sqrt(float x) { return __fsqrt_rn(x); }
FATHOM_CANON double Ceil(double x) { return ::ceil(x); }
#else
FATHOM_CANON float Fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
FATHOM_CANON float Sqrt(float x) { return __builtin_sqrtf(x); }
FATHOM_CANON double Ceil(double x) { return __builtin_ceil(x); }
#endif
FATHOM_CANON float FromBits(uint32_t bits) { return __builtin_bit_cast(float, bits); }
FATHOM_CANON uint32_t Bits(float x) { return __builtin_bit_cast(uint32_t, x); }

// Rounds |x| < 2^22 to the nearest integer, ties to even. `shifted` is x + kRoundMagic: the sum
// with 1.5 * 2^23 has no fraction bits.
inline constexpr float kRoundMagic = 12582912.0f;
FATHOM_CANON int32_t RoundedInt(float shifted) {
  return static_cast<int32_t>(Bits(shifted) - Bits(kRoundMagic));
}

// y * 2^n for y in [0.5, 2] and |n| < 250, rounded once (also when the result is a denormal). The
// result is 0 below the range of floats and +inf above it.
FATHOM_CANON float ScaleByPowerOf2(float y, int32_t n) {
  const int32_t half = n >> 1;
  const float a = FromBits(static_cast<uint32_t>(half + 127) << 23);
  const float b = FromBits(static_cast<uint32_t>(n - half + 127) << 23);
  return y * a * b;
}

// 2^x. NaN stays NaN.
FATHOM_CANON float Ex2(float x) {
  x = 130.0f < x ? 130.0f : x;
  x = -152.0f > x ? -152.0f : x;
  const float shifted = x + kRoundMagic;
  const float f = x - (shifted - kRoundMagic);  // Exact, in [-0.5, 0.5].
  float q = 0.0001535328628960997f;
  q = Fma(q, f, 0.001339884358458221f);
  q = Fma(q, f, 0.009618437848985195f);
  q = Fma(q, f, 0.055503327399492264f);
  q = Fma(q, f, 0.24022647738456726f);
  q = Fma(q, f, 0.6931471824645996f);
  return ScaleByPowerOf2(Fma(q, f, 1.0f), RoundedInt(shifted));
}

// e^x. NaN stays NaN.
FATHOM_CANON float Exp(float x) {
  x = 90.0f < x ? 90.0f : x;
  x = -105.0f > x ? -105.0f : x;
  const float shifted = Fma(x, kLog2E, kRoundMagic);
  const float n = shifted - kRoundMagic;
  // ln 2 in two parts; the first part has 9 bits, so its product is exact.
  float r = Fma(n, -0.693359375f, x);
  r = Fma(n, 2.12194440e-4f, r);
  float q = 0.0013814636040478945f;
  q = Fma(q, r, 0.008368710055947304f);
  q = Fma(q, r, 0.04166838526725769f);
  q = Fma(q, r, 0.1666652113199234f);
  q = Fma(q, r, 0.4999999403953552f);
  return ScaleByPowerOf2(Fma(Fma(q, r, 1.0f), r, 1.0f), RoundedInt(shifted));
}

// The natural logarithm. x = 0 gives -inf, +inf gives +inf, x < 0 and NaN give NaN.
FATHOM_CANON float Log(float x) {
  const bool denormal = x < 1.17549435e-38f;
  const float scaled = denormal ? x * 8388608.0f : x;
  // Moves the mantissa into [sqrt(1/2), sqrt(2)).
  const uint32_t shifted = Bits(scaled) + (0x3F800000u - 0x3F3504F3u);
  const int32_t exponent = static_cast<int32_t>(shifted >> 23) - 127 - (denormal ? 23 : 0);
  const float f = FromBits((shifted & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
  const float n = static_cast<float>(exponent);
  float p = 0.06746887415647507f;
  p = Fma(p, f, -0.11681851744651794f);
  p = Fma(p, f, 0.11891601234674454f);
  p = Fma(p, f, -0.12404721975326538f);
  p = Fma(p, f, 0.1421891450881958f);
  p = Fma(p, f, -0.1666802614927292f);
  p = Fma(p, f, 0.20002155005931854f);
  p = Fma(p, f, -0.25000008940696716f);
  p = Fma(p, f, 0.3333331048488617f);
  const float f2 = f * f;
  float y = Fma(p * f, f2, n * -2.12194440e-4f);
  y = Fma(f2, -0.5f, y);
  y = Fma(n, 0.693359375f, f + y);
  const float infinity = FromBits(0x7F800000u);
  y = x == infinity ? infinity : y;
  y = x == 0.0f ? -infinity : y;
  return x >= 0.0f ? y : FromBits(0x7FC00000u);
}

// log(1 + x) for -1 < x <= 1: the logarithm of the rounded sum plus a correction for the rounding
// error of the sum.
FATHOM_CANON float Log1p(float x) {
  const float u = 1.0f + x;
  return Log(u) + (x - (u - 1.0f)) / u;
}

FATHOM_CANON float Silu(float x) { return x / (1.0f + Exp(-x)); }

// max(x, 0)^2; a NaN stays a NaN.
FATHOM_CANON float Relu2(float x) {
  const float positive = x < 0.0f ? 0.0f : x;
  return positive * positive;
}

// The pair (a, b) rotated by the angle whose cosine and sine are given.
FATHOM_CANON float RotateFirst(float a, float b, float cos, float sin) {
  return Fma(a, cos, -(b * sin));
}
FATHOM_CANON float RotateSecond(float a, float b, float cos, float sin) {
  return Fma(b, cos, a * sin);
}

// Adds 16 lanes as a tree: lane j += lane j + 8, then j + 4, j + 2, j + 1.
FATHOM_CANON float ReduceLanes(const float* lanes) {
  float s[8];
  for (int j = 0; j < 8; ++j) s[j] = lanes[j] + lanes[j + 8];
  for (int j = 0; j < 4; ++j) s[j] += s[j + 4];
  for (int j = 0; j < 2; ++j) s[j] += s[j + 2];
  return s[0] + s[1];
}

// The dot product. Lane j adds the products of i = j, j + 16, j + 32, ... in this order.
FATHOM_CANON float Dot(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i % kLanes] = Fma(a[i], b[i], lanes[i % kLanes]);
  return ReduceLanes(lanes);
}

FATHOM_CANON float WidenBf16(uint16_t bits) { return FromBits(static_cast<uint32_t>(bits) << 16); }

FATHOM_CANON float WidenF16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7FFFu;
  // A normal number gets the exponent bias of fp32. Inf and NaN get an exponent of all ones. A
  // denormal is its mantissa times 2^-24.
  const float normal = FromBits((magnitude << 13) + (112u << 23));
  const float special = FromBits((magnitude << 13) | 0x7F800000u);
  const float denormal = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f;
  const float value = magnitude >= 0x7C00u ? special : magnitude < 0x0400u ? denormal : normal;
  return FromBits(Bits(value) | sign);
}

// The value of element `index` of an array of type `dtype`.
FATHOM_CANON float Widen(DType dtype, const void* data, int64_t index) {
  if (dtype == DType::kF32) return static_cast<const float*>(data)[index];
  const uint16_t bits = static_cast<const uint16_t*>(data)[index];
  return dtype == DType::kBf16 ? WidenBf16(bits) : WidenF16(bits);
}

FATHOM_CANON bool IsFinite(float x) { return (Bits(x) & 0x7F800000u) != 0x7F800000u; }
FATHOM_CANON float Max(float a, float b) { return a < b ? b : a; }

// The sizes of the attention recipe. The same values hold for every head_dim in use.
inline constexpr int kSegmentTokens = 512;
inline constexpr int kSubBlockTokens = 64;
inline constexpr float kRescaleThreshold = 8.0f;
FATHOM_CANON float AttentionScale(int head_dim) {
  return static_cast<float>(kLog2EDouble / __builtin_sqrt(static_cast<double>(head_dim)));
}

// 1 / sqrt(mean + eps), with a square root and a division that are rounded as IEEE says.
// sum_of_squares is the result of Dot(x, x).
FATHOM_CANON float NormFactor(float sum_of_squares, int64_t dim, float eps) {
  return 1.0f / Sqrt(sum_of_squares * static_cast<float>(1.0 / static_cast<double>(dim)) + eps);
}

// --- The sampler's scores ---
// A score is finite or -inf (masked). No penalty and no temperature turns a finite score into an
// infinite one, because products and quotients saturate at the largest float. So a row always keeps
// a best token, and a difference of two scores is never NaN.
inline constexpr float kScoreMax = 3.40282346638528859812e38f;  // The largest float.
FATHOM_CANON float Saturated(float z, float changed) {
  const float bounded = changed > kScoreMax ? kScoreMax : changed;
  const float finite = bounded < -kScoreMax ? -kScoreMax : bounded;
  return z < -kScoreMax ? z : finite;
}

// A temperature below this limit counts as 0: the most likely token is taken, without noise. With a
// temperature above the limit, no logit up to 3.4e33 saturates.
inline constexpr float kTemperatureMin = 1e-5f;
FATHOM_CANON bool IsGreedy(float temperature) { return !(temperature >= kTemperatureMin); }
// z / T. REQUIRES: not IsGreedy(temperature).
FATHOM_CANON float Tempered(float z, float temperature) { return Saturated(z, z / temperature); }

FATHOM_CANON float Repetition(float z, float r) { return Saturated(z, z < 0.0f ? z * r : z / r); }

// The penalties of a token that is in the prompt or in the output. `count` says how often the
// output has the token. Counts above kSeenCountMax are cut to it, because a GPU's table holds no
// larger count.
inline constexpr int32_t kSeenCountMax = 0x7FFF;
FATHOM_CANON float Penalized(float z, int32_t count, float repetition, float frequency,
                             float presence) {
  z = Repetition(z, repetition);
  if (count == 0) return z;
  const float times = static_cast<float>(count < kSeenCountMax ? count : kSeenCountMax);
  return z - frequency * times - presence;
}

// Rounds 0 <= x < 2^51 to the nearest integer, ties to even: the sum with 2^52 has no fraction
// bits.
FATHOM_CANON uint64_t Rounded(double x) {
  return __builtin_bit_cast(uint64_t, x + 4503599627370496.0) & 0x000FFFFFFFFFFFFFull;
}

// The mass of a token for top_p, min_p and typical_p: round(2^((z - best) log2 e) * 2^40). The best
// token has a mass of 2^40.
inline constexpr uint64_t kMassOne = uint64_t{1} << 40;
FATHOM_CANON uint64_t Mass(float z, float best) {
  const float x = z == best ? 0.0f : z - best;
  return Rounded(static_cast<double>(Ex2(x * kLog2E)) * static_cast<double>(kMassOne));
}

// MassTarget is the sum that the masses of the tokens kept by top_p or typical_p must reach; it is
// at least 1, so that a token is kept. HasMinP says whether min_p keeps a token of this mass.
FATHOM_CANON uint64_t MassTarget(float share, uint64_t total) {
  const double target = Ceil(static_cast<double>(share) * static_cast<double>(total));
  return target < 1.0 ? 1 : static_cast<uint64_t>(target);
}
FATHOM_CANON bool HasMinP(uint64_t mass, float min_p) {
  return static_cast<double>(mass) >= static_cast<double>(min_p) * static_cast<double>(kMassOne);
}

// For typical_p. The gap of a token is best - z in units of 2^-32. It differs from -log p by the
// same number for all tokens, and so does the mean of the gaps (weighted by p) from the entropy. So
// the distance of a token's gap from the mean gap is |-log p - entropy|, without a logarithm.
// REQUIRES: the token has a mass, so best - z is at most 30.
inline constexpr double kGapOne = 4294967296.0;
FATHOM_CANON uint64_t Gap(float z, float best) {
  return Rounded(static_cast<double>(best - z) * kGapOne);
}
// A token's part of the sum of gaps, in units of a mass.
FATHOM_CANON uint64_t WeightedGap(uint64_t mass, uint64_t gap) {
  return Rounded(static_cast<double>(mass) * static_cast<double>(gap) * 0x1p-32);
}
FATHOM_CANON uint64_t MeanGap(uint64_t weighted_gaps, uint64_t masses) {
  const double mean = static_cast<double>(weighted_gaps) / static_cast<double>(masses);
  return Rounded(mean * kGapOne);
}
FATHOM_CANON uint64_t DistanceOf(uint64_t gap, uint64_t mean_gap) {
  return gap < mean_gap ? mean_gap - gap : gap - mean_gap;
}

// Philox4x32-10 (Salmon et al. 2011): applies ten rounds to `counter` in place.
FATHOM_CANON void Philox(uint64_t key, uint32_t* counter) {
  uint32_t k0 = static_cast<uint32_t>(key);
  uint32_t k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c0;
    const uint64_t p1 = uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(p1);
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  counter[0] = c0, counter[1] = c1, counter[2] = c2, counter[3] = c3;
}

// Makes Gumbel noise from a random word. It is most precise for large noise, which decides the
// argmax.
FATHOM_CANON float NoiseOfWord(uint32_t word) {
  // The word as the nearest float: both halves are exact, so only the addition rounds.
  const float high = static_cast<float>(static_cast<int32_t>(word >> 16)) * 65536.0f;
  const float low = static_cast<float>(static_cast<int32_t>(word & 0xFFFFu));
  float v = Fma(high + low, 0x1p-32f, 0x1p-33f);
  v = v < 1.0f - 0x1p-24f ? v : 1.0f - 0x1p-24f;
  return -Log(-Log1p(-v));
}

// The noise of token `id` at `position` of `sequence`.
FATHOM_CANON float Noise(uint64_t seed, int32_t sequence, int32_t position, int32_t id) {
  uint32_t c[4] = {static_cast<uint32_t>(id) / 4, static_cast<uint32_t>(position),
                   static_cast<uint32_t>(sequence), 0};
  Philox(seed, c);
  return NoiseOfWord(c[id % 4]);
}

#undef FATHOM_CANON

}  // namespace fathom::kernels::canon
