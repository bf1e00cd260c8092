// kernels/cuda/attention/prefill_wgmma_softmax.cuh: one sub-block of the recipe (docs/NUMERICS.md,
// "Attention") from the view of one thread, which has 32 scores of 64 tokens for two rows. Element
// i of a wgmma accumulator is column (i / 4) * 8 + (lane % 4) * 2 + i % 2 of row lane / 4 + 8 * (i
// / 2 % 2). Below, index [j] stands for row lane / 4 + 8 j.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/base/canon.cuh"

namespace fathom::kernels::cuda::prefill {

// The maximum of each row over the scores of this lane only.
FATHOM_DEVICE void LaneMax(const float* s, float* x) {
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    float u = fmaxf(s[2 * j], s[2 * j + 1]), v = fmaxf(s[4 + 2 * j], s[5 + 2 * j]);
#pragma unroll
    for (int n = 2; n < 8; n += 2) {
      u = fmaxf(u, fmaxf(s[4 * n + 2 * j], s[4 * n + 2 * j + 1]));
      v = fmaxf(v, fmaxf(s[4 * n + 4 + 2 * j], s[4 * n + 5 + 2 * j]));
    }
    x[j] = fmaxf(u, v);
  }
}

// The maximum over the four lanes that share a row.
FATHOM_DEVICE float RowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

// Says whether a score of this lane exceeds its row's maximum m by more than the threshold.
FATHOM_DEVICE bool Exceeds(const float* x, const float* m, float scale) {
  return __fmul_rn(__fsub_rn(x[0], m[0]), scale) > canon::kRescaleThreshold ||
         __fmul_rn(__fsub_rn(x[1], m[1]), scale) > canon::kRescaleThreshold;
}

// A row's maximum moves if and only if the maximum of one of its lanes exceeds the threshold
// (subtraction and product are monotonic). So one vote of the warp decides whether the row maximum
// must be computed. Returns whether a row of this warp moved; then `factor` is the factor for l and
// o (1 for a row that did not move).
FATHOM_DEVICE bool MoveMaxima(bool exceeds, const float* x, float* m, float* factor, float scale) {
  const bool moves = __any_sync(~0u, exceeds);
  if (__builtin_expect(moves, 0)) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float top = RowMax(x[j]);
      factor[j] = 1.0f;
      if (__fmul_rn(__fsub_rn(top, m[j]), scale) > canon::kRescaleThreshold) {
        factor[j] = Ex2(__fmul_rn(__fsub_rn(m[j], top), scale));
        m[j] = top;
      }
    }
  }
  return moves;
}

// The arguments of the exponentials. A row without a token in this sub-block has m = -inf, and its
// weights are ex2(-inf) = 0.
FATHOM_DEVICE void Exponents(const float* s, float* x, const float* m, float scale) {
  float n[2];
#pragma unroll
  for (int j = 0; j < 2; ++j) n[j] = -__fmul_rn(fmaxf(m[j], -3e38f), scale);
#pragma unroll
  for (int i = 0; i < 32; ++i) x[i] = __fmaf_rn(s[i], scale, n[(i >> 1) & 1]);
}

template <class T>
FATHOM_DEVICE void Weights(const float* x, uint32_t* w) {
#pragma unroll
  for (int i = 0; i < 16; ++i) {
    const float low = Ex2(x[2 * i]), high = Ex2(x[2 * i + 1]);
    w[i] = Element<T>::Pack(low, high);
  }
}

// Rescales o and l: 68 registers.
FATHOM_DEVICE void Rescale(float* output, const float* factor) {
#pragma unroll
  for (int i = 0; i < 68; ++i) output[i] = __fmul_rn(output[i], factor[(i >> 1) & 1]);
}

// O / L, correctly rounded: one reciprocal for each row and two corrections for each value. Values
// for which this does not give the IEEE result are divided.
FATHOM_DEVICE void Normalize(float* output, const float* sum) {
  const float reciprocal[2] = {Reciprocal(sum[0]), Reciprocal(sum[1])};
  bool divide = false;
#pragma unroll
  for (int i = 0; i < 64; ++i) divide |= !DividesByReciprocal(output[i]);
  if (__any_sync(~0u, divide)) {
#pragma unroll
    for (int i = 0; i < 64; ++i) output[i] = __fdiv_rn(output[i], sum[(i >> 1) & 1]);
  } else {
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      output[i] = Quotient(output[i], sum[(i >> 1) & 1], reciprocal[(i >> 1) & 1]);
    }
  }
}

}  // namespace fathom::kernels::cuda::prefill
