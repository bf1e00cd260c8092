// kernels/cuda/attention/attention_common.cuh: what the mma.sync attention kernels share: 64 rows
// of head_dim 16-bit elements in shared memory, swizzled so that ldmatrix meets no bank twice, and
// a page of keys or values brought there. Tokens that do not exist are zeros: what lies in their
// place may be anything, and 0 * NaN is not 0.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/base/ptx.cuh"

namespace fathom::kernels::cuda::attention {

inline constexpr int kSegmentBlocks = canon::kSegmentTokens / kBlockTokens;
inline constexpr int kThreads = 128;

// Byte offset of 16-byte piece `piece` of row `row`.
template <int kHeadDim>
FATHOM_DEVICE uint32_t Swizzled(int row, int piece) {
  return (row * (kHeadDim / 8) + (piece ^ (row & 7))) * 16;
}

template <int kHeadDim>
inline constexpr int kPageBytes = kBlockTokens* kHeadDim * 2;

// The first `tokens` rows of a page of keys or of values to shared memory; the rest becomes zero.
template <int kHeadDim, class T>
FATHOM_DEVICE void CopyPage(uint32_t to, const T* page, int tokens) {
  constexpr int kPieces = kHeadDim / 8, kRowStep = kThreads / kPieces;
  static_assert(kRowStep % 8 == 0);  // So a thread's pieces differ by a constant distance.
  const int row = threadIdx.x / kPieces, piece = threadIdx.x % kPieces;
  const uint32_t first = to + Swizzled<kHeadDim>(row, piece);
  const T* const from = page + row * kHeadDim + piece * 8;
#pragma unroll
  for (int i = 0; i < kBlockTokens / kRowStep; ++i) {
    ptx::CopyAsync16(first + i * kRowStep * kHeadDim * 2, from + i * kRowStep * kHeadDim,
                     row + i * kRowStep < tokens ? 16 : 0);
  }
}

}  // namespace fathom::kernels::cuda::attention
