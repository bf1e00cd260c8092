// kernels/cuda/linear/norm_after.h: the norm of the residual's rows, computed at the end of the
// GEMM that adds to them (SkinnyResidual, MediumResidual), so that the next GEMM needs no norm. The
// bits equal those of kernels/cuda/rows/rmsnorm.h.
//
// Every thread block stores a part of each row, so a row can be normed only after all of them have
// stored. They count in `counters`, and the thread blocks that norm a row wait for the count. The
// wait always ends: all thread blocks of these kernels run at the same time (at most one on a
// multiprocessor), and the next kernel starts none of its own before all of them have started.
// Thread blocks without a row exit at once, and thread blocks of the next kernel start in their
// place and load weights.
#pragma once

#include <cstdint>

namespace fathom::kernels::cuda {

struct NormAfter {
  const float* weight = nullptr;  // [n]; null: no norm.
  void* y = nullptr;              // [rows][n]
  float eps = 0;
  int32_t* counters = nullptr;  // Two words, zero before and after the launch.
};
inline constexpr int kNormAfterWidthMax = 8192;  // The largest n, which must be a multiple of 8.
// A part of the GEMM's own shared memory, which is free by then.
inline constexpr int kNormAfterSharedBytes = kNormAfterWidthMax * 4 + 32;

}  // namespace fathom::kernels::cuda
