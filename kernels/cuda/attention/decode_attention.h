// kernels/cuda/attention/decode_attention.h: attention of one row per sequence over its KV blocks,
// in the order of docs/NUMERICS.md ("Attention"). A thread block has one segment of 512 tokens, one
// kv head and its query heads; the last one of a (row, kv head) merges the segments in ascending
// order, so that it is one kernel and its bits do not depend on who came last. MHA and GQA; sm_80
// and later.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

struct DecodeAttentionArgs {
  DType dtype = DType::kBf16;
  const void* q = nullptr;     // [rows][heads][head_dim]
  const void* keys = nullptr;  // [pool_blocks][kv_heads][64][head_dim]
  const void* values = nullptr;
  const int32_t* block_tables = nullptr;   // [rows][table_stride]
  const int32_t* lengths = nullptr;        // [rows]: tokens to attend to, the row's own included;
                                           // 0: a padding row, its output is zero.
  const int32_t* segment_begin = nullptr;  // [rows]: the row's first segment in the partials, the
                                           // sum of those of the rows before it; a padding row has
                                           // none.
  float* partial_o = nullptr;              // [segments of all rows][heads][head_dim]
  float* partial_ml = nullptr;             // [segments of all rows][heads][2]
  int32_t* arrived = nullptr;              // [rows][kv_heads], zero between launches.
  int32_t* faults = nullptr;               // [rows]: kFaultBlockRange for a block beyond the pool.
  void* out = nullptr;                     // [rows][heads][head_dim]
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;  // 64 or 128.
  int table_stride = 0;
  int max_segments = 0;  // Of any row: ceil(length / 512).
  int pool_blocks = 0;
};
// Which heads: DecodeAttentionPickConfig (kernels/cuda/attention/decode_attention_config.h).
cudaError_t DecodeAttention(const LaunchContext& context, const DecodeAttentionArgs& args);

}  // namespace fathom::kernels::cuda
