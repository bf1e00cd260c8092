// kernels/cuda/linear/norm_after.h: the norm of the residual's rows at the end of the product that
// adds to them (SkinnyResidual, MediumResidual), for the next product to take as they are. Bits
// equal those of kernels/cuda/rows/rmsnorm.h.
//
// Every thread block has a part of each row, so all of them must have stored before a row can be
// normed: they count in `counters`, and those that norm a row wait for the count. All thread blocks
// of these kernels run at once (one a multiprocessor at most), and none of the next kernel starts
// before all of this one have, so the wait ends; blocks without a row leave at once, and the next
// kernel's begin to read their weights there.
#pragma once

#include <cstdint>

namespace fathom::kernels::cuda {

struct NormAfter {
  const float* weight = nullptr;  // [n]; null: no norm.
  void* y = nullptr;              // [rows][n]
  float eps = 0;
  int32_t* counters = nullptr;  // Two, zero before and after.
};
inline constexpr int kNormAfterWidthMax = 8192;  // Of n, a multiple of 8.
// Of the product's own shared memory, which is free by then.
inline constexpr int kNormAfterSharedBytes = kNormAfterWidthMax * 4 + 32;

}  // namespace fathom::kernels::cuda
