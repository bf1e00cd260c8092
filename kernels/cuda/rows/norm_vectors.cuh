// kernels/cuda/rows/norm_vectors.cuh: the parts of a norm (kernels/cuda/rows/rmsnorm.h) over
// vectors of 8 elements, in the recipe's order: 128 lanes add squares, lane l those of vectors l, l
// + 128, ...; then the lanes of each group of 32 are added, then the four groups.
#pragma once

#include "kernels/cuda/base/canon.cuh"

namespace fathom::kernels::cuda {

inline constexpr int kNormLanes = 128;

template <class T>
FATHOM_DEVICE float AddSquares(uint4 x, float sum) {
  const uint32_t words[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float2 pair = Element<T>::Unpack(words[i]);
    sum = canon::Fma(pair.x, pair.x, sum);
    sum = canon::Fma(pair.y, pair.y, sum);
  }
  return sum;
}

// round(x + addend): the residual.
template <class T>
FATHOM_DEVICE uint4 AddRounded(uint4 x, uint4 addend) {
  const auto two = [](uint32_t a, uint32_t b) {
    const float2 x = Element<T>::Unpack(a), y = Element<T>::Unpack(b);
    return Element<T>::Pack(__fadd_rn(x.x, y.x), __fadd_rn(x.y, y.y));
  };
  return make_uint4(two(x.x, addend.x), two(x.y, addend.y), two(x.z, addend.z), two(x.w, addend.w));
}

// Adds the four groups.
FATHOM_DEVICE float SumGroups(float a, float b, float c, float d) {
  return __fadd_rn(__fadd_rn(__fadd_rn(a, b), c), d);
}

// `low` and `high` are the norm's weights for the vector.
template <class T>
FATHOM_DEVICE uint4 NormVector(uint4 x, float factor, float4 low, float4 high) {
  const auto two = [&](uint32_t word, float w0, float w1) {
    const float2 pair = Element<T>::Unpack(word);
    return Element<T>::Pack(NormValue(pair.x, factor, w0), NormValue(pair.y, factor, w1));
  };
  return make_uint4(two(x.x, low.x, low.y), two(x.y, low.z, low.w), two(x.z, high.x, high.y),
                    two(x.w, high.z, high.w));
}

}  // namespace fathom::kernels::cuda
