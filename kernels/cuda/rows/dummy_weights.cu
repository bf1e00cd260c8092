#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/linear/paired_rows.h"
#include "kernels/cuda/rows/dummy_weights.h"
#include "kernels/dummy_weight.h"
#include "kernels/narrow.h"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kVector = 8;  // Elements that a thread makes at a time.

FATHOM_DEVICE int64_t RowOf(const DummyWeightsArgs& a, int64_t row) {
  if (a.pairs == 0) return a.first_row + row;
  const int64_t at = a.base + row, pairing = at / (2 * a.pairs) * (2 * a.pairs);
  return a.first_row + pairing + PairedRow(at - pairing, a.pairs);
}

FATHOM_DEVICE uint32_t BitsOf(const DummyWeightsArgs& a, int64_t element) {
  const float value = a.is_ones ? 1.0f : DummyValue(a.key, element);
  const uint32_t stored = Narrow(a.stored, value);
  if (a.stored == a.dtype) return stored;
  const float widened = a.stored == DType::kF32    ? canon::FromBits(stored)
                        : a.stored == DType::kBf16 ? canon::WidenBf16(static_cast<uint16_t>(stored))
                                                   : canon::WidenF16(static_cast<uint16_t>(stored));
  return Narrow(a.dtype, widened);
}

// A thread block makes one row.
__global__ void __launch_bounds__(kThreads) MatrixKernel(const DummyWeightsArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int64_t row = blockIdx.x, out_row = RowOf(a, row);
  const int64_t first = (a.row_begin + row) * a.tensor_cols + a.col_begin;
  for (int64_t col = threadIdx.x * kVector; col < a.cols; col += kThreads * kVector) {
    uint32_t bits[kVector];
#pragma unroll
    for (int i = 0; i < kVector; ++i) bits[i] = BitsOf(a, first + col + i);
    uint4* out = reinterpret_cast<uint4*>(
        static_cast<char*>(a.out) + (out_row * a.cols + col) * (a.dtype == DType::kF32 ? 4 : 2));
    if (a.dtype == DType::kF32) {
      out[0] = make_uint4(bits[0], bits[1], bits[2], bits[3]);
      out[1] = make_uint4(bits[4], bits[5], bits[6], bits[7]);
    } else {
      out[0] = make_uint4(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16, bits[4] | bits[5] << 16,
                          bits[6] | bits[7] << 16);
    }
  }
}

// A thread makes one element of a vector.
__global__ void __launch_bounds__(kThreads) VectorKernel(const DummyWeightsArgs a) {
  WaitForPrevious();
  LetNextStart();
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= a.rows) return;
  const uint32_t bits = BitsOf(a, (a.row_begin + row) * a.tensor_cols + a.col_begin);
  const int64_t at = RowOf(a, row);
  if (a.dtype == DType::kF32) {
    static_cast<uint32_t*>(a.out)[at] = bits;
  } else {
    static_cast<uint16_t*>(a.out)[at] = static_cast<uint16_t>(bits);
  }
}

}  // namespace

cudaError_t DummyWeights(const LaunchContext& context, const DummyWeightsArgs& args) {
  const bool vector = args.cols == 1;
  if ((!vector && args.cols % kVector != 0) || args.rows < 0 || args.rows > INT32_MAX ||
      args.pairs % 8 != 0 || reinterpret_cast<uintptr_t>(args.out) % 16 != 0) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  const auto rows = static_cast<unsigned>(args.rows);
  if (vector) {
    return Launch(context, dim3((rows + kThreads - 1) / kThreads), dim3(kThreads), 0, VectorKernel,
                  args);
  }
  return Launch(context, dim3(rows), dim3(kThreads), 0, MatrixKernel, args);
}

}  // namespace fathom::kernels::cuda
