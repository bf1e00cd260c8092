// kernels/cuda/attention/decode_attention_segment.cuh: the arithmetic of decode attention
// (docs/NUMERICS.md, "Attention"): one segment of one kv head of one row, page by page, in the
// registers of a thread block. For the scores, each of the four warps takes 16 tokens of a page.
// For P V, each warp takes a quarter of the dimensions. The columns of both GEMMs are the query
// heads that share the kv head.
#pragma once

#include "kernels/cuda/attention/attention_common.cuh"
#include "kernels/cuda/attention/decode_attention.h"
#include "kernels/cuda/attention/decode_attention_config.h"

namespace fathom::kernels::cuda::attention {

// The work of one thread block. The grid is (segments, kv heads, rows).
struct Unit {
  int row = 0, head = 0, segment = 0;
  int partial = 0;  // The index of the segment in the partials.
  // The row's tokens from the segment's first token on; <= 0: the row has no such segment.
  int left = 0;

  __device__ bool Exists() const { return left > 0; }
  __device__ int Pages() const {
    return (min(left, canon::kSegmentTokens) + kBlockTokens - 1) / kBlockTokens;
  }
  // The number of segments of the row.
  __device__ int Segments() const {
    return segment + (left + canon::kSegmentTokens - 1) / canon::kSegmentTokens;
  }
};

template <class T, int kHeadDim, int kColumns>
class SegmentState {
  static_assert(kThreads == kDecodeThreads && DecodeHalfBytes(kHeadDim) == kPageBytes<kHeadDim>);
  static constexpr int kSteps = kHeadDim / 16;  // Steps of the GEMM that makes scores.
  static constexpr int kColumnTiles = kColumns / 8;
  static constexpr int kDimTiles = kHeadDim / 64;  // Tiles of 16 dimensions of a warp.

 public:
  __device__ SegmentState(const DecodeAttentionArgs& args, unsigned char* shared, float scale)
      : a_(args),
        maxima_(reinterpret_cast<float*>(shared + DecodeMaximaAt(kHeadDim))),
        weights_(reinterpret_cast<T*>(shared + DecodeWeightsAt(kHeadDim, kColumns))),
        scale_(scale),
        group_(args.heads / args.kv_heads),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32) {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) m_[c][0] = m_[c][1] = -INFINITY;
  }

  // Loads the query as the second operand of a GEMM: column lane / 4, dimensions lane % 4 * 2 and
  // the next one.
  __device__ void LoadQuery(const Unit& unit) {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
      const int column = c * 8 + lane_ / 4;
      const T* const q = static_cast<const T*>(a_.q) +
                         (int64_t{unit.row} * a_.heads + unit.head * group_ + column) * kHeadDim +
                         lane_ % 4 * 2;
#pragma unroll
      for (int k = 0; k < kSteps * 2; ++k) {
        query_[c][k / 2][k % 2] =
            column < group_ ? *reinterpret_cast<const uint32_t*>(q + k * 8) : 0;
      }
    }
  }

  // scores[c][i]: token lane / 4 (+ 8 for i >= 2) of this warp's 16, column i % 2 of tile c. `left`
  // is the number of tokens of the row from the page's first token on.
  __device__ void Scores(uint32_t keys, int left, float (*scores)[4]) {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[c][i] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t a[4];
      ptx::LoadMatrix4(a, keys + Swizzled<kHeadDim>(warp_ * 16 + lane_ % 16, k * 2 + lane_ / 16));
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
        ptx::Mma16816<T>(scores[c], a, query_[c][k]);
      }
    }
    const int token = warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (token + i / 2 * 8 >= left) scores[c][i] = -INFINITY;
      }
    }
  }

  __device__ void WriteMaxima(const float (*scores)[4]) {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float x = fmaxf(scores[c][j], scores[c][j + 2]);
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
        if (lane_ < 4) maxima_[warp_ * kColumns + Column(c, j)] = x;
      }
    }
  }
  __device__ void MoveMaxima(float (*factors)[2]) {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float* const x = maxima_ + Column(c, j);
        factors[c][j] = MoveMax(
            &m_[c][j], fmaxf(fmaxf(x[0], x[kColumns]), fmaxf(x[2 * kColumns], x[3 * kColumns])),
            scale_);
      }
    }
  }

  __device__ void Weights(const float (*scores)[4]) {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float p = Ex2(canon::Fma(scores[c][i], scale_, -__fmul_rn(m_[c][i % 2], scale_)));
        weights_[Column(c, i % 2) * kDecodeWeightStride + warp_ * 16 + lane_ / 4 + i / 2 * 8] =
            Element<T>::Round(p);
      }
    }
  }

  // Updates o and l for the dimensions of this warp, 16 tokens at a time, ascending.
  __device__ void Accumulate(uint32_t values, const float (*factors)[2]) {
    constexpr uint32_t kOnes = Element<T>::kOnes;
    const uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        l_[c][i] = __fmul_rn(l_[c][i], factors[c][i % 2]);
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) {
          o_[c][t][i] = __fmul_rn(o_[c][t][i], factors[c][i % 2]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kBlockTokens / 16; ++k) {
      uint32_t v[kDimTiles][4];  // V^T: its rows are dimensions, its columns tokens.
#pragma unroll
      for (int t = 0; t < kDimTiles; ++t) {
        const int piece = (warp_ * kDimTiles + t) * 2 + lane_ / 8 % 2;
        ptx::LoadMatrix4Transposed(
            v[t], values + Swizzled<kHeadDim>(k * 16 + lane_ / 16 * 8 + lane_ % 8, piece));
      }
#pragma unroll
      for (int c = 0; c < kColumnTiles; ++c) {
        const T* const p =
            weights_ + (c * 8 + lane_ / 4) * kDecodeWeightStride + k * 16 + lane_ % 4 * 2;
        const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(p),
                               *reinterpret_cast<const uint32_t*>(p + 8)};
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) ptx::Mma16816<T>(o_[c][t], v[t], b);
        ptx::Mma16816<T>(l_[c], ones, b);
      }
    }
  }

  // Merges and writes, from registers, the result of a row that has only one segment.
  __device__ void WriteOnly(const Unit& unit) {
    ForEachColumn([&](int c, int j, int column) {
      float top = -INFINITY, total = 0;
      const MergeFactors f = Merge(&top, &total, m_[c][j], l_[c][j], scale_);
      ForEachOutput(c, j, [&](int dim, float x) {
        const float o = __fadd_rn(__fmul_rn(0.0f, f.merged), __fmul_rn(x, f.segment));
        Out(unit, column)[dim] = Element<T>::Round(__fdiv_rn(o, total));
      });
    });
  }

  __device__ void WritePartial(const Unit& unit) {
    const int64_t first = int64_t{unit.partial} * a_.heads + unit.head * group_;
    ForEachColumn([&](int c, int j, int column) {
      ForEachOutput(c, j,
                    [&](int dim, float x) { a_.partial_o[(first + column) * kHeadDim + dim] = x; });
      if (warp_ == 0 && lane_ < 4) {
        a_.partial_ml[(first + column) * 2] = m_[c][j];
        a_.partial_ml[(first + column) * 2 + 1] = l_[c][j];
      }
    });
  }

  // Merges all segments of the row in ascending order. A thread computes four dimensions.
  __device__ void MergeAll(const Unit& unit) const {
    const int segments = unit.Segments();
    const int64_t first = int64_t{unit.partial - unit.segment} * a_.heads + unit.head * group_;
    for (int at = threadIdx.x; at < group_ * kHeadDim / 4; at += kThreads) {
      const int column = at / (kHeadDim / 4), dim = at % (kHeadDim / 4) * 4;
      float top = -INFINITY, total = 0, o[4] = {};
#pragma unroll 4
      for (int s = 0; s < segments; ++s) {
        const int64_t at_segment = first + int64_t{s} * a_.heads + column;
        const float2 ml = __ldcg(reinterpret_cast<const float2*>(a_.partial_ml) + at_segment);
        const float4 x =
            __ldcg(reinterpret_cast<const float4*>(a_.partial_o + at_segment * kHeadDim + dim));
        const MergeFactors f = Merge(&top, &total, ml.x, ml.y, scale_);
        const float part[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          o[i] = __fadd_rn(__fmul_rn(o[i], f.merged), __fmul_rn(part[i], f.segment));
        }
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        Out(unit, column)[dim + i] = Element<T>::Round(__fdiv_rn(o[i], total));
      }
    }
  }

 private:
  __device__ int Column(int c, int j) const { return c * 8 + lane_ % 4 * 2 + j; }
  __device__ int Dim(int t, int i) const {
    return (warp_ * kDimTiles + t) * 16 + lane_ / 4 + i / 2 * 8;
  }
  // Calls f(tile, which of the thread's two columns, column) for each column that is a query head.
  template <class F>
  __device__ void ForEachColumn(F f) const {
#pragma unroll
    for (int c = 0; c < kColumnTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (Column(c, j) < group_) f(c, j, Column(c, j));
      }
    }
  }
  // Calls f(dimension, o) for the thread's own dimensions of a column.
  template <class F>
  __device__ void ForEachOutput(int c, int j, F f) const {
#pragma unroll
    for (int t = 0; t < kDimTiles; ++t) {
#pragma unroll
      for (int i = j; i < 4; i += 2) f(Dim(t, i), o_[c][t][i]);
    }
  }
  __device__ T* Out(const Unit& unit, int column) const {
    return static_cast<T*>(a_.out) +
           (int64_t{unit.row} * a_.heads + unit.head * group_ + column) * kHeadDim;
  }

  const DecodeAttentionArgs& a_;
  float* const maxima_;  // [warps][columns]
  T* const weights_;     // [columns][kDecodeWeightStride]
  const float scale_;
  const int group_, warp_, lane_;
  uint32_t query_[kColumnTiles][kSteps][2];
  float m_[kColumnTiles][2];
  float o_[kColumnTiles][kDimTiles][4] = {};
  float l_[kColumnTiles][4] = {};
};

}  // namespace fathom::kernels::cuda::attention
