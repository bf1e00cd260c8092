// kernels/cuda/linear/product.h: the GEMM y = x W^T (+ bias) for any number of rows, in the
// canonical order: one fp32 accumulator per output from +0, k ascending, 16 at a time, in the
// tensor core, never split; the bias is added in fp32, and the result is rounded once.
// `ProductGeneric` is our own mma.sync kernel for sm_80 and later. `Product` uses cuBLASLt if the
// table of compared algorithms (kernels/cuda/linear/cublas_table.h) has the shape, and
// ProductGeneric otherwise. Both give the same bits.
#pragma once

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

// kernels/cuda/linear/cublas_lt.h. A null pointer means that the library is missing; then
// ProductGeneric computes everything.
class CublasLt;

struct ProductArgs {
  DType dtype = DType::kBf16;
  const void* w = nullptr;      // [n][k]
  const void* x = nullptr;      // [rows][k]
  const float* bias = nullptr;  // [n] or null.
  void* y = nullptr;            // [rows][n] of dtype, or of float with float_out.
  bool float_out = false;       // Logits: not rounded.
  int rows = 0;
  int n = 0;  // A multiple of 8.
  int k = 0;  // A multiple of 16.
};
cudaError_t ProductGeneric(const LaunchContext& context, const ProductArgs& args);
cudaError_t Product(const LaunchContext& context, CublasLt* cublas, const ProductArgs& args);

}  // namespace fathom::kernels::cuda
