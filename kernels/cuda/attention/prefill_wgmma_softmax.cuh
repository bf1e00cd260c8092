// kernels/cuda/attention/prefill_wgmma_softmax.cuh: one sub-block of the recipe (docs/NUMERICS.md,
// "Attention") as a thread sees it: 32 scores of 64 tokens for two rows. Element i of a wgmma
// accumulator is column (i / 4) * 8 + (lane % 4) * 2 + i % 2 of row lane / 4 + 8 * (i / 2 % 2): [j]
// below is the row, lane / 4 + 8 j.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/cuda/base/canon.cuh"

namespace fathom::kernels::cuda::prefill {

// The rows' maxima over this lane's scores only.
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

// Over the four lanes that share a row.
FATHOM_DEVICE float RowMax(float x) {
  x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
  return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

// Whether a score of this lane is beyond the threshold above its row's maximum m.
FATHOM_DEVICE bool Exceeds(const float* x, const float* m, float scale) {
  return __fmul_rn(__fsub_rn(x[0], m[0]), scale) > canon::kRescaleThreshold ||
         __fmul_rn(__fsub_rn(x[1], m[1]), scale) > canon::kRescaleThreshold;
}

// A row's maximum moves iff a lane's own maximum exceeds it (subtraction and product are
// monotonic): one vote of the warp, and only then the row's maximum. Returns whether a row of this
// warp moved; then `factor` is what l and o are to be multiplied by (1 for a row that did not).
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

// Arguments of the exponentials. A row with no token here has m = -inf: its weights are
// ex2(-inf) = 0.
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

// o and l, 68 registers.
FATHOM_DEVICE void Rescale(float* output, const float* factor) {
#pragma unroll
  for (int i = 0; i < 68; ++i) output[i] = __fmul_rn(output[i], factor[(i >> 1) & 1]);
}

// O / L, correctly rounded: one reciprocal a row and corrections; values for which that does not
// hold are divided.
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
