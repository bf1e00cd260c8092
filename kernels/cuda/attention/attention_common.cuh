// kernels/cuda/attention/attention_common.cuh: what the mma.sync attention kernels share. In the
// attention kernels a *page* is the keys or the values of one KV block for one kv head: 64 rows of
// head_dim 16-bit elements (*block* alone is a thread block there). CopyPage brings a page into
// shared memory, swizzled so that ldmatrix has no bank conflicts. It zero-fills the rows of tokens
// that do not exist: the memory of such a row may hold a NaN, and 0 * NaN is not 0.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/base/ptx.cuh"

namespace fathom::kernels::cuda::attention {

inline constexpr int kSegmentBlocks = canon::kSegmentTokens / kBlockTokens;
inline constexpr int kThreads = 128;

// Byte offset of piece `piece` (16 bytes) of row `row`.
template <int kHeadDim>
FATHOM_DEVICE uint32_t Swizzled(int row, int piece) {
  return (row * (kHeadDim / 8) + (piece ^ (row & 7))) * 16;
}

template <int kHeadDim>
inline constexpr int kPageBytes = kBlockTokens* kHeadDim * 2;

// Copies the first `tokens` rows of a page to shared memory and fills the others with zeros.
template <int kHeadDim, class T>
FATHOM_DEVICE void CopyPage(uint32_t to, const T* page, int tokens) {
  constexpr int kPieces = kHeadDim / 8, kRowStep = kThreads / kPieces;
  static_assert(kRowStep % 8 == 0);  // The pieces of a thread are at a constant distance.
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
