#include "modeling/layout/cuda_step_layout.h"

#include <algorithm>

#include "common/check.h"

namespace fathom {
namespace {

constexpr int64_t kAlignment = 16;

int64_t Take(int64_t* offset, int64_t bytes) {
  const int64_t at = *offset;
  *offset += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  return at;
}

}  // namespace

CudaStepLayout LayoutOf(const CudaStepShape& shape) {
  CudaStepLayout layout;
  int64_t offset = 0;
  const int64_t word = sizeof(int32_t);
  layout.tokens = Take(&offset, shape.rows * word);
  layout.positions = Take(&offset, shape.rows * word);
  layout.kv_slots = Take(&offset, shape.rows * word);
  layout.faults = Take(&offset, shape.rows * word);
  layout.lengths = Take(&offset, shape.decode_rows * word);
  layout.segment_begin = Take(&offset, shape.decode_rows * word);
  layout.tables = Take(&offset, int64_t{shape.table_rows()} * shape.table_stride * word);
  layout.chunks = Take(&offset, shape.chunks * kPrefillChunkBytes);
  layout.gather = Take(&offset, shape.samples * word);
  layout.sample_rows = Take(&offset, shape.samples * kSampleRowBytes);
  layout.bytes = offset;
  return layout;
}

int32_t DecodeRowsMax(const EngineLimits& limits) {
  return static_cast<int32_t>(
      std::min(int64_t{limits.slots} * (1 + limits.draft_max), int64_t{limits.step_tokens}));
}

int64_t CudaStepBytesMax(const EngineLimits& limits) {
  CudaStepShape shape;
  shape.rows = limits.step_tokens;
  shape.samples = limits.step_tokens;
  shape.decode_rows = DecodeRowsMax(limits);
  // An upper bound: a slot has decode rows or a chunk.
  shape.chunks = std::min(limits.slots, limits.step_tokens);
  const int32_t blocks = (limits.context_tokens + kCudaBlockTokens - 1) / kCudaBlockTokens;
  const int32_t segments = (blocks + kBlocksPerSegment - 1) / kBlocksPerSegment;
  shape.table_stride = SegmentBucket(segments) * kBlocksPerSegment;
  // With long contexts the block tables take most of the bytes, and a chunk has one row of them,
  // as a decode row has.
  const int64_t tables = int64_t{shape.chunks} * shape.table_stride * sizeof(int32_t);
  return LayoutOf(shape).bytes - tables;
}

int32_t RowBucket(int32_t rows, int32_t rows_max) {
  FATHOM_CHECK(rows > 0 && rows <= rows_max, "{} rows of {}", rows, rows_max);
  int32_t step = 1;
  while (step * 16 <= rows) step *= 2;  // 16 to 31 rows: by 2; 32 to 63: by 4; ...
  return std::min((rows + step - 1) / step * step, rows_max);
}

int32_t SegmentBucket(int32_t segments) {
  int32_t bucket = 1;
  while (bucket < segments) bucket *= 2;
  return bucket;
}

}  // namespace fathom
