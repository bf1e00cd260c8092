// kernels/paged_attention.h: y[r] = softmax(q k / sqrt(head_dim)) v over tokens 0...position of the
// row's sequence, read from the paged cache. Prefill and decode are this one op: a row attends to
// what is before it, also to rows of its own batch. Query head h uses kv head h / (heads /
// kv_heads). q, y: [rows][heads][head_dim], rows q_stride and y_stride floats apart. Segments of
// 512 tokens, sub-blocks of 64, rescaling above a threshold and the merge: docs/NUMERICS.md,
// "Attention". REQUIRES: the rows' keys and values are written; kv_heads divides heads; head_dim is
// even (the vectorized version wants a multiple of 32 and leaves others to the reference).
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
