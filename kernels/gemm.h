// kernels/gemm.h: y[r][n] = dot(x[r], weight[n]), then + bias[n], then + residual[r][n]; each
// addition is rounded once. weight: [n, k] in its stored type, widened in a register. x: [rows, k]
// fp32; rows are x_stride, y_stride and residual_stride floats apart. bias and residual may be
// null. residual may be y; no other overlap is allowed. The CPU version needs a packed weight
// (PackWeight); the reference reads both layouts. With few rows the cost is reading the weight's
// bytes once, as one sequential stream.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/tensor.h"

namespace fathom::kernels {

// The packed layout has tiles of 8 outputs. A tile has steps of 32 elements of k. A step has the 32
// elements of output 0, then those of output 1, and so on. Rows and elements beyond the matrix are
// zero. fp32 and fp16 keep the order of the elements. For bf16, 32-bit word w holds elements w (low
// half) and w + 16 (high half), so a shift and a mask widen them without moving values between
// lanes.
inline constexpr int64_t kPackRows = 8;
inline constexpr int64_t kPackCols = 32;

size_t PackedBytes(int64_t rows, int64_t cols, DType dtype);
// Writes the packed form of `weight` to `packed`, which has PackedBytes bytes and is aligned to 64
// bytes. REQUIRES: weight is row-major.
TensorView PackWeight(const TensorView& weight, void* packed);
// The value of element (n, k) in either layout.
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
// REQUIRES: the weight is packed.
void GemmCpu(const GemmArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
