// tests/kernels/cuda/prefill_reference.cuh: the reference of attention, which follows
// docs/NUMERICS.md ("The CUDA recipe") literally: one warp for 16 rows of one head, mma.sync
// m16n8k16, everything from global memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/attention/prefill_attention.h"
#include "kernels/cuda/base/canon.cuh"

namespace fathom::gpu_test {

namespace cuda = kernels::cuda;
namespace canon = kernels::canon;

// c += a b with a [16][16] row-major and b [16][8] column-major.
template <class T>
__device__ __forceinline__ void RefMma(float* c, const uint32_t* a, const uint32_t* b) {
  if constexpr (cuda::Element<T>::kDType == kernels::DType::kBf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, "
        "{%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

// A sequence of `tokens` whose rows are all rows of q and out, from position 0. head_dim 128.
struct RefSequence {
  const int32_t* table = nullptr;
  int tokens = 0;
  int heads = 0;
  int kv_heads = 0;
};

template <class T>
struct RefWarp {
  const RefSequence s;
  const T* q;
  const T* keys;
  const T* values;
  int head, lane, row;  // The lane has `row` and `row + 8`.
  float scores[8][4];   // [8 tokens][row j: 2 j, 2 j + 1]
  float o[17][4];       // [8 dims], and the sums of the weights.
  float m[2];

  // The offset of a token in a plane. A token past the end is in the last page.
  __device__ int64_t Offset(int token) const {
    const int page = s.table[token / cuda::kBlockTokens];
    const int kv_head = head / (s.heads / s.kv_heads);
    return ((int64_t{page} * s.kv_heads + kv_head) * cuda::kBlockTokens +
            token % cuda::kBlockTokens) *
           128;
  }
  __device__ uint32_t Pair(const T* p) const { return *reinterpret_cast<const uint32_t*>(p); }

  __device__ void Scores(int begin) {
    for (int n = 0; n < 8; ++n) {
      float* c = scores[n];
      c[0] = c[1] = c[2] = c[3] = 0.0f;
      const T* k = keys + Offset(begin + n * 8 + lane / 4);
      for (int d = (lane % 4) * 2; d < 128; d += 16) {
        const T* first = q + (int64_t{min(row, s.tokens - 1)} * s.heads + head) * 128 + d;
        const T* second = q + (int64_t{min(row + 8, s.tokens - 1)} * s.heads + head) * 128 + d;
        const uint32_t a[4] = {Pair(first), Pair(second), Pair(first + 8), Pair(second + 8)};
        const uint32_t b[2] = {Pair(k + d), Pair(k + d + 8)};
        RefMma<T>(c, a, b);
      }
      for (int i = 0; i < 4; ++i) {
        const int token = begin + n * 8 + (lane % 4) * 2 + i % 2;
        if (token > row + 8 * (i / 2)) c[i] = -INFINITY;
      }
    }
  }

  // Replaces the scores by weights; rescales o and l if the maximum moves.
  __device__ void Softmax(int begin, float scale) {
    for (int j = 0; j < 2; ++j) {
      float x = -INFINITY;
      for (int n = 0; n < 8; ++n) x = fmaxf(x, fmaxf(scores[n][2 * j], scores[n][2 * j + 1]));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
      x = fmaxf(x, __shfl_xor_sync(~0u, x, 2));
      const float factor = cuda::MoveMax(&m[j], x, scale);
      const float shift = __fmul_rn(m[j], scale);
      for (int i = 0; i < 2; ++i) {
        for (int n = 0; n < 17; ++n) o[n][2 * j + i] = __fmul_rn(o[n][2 * j + i], factor);
        for (int n = 0; n < 8; ++n) {
          const bool seen = begin + n * 8 + (lane % 4) * 2 + i <= row + 8 * j;
          float& p = scores[n][2 * j + i];
          p = seen ? cuda::Ex2(__fmaf_rn(p, scale, -shift)) : 0.0f;
        }
      }
    }
  }

  __device__ uint32_t ValuePair(int token, int dim) const {  // Of two tokens; 0 past the end.
    uint32_t pair = 0;
    for (int i = 0; i < 2; ++i) {
      if (token + i >= s.tokens) continue;
      const T* v = values + Offset(token + i) + dim;
      pair |= static_cast<uint32_t>(*reinterpret_cast<const uint16_t*>(v)) << (16 * i);
    }
    return pair;
  }
  __device__ void AddValues(int begin) {
    for (int k = 0; k < 4; ++k) {
      const float* low = scores[2 * k];
      const float* high = scores[2 * k + 1];
      using E = cuda::Element<T>;
      const uint32_t a[4] = {E::Pack(low[0], low[1]), E::Pack(low[2], low[3]),
                             E::Pack(high[0], high[1]), E::Pack(high[2], high[3])};
      const int token = begin + k * 16 + (lane % 4) * 2;
      for (int n = 0; n < 16; ++n) {
        const uint32_t b[2] = {ValuePair(token, n * 8 + lane / 4),
                               ValuePair(token + 8, n * 8 + lane / 4)};
        RefMma<T>(o[n], a, b);
      }
      const uint32_t ones[2] = {E::kOnes, E::kOnes};
      RefMma<T>(o[16], a, ones);
    }
  }
};

template <class T>
__global__ void RefPrefillKernel(RefSequence s, const T* q, const T* keys, const T* values,
                                 float scale, T* out) {
  const int first = blockIdx.x * 16, lane = threadIdx.x, head = blockIdx.y;
  RefWarp<T> w = {s, q, keys, values, head, lane, first + lane / 4};
  float O[16][4] = {}, M[2] = {-INFINITY, -INFINITY}, L[2] = {};
  const int last = min(first + 15, s.tokens - 1);
  for (int segment = 0; segment <= last; segment += canon::kSegmentTokens) {
    for (auto& group : w.o) group[0] = group[1] = group[2] = group[3] = 0.0f;
    w.m[0] = w.m[1] = -INFINITY;
    for (int begin = segment; begin <= min(last, segment + canon::kSegmentTokens - 1);
         begin += canon::kSubBlockTokens) {
      w.Scores(begin);
      w.Softmax(begin, scale);
      w.AddValues(begin);
    }
    for (int j = 0; j < 2; ++j) {
      if (segment > w.row + 8 * j) continue;
      const cuda::MergeFactors f = cuda::Merge(&M[j], &L[j], w.m[j], w.o[16][2 * j], scale);
      for (int n = 0; n < 16; ++n) {
        for (int i = 2 * j; i < 2 * j + 2; ++i) {
          O[n][i] = __fadd_rn(__fmul_rn(O[n][i], f.merged), __fmul_rn(w.o[n][i], f.segment));
        }
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    const int row = w.row + 8 * (i / 2);
    if (row >= s.tokens) continue;
    T* to = out + (int64_t{row} * s.heads + head) * 128 + (lane % 4) * 2 + i % 2;
    for (int n = 0; n < 16; ++n) {
      to[n * 8] = cuda::Element<T>::Round(__fdiv_rn(O[n][i], L[i / 2]));
    }
  }
}

template <class T>
cudaError_t RefPrefill(cudaStream_t stream, const RefSequence& s, const T* q, const T* keys,
                       const T* values, T* out) {
  RefPrefillKernel<T><<<dim3((s.tokens + 15) / 16, s.heads), 32, 0, stream>>>(
      s, q, keys, values, canon::AttentionScale(128), out);
  return cudaGetLastError();
}

}  // namespace fathom::gpu_test
