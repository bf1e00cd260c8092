// kernels/cuda/sampler/sampler_rows.cuh: where a sampler kernel finds the logits of a row, and
// which rows a launch does (SamplerArgs in kernels/cuda/sampler/sampler.h).
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/sampler/sampler.h"

namespace fathom::kernels::cuda {

// A row of logits. Threads read it by id; every thread has its own copy of this struct, which
// refers to the arguments of the kernel.
struct RowLogits {
  const LogitsSlices& from;
  int64_t begin;  // Of the row in each slice.

  __device__ __forceinline__ const float* At(int id) const {
    if (from.width == 0) return from.slices[0] + begin + id;
    const auto slice = static_cast<uint32_t>(id) / static_cast<uint32_t>(from.width);
    return from.slices[slice] + begin + (id - static_cast<int>(slice) * from.width);
  }
  __device__ __forceinline__ float operator[](int id) const { return *At(id); }
};
FATHOM_DEVICE RowLogits LogitsOf(const SamplerArgs& a, const SampleRow& ask) {
  return {a.logits, int64_t{ask.logits_row} * a.logits.stride};
}

// The mask of a row; null: none.
FATHOM_DEVICE const uint32_t* MaskOf(const SamplerArgs& a, const SampleRow& ask) {
  return ask.mask < 0 ? nullptr : a.masks + int64_t{ask.mask} * ((a.vocab + 31) / 32);
}
FATHOM_DEVICE bool IsMasked(const uint32_t* mask, int id) {
  const auto bit = static_cast<uint32_t>(id);
  return (mask[bit / 32] >> (bit % 32) & 1) == 0;
}

// The index of the row of a thread block with this index.
FATHOM_DEVICE int RowOfBlock(const SamplerArgs& a, unsigned int block) {
  return a.first_row + static_cast<int>(block) * a.row_step;
}

// The rows of a launch; -1: the arguments do not fit together.
inline int RowsOfLaunch(const SamplerArgs& a) {
  const int slices = a.logits.width == 0 ? 1 : (a.vocab + a.logits.width - 1) / a.logits.width;
  if (a.count < 0 || a.first_row < 0 || a.row_step < 1 || slices > kLogitsSlicesMax) return -1;
  return a.count <= a.first_row ? 0 : (a.count - a.first_row + a.row_step - 1) / a.row_step;
}

// The arguments with the stride set.
inline SamplerArgs WithStride(SamplerArgs a) {
  if (a.logits.stride == 0) a.logits.stride = a.logits.width == 0 ? a.vocab : a.logits.width;
  return a;
}

}  // namespace fathom::kernels::cuda
