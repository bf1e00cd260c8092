// The packed layout of kernels/gemm.h.
#include <cstring>

#include "kernels/canon.h"
#include "kernels/gemm.h"

namespace fathom::kernels {
namespace {

constexpr int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Index of element (n, k) among the packed elements.
int64_t PackedIndex(int64_t n, int64_t k, int64_t cols, DType dtype) {
  const int64_t steps = RoundUp(cols, kPackCols) / kPackCols;
  const int64_t step = (n / kPackRows * steps + k / kPackCols) * kPackRows + n % kPackRows;
  const int64_t at = k % kPackCols;
  const int64_t place = dtype == DType::kBf16 ? at % 16 * 2 + at / 16 : at;
  return step * kPackCols + place;
}

}  // namespace

size_t PackedBytes(int64_t rows, int64_t cols, DType dtype) {
  return static_cast<size_t>(RoundUp(rows, kPackRows) * RoundUp(cols, kPackCols)) * SizeOf(dtype);
}

TensorView PackWeight(const TensorView& weight, void* packed) {
  const size_t size = SizeOf(weight.dtype);
  std::memset(packed, 0, PackedBytes(weight.rows, weight.cols, weight.dtype));
  const char* from = static_cast<const char*>(weight.data);
  char* to = static_cast<char*>(packed);
  for (int64_t n = 0; n < weight.rows; ++n) {
    for (int64_t k = 0; k < weight.cols; ++k) {
      const int64_t index = PackedIndex(n, k, weight.cols, weight.dtype);
      std::memcpy(to + static_cast<size_t>(index) * size, from, size);
      from += size;
    }
  }
  return {packed, weight.rows, weight.cols, weight.dtype, Layout::kPacked};
}

float WeightAt(const TensorView& weight, int64_t n, int64_t k) {
  const int64_t index = weight.layout == Layout::kPacked
                            ? PackedIndex(n, k, weight.cols, weight.dtype)
                            : n * weight.cols + k;
  return canon::Widen(weight.dtype, weight.data, index);
}

}  // namespace fathom::kernels
