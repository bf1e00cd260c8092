// kernels/cpu/simd.h: vectors for the files that are compiled once per instruction set
// (<op>_cpu.cc). A Vec is one register: all 16 lanes of the recipe with AVX-512 (kHalves == 1), one
// half of the lanes with AVX2 (kHalves == 2: lanes 8 h to 8 h + 7). In such a file every function
// is in namespace FATHOM_ISA or always inlined, and the file calls no inline function of the
// standard library. Otherwise the linker would keep one instruction set's copy for all of them, and
// a host without that set would crash.
#pragma once

#include <immintrin.h>

#include <cstdint>

#define FATHOM_SIMD static inline __attribute__((always_inline))

namespace fathom::kernels {
namespace FATHOM_ISA {

#if defined(__AVX512F__)

using Vec = __m512;
inline constexpr int kHalves = 1;

FATHOM_SIMD Vec Zero() { return _mm512_setzero_ps(); }
FATHOM_SIMD Vec Load(const float* p) { return _mm512_loadu_ps(p); }
FATHOM_SIMD void Store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
FATHOM_SIMD Vec Broadcast(float x) { return _mm512_set1_ps(x); }
FATHOM_SIMD Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
FATHOM_SIMD Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }

// Loads 16 fp16 values in order.
FATHOM_SIMD Vec LoadF16(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// The low or the high bf16 of each 32-bit word.
template <bool kLow>
FATHOM_SIMD Vec LoadBf16(const void* p) {
  const __m512i words = _mm512_loadu_si512(p);
  return _mm512_castsi512_ps(kLow ? _mm512_slli_epi32(words, 16)
                                  : _mm512_and_si512(words, _mm512_set1_epi32(-65536)));
}

// The sums of eight dot products in order. Each adds its lanes as a tree: j += j + 8, j + 4, j + 2,
// j + 1.
FATHOM_SIMD __m256 Reduce8(const Vec* a) {
  __m512 two[4], four[2];
  for (int i = 0; i < 4; ++i) {  // Lanes j + 8: two dots in one register.
    two[i] = Add(_mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0x44),
                 _mm512_shuffle_f32x4(a[2 * i], a[2 * i + 1], 0xEE));
  }
  for (int i = 0; i < 2; ++i) {  // Lanes j + 4: four dots, 128 bits each.
    four[i] = Add(_mm512_shuffle_f32x4(two[2 * i], two[2 * i + 1], 0x88),
                  _mm512_shuffle_f32x4(two[2 * i], two[2 * i + 1], 0xDD));
  }
  const __m512d x = _mm512_castps_pd(four[0]);
  const __m512d y = _mm512_castps_pd(four[1]);
  const __m512 eight = Add(_mm512_castpd_ps(_mm512_unpacklo_pd(x, y)),
                           _mm512_castpd_ps(_mm512_unpackhi_pd(x, y)));  // Lanes j + 2.
  const __m512 sums = Add(eight, _mm512_permute_ps(eight, 0xB1));        // Lanes j + 1.
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 2, 6, 10, 14, 0, 4, 8, 12, 2, 6, 10, 14);
  return _mm512_castps512_ps256(_mm512_permutexvar_ps(order, sums));
}

#else

using Vec = __m256;
inline constexpr int kHalves = 2;

FATHOM_SIMD Vec Zero() { return _mm256_setzero_ps(); }
FATHOM_SIMD Vec Load(const float* p) { return _mm256_loadu_ps(p); }
FATHOM_SIMD void Store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
FATHOM_SIMD Vec Broadcast(float x) { return _mm256_set1_ps(x); }
FATHOM_SIMD Vec Fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
FATHOM_SIMD Vec Add(Vec a, Vec b) { return _mm256_add_ps(a, b); }

// Loads 8 fp16 values in order.
FATHOM_SIMD Vec LoadF16(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
// The low or the high bf16 of each 32-bit word.
template <bool kLow>
FATHOM_SIMD Vec LoadBf16(const void* p) {
  const __m256i words = _mm256_loadu_si256(static_cast<const __m256i*>(p));
  return _mm256_castsi256_ps(kLow ? _mm256_slli_epi32(words, 16)
                                  : _mm256_and_si256(words, _mm256_set1_epi32(-65536)));
}

// The sums of eight dot products in order, given the sums of their halves (lanes j and j + 8). Each
// adds its lanes as a tree: j += j + 4, j + 2, j + 1.
FATHOM_SIMD __m256 Reduce8(const Vec* a) {
  __m256 two[4], four[2];
  for (int i = 0; i < 4; ++i) {
    two[i] = Add(_mm256_permute2f128_ps(a[2 * i], a[2 * i + 1], 0x20),
                 _mm256_permute2f128_ps(a[2 * i], a[2 * i + 1], 0x31));
  }
  for (int i = 0; i < 2; ++i) {
    const __m256d x = _mm256_castps_pd(two[i]);
    const __m256d y = _mm256_castps_pd(two[i + 2]);
    four[i] =
        Add(_mm256_castpd_ps(_mm256_unpacklo_pd(x, y)), _mm256_castpd_ps(_mm256_unpackhi_pd(x, y)));
  }
  const __m256 sums =
      Add(_mm256_shuffle_ps(four[0], four[1], 0x88), _mm256_shuffle_ps(four[0], four[1], 0xDD));
  return _mm256_permutevar8x32_ps(sums, _mm256_setr_epi32(0, 4, 2, 6, 1, 5, 3, 7));
}

#endif

inline constexpr int kVecFloats = 16 / kHalves;

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
