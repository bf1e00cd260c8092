// kernels/cpu/dot_tile.h: the register-blocked dot product of the recipe: kRows vectors x against
// kCols weight rows, for files that are compiled once per instruction set. Each (row, column) pair
// keeps its own 16 lanes, so blocking changes no bits.
#pragma once

#include "kernels/cpu/simd.h"
#include "kernels/tensor.h"

namespace fathom::kernels {
namespace FATHOM_ISA {

// A tile's accumulators use half of the registers. More of them were slower, because g++ 12 spills
// them.
inline constexpr int kAccumulatorsMax = 16 / kHalves;
inline constexpr int kStep = 32;  // Elements of k in a step.

// Lanes of half `half` (a register) of elements 0 to 15 (kLow) or 16 to 31 of the step at `p`.
template <DType kType, bool kLow>
FATHOM_SIMD Vec LoadLanes(const char* p, int half) {
  if constexpr (kType == DType::kF32) {
    return Load(reinterpret_cast<const float*>(p) + (kLow ? 0 : 16) + half * kVecFloats);
  } else if constexpr (kType == DType::kF16) {
    return LoadF16(reinterpret_cast<const uint16_t*>(p) + (kLow ? 0 : 16) + half * kVecFloats);
  } else {
    return LoadBf16<kLow>(p + half * 32);
  }
}

template <DType kType, bool kLow, int kRows, int kCols>
FATHOM_SIMD void HalfStep(const float* x, int64_t x_stride, const char* w, int64_t w_row_bytes,
                          int half, Vec* acc) {
  Vec xs[kRows];
  for (int r = 0; r < kRows; ++r) {
    xs[r] = Load(x + r * x_stride + (kLow ? 0 : 16) + half * kVecFloats);
  }
  for (int c = 0; c < kCols; ++c) {
    const Vec weight = LoadLanes<kType, kLow>(w + c * w_row_bytes, half);
    for (int r = 0; r < kRows; ++r) acc[r * kCols + c] = Fma(xs[r], weight, acc[r * kCols + c]);
  }
}

// Copies the elements of `rows` vectors after their last whole step, filled up with zeros:
// [rows][kStep].
__attribute__((noinline)) static void FillTail(const float* x, int64_t x_stride, int rows,
                                               int64_t k, float* tail) {
  const int64_t whole = k / kStep * kStep;
  for (int r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < kStep; ++i) {
      tail[r * kStep + i] = whole + i < k ? x[r * x_stride + whole + i] : 0.0f;
    }
  }
}

// sums[r * kCols + c] = dot(x[r], w[c]) over k elements. `w` points to the first step of column 0;
// columns are w_row_bytes apart, steps w_step_bytes. If k is no multiple of 32, w must be zero
// beyond k and `tail` comes from FillTail. sums has room for a multiple of 8 values.
template <DType kType, int kRows, int kCols>
FATHOM_SIMD void DotTile(const float* x, int64_t x_stride, const char* w, int64_t w_row_bytes,
                         int64_t w_step_bytes, int64_t k, const float* tail, float* sums) {
  constexpr int kDots = kRows * kCols;
  constexpr int kPadded = (kDots + 7) / 8 * 8;
  static_assert(kDots <= kAccumulatorsMax);
  Vec dots[kPadded];
  for (int half = 0; half < kHalves; ++half) {
    Vec acc[kDots];
    for (int i = 0; i < kDots; ++i) acc[i] = Zero();
    const char* step = w;
    int64_t at = 0;
    for (; at + kStep <= k; at += kStep, step += w_step_bytes) {
      HalfStep<kType, true, kRows, kCols>(x + at, x_stride, step, w_row_bytes, half, acc);
      HalfStep<kType, false, kRows, kCols>(x + at, x_stride, step, w_row_bytes, half, acc);
    }
    if (at < k) {
      HalfStep<kType, true, kRows, kCols>(tail, kStep, step, w_row_bytes, half, acc);
      HalfStep<kType, false, kRows, kCols>(tail, kStep, step, w_row_bytes, half, acc);
    }
    for (int i = 0; i < kDots; ++i) dots[i] = half == 0 ? acc[i] : Add(dots[i], acc[i]);
  }
  for (int i = kDots; i < kPadded; ++i) dots[i] = Zero();
  for (int i = 0; i < kPadded; i += 8) _mm256_storeu_ps(sums + i, Reduce8(dots + i));
}

}  // namespace FATHOM_ISA
}  // namespace fathom::kernels
