// kernels/cuda/linear/product.h: y = x W^T (+ bias) for any number of rows, in the canonical order:
// one fp32 accumulator per output from +0, k ascending, 16 a step, in the tensor core, never split;
// bias added in fp32, rounded once. `ProductGeneric` is our own mma.sync kernel for sm_80 and
// later; `Product` takes cuBLASLt where the table of compared algorithms
// (kernels/cuda/linear/cublas_table.h) has the shape, and ours elsewhere. Both have equal bits.
#pragma once

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

class CublasLt;  // kernels/cuda/linear/cublas_lt.h; null: there is none, our kernel does
                 // everything.

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
