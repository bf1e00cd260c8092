// kernels/cuda/attention/prefill_attention.h: attention of chunks of several rows of several
// sequences in one launch. The KV blocks already hold the chunks' own keys and values and those of
// all earlier tokens. The order and the bits are those of kernels/cuda/attention/decode_attention.h
// at every position. `PrefillAttention` runs the wgmma kernel (sm_90a, head_dim 128) if
// PrefillPickConfig says so, else the mma.sync kernel (sm_80 and later).
#pragma once

#include <cuda.h>

#include <cstdint>
#include <span>

#include "kernels/cuda/base/launch.h"

namespace fathom::kernels::cuda {

// One sequence's chunk: rows [row_begin, row_begin + rows) of q and out, with positions from
// position_begin on.
struct PrefillChunk {
  int32_t row_begin = 0;
  int32_t rows = 0;
  int32_t position_begin = 0;
  int32_t table_row = 0;  // The row of block_tables.
};

struct PrefillAttentionArgs {
  DType dtype = DType::kBf16;
  const void* q = nullptr;     // [total_rows][heads][head_dim]
  const void* keys = nullptr;  // [pool_blocks][kv_heads][64][head_dim]
  const void* values = nullptr;
  const int32_t* block_tables = nullptr;        // [.][table_stride]
  std::span<const PrefillChunk> chunks;         // On the host; it gives the amount of work.
  const PrefillChunk* device_chunks = nullptr;  // The same chunks on the device.
  int32_t* work_counter = nullptr;              // Two words, zero between launches.
  int32_t* faults = nullptr;  // [total_rows]: kFaultBlockRange for a block beyond the pool.
  void* out = nullptr;        // [total_rows][heads][head_dim]
  int total_rows = 0;         // Rows of q and of out; every chunk lies inside.
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;  // 64 or 128.
  int table_stride = 0;
  int pool_blocks = 0;
};
cudaError_t PrefillAttention(const LaunchContext& context, const PrefillAttentionArgs& args);
cudaError_t PrefillAttentionGeneric(const LaunchContext& context, const PrefillAttentionArgs& args);
cudaError_t PrefillAttentionWgmma(const LaunchContext& context, const PrefillAttentionArgs& args);

}  // namespace fathom::kernels::cuda
