// tests/kernels/cuda/attention_reference.cuh: the reference of attention, which follows
// docs/NUMERICS.md ("The CUDA recipe") literally: one warp for one row and head, mma.sync m16n8k16
// with the row as the first of 16 and zeros below it, everything from global memory. Lanes 0 to 3
// have the row.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/decode_attention.h"
#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/base/ptx.cuh"

namespace fathom::gpu_test {

template <class T>
struct RefAttentionWarp {
  const kernels::cuda::DecodeAttentionArgs& a;
  const int row, head, length, lane;
  float scores[8][4];  // 8 tokens each.
  float o[17][4];      // 8 dimensions each; the last is l.
  float m;

  // The keys or values of a token; null (zeros) after the length and in a block beyond the pool.
  __device__ const T* Token(const void* plane, int token) const {
    constexpr int kTokens = kernels::cuda::kBlockTokens;
    if (token >= length) return nullptr;
    const int64_t page = a.block_tables[int64_t{row} * a.table_stride + token / kTokens];
    if (page < 0 || page >= a.pool_blocks) return nullptr;
    const int kv_head = head / (a.heads / a.kv_heads);
    return static_cast<const T*>(plane) +
           ((page * a.kv_heads + kv_head) * kTokens + token % kTokens) * a.head_dim;
  }
  __device__ static uint32_t Pair(const T* p) {
    return p == nullptr ? 0u : *reinterpret_cast<const uint32_t*>(p);
  }
  __device__ static uint32_t Bits(const T* p) { return *reinterpret_cast<const uint16_t*>(p); }

  __device__ void Scores(int begin) {
    const T* const q = static_cast<const T*>(a.q) + (int64_t{row} * a.heads + head) * a.head_dim;
    for (int n = 0; n < 8; ++n) {
      float* const c = scores[n];
      for (int i = 0; i < 4; ++i) c[i] = 0.0f;
      const T* const k = Token(a.keys, begin + n * 8 + lane / 4);
      for (int d = lane % 4 * 2; d < a.head_dim; d += 16) {
        const uint32_t x[4] = {lane < 4 ? Pair(q + d) : 0u, 0u, lane < 4 ? Pair(q + d + 8) : 0u,
                               0u};
        const uint32_t y[2] = {k == nullptr ? 0u : Pair(k + d),
                               k == nullptr ? 0u : Pair(k + d + 8)};
        kernels::cuda::ptx::Mma16816<T>(c, x, y);
      }
      for (int i = 0; i < 4; ++i) {
        const bool seen = lane < 4 && i < 2 && begin + n * 8 + lane * 2 + i < length;
        if (!seen) c[i] = -INFINITY;
      }
    }
  }

  // Replaces the scores by weights; rescales o and l if the maximum moves.
  __device__ void Softmax(float scale) {
    float x = -INFINITY;
    for (int n = 0; n < 8; ++n) x = fmaxf(x, fmaxf(scores[n][0], scores[n][1]));
    for (int lanes = 1; lanes < 32; lanes *= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, lanes));
    const float factor = kernels::cuda::MoveMax(&m, x, scale);
    for (auto& part : o) {
      for (float& v : part) v = __fmul_rn(v, factor);
    }
    const float shift = __fmul_rn(m, scale);
    for (auto& part : scores) {
      for (float& s : part) {
        s = s == -INFINITY ? 0.0f : kernels::cuda::Ex2(kernels::canon::Fma(s, scale, -shift));
      }
    }
  }

  __device__ void AddValues(int begin) {
    using E = kernels::cuda::Element<T>;
    for (int k = 0; k < 4; ++k) {
      const float *low = scores[2 * k], *high = scores[2 * k + 1];
      const uint32_t p[4] = {E::Pack(low[0], low[1]), 0u, E::Pack(high[0], high[1]), 0u};
      for (int n = 0; n < a.head_dim / 8; ++n) {
        uint32_t v[2] = {};
        for (int i = 0; i < 4; ++i) {
          const T* const token = Token(a.values, begin + k * 16 + lane % 4 * 2 + i / 2 * 8 + i % 2);
          if (token != nullptr) v[i / 2] |= Bits(token + n * 8 + lane / 4) << (16 * (i % 2));
        }
        kernels::cuda::ptx::Mma16816<T>(o[n], p, v);
      }
      const uint32_t ones[2] = {E::kOnes, E::kOnes};
      kernels::cuda::ptx::Mma16816<T>(o[16], p, ones);
    }
  }
};

template <class T>
__global__ void RefAttentionKernel(const kernels::cuda::DecodeAttentionArgs a, float scale) {
  using kernels::cuda::Element;
  const int row = blockIdx.x, head = blockIdx.y, lane = threadIdx.x, length = a.lengths[row];
  T* const out = static_cast<T*>(a.out) + (int64_t{row} * a.heads + head) * a.head_dim;
  RefAttentionWarp<T> w = {a, row, head, length, lane};
  float O[16][2] = {}, M = -INFINITY, L = 0;
  for (int segment = 0; segment < length; segment += kernels::canon::kSegmentTokens) {
    for (auto& part : w.o) part[0] = part[1] = part[2] = part[3] = 0.0f;
    w.m = -INFINITY;
    const int end = min(length, segment + kernels::canon::kSegmentTokens);
    for (int begin = segment; begin < end; begin += kernels::canon::kSubBlockTokens) {
      w.Scores(begin);
      w.Softmax(scale);
      w.AddValues(begin);
    }
    const kernels::cuda::MergeFactors f = kernels::cuda::Merge(&M, &L, w.m, w.o[16][0], scale);
    for (int n = 0; n < 16; ++n) {
      for (int i = 0; i < 2; ++i) {
        O[n][i] = __fadd_rn(__fmul_rn(O[n][i], f.merged), __fmul_rn(w.o[n][i], f.segment));
      }
    }
  }
  if (lane >= 4) return;
  for (int n = 0; n < a.head_dim / 8; ++n) {
    for (int i = 0; i < 2; ++i) {
      const float x = length == 0 ? 0.0f : __fdiv_rn(O[n][i], L);
      out[n * 8 + lane * 2 + i] = Element<T>::Round(x);
    }
  }
}

template <class T>
cudaError_t RefAttention(cudaStream_t stream, const kernels::cuda::DecodeAttentionArgs& args) {
  RefAttentionKernel<T><<<dim3(args.rows, args.heads), 32, 0, stream>>>(
      args, kernels::canon::AttentionScale(args.head_dim));
  return cudaGetLastError();
}

}  // namespace fathom::gpu_test
