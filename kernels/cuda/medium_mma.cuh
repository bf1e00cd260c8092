// kernels/cuda/medium_mma.cuh: wgmma with both operands in shared memory, 64 rows of x by 8, 16, 32
// or 64 weight rows by 16 of k; tiles of 64 columns of 16-bit elements, rows of 128 bytes with the
// 128-byte swizzle, 1,024 bytes between groups of 8 rows.
#pragma once

#include "kernels/cuda/ptx.cuh"

namespace fathom::kernels::cuda::medium {

// The high word of every operand's descriptor: distance 1,024 bytes, 128-byte swizzle.
inline constexpr uint32_t kDescriptorHigh = 0x40000040;

#define FATHOM_ACC4(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define FATHOM_ACC8(c, i) FATHOM_ACC4(c, i), FATHOM_ACC4(c, i + 4)
#define FATHOM_ACC16(c, i) FATHOM_ACC8(c, i), FATHOM_ACC8(c, i + 8)
#define FATHOM_ACC32(c, i) FATHOM_ACC16(c, i), FATHOM_ACC16(c, i + 16)

// One instruction: `registers` names the accumulators %0...; %A, %B and %C are the low words of the
// descriptors and the high word.
#define FATHOM_WGMMA(type, shape, registers, a, b, high, accumulators)          \
  asm volatile(                                                                 \
      "{\n"                                                                     \
      ".reg .b64 x, y;\n"                                                       \
      ".reg .pred p;\n"                                                         \
      "setp.ne.b32 p, 1, 0;\n"                                                  \
      "mov.b64 x, {" a ", " high                                                \
      "};\n"                                                                    \
      "mov.b64 y, {" b ", " high                                                \
      "};\n"                                                                    \
      "wgmma.mma_async.sync.aligned." shape ".f32." type "." type " " registers \
      ", x, y, p, 1, 1, 0, 0;\n"                                                \
      "}"                                                                       \
      : accumulators                                                            \
      : "r"(x_low), "r"(w_low), "n"(kDescriptorHigh))

#define FATHOM_R4 "{%0,%1,%2,%3}"
#define FATHOM_R8 "{%0,%1,%2,%3,%4,%5,%6,%7}"
#define FATHOM_R16 "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15}"
#define FATHOM_R32                                                                          \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23," \
  "%24,%25,%26,%27,%28,%29,%30,%31}"

template <class T, int kWidth>
FATHOM_DEVICE void Multiply(float* c, uint32_t x_low, uint32_t w_low) {
  constexpr bool kBf = Element<T>::kDType == DType::kBf16;
  if constexpr (kWidth == 8) {
    if constexpr (kBf) {
      FATHOM_WGMMA("bf16", "m64n8k16", FATHOM_R4, "%4", "%5", "%6", FATHOM_ACC4(c, 0));
    } else {
      FATHOM_WGMMA("f16", "m64n8k16", FATHOM_R4, "%4", "%5", "%6", FATHOM_ACC4(c, 0));
    }
  } else if constexpr (kWidth == 16) {
    if constexpr (kBf) {
      FATHOM_WGMMA("bf16", "m64n16k16", FATHOM_R8, "%8", "%9", "%10", FATHOM_ACC8(c, 0));
    } else {
      FATHOM_WGMMA("f16", "m64n16k16", FATHOM_R8, "%8", "%9", "%10", FATHOM_ACC8(c, 0));
    }
  } else if constexpr (kWidth == 32) {
    if constexpr (kBf) {
      FATHOM_WGMMA("bf16", "m64n32k16", FATHOM_R16, "%16", "%17", "%18", FATHOM_ACC16(c, 0));
    } else {
      FATHOM_WGMMA("f16", "m64n32k16", FATHOM_R16, "%16", "%17", "%18", FATHOM_ACC16(c, 0));
    }
  } else {
    static_assert(kWidth == 64);
    if constexpr (kBf) {
      FATHOM_WGMMA("bf16", "m64n64k16", FATHOM_R32, "%32", "%33", "%34", FATHOM_ACC32(c, 0));
    } else {
      FATHOM_WGMMA("f16", "m64n64k16", FATHOM_R32, "%32", "%33", "%34", FATHOM_ACC32(c, 0));
    }
  }
}

#undef FATHOM_WGMMA
#undef FATHOM_ACC4
#undef FATHOM_ACC8
#undef FATHOM_ACC16
#undef FATHOM_ACC32
#undef FATHOM_R4
#undef FATHOM_R8
#undef FATHOM_R16
#undef FATHOM_R32

// All kTile weight rows of a step of 16 of k: the widest pieces first. A weight row takes 128
// bytes, which is 8 in a descriptor's units.
template <class T, int kTile, int kAt = 0>
FATHOM_DEVICE void MultiplyTile(float* c, uint32_t x_low, uint32_t w_low) {
  if constexpr (kAt < kTile) {
    constexpr int kLeft = kTile - kAt;
    constexpr int kWidth = kLeft >= 64 ? 64 : kLeft >= 32 ? 32 : kLeft >= 16 ? 16 : 8;
    Multiply<T, kWidth>(c + kAt / 2, x_low, w_low + kAt * 8);
    MultiplyTile<T, kTile, kAt + kWidth>(c, x_low, w_low);
  }
}

// Keeps the compiler from moving uses of the accumulators across.
template <int kCount>
FATHOM_DEVICE void Hold(float* c) {
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    asm volatile("" : "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])::"memory");
  }
}

}  // namespace fathom::kernels::cuda::medium
