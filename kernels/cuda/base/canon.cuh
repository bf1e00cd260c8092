// kernels/cuda/base/canon.cuh: the scalar formulas of the CUDA recipe that differ from the CPU's
// (docs/NUMERICS.md, "The CUDA recipe"), each defined once here, and the element types. Device code
// is built with -fmad=false, so a fused multiply-add happens only where canon::Fma is called.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstdint>

#include "kernels/canon.h"
#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

#define FATHOM_DEVICE static __device__ __forceinline__

FATHOM_DEVICE float Ex2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FATHOM_DEVICE float Exp(float x) { return Ex2(__fmul_rn(x, canon::kLog2E)); }
FATHOM_DEVICE float Silu(float x) { return __fdiv_rn(x, __fadd_rn(1.0f, Exp(-x))); }

// 1 / sqrt(mean + eps); inverse_width = float(1 / width).
FATHOM_DEVICE float NormFactor(float sum_of_squares, float inverse_width, float eps) {
  return __fdiv_rn(1.0f, __fsqrt_rn(__fadd_rn(__fmul_rn(sum_of_squares, inverse_width), eps)));
}
FATHOM_DEVICE float NormValue(float x, float factor, float weight) {
  return __fmul_rn(__fmul_rn(x, factor), weight);
}

// Updates a row's running maximum for one sub-block. The maximum changes only when the sub-block's
// maximum `x` exceeds it by more than 8 in log2 units. Returns the factor of l and o.
FATHOM_DEVICE float MoveMax(float* m, float x, float scale) {
  if (*m == -INFINITY) {
    *m = x;
    return 1.0f;
  }
  if (__fmul_rn(__fsub_rn(x, *m), scale) <= canon::kRescaleThreshold) return 1.0f;
  const float factor = Ex2(__fmul_rn(__fsub_rn(*m, x), scale));
  *m = x;
  return factor;
}

// Merges a finished segment (m, l) into (M, L). The caller computes O = O * merged + o * segment.
struct MergeFactors {
  float merged = 0, segment = 0;
};
FATHOM_DEVICE MergeFactors Merge(float* M, float* L, float m, float l, float scale) {
  const float top = fmaxf(*M, m);
  const MergeFactors f{Ex2(__fmul_rn(__fsub_rn(*M, top), scale)),
                       Ex2(__fmul_rn(__fsub_rn(m, top), scale))};
  *L = __fadd_rn(__fmul_rn(*L, f.merged), __fmul_rn(l, f.segment));
  *M = top;
  return f;
}

// a / b with the bits of IEEE division, for many values of a with the same b: a quotient and two
// corrections, which is how division works apart from its special cases. It holds for b in [2^-64,
// 2^40] and for each a that DividesByReciprocal accepts, if a / b does not overflow.
FATHOM_DEVICE float Reciprocal(float b) { return __frcp_rn(b); }
FATHOM_DEVICE bool DividesByReciprocal(float a) {
  return a == 0.0f || (fabsf(a) >= 1e-25f && fabsf(a) <= 1e37f);
}
FATHOM_DEVICE float Quotient(float a, float b, float reciprocal) {
  float q = __fmul_rn(a, reciprocal);
  q = __fmaf_rn(__fmaf_rn(-b, q, a), reciprocal, q);
  return __fmaf_rn(__fmaf_rn(-b, q, a), reciprocal, q);
}

// The properties of an element type, bf16 or fp16.
template <class T>
struct Element;
template <>
struct Element<__nv_bfloat16> {
  static constexpr DType kDType = DType::kBf16;
  static constexpr uint32_t kOnes = 0x3F803F80u;  // Two elements of 1.0.
  FATHOM_DEVICE __nv_bfloat16 Round(float x) { return __float2bfloat16_rn(x); }
  FATHOM_DEVICE float Widen(__nv_bfloat16 x) { return __bfloat162float(x); }
  FATHOM_DEVICE uint32_t Pack(float low, float high) {
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
  }
  FATHOM_DEVICE float2 Unpack(uint32_t x) {
    return make_float2(__uint_as_float(x << 16), __uint_as_float(x & 0xFFFF0000u));
  }
};
template <>
struct Element<__half> {
  static constexpr DType kDType = DType::kF16;
  static constexpr uint32_t kOnes = 0x3C003C00u;
  FATHOM_DEVICE __half Round(float x) { return __float2half_rn(x); }
  FATHOM_DEVICE float Widen(__half x) { return __half2float(x); }
  FATHOM_DEVICE uint32_t Pack(float low, float high) {
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
  }
  FATHOM_DEVICE float2 Unpack(uint32_t x) {
    const __half2 h = *reinterpret_cast<const __half2*>(&x);
    return __half22float2(h);
  }
};

// Calls `f` with a value of the element type: WithType(dtype, [&](auto zero) { ... }).
template <class F>
cudaError_t WithType(DType dtype, F f) {
  if (dtype == DType::kBf16) return f(__nv_bfloat16{});
  if (dtype == DType::kF16) return f(__half{});
  return cudaErrorInvalidValue;
}

// Adds a group of 32 lanes (a warp) in the recipe's order; every lane gets the sum.
FATHOM_DEVICE float SumGroup(float sum) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) {
    sum = __fadd_rn(sum, __shfl_xor_sync(0xFFFFFFFFu, sum, distance));
  }
  return sum;
}

// Programmatic dependent launch (kernels/cuda/base/launch.h). No-ops before sm_90.
FATHOM_DEVICE void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
FATHOM_DEVICE void LetNextStart() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Launches `kernel`, with programmatic dependent launch if the context says so.
template <class... P, class... A>
cudaError_t Launch(const LaunchContext& context, dim3 grid, dim3 block, size_t shared_bytes,
                   void (*kernel)(P...), A&&... args) {
  cudaLaunchAttribute attributes[2] = {};
  // All kernels ask for the same split between L1 and shared memory. A kernel that wants another
  // split waits until the multiprocessor is empty, and then nothing overlaps.
  attributes[0].id = cudaLaunchAttributePreferredSharedMemoryCarveout;
  attributes[0].val.sharedMemCarveout = 100;
  attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[1].val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = context.stream;
  config.attrs = attributes;
  config.numAttrs = context.dependent && context.sm >= 90 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<P>(args)...);
}

}  // namespace fathom::kernels::cuda
