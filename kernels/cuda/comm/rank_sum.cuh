// kernels/cuda/comm/rank_sum.cuh: the ordered sum of the ranks' partials (docs/NUMERICS.md,
// "All-reduce") over vectors of 8 elements: fp32, rank 0 first, rounded once.
#pragma once

#include "kernels/cuda/base/ptx.cuh"
#include "kernels/cuda/rows/norm_vectors.cuh"

namespace fathom::kernels::cuda {

// `ranks` is at most kMax; the loop is unrolled to kMax.
template <class T, int kMax>
FATHOM_DEVICE uint4 SumRanks(const uint4 (&parts)[kMax], int ranks) {
  const auto two = [&](uint32_t uint4::*word) {
    float2 sum = Element<T>::Unpack(parts[0].*word);
#pragma unroll
    for (int r = 1; r < kMax; ++r) {
      if (r >= ranks) continue;
      const float2 part = Element<T>::Unpack(parts[r].*word);
      sum.x = __fadd_rn(sum.x, part.x);
      sum.y = __fadd_rn(sum.y, part.y);
    }
    return Element<T>::Pack(sum.x, sum.y);
  };
  return make_uint4(two(&uint4::x), two(&uint4::y), two(&uint4::z), two(&uint4::w));
}

}  // namespace fathom::kernels::cuda
