// kernels/cuda/attention/decode_attention.h: attention of one row per sequence over its KV blocks,
// in the order of docs/NUMERICS.md, "Attention". A thread block computes one segment of 512 tokens
// for one kv head and its query heads. The thread block that finishes last for a (row, kv head)
// merges the segments in ascending order. So one kernel does all the work, and its bits do not
// depend on which thread block was last. MHA and GQA; sm_80 and later.
#pragma once

#include <cstdint>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

struct DecodeAttentionArgs {
  DType dtype = DType::kBf16;
  const void* q = nullptr;     // [rows][heads][head_dim]
  const void* keys = nullptr;  // [pool_blocks][kv_heads][64][head_dim]
  const void* values = nullptr;
  const int32_t* block_tables = nullptr;  // [rows][table_stride]
  // [rows]: the number of tokens to attend to, including the row's own. 0 marks a padding row,
  // whose output is zero.
  const int32_t* lengths = nullptr;
  // [rows]: the index of the row's first segment in the partials: the number of segments of all
  // rows before it. A padding row has no segments.
  const int32_t* segment_begin = nullptr;
  float* partial_o = nullptr;   // [segments of all rows][heads][head_dim]
  float* partial_ml = nullptr;  // [segments of all rows][heads][2]
  int32_t* arrived = nullptr;   // [rows][kv_heads], zero between launches.
  int32_t* faults = nullptr;    // [rows]: kFaultBlockRange for a block beyond the pool.
  void* out = nullptr;          // [rows][heads][head_dim]
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;  // 64 or 128.
  int table_stride = 0;
  int max_segments = 0;  // The largest number of segments of a row: ceil(length / 512).
  int pool_blocks = 0;
  // The most tokens at the end of a row whose keys and values this step writes: its own, and those
  // of the rows of its sequence before it (drafts). What is before them may be read while the
  // previous kernel still runs.
  int new_tokens = 1;
};
// DecodeAttentionPickConfig (kernels/cuda/attention/decode_attention_config.h) says which heads are
// supported.
cudaError_t DecodeAttention(const LaunchContext& context, const DecodeAttentionArgs& args);

}  // namespace fathom::kernels::cuda
