#include "kernels/cuda/rows/non_finite.h"

#include "kernels/cuda/base/canon.cuh"

namespace fathom::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 4;  // Loads of 16 bytes in flight in each thread.
constexpr int kBlocksPerSm = 8;

// Detects elements whose exponent bits are all set: adding the lowest exponent bit then carries
// into the place of the sign, which the mask has cleared, and no further.
struct Pattern {
  uint32_t exponents, lowest, signs;
  int bytes;
};
constexpr Pattern PatternOf(DType dtype) {
  if (dtype == DType::kBf16) return {0x7F807F80u, 0x00800080u, 0x80008000u, 2};
  if (dtype == DType::kF16) return {0x7C007C00u, 0x04000400u, 0x80008000u, 2};
  return {0x7F800000u, 0x00800000u, 0x80000000u, 4};
}
FATHOM_DEVICE uint32_t Found(uint32_t word, const Pattern& p) {
  return ((word & p.exponents) + p.lowest) & p.signs;
}
FATHOM_DEVICE uint32_t Found(uint4 x, const Pattern& p) {
  return Found(x.x, p) | Found(x.y, p) | Found(x.z, p) | Found(x.w, p);
}

// The first non-finite element of 16 bytes that contain one.
FATHOM_DEVICE int FirstIn(uint4 x, const Pattern& p) {
  const uint32_t words[4] = {x.x, x.y, x.z, x.w};
  const int per_word = 4 / p.bytes;
  for (int i = 0; i < 4; ++i) {
    const uint32_t found = Found(words[i], p);
    if (found == 0) continue;
    return i * per_word + (per_word == 2 && (found & 0x8000u) == 0 ? 1 : 0);
  }
  return 0;
}

__global__ void __launch_bounds__(kThreads)
    ScanKernel(const uint4* data, int64_t pieces, int64_t count, int64_t base, Pattern pattern,
               unsigned long long* first) {
  WaitForPrevious();
  LetNextStart();
  const int per_piece = 16 / pattern.bytes;
  const auto report = [&](int64_t index) {
    atomicMin(first, static_cast<unsigned long long>(base + index));
  };
  const int64_t stride = int64_t{gridDim.x} * kThreads * kUnroll;
  for (int64_t begin = int64_t{blockIdx.x} * kThreads * kUnroll; begin < pieces; begin += stride) {
    uint4 x[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      const int64_t at = begin + i * kThreads + threadIdx.x;
      x[i] = at < pieces ? __ldcs(data + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kUnroll; ++i) {
      if (Found(x[i], pattern) == 0) continue;
      report((begin + i * kThreads + threadIdx.x) * per_piece + FirstIn(x[i], pattern));
    }
  }
  // The elements after the last whole 16 bytes.
  const int64_t index = pieces * per_piece + threadIdx.x;
  if (blockIdx.x != 0 || index >= count) return;
  const uint32_t bits = pattern.bytes == 4 ? reinterpret_cast<const uint32_t*>(data)[index]
                                           : reinterpret_cast<const uint16_t*>(data)[index];
  if (Found(bits, pattern) != 0) report(index);
}

__global__ void __launch_bounds__(kThreads)
    CheckRowsKernel(const CheckRowsArgs a, Pattern pattern) {
  WaitForPrevious();
  LetNextStart();
  const int row = blockIdx.x, pieces = a.width * pattern.bytes / 16;
  const uint4* x = static_cast<const uint4*>(a.x) + int64_t{row} * pieces;
  uint32_t found = 0;
  for (int i = threadIdx.x; i < pieces; i += kThreads) found |= Found(x[i], pattern);
  if (__syncthreads_or(found != 0) == 0 || threadIdx.x != 0) return;
  if (a.faults != nullptr) atomicOr(a.faults + row, kFaultNonFinite);
  if (a.first_code != nullptr) atomicCAS(a.first_code + row, 0, a.code);
}

}  // namespace

cudaError_t ScanNonFinite(const LaunchContext& context, const ScanNonFiniteArgs& args) {
  if (args.count < 0 || reinterpret_cast<uintptr_t>(args.data) % 16 != 0) {
    return cudaErrorInvalidValue;
  }
  if (args.count == 0) return cudaSuccess;
  const Pattern pattern = PatternOf(args.dtype);
  const int64_t pieces = args.count * pattern.bytes / 16;
  const int64_t wanted = pieces / (kThreads * kUnroll) + 1;
  const int64_t most = int64_t{context.sms} * kBlocksPerSm;
  return Launch(context, dim3(static_cast<unsigned>(wanted < most ? wanted : most)), dim3(kThreads),
                0, ScanKernel, static_cast<const uint4*>(args.data), pieces, args.count, args.base,
                pattern, reinterpret_cast<unsigned long long*>(args.first));
}

cudaError_t CheckRows(const LaunchContext& context, const CheckRowsArgs& args) {
  if (args.rows < 0 || args.width <= 0 || args.width % 8 != 0 || args.code == 0) {
    return cudaErrorInvalidValue;
  }
  if (args.rows == 0) return cudaSuccess;
  return Launch(context, dim3(args.rows), dim3(kThreads), 0, CheckRowsKernel, args,
                PatternOf(args.dtype));
}

}  // namespace fathom::kernels::cuda
