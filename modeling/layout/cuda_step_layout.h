// modeling/layout/cuda_step_layout.h: the layout of a step's inputs in the one block of bytes that
// is copied to the device. Equal shapes have equal layouts, so a captured graph finds its inputs at
// the same addresses. Pure; no CUDA needed.
#pragma once

#include <compare>
#include <cstdint>

#include "common/engine_limits.h"

namespace fathom {

// The rows of a step: decode rows first (one for each sequence, and one for each draft), then the
// rows of prefill chunks.
struct CudaStepShape {
  int32_t rows = 0;
  int32_t decode_rows = 0;
  int32_t chunks = 0;        // Prefill chunks of two or more rows.
  int32_t samples = 0;       // Rows with logits.
  int32_t table_stride = 0;  // Blocks in a row of the block tables.
  int32_t segments = 0;      // The most segments of 512 tokens of a decode row.
  int32_t table_rows() const { return decode_rows + chunks; }
  auto operator<=>(const CudaStepShape&) const = default;
};

// Bytes of the structs that kernels read (PrefillChunk, SampleRow, SamplerSlot, SampleOut,
// SlotSample in kernels/cuda).
inline constexpr int64_t kPrefillChunkBytes = 16;
inline constexpr int64_t kSampleRowBytes = 28;
inline constexpr int64_t kSamplerSlotBytes = 64;
inline constexpr int64_t kThinkingSlotBytes = 16;
inline constexpr int64_t kSampleOutBytes = 12 + 8 * 20;
inline constexpr int64_t kSlotSampleBytes = 12;

// Offsets are in bytes. Every array starts at a multiple of 16.
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

// The bytes of the largest step within the limits, including the padding to a bucket.
int64_t CudaStepBytesMax(const EngineLimits& limits);

// The most decode rows of a step: one for each slot and each of its drafts.
int32_t DecodeRowsMax(const EngineLimits& limits);

// Decode steps are padded to one of few numbers of rows, so that few graphs serve all of them. The
// padding adds at most an eighth of the rows and never exceeds `rows_max`. REQUIRES: 0 < rows <=
// rows_max.
int32_t RowBucket(int32_t rows, int32_t rows_max);
// The smallest power of two >= segments. REQUIRES: segments > 0.
int32_t SegmentBucket(int32_t segments);

inline constexpr int32_t kSegmentTokens = 512;
inline constexpr int32_t kCudaBlockTokens = 64;
inline constexpr int32_t kBlocksPerSegment = kSegmentTokens / kCudaBlockTokens;

}  // namespace fathom
