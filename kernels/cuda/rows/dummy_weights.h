// kernels/cuda/rows/dummy_weights.h: random weights made where they are needed, with the bits of
// the CPU's (kernels/dummy_weight.h): 7 billion in well under a second.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

// A slice of a random tensor into rows of a matrix. Row r of the slice goes to the matrix's row
// first_row + place(base + r), where place() keeps the order (pairs 0) or pairs rows as
// paired_rows.h says, in pairings of 2 * pairs rows.
struct DummyWeightsArgs {
  DType stored = DType::kBf16;  // Values are rounded to this type first,
  DType dtype = DType::kBf16;   // then to this one: the matrix's. kF32 too.
  void* out = nullptr;          // The matrix, rows of `cols`; 16-byte aligned.
  int64_t rows = 0;             // Of the slice.
  int64_t cols = 0;             // A multiple of 8, or 1.
  uint64_t key = 0;             // Of the tensor.
  bool is_ones = false;         // Every value is 1.
  int64_t tensor_cols = 0;      // The whole tensor's.
  int64_t row_begin = 0;        // The slice's place in it.
  int64_t col_begin = 0;
  int64_t first_row = 0;
  int64_t pairs = 0;
  int64_t base = 0;
};
cudaError_t DummyWeights(const LaunchContext& context, const DummyWeightsArgs& args);

}  // namespace fathom::kernels::cuda
