// kernels/cuda/rows/rope_kv_write.h: the operations after the unfused qkv GEMM: the norm of each q
// and k head if the model has one, the rotary embedding, and the write of keys and values into
// their KV blocks.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

// Used by this op and by the fused GEMM (kernels/cuda/linear/skinny.h).
struct KvTarget {
  void* keys = nullptr;  // The layer's plane: [block][kv_head][64][head_dim].
  void* values = nullptr;
  const int32_t* kv_slots = nullptr;   // [rows]: the KV index, block * 64 + token. Padding rows: 0.
  const int32_t* positions = nullptr;  // [rows]
  const float* cos = nullptr;          // [context][head_dim / 2], computed in double.
  const float* sin = nullptr;
  int32_t* faults = nullptr;  // [rows]: kFaultBlockRange; then nothing is written.
  int pool_blocks = 0;
  int context = 0;  // Positions must be below it; a row with another position faults.
};

struct RopeKvWriteArgs {
  DType dtype = DType::kBf16;
  const void* qkv = nullptr;  // [rows][(heads + 2 kv_heads) head_dim]; q and k heads are paired.
  const float* q_norm = nullptr;  // [head_dim] in natural order; null: the model has none.
  const float* k_norm = nullptr;
  float eps = 0;
  KvTarget kv;
  void* q = nullptr;  // [rows][heads][head_dim], natural order, rotated.
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;  // 64 or 128.
};
cudaError_t RopeKvWrite(const LaunchContext& context, const RopeKvWriteArgs& args);

}  // namespace fathom::kernels::cuda
