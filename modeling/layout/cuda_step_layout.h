// modeling/layout/cuda_step_layout.h: where a step's inputs lie in the one block of bytes that goes
// to the device in one copy. Equal shapes have equal layouts, so that a captured graph finds its
// inputs where they were. Pure; no CUDA needed.
#pragma once

#include <compare>
#include <cstdint>

#include "common/engine_limits.h"

namespace fathom::worker {

// Rows of a step: one-token rows of sequences first (decode), then the prompt chunks' rows.
struct CudaStepShape {
  int32_t rows = 0;
  int32_t decode_rows = 0;
  int32_t chunks = 0;        // Prompt chunks of two rows or more.
  int32_t samples = 0;       // Rows with logits.
  int32_t table_stride = 0;  // Blocks of a row of the block tables.
  int32_t segments = 0;      // Most segments of 512 tokens of a decode row.
  int32_t table_rows() const { return decode_rows + chunks; }
  auto operator<=>(const CudaStepShape&) const = default;
};

// Bytes of the records that kernels read (kernels/cuda/{prefill_attention,sampler}.h).
inline constexpr int64_t kPrefillChunkBytes = 16;
inline constexpr int64_t kSampleRowBytes = 24;
inline constexpr int64_t kSamplerSlotBytes = 64;
inline constexpr int64_t kSampleOutBytes = 12 + 8 * 20;

// Offsets in bytes; every array starts at a multiple of 16.
struct CudaStepLayout {
  int64_t tokens = 0;         // int32 [rows]
  int64_t positions = 0;      // int32 [rows]
  int64_t kv_slots = 0;       // int32 [rows]
  int64_t faults = 0;         // int32 [rows], zeros
  int64_t lengths = 0;        // int32 [decode_rows]
  int64_t segment_begin = 0;  // int32 [decode_rows]
  int64_t tables = 0;         // int32 [table_rows][table_stride]
  int64_t chunks = 0;         // PrefillChunk [chunks]
  int64_t gather = 0;         // int32 [samples]
  int64_t sample_rows = 0;    // SampleRow [samples]
  int64_t bytes = 0;
};
CudaStepLayout LayoutOf(const CudaStepShape& shape);

// Of any step within the limits, padding to a bucket included.
int64_t CudaStepBytesMax(const EngineLimits& limits);

// Decode steps are padded to one of few numbers of rows, so that few graphs serve all: at most an
// eighth more rows. Never above `slots`. REQUIRES: 0 < rows <= slots.
int32_t RowBucket(int32_t rows, int32_t slots);
// The power of two at or above. REQUIRES: segments > 0.
int32_t SegmentBucket(int32_t segments);

inline constexpr int32_t kSegmentTokens = 512;
inline constexpr int32_t kCudaBlockTokens = 64;
inline constexpr int32_t kBlocksPerSegment = kSegmentTokens / kCudaBlockTokens;

}  // namespace fathom::worker
