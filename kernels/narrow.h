// kernels/narrow.h: converts fp32 to bf16 and fp16, rounded to nearest even, with equal bits on the
// host and on a GPU. The code uses integer arithmetic, and one fp32 addition for the denormals of
// fp16. A value that is too large becomes an infinity; a NaN stays a NaN. The functions have no
// branches, so loops over them become vector code.
#pragma once

#include <cstdint>

#include "kernels/tensor.h"

namespace fathom::kernels {

#ifdef __CUDACC__
#define FATHOM_NARROW static __host__ __device__ __forceinline__
#else
#define FATHOM_NARROW static inline __attribute__((always_inline))
#endif

FATHOM_NARROW uint16_t NarrowBf16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t rounded = bits + 0x7FFFu + (bits >> 16 & 1u);
  const uint32_t nan = bits | 0x00400000u;
  return static_cast<uint16_t>(((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded) >> 16);
}

FATHOM_NARROW uint16_t NarrowF16(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value);
  const uint32_t sign = bits >> 16 & 0x8000u;
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  // A normal number's exponent bias changes by 112. For a denormal, adding 0.5 makes the last place
  // worth 2^-24, which is the step of fp16's denormals.
  const uint32_t normal = (magnitude + 0xFFFu + (magnitude >> 13 & 1u) - (112u << 23)) >> 13;
  const float beside = __builtin_bit_cast(float, magnitude) + 0.5f;
  const uint32_t denormal = __builtin_bit_cast(uint32_t, beside) - 0x3F000000u;
  uint32_t half = magnitude < 0x38800000u ? denormal : normal;  // 2^-14
  half = magnitude >= 0x477FF000u ? 0x7C00u : half;             // 65520
  half = magnitude > 0x7F800000u ? 0x7E00u : half;
  return static_cast<uint16_t>(sign | half);
}

// `value` in the representation of `dtype`, in the low bits.
FATHOM_NARROW uint32_t Narrow(DType dtype, float value) {
  if (dtype == DType::kF32) return __builtin_bit_cast(uint32_t, value);
  return dtype == DType::kBf16 ? NarrowBf16(value) : NarrowF16(value);
}

#undef FATHOM_NARROW

}  // namespace fathom::kernels
