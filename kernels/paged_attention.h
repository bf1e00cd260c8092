// kernels/paged_attention.h: y[r] = softmax(q k / sqrt(head_dim)) v over tokens 0...position of the
// row's sequence, whose keys and values are read from the paged KV cache. Prefill and decode are
// the same op: a row attends to all earlier tokens of its sequence, also to those that are rows of
// the same batch. Query head h uses kv head h / (heads / kv_heads). q, y: [rows][heads][head_dim],
// rows q_stride and y_stride floats apart. docs/NUMERICS.md, "Attention" defines the segments of
// 512 tokens, the sub-blocks of 64, the rescaling above a threshold and the merge.
// REQUIRES: the keys and values of all rows are written before the call; kv_heads divides heads;
// head_dim is even. The vectorized version needs a multiple of 32 and calls the reference for any
// other head_dim.
#pragma once

#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/rope_kv_write.h"

namespace fathom::kernels {

struct PagedAttentionArgs {
  const float* q = nullptr;
  int64_t q_stride = 0;
  int32_t heads = 0;
  KvPlanes planes;
  const SequenceRow* rows = nullptr;
  int64_t row_count = 0;
  float* y = nullptr;
  int64_t y_stride = 0;
};

void PagedAttentionRef(const PagedAttentionArgs& args);
void PagedAttentionCpu(const PagedAttentionArgs& args, ThreadPool& pool);

}  // namespace fathom::kernels
