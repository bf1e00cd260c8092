// tests/kernels/cuda/fused_test.h: helpers for the tests of fused GEMMs: heads, the residual's sum
// by its own kernel, and the norm at the end of a GEMM. Only .cu files of GPU tests include it.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/linear/norm_after.h"
#include "tests/kernels/cuda/gpu_test.h"
#include "tests/kernels/cuda/reference.h"

namespace fathom::gpu_test {

// The heads of a qkv GEMM.
struct Heads {
  int heads = 0, kv_heads = 0, head_dim = 0;
  int Width() const { return (heads + 2 * kv_heads) * head_dim; }
  int QWidth() const { return heads * head_dim; }
};

template <class T>
__global__ void AddKernel(T* x, const T* y, int64_t count) {
  using E = kernels::cuda::Element<T>;
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= count) return;
  x[i] = E::Round(__fadd_rn(E::Widen(x[i]), E::Widen(y[i])));
}
template <class T>
void Add(T* x, const T* y, int64_t count) {
  AddKernel<T><<<(count + 255) / 256, 256, 0, Stream()>>>(x, y, count);
  EXPECT_CUDA(cudaGetLastError());
}

// A norm's weights, output and counters for rows of `width`.
template <class T>
struct NormAfterCase {
  static constexpr float kEps = 1e-6f;
  NormAfterCase(int rows_, int width_, uint64_t salt)
      : rows(rows_),
        width(width_),
        weight(RandomNormal<float>(width_, 0.2f, salt, 1.0f)),
        y(int64_t{rows_} * width_),
        want(y.count()),
        counters(2) {
    counters.Zero();
  }
  static bool Does(int width) {
    return width % 8 == 0 && width <= kernels::cuda::kNormAfterWidthMax;
  }
  kernels::cuda::NormAfter Args() const { return {weight.get(), y.get(), kEps, counters.get()}; }
  // Checks that y is the norm of `x`, which the GEMM has written, and that the counters are zero
  // again.
  void Check(T* x, const std::string& what) {
    ASSERT_CUDA(kernels::cuda::RefRmsNorm(Stream(), {.dtype = DTypeOf<T>(),
                                                     .x = x,
                                                     .weight = weight.get(),
                                                     .y = want.get(),
                                                     .eps = kEps,
                                                     .rows = rows,
                                                     .width = width}));
    ExpectSameBits(y, want, what + ", norm after", width);
    EXPECT_EQ(counters.Download(), (std::vector<int32_t>{0, 0})) << what;
  }
  int rows, width;
  DeviceBuffer<float> weight;
  DeviceBuffer<T> y, want;
  DeviceBuffer<int32_t> counters;
};

}  // namespace fathom::gpu_test
