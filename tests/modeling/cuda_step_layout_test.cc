#include "modeling/layout/cuda_step_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace fathom {
namespace {

TEST(CudaStepLayout, ArraysLieApartAndAligned) {
  std::mt19937 random(1);
  const auto draw = [&](int32_t most) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(most + 1));
  };
  for (int turn = 0; turn < 2000; ++turn) {
    CudaStepShape shape;
    shape.decode_rows = draw(300);
    shape.chunks = draw(20);
    shape.rows = shape.decode_rows + 2 * shape.chunks + draw(500);
    shape.samples = draw(shape.rows);
    shape.table_stride = 8 * draw(40);
    const CudaStepLayout at = LayoutOf(shape);
    const std::vector<std::pair<int64_t, int64_t>> arrays = {
        {at.tokens, 4 * shape.rows},
        {at.positions, 4 * shape.rows},
        {at.kv_slots, 4 * shape.rows},
        {at.faults, 4 * shape.rows},
        {at.lengths, 4 * shape.decode_rows},
        {at.segment_begin, 4 * shape.decode_rows},
        {at.tables, 4LL * shape.table_rows() * shape.table_stride},
        {at.chunks, kPrefillChunkBytes * shape.chunks},
        {at.gather, 4 * shape.samples},
        {at.sample_rows, kSampleRowBytes * shape.samples}};
    int64_t end = 0;
    for (const auto& [begin, bytes] : arrays) {
      EXPECT_EQ(begin % 16, 0);
      EXPECT_GE(begin, end);
      end = begin + bytes;
    }
    EXPECT_GE(at.bytes, end);
    EXPECT_LT(at.bytes, end + 16);
    EXPECT_EQ(LayoutOf(shape).bytes, at.bytes);
  }
}

TEST(CudaStepLayout, TheMostBytesAreEnoughForAnyStep) {
  std::mt19937 random(2);
  const auto draw = [&](int32_t least, int32_t most) {
    return least + static_cast<int32_t>(random() % static_cast<uint32_t>(most - least + 1));
  };
  for (int turn = 0; turn < 2000; ++turn) {
    EngineLimits limits;
    limits.slots = draw(1, 300);
    limits.step_tokens = draw(limits.slots, 4096);
    limits.context_tokens = draw(2, 20000);
    limits.draft_max = turn % 2 == 0 ? 0 : draw(1, 16);
    CudaStepShape shape;
    shape.chunks = std::min(draw(0, limits.slots), limits.step_tokens / 2);
    // Each slot without a chunk has a row, and rows of drafts as far as the step has room.
    const int32_t decodes = std::min(draw(0, limits.slots - shape.chunks) * (1 + limits.draft_max),
                                     limits.step_tokens - 2 * shape.chunks);
    const bool graph = shape.chunks == 0 && decodes > 0;
    shape.decode_rows = graph ? RowBucket(decodes, DecodeRowsMax(limits)) : decodes;
    shape.rows = graph ? shape.decode_rows : limits.step_tokens;
    shape.samples = shape.rows;
    const int32_t blocks = (limits.context_tokens + kCudaBlockTokens - 1) / kCudaBlockTokens;
    shape.table_stride =
        SegmentBucket((blocks + kBlocksPerSegment - 1) / kBlocksPerSegment) * kBlocksPerSegment;
    EXPECT_LE(LayoutOf(shape).bytes, CudaStepBytesMax(limits));
  }
}

TEST(CudaStepLayout, BucketsPadByAnEighthAtMost) {
  int32_t before = 0;
  for (int32_t rows = 1; rows <= 1024; ++rows) {
    const int32_t bucket = RowBucket(rows, 1024);
    EXPECT_GE(bucket, rows);
    EXPECT_LE((bucket - rows) * 8, rows);
    EXPECT_GE(bucket, before);
    EXPECT_EQ(RowBucket(bucket, 1024), bucket);
    EXPECT_EQ(RowBucket(rows, rows), rows);
    before = bucket;
  }
  for (int32_t segments = 1; segments <= 300; ++segments) {
    const int32_t bucket = SegmentBucket(segments);
    EXPECT_GE(bucket, segments);
    EXPECT_LT(bucket, 2 * segments);
    EXPECT_EQ(bucket & (bucket - 1), 0);
  }
}

}  // namespace
}  // namespace fathom
