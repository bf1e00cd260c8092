// kernels/cuda/linear/medium_epilogue.cuh: the operations after a GEMM of
// kernels/cuda/linear/medium.h, in registers. Store() gets one row's part of a tile: c[4 i] and c[4
// i + 1] belong to weight rows n0 + 8 i and n0 + 8 i + 1; it stores those that Own names. Of 16
// weight rows, the first and the last 8 are paired halves (kernels/cuda/linear/paired_rows.h). If
// an epilogue has After(), the multiplying threads call it when this thread block has stored
// everything.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/linear/norm_after.cuh"
#include "kernels/cuda/rows/rope_kv_write.h"

namespace fathom::kernels::cuda::medium {

// The weight rows that a tile stores: those from `first` on that are below `n`.
struct Own {
  int first = 0;
  int n = 0;  // Rows of the weight.
  __device__ __forceinline__ bool Has(int row) const { return row >= first && row < n; }
};

template <class T>
FATHOM_DEVICE void StorePair(T* to, float a, float b) {
  *reinterpret_cast<uint32_t*>(to) = Element<T>::Pack(a, b);
}

struct HeadEpilogue {
  float* logits = nullptr;
  template <class T, int kTile>
  __device__ __forceinline__ void Store(int row, int n0, Own own, const float* c) const {
#pragma unroll
    for (int i = 0; i < kTile / 8; ++i) {
      if (!own.Has(n0 + 8 * i)) continue;
      *reinterpret_cast<float2*>(logits + int64_t{row} * own.n + n0 + 8 * i) =
          make_float2(c[4 * i], c[4 * i + 1]);
    }
  }
};

struct PartialEpilogue {
  void* y = nullptr;
  template <class T, int kTile>
  __device__ __forceinline__ void Store(int row, int n0, Own own, const float* c) const {
    T* const to = static_cast<T*>(y) + int64_t{row} * own.n + n0;
#pragma unroll
    for (int i = 0; i < kTile / 8; ++i) {
      if (own.Has(n0 + 8 * i)) StorePair(to + 8 * i, c[4 * i], c[4 * i + 1]);
    }
  }
};

struct ResidualEpilogue {
  void* residual = nullptr;
  NormAfter norm;
  float inverse_width = 0;
  template <class T, int kTile>
  __device__ __forceinline__ void Store(int row, int n0, Own own, const float* c) const {
    T* const to = static_cast<T*>(residual) + int64_t{row} * own.n + n0;
#pragma unroll
    for (int i = 0; i < kTile / 8; ++i) {
      if (!own.Has(n0 + 8 * i)) continue;
      const float2 x = Element<T>::Unpack(*reinterpret_cast<const uint32_t*>(to + 8 * i));
      const float2 y = Element<T>::Unpack(Element<T>::Pack(c[4 * i], c[4 * i + 1]));
      StorePair(to + 8 * i, __fadd_rn(x.x, y.x), __fadd_rn(x.y, y.y));
    }
  }
  template <class T>
  __device__ __forceinline__ void After(int rows, int n, int groups, uint32_t shared) const {
    NormAfterStores<T>(norm, residual, rows, n, inverse_width, groups * 128, groups, shared);
  }
};

struct GateUpEpilogue {
  void* y = nullptr;
  template <class T, int kTile>
  __device__ __forceinline__ void Store(int row, int n0, Own own, const float* c) const {
    T* const to = static_cast<T*>(y) + int64_t{row} * (own.n / 2);
#pragma unroll
    for (int i = 0; i < kTile / 16; ++i) {
      const int at = n0 + 16 * i;
      if (!own.Has(at)) continue;
      const float2 gate = Element<T>::Unpack(Element<T>::Pack(c[8 * i], c[8 * i + 1]));
      const float2 up = Element<T>::Unpack(Element<T>::Pack(c[8 * i + 4], c[8 * i + 5]));
      StorePair(to + at / 16 * 8 + at % 16, __fmul_rn(Silu(gate.x), up.x),
                __fmul_rn(Silu(gate.y), up.y));
    }
  }
};

struct QkvEpilogue {
  const float* bias = nullptr;
  KvTarget kv;
  void* q = nullptr;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;

  template <class T, int kTile>
  __device__ __forceinline__ void Store(int row, int n0, Own own, const float* c) const {
    const int position = kv.positions[row], slot = kv.kv_slots[row];
    const int block = slot / kBlockTokens, token = slot % kBlockTokens;
    const bool valid = !kRowFaults || (position >= 0 && position < kv.context && slot >= 0 &&
                                       block < kv.pool_blocks);
    if (!valid) {
      atomicOr(kv.faults + row, kFaultBlockRange);
      return;
    }
#pragma unroll
    for (int i = 0; i < kTile / 16; ++i) {
      const int at = n0 + 16 * i;
      if (!own.Has(at)) continue;
      float4 v = make_float4(c[8 * i], c[8 * i + 1], c[8 * i + 4], c[8 * i + 5]);
      if (bias != nullptr) {
        const float2 low = *reinterpret_cast<const float2*>(bias + at);
        const float2 high = *reinterpret_cast<const float2*>(bias + at + 8);
        v = make_float4(__fadd_rn(v.x, low.x), __fadd_rn(v.y, low.y), __fadd_rn(v.z, high.x),
                        __fadd_rn(v.w, high.y));
      }
      Place<T>(row, position, block, token, at, v);
    }
  }

  // Stores four results of one head: weight rows at, at + 1, at + 8 and at + 9.
  template <class T>
  __device__ __forceinline__ void Place(int row, int position, int block, int token, int at,
                                        float4 v) const {
    const int head = at / head_dim, in_head = at % head_dim;
    const int half = head_dim / 2;
    const float2 low = Element<T>::Unpack(Element<T>::Pack(v.x, v.y));
    const float2 high = Element<T>::Unpack(Element<T>::Pack(v.z, v.w));
    const bool value = head >= heads + kv_heads;
    const int kv_head = head - heads - (value ? kv_heads : 0);
    const int64_t in_block =
        ((int64_t{block} * kv_heads + kv_head) * kBlockTokens + token) * head_dim;
    if (value) {
      T* const to = static_cast<T*>(kv.values) + in_block + in_head;
      StorePair(to, low.x, low.y);
      StorePair(to + 8, high.x, high.y);
      return;
    }
    // In natural order the two halves are at `pair` and pair + half.
    const int pair = in_head / 16 * 8 + in_head % 16;
    const int64_t angle = int64_t{position} * half + pair;
    const float2 cos = *reinterpret_cast<const float2*>(kv.cos + angle);
    const float2 sin = *reinterpret_cast<const float2*>(kv.sin + angle);
    T* const to = head < heads
                      ? static_cast<T*>(q) + (int64_t{row} * heads + head) * head_dim + pair
                      : static_cast<T*>(kv.keys) + in_block + pair;
    StorePair(to, canon::RotateFirst(low.x, high.x, cos.x, sin.x),
              canon::RotateFirst(low.y, high.y, cos.y, sin.y));
    StorePair(to + half, canon::RotateSecond(low.x, high.x, cos.x, sin.x),
              canon::RotateSecond(low.y, high.y, cos.y, sin.y));
  }
};

}  // namespace fathom::kernels::cuda::medium
