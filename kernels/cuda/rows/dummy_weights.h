// kernels/cuda/rows/dummy_weights.h: makes random weights on the device, with the bits of the CPU's
// (kernels/dummy_weight.h). 7 billion weights take well under a second.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

// Writes a slice of a random tensor into rows of a matrix. Row r of the slice becomes row first_row
// + place(base + r) of the matrix. With pairs 0, place() keeps the order; otherwise it pairs rows
// as paired_rows.h says, in pairings of 2 * pairs rows.
struct DummyWeightsArgs {
  // A value is rounded to the type `stored` first and then to the matrix's type `dtype` (which may
  // be kF32).
  DType stored = DType::kBf16;
  DType dtype = DType::kBf16;
  void* out = nullptr;      // The matrix, rows of `cols`; 16-byte aligned.
  int64_t rows = 0;         // Rows of the slice.
  int64_t cols = 0;         // A multiple of 8, or 1.
  uint64_t key = 0;         // The key of the tensor (DummyKey).
  bool is_ones = false;     // Every value is 1.
  int64_t tensor_cols = 0;  // Columns of the whole tensor.
  int64_t row_begin = 0;    // The first row of the slice in the tensor.
  int64_t col_begin = 0;
  int64_t first_row = 0;
  int64_t pairs = 0;
  int64_t base = 0;
};
cudaError_t DummyWeights(const LaunchContext& context, const DummyWeightsArgs& args);

}  // namespace fathom::kernels::cuda
