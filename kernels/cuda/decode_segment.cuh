// kernels/cuda/decode_segment.cuh: one segment of 512 tokens of one row and kv head, as a thread
// block of four warps computes it (kernels/cuda/decode_attention_ring.cu).
//
// Its pages come in a ring, first those of the keys, then those of the values, so that there are
// two products without a barrier of their own:
//   scores   a warp takes 16 tokens of each page of keys; all scores stay in its registers
//   weights  one barrier for the maxima, then every sub-block's move of m and its weights
//   values   a warp takes a quarter of the dimensions, all tokens ascending
// Columns of both products are the query heads of the group. What is in a row's column does not
// depend on the other columns, which are zero queries beyond the group.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention_common.cuh"
#include "kernels/cuda/decode_attention.h"

namespace fathom::kernels::cuda::attention {

// Columns of P in shared memory: 64 tokens and 8 elements that keep columns in banks of their own.
inline constexpr int kWeightStride = kBlockTokens + 8;

template <int kHeadDim, int kColumns, int kStages>
struct DecodeShared {
  static constexpr int kWeights = kStages * kPageBytes<kHeadDim>;
  static constexpr int kMaxima = kWeights + kSegmentBlocks * kColumns * kWeightStride * 2;
  static constexpr int kBytes = kMaxima + kSegmentBlocks * 4 * kColumns * 4;
};

// Which segment. `entry`: lane i has the pool's block of the segment's sub-block i, -1 where it is
// beyond the pool.
struct DecodeItem {
  int row = 0;
  int kv_head = 0;
  int segment = 0;
  int length = 0;
  int entry = 0;

  __device__ __forceinline__ int begin() const { return segment * canon::kSegmentTokens; }
  __device__ __forceinline__ int blocks() const {
    return min(kSegmentBlocks, (length - begin() + kBlockTokens - 1) / kBlockTokens);
  }
};

template <class T, int kHeadDim, int kColumns, int kStages>
class DecodeSegment {
  using S = DecodeShared<kHeadDim, kColumns, kStages>;
  static constexpr int kSteps = kHeadDim / 16;     // Of a score's product.
  static constexpr int kTiles = kColumns / 8;      // Of 8 columns.
  static constexpr int kDimTiles = kHeadDim / 64;  // Of 16 dimensions a warp.

 public:
  __device__ __forceinline__ DecodeSegment(const DecodeAttentionArgs& args, const DecodeItem& item,
                                           unsigned char* shared, float scale)
      : a_(args),
        item_(item),
        base_(ptx::SharedAddress(shared)),
        weights_(reinterpret_cast<T*>(shared + S::kWeights)),
        maxima_(reinterpret_cast<float*>(shared + S::kMaxima)),
        scale_(scale),
        group_(args.heads / args.kv_heads),
        blocks_(item.blocks()),
        warp_(threadIdx.x / 32),
        lane_(threadIdx.x % 32) {}

  // REQUIRES: the block's threads are done with shared memory.
  __device__ __forceinline__ void Compute() {
    float scores[kSegmentBlocks][kTiles][4], factors[kSegmentBlocks][kTiles][2];
#pragma unroll
    for (int c = 0; c < kTiles; ++c) m_[c][0] = m_[c][1] = -INFINITY;
    {
      uint32_t query[kTiles][kSteps][2];
      LoadQuery(query);
#pragma unroll
      for (int page = 0; page < kStages - 1; ++page) Load();
      LetNextStart();
#pragma unroll
      for (int block = 0; block < kSegmentBlocks; ++block) {
        if (block < blocks_) Scores(NextPage(), block, query, scores[block]);
      }
    }
    __syncthreads();  // The maxima.
#pragma unroll
    for (int block = 0; block < kSegmentBlocks; ++block) {
      if (block < blocks_) Weights(block, scores[block], factors[block]);
    }
#pragma unroll
    for (int block = 0; block < kSegmentBlocks; ++block) {  // NextPage's barrier: the weights.
      if (block < blocks_) Accumulate(NextPage(), block, factors[block]);
    }
  }

  // Of a row with one segment: merged and written from registers.
  __device__ __forceinline__ void WriteResult() const {
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (Column(c, j) >= group_) continue;
        float top = -INFINITY, total = 0;
        const MergeFactors f = Merge(&top, &total, m_[c][j], l_[c][j], scale_);
        T* const out = static_cast<T*>(a_.out) + (Head() + Column(c, j)) * kHeadDim;
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) {
#pragma unroll
          for (int i = j; i < 4; i += 2) {
            const float o = __fadd_rn(__fmul_rn(0.0f, f.merged), __fmul_rn(o_[c][t][i], f.segment));
            out[Dim(t, i)] = Element<T>::Round(__fdiv_rn(o, total));
          }
        }
      }
    }
  }

  // (m, l, o) as unit `unit` of the partials.
  __device__ __forceinline__ void WritePartial(int64_t unit) const {
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        if (Column(c, j) >= group_) continue;
        const int64_t at = unit + Column(c, j);
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) {
#pragma unroll
          for (int i = j; i < 4; i += 2) a_.partial_o[at * kHeadDim + Dim(t, i)] = o_[c][t][i];
        }
        if (warp_ == 0 && lane_ < 4) {
          reinterpret_cast<float2*>(a_.partial_ml)[at] = make_float2(m_[c][j], l_[c][j]);
        }
      }
    }
  }

  // The group's first head of the row, in q and out.
  __device__ __forceinline__ int64_t Head() const {
    return int64_t{item_.row} * a_.heads + item_.kv_head * group_;
  }

 private:
  // Of element (tile c, j) of an accumulator, and dimension of element i of tile t.
  __device__ __forceinline__ int Column(int c, int j) const { return c * 8 + lane_ % 4 * 2 + j; }
  __device__ __forceinline__ int Dim(int t, int i) const {
    return (warp_ * kDimTiles + t) * 16 + lane_ / 4 + i / 2 * 8;
  }

  __device__ __forceinline__ void LoadQuery(uint32_t (*query)[kSteps][2]) const {
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
      const int column = c * 8 + lane_ / 4;
      const auto* const q = reinterpret_cast<const uint32_t*>(
          static_cast<const T*>(a_.q) + (Head() + column) * kHeadDim + lane_ % 4 * 2);
#pragma unroll
      for (int k = 0; k < kSteps; ++k) {
        query[c][k][0] = column < group_ ? __ldcg(q + k * 8) : 0u;
        query[c][k][1] = column < group_ ? __ldcg(q + k * 8 + 4) : 0u;
      }
    }
  }

  // Starts the load of the next page that has none, if there is one.
  __device__ __forceinline__ void Load() {
    if (pages_begun_ < 2 * blocks_) {
      const bool is_value = pages_begun_ >= blocks_;
      const int block = pages_begun_ - (is_value ? blocks_ : 0);
      const int id = __shfl_sync(~0u, item_.entry, block);
      const T* const plane = static_cast<const T*>(is_value ? a_.values : a_.keys);
      const int64_t offset =
          (int64_t{max(id, 0)} * a_.kv_heads + item_.kv_head) * (kBlockTokens * kHeadDim);
      const int tokens = item_.length - item_.begin() - block * kBlockTokens;
      CopyPage<kHeadDim>(base_ + load_stage_ * kPageBytes<kHeadDim>, plane + offset,
                         id < 0 ? 0 : tokens);
    }
    ptx::CopyAsyncCommit();
    ++pages_begun_;
    load_stage_ = load_stage_ + 1 == kStages ? 0 : load_stage_ + 1;
  }

  // The next page, once it is here for all threads; all are done with the one before, whose place
  // is loaded anew.
  __device__ __forceinline__ uint32_t NextPage() {
    ptx::CopyAsyncWait<kStages - 2>();
    __syncthreads();
    Load();
    const uint32_t page = base_ + stage_ * kPageBytes<kHeadDim>;
    stage_ = stage_ + 1 == kStages ? 0 : stage_ + 1;
    return page;
  }

  // scores[c][i]: token lane / 4 (+ 8 for i >= 2) of this warp's 16, column of i % 2.
  __device__ __forceinline__ void Scores(uint32_t keys, int block,
                                         const uint32_t (*query)[kSteps][2], float (*scores)[4]) {
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[c][i] = 0.0f;
    }
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      uint32_t a[4];
      ptx::LoadMatrix4(a, keys + Swizzled<kHeadDim>(warp_ * 16 + lane_ % 16, k * 2 + lane_ / 16));
#pragma unroll
      for (int c = 0; c < kTiles; ++c) ptx::Mma16816<T>(scores[c], a, query[c][k]);
    }
    const int token = item_.begin() + block * kBlockTokens + warp_ * 16 + lane_ / 4;
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (token + i / 2 * 8 >= item_.length) scores[c][i] = -INFINITY;
      }
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        float x = fmaxf(scores[c][j], scores[c][j + 2]);
#pragma unroll
        for (int lanes = 4; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
        if (lane_ < 4) maxima_[(block * 4 + warp_) * kColumns + Column(c, j)] = x;
      }
    }
  }

  // Moves the columns' maxima over a sub-block and leaves its weights in shared memory.
  __device__ __forceinline__ void Weights(int block, const float (*scores)[4],
                                          float (*factors)[2]) {
#pragma unroll
    for (int c = 0; c < kTiles; ++c) {
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const float* const x = maxima_ + block * 4 * kColumns + Column(c, j);
        factors[c][j] = MoveMax(
            &m_[c][j], fmaxf(fmaxf(x[0], x[kColumns]), fmaxf(x[2 * kColumns], x[3 * kColumns])),
            scale_);
        const float shift = __fmul_rn(m_[c][j], scale_);
        T* const to = weights_ + (block * kColumns + Column(c, j)) * kWeightStride + warp_ * 16;
#pragma unroll
        for (int i = j; i < 4; i += 2) {
          to[lane_ / 4 + i / 2 * 8] =
              Element<T>::Round(Ex2(canon::Fma(scores[c][i], scale_, -shift)));
        }
      }
    }
  }

  // o and l of the dimensions of this warp, 16 tokens a step, ascending.
  __device__ __forceinline__ void Accumulate(uint32_t values, int block,
                                             const float (*factors)[2]) {
    constexpr uint32_t kOnes = Element<T>::kOnes;
    const uint32_t ones[4] = {kOnes, kOnes, kOnes, kOnes};
    if (block != 0) {
#pragma unroll
      for (int c = 0; c < kTiles; ++c) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          l_[c][i] = __fmul_rn(l_[c][i], factors[c][i % 2]);
#pragma unroll
          for (int t = 0; t < kDimTiles; ++t) {
            o_[c][t][i] = __fmul_rn(o_[c][t][i], factors[c][i % 2]);
          }
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kBlockTokens / 16; ++k) {
      uint32_t v[kDimTiles][4];  // V^T: rows are dimensions, columns tokens.
#pragma unroll
      for (int t = 0; t < kDimTiles; ++t) {
        const int piece = (warp_ * kDimTiles + t) * 2 + lane_ / 8 % 2;
        ptx::LoadMatrix4Transposed(
            v[t], values + Swizzled<kHeadDim>(k * 16 + lane_ / 16 * 8 + lane_ % 8, piece));
      }
#pragma unroll
      for (int c = 0; c < kTiles; ++c) {
        const T* const p = weights_ + (block * kColumns + c * 8 + lane_ / 4) * kWeightStride +
                           k * 16 + lane_ % 4 * 2;
        const uint32_t b[2] = {*reinterpret_cast<const uint32_t*>(p),
                               *reinterpret_cast<const uint32_t*>(p + 8)};
#pragma unroll
        for (int t = 0; t < kDimTiles; ++t) ptx::Mma16816<T>(o_[c][t], v[t], b);
        ptx::Mma16816<T>(l_[c], ones, b);
      }
    }
  }

  const DecodeAttentionArgs& a_;
  const DecodeItem& item_;
  const uint32_t base_;
  T* const weights_;     // [sub-block][column][kWeightStride]
  float* const maxima_;  // [sub-block][warp][column]
  const float scale_;
  const int group_, blocks_, warp_, lane_;
  int pages_begun_ = 0, load_stage_ = 0, stage_ = 0;
  float m_[kTiles][2];
  float o_[kTiles][kDimTiles][4] = {};
  float l_[kTiles][4] = {};
};

}  // namespace fathom::kernels::cuda::attention
