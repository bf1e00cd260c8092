// kernels/cuda/linear/skinny_epilogue.cuh: the operations after a GEMM of
// kernels/cuda/linear/skinny.h, in registers. A thread has weight rows `at` and at + 8 of a tile of
// 16, for some rows of x; if the op has pairs, these two rows are the halves of a pair
// (kernels/cuda/linear/paired_rows.h). LoadTile and LoadRow load what Store needs before the GEMM
// begins. Weight rows at or beyond n do not exist. If an epilogue has After(), all threads except
// those of the loading warp call it when they have stored everything.
#pragma once

#include "kernels/cuda/base/canon.cuh"
#include "kernels/cuda/linear/norm_after.cuh"
#include "kernels/cuda/rows/rope_kv_write.h"

namespace fathom::kernels::cuda::skinny {

template <class T>
struct HeadEpilogue {
  using Type = T;
  struct Tile {};
  struct Row {};
  float* logits = nullptr;
  int n = 0;

  __device__ __forceinline__ Tile LoadTile(int) const { return {}; }
  __device__ __forceinline__ Row LoadRow(int, int) const { return {}; }
  __device__ __forceinline__ void Store(const Tile&, const Row&, int row, int at, float low,
                                        float high) const {
    float* const to = logits + int64_t{row} * n + at;
    to[0] = low;
    if (at + 8 < n) to[8] = high;
  }
};

template <class T>
struct ResidualEpilogue {
  using Type = T;
  struct Tile {};
  struct Row {
    T low, high;
  };
  T* residual = nullptr;
  int n = 0;
  NormAfter norm;
  float inverse_width = 0;

  __device__ __forceinline__ Tile LoadTile(int) const { return {}; }
  __device__ __forceinline__ Row LoadRow(int row, int at) const {
    const T* const from = residual + int64_t{row} * n + at;
    Row loaded;
    loaded.low = from[0];
    loaded.high = at + 8 < n ? from[8] : from[0];
    return loaded;
  }
  __device__ __forceinline__ void Store(const Tile&, const Row& x, int row, int at, float low,
                                        float high) const {
    T* const to = residual + int64_t{row} * n + at;
    to[0] = Sum(x.low, low);
    if (at + 8 < n) to[8] = Sum(x.high, high);
  }
  __device__ __forceinline__ void After(int rows, int threads, uint32_t shared) const {
    NormAfterStores<T>(norm, residual, rows, n, inverse_width, threads, 1, shared);
  }
  static __device__ __forceinline__ T Sum(T x, float y) {
    using E = Element<T>;
    return E::Round(__fadd_rn(E::Widen(x), E::Widen(E::Round(y))));
  }
};

template <class T>
struct PartialEpilogue {
  using Type = T;
  struct Tile {};
  struct Row {};
  T* y = nullptr;
  int n = 0;

  __device__ __forceinline__ Tile LoadTile(int) const { return {}; }
  __device__ __forceinline__ Row LoadRow(int, int) const { return {}; }
  __device__ __forceinline__ void Store(const Tile&, const Row&, int row, int at, float low,
                                        float high) const {
    T* const to = y + int64_t{row} * n + at;
    to[0] = Element<T>::Round(low);
    if (at + 8 < n) to[8] = Element<T>::Round(high);
  }
};

template <class T>
struct GateUpEpilogue {
  using Type = T;
  struct Tile {};
  struct Row {};
  T* y = nullptr;
  int n = 0;  // Rows of gate and up together.

  __device__ __forceinline__ Tile LoadTile(int) const { return {}; }
  __device__ __forceinline__ Row LoadRow(int, int) const { return {}; }
  __device__ __forceinline__ void Store(const Tile&, const Row&, int row, int at, float low,
                                        float high) const {
    using E = Element<T>;
    const float gate = E::Widen(E::Round(low)), up = E::Widen(E::Round(high));
    y[int64_t{row} * (n / 2) + at / 16 * 8 + at % 16] = E::Round(__fmul_rn(Silu(gate), up));
  }
};

template <class T>
struct QkvEpilogue {
  using Type = T;
  struct Tile {
    float bias_low, bias_high;
  };
  struct Row {
    int slot;  // -1: the row has a fault.
    float cos, sin;
  };
  const float* bias = nullptr;
  KvTarget kv;
  T* q = nullptr;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int n = 0;

  __device__ __forceinline__ Tile LoadTile(int at) const {
    if (bias == nullptr) return {0.0f, 0.0f};
    return {__ldg(bias + at), __ldg(bias + at + 8)};
  }
  // The index of the pair's first half in natural order.
  __device__ __forceinline__ int PairOf(int in_head) const {
    return in_head / 16 * 8 + in_head % 16;
  }
  __device__ __forceinline__ Row LoadRow(int row, int at) const {
    const int position = kv.positions[row], slot = kv.kv_slots[row];
    if (kRowFaults && (position < 0 || position >= kv.context || slot < 0 ||
                       slot / kBlockTokens >= kv.pool_blocks)) {
      return {-1, 0.0f, 0.0f};
    }
    if (at >= (heads + kv_heads) * head_dim) return {slot, 0.0f, 0.0f};
    const int64_t angle = int64_t{position} * (head_dim / 2) + PairOf(at % head_dim);
    return {slot, __ldg(kv.cos + angle), __ldg(kv.sin + angle)};
  }
  __device__ __forceinline__ void Store(const Tile& tile, const Row& r, int row, int at, float low,
                                        float high) const {
    using E = Element<T>;
    if (kRowFaults && r.slot < 0) {
      atomicOr(kv.faults + row, kFaultBlockRange);
      return;
    }
    if (bias != nullptr) {
      low = __fadd_rn(low, tile.bias_low);
      high = __fadd_rn(high, tile.bias_high);
    }
    const T first = E::Round(low), second = E::Round(high);
    const int head = at / head_dim, in_head = at % head_dim;
    const bool value = head >= heads + kv_heads;
    const int kv_head = head - heads - (value ? kv_heads : 0);
    const int64_t block_head = int64_t{r.slot / kBlockTokens} * kv_heads + kv_head;
    const int64_t in_block = (block_head * kBlockTokens + r.slot % kBlockTokens) * head_dim;
    if (value) {
      T* const to = static_cast<T*>(kv.values) + in_block + in_head;
      to[0] = first;
      to[8] = second;
      return;
    }
    T* const to = (head < heads ? q + (int64_t{row} * heads + head) * head_dim
                                : static_cast<T*>(kv.keys) + in_block) +
                  PairOf(in_head);
    const float a = E::Widen(first), b = E::Widen(second);
    to[0] = E::Round(canon::RotateFirst(a, b, r.cos, r.sin));
    to[head_dim / 2] = E::Round(canon::RotateSecond(a, b, r.cos, r.sin));
  }
};

}  // namespace fathom::kernels::cuda::skinny
