// kernels/cuda/attention/prefill_wgmma_mma.cuh: the two GEMMs of the wgmma prefill attention, and
// the fences that stop the compiler from moving uses of their registers while a GEMM runs.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/prefill_wgmma_layout.cuh"
#include "kernels/cuda/base/ptx.cuh"

namespace fathom::kernels::cuda::prefill {

// The operands and names of an accumulator's registers.
#define FATHOM_F8(a, i)                                                                       \
  "+f"(a[i]), "+f"(a[i + 1]), "+f"(a[i + 2]), "+f"(a[i + 3]), "+f"(a[i + 4]), "+f"(a[i + 5]), \
      "+f"(a[i + 6]), "+f"(a[i + 7])
#define FATHOM_F32(a, i) \
  FATHOM_F8(a, i), FATHOM_F8(a, i + 8), FATHOM_F8(a, i + 16), FATHOM_F8(a, i + 24)
#define FATHOM_F64(a) FATHOM_F32(a, 0), FATHOM_F32(a, 32)
#define FATHOM_F68(a) FATHOM_F64(a), "+f"(a[64]), "+f"(a[65]), "+f"(a[66]), "+f"(a[67])
#define FATHOM_REGISTERS64                                           \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"          \
  "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31," \
  "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
  "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}"
#define FATHOM_REGISTERS68                                           \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"          \
  "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31," \
  "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
  "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63," \
  "%64,%65,%66,%67}"

// The high word of every descriptor: 1,024 bytes between groups of 8 rows, 128-byte swizzle. The
// low word is (address / 16) | (distance of column blocks / 16) << 16.
inline constexpr uint32_t kDescriptorHigh = 0x40000040;

// scores [64 rows][128 keys] (+)= 16 dims of queries x keys, both from shared memory. Computing
// only 64 keys at a time would need 128 bytes of shared memory per clock.
#define FATHOM_SCORES_STEP(TYPE)                                                          \
  asm volatile(                                                                           \
      "{\n.reg .pred p;\n.reg .b64 x, y;\n"                                               \
      "mov.b64 x, {%64, %67};\nmov.b64 y, {%65, %67};\nsetp.ne.b32 p, %66, 0;\n"          \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPE "." TYPE " " FATHOM_REGISTERS64 \
      ", x, y, p, 1, 1, 0, 0;\n}"                                                         \
      : FATHOM_F64(scores)                                                                \
      : "r"(queries), "r"(keys), "r"(add), "n"(kDescriptorHigh))
template <class T>
FATHOM_DEVICE void ScoresStep(float* scores, uint32_t queries, uint32_t keys, int add) {
  if constexpr (Element<T>::kDType == DType::kBf16) {
    FATHOM_SCORES_STEP("bf16");
  } else {
    FATHOM_SCORES_STEP("f16");
  }
}

// output [64 rows][128 dims and 8 sums] (+)= weights of 16 tokens (from registers) x values, whose
// dims are contiguous.
#define FATHOM_OUTPUT_STEP(TYPE)                                                                   \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\n.reg .b64 y;\n"                                                           \
      "mov.b64 y, {%72, %74};\nsetp.ne.b32 p, %73, 0;\n"                                           \
      "wgmma.mma_async.sync.aligned.m64n136k16.f32." TYPE "." TYPE " " FATHOM_REGISTERS68          \
      ", {%68,%69,%70,%71}, y, p, 1, 1, 1;\n}"                                                     \
      : FATHOM_F68(output)                                                                         \
      : "r"(weights[0]), "r"(weights[1]), "r"(weights[2]), "r"(weights[3]), "r"(values), "r"(add), \
        "n"(kDescriptorHigh))
template <class T>
FATHOM_DEVICE void OutputStep(float* output, const uint32_t* weights, uint32_t values, int add) {
  if constexpr (Element<T>::kDType == DType::kBf16) {
    FATHOM_OUTPUT_STEP("bf16");
  } else {
    FATHOM_OUTPUT_STEP("f16");
  }
}

// The compiler may not move uses of these registers across a call of these two functions.
FATHOM_DEVICE void HoldScores(float* scores) { asm volatile("" : FATHOM_F64(scores)::"memory"); }
FATHOM_DEVICE void HoldOutput(float* output) { asm volatile("" : FATHOM_F68(output)::"memory"); }
FATHOM_DEVICE void HoldExponents(float* x) { asm volatile("" : FATHOM_F32(x, 0)::"memory"); }
FATHOM_DEVICE void HoldWeights(uint32_t* w) {
#pragma unroll
  for (int i = 0; i < 16; i += 4) {
    asm volatile("" : "+r"(w[i]), "+r"(w[i + 1]), "+r"(w[i + 2]), "+r"(w[i + 3])::"memory");
  }
}

#undef FATHOM_F8
#undef FATHOM_F32
#undef FATHOM_F64
#undef FATHOM_F68
#undef FATHOM_REGISTERS64
#undef FATHOM_REGISTERS68
#undef FATHOM_SCORES_STEP
#undef FATHOM_OUTPUT_STEP

}  // namespace fathom::kernels::cuda::prefill
