// kernels/gemm.h: y[r][n] = dot(x[r], weight[n]), then + bias[n], then + residual[r][n], each one
// rounded addition. weight: [n, k] in its stored type, widened in a register. x: [rows, k] fp32;
// rows are x_stride, y_stride and residual_stride floats apart. bias and residual may be null;
// residual may be y, no other overlap. The weight is packed for the CPU version (PackWeight); the
// reference reads both layouts. Cost at few rows: the weight's bytes, once, as one sequential
// stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace fathom::kernels {

// The packed layout: tiles of 8 outputs; in a tile, steps of 32 elements of k; in a step, output by
// output, its 32 elements. Rows and elements beyond the matrix are zero. fp32 and fp16 keep the
// order of the elements; of bf16, 32-bit word w holds elements w (low half) and w + 16, so that a
// shift and a mask widen them without moving lanes.
inline constexpr int64_t kPackRows = 8;
inline constexpr int64_t kPackCols = 32;

size_t PackedBytes(int64_t rows, int64_t cols, DType dtype);
// The packed form of `weight`, written to `packed`, which is aligned to 64 bytes and has
// PackedBytes. REQUIRES: weight is row-major.
TensorView PackWeight(const TensorView& weight, void* packed);
// Element (n, k) of either layout, widened.
float WeightAt(const TensorView& weight, int64_t n, int64_t k);

struct GemmArgs {
  const float* x = nullptr;
  int64_t x_stride = 0;
  int64_t rows = 0;
  TensorView weight;
  const float* bias = nullptr;
  const float* residual = nullptr;
  int64_t residual_stride = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

void GemmRef(const GemmArgs& args);
// REQUIRES: a packed weight.
void GemmCpu(const GemmArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
