#include "worker/cuda/step_builder.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <variant>

#include "common/check.h"
#include "common/request_limits.h"

namespace fathom::worker {

static_assert(kernels::cuda::kLogprobsMax >= kTopLogprobsMax);

using kernels::cuda::PrefillChunk;
using kernels::cuda::SampleOut;
using kernels::cuda::SampleRow;
static_assert(sizeof(PrefillChunk) == kPrefillChunkBytes);
static_assert(sizeof(SampleRow) == kSampleRowBytes);
static_assert(sizeof(kernels::cuda::SamplerSlot) == kSamplerSlotBytes);
static_assert(sizeof(kernels::ThinkingSlot) == kThinkingSlotBytes);
static_assert(sizeof(SampleOut) == kSampleOutBytes);

namespace {

template <class T>
T* At(std::byte* input, int64_t offset) {
  return reinterpret_cast<T*>(input + offset);
}

int32_t SegmentsOf(int32_t tokens) { return (tokens + kSegmentTokens - 1) / kSegmentTokens; }
int32_t BlocksOf(int32_t tokens) { return (tokens + kCudaBlockTokens - 1) / kCudaBlockTokens; }

}  // namespace

StepBuilder::StepBuilder(const EngineLimits& limits, int32_t logits_rows, int32_t partial_segments,
                         bool graphs)
    : limits_(limits),
      logits_rows_(logits_rows),
      partial_segments_(partial_segments),
      graphs_(graphs) {
  FATHOM_CHECK(limits.block_tokens == kCudaBlockTokens);
}

void StepBuilder::Build(const StepBatch& batch, std::byte* input, BuiltStep* step) const {
  Measure(batch, step);
  FillRows(batch, input, step);
  FillSamples(batch, input, *step);
  FillPadding(input, *step);
}

// Computes the shape of the step before anything is written.
void StepBuilder::Measure(const StepBatch& batch, BuiltStep* step) const {
  CudaStepShape shape{.rows = batch.rows, .samples = batch.outputs};
  int32_t segments_sum = 0, blocks_max = 1;
  bool scores = false;
  for (const ChunkWork* work : batch.chunks) {
    const ChunkWork& chunk = *work;
    scores |= chunk.scores > 0;
    blocks_max = std::max(blocks_max, BlocksOf(chunk.end()));
    if (!chunk.decodes()) {
      ++shape.chunks;
      continue;
    }
    shape.decode_rows += chunk.count;
    shape.segments = std::max(shape.segments, SegmentsOf(chunk.end()));
    for (int32_t at = chunk.start; at < chunk.end(); ++at) segments_sum += SegmentsOf(at + 1);
  }
  FATHOM_CHECK(segments_sum <= partial_segments_, "{} segments of {}", segments_sum,
               partial_segments_);
  step->live_rows = shape.rows;
  step->segments_sum = segments_sum;
  step->graphable = graphs_ && shape.chunks == 0 && !scores && shape.rows > 0;
  shape.table_stride = (blocks_max + 7) / 8 * 8;
  if (step->graphable) {
    shape.rows = shape.decode_rows = shape.samples = RowBucket(shape.rows, DecodeRowsMax(limits_));
    shape.segments = SegmentBucket(shape.segments);
    shape.table_stride = shape.segments * kBlocksPerSegment;
  }
  step->shape = shape;
  step->layout = LayoutOf(shape);
}

void StepBuilder::FillRows(const StepBatch& batch, std::byte* input, BuiltStep* step) const {
  const CudaStepLayout& at = step->layout;
  auto* tokens = At<int32_t>(input, at.tokens);
  auto* positions = At<int32_t>(input, at.positions);
  auto* kv_slots = At<int32_t>(input, at.kv_slots);
  step->chunks.clear();
  int32_t table = 0, segments = 0;
  const auto add_table = [&](const Slot& slot, int32_t tokens_end) {
    std::memcpy(At<int32_t>(input, at.tables) + int64_t{table} * step->shape.table_stride,
                slot.blocks.data(), static_cast<size_t>(BlocksOf(tokens_end)) * sizeof(int32_t));
    return table++;
  };
  for (const ChunkWork* work : batch.chunks) {
    const ChunkWork& chunk = *work;
    const Slot& slot = *chunk.slot;
    if (!chunk.decodes()) {
      step->chunks.push_back(
          {chunk.first_row, chunk.count, chunk.start, add_table(slot, chunk.end())});
    }
    for (int32_t i = 0; i < chunk.count; ++i) {
      const int32_t row = chunk.first_row + i, position = chunk.start + i;
      const auto block = static_cast<size_t>(position / kCudaBlockTokens);
      tokens[row] = chunk.fed && i == 0 ? -1 - chunk.id.value : chunk.TokenAt(position);
      positions[row] = position;
      kv_slots[row] = slot.blocks[block].value * kCudaBlockTokens + position % kCudaBlockTokens;
      if (!chunk.decodes()) continue;
      // Each draft is a row of its own, whose attention ends at its position.
      At<int32_t>(input, at.lengths)[table] = position + 1;
      At<int32_t>(input, at.segment_begin)[table] = segments;
      segments += SegmentsOf(position + 1);
      add_table(slot, position + 1);
    }
  }
  std::memset(input + at.faults, 0, static_cast<size_t>(step->shape.rows) * sizeof(int32_t));
  if (!step->chunks.empty()) {
    std::memcpy(input + at.chunks, step->chunks.data(), step->chunks.size() * kPrefillChunkBytes);
  }
}

void StepBuilder::FillSamples(const StepBatch& batch, std::byte* input,
                              const BuiltStep& step) const {
  auto* gather = At<int32_t>(input, step.layout.gather);
  auto* samples = At<SampleRow>(input, step.layout.sample_rows);
  int32_t next = 0, masks = 0;
  for (const ChunkWork* work : batch.chunks) {
    const ChunkWork& chunk = *work;
    const OutputParams& asked = chunk.slot->request.output;
    for (int32_t i = 0; i < chunk.scores; ++i, ++next) {
      const TokenId scored = chunk.slot->ids[static_cast<size_t>(chunk.start + i) + 1];
      gather[next] = chunk.first_row + i;
      samples[next] = {next % logits_rows_,   gather[next], chunk.id.value, 0, scored,
                       *asked.prompt_logprobs};
    }
    // In a graph every row has its own logits, also if it samples nothing.
    if (!chunk.sample && !step.graphable) continue;
    const bool masked = batch.masks != nullptr && chunk.guided && chunk.sample;
    const int32_t mask = masked ? masks++ : -1;
    const auto drafts = static_cast<int32_t>(chunk.drafts.size());
    for (int32_t i = 0; i <= drafts; ++i, ++next) {
      gather[next] = chunk.first_row + chunk.count - 1 - drafts + i;
      samples[next] = {chunk.sample ? next % logits_rows_ : -1,
                       gather[next],
                       chunk.id.value,
                       chunk.position + i,
                       i == 0 ? -1 : kernels::cuda::kTargetDrafted,
                       chunk.sample ? asked.logprobs.value_or(-1) : -1,
                       mask};
    }
  }
}

// Padding rows write to block 0, which no sequence has, attend to nothing and sample nothing.
void StepBuilder::FillPadding(std::byte* input, const BuiltStep& step) const {
  const CudaStepLayout& at = step.layout;
  for (int32_t row = step.live_rows; row < step.shape.rows; ++row) {
    At<int32_t>(input, at.tokens)[row] = 0;
    At<int32_t>(input, at.positions)[row] = 0;
    At<int32_t>(input, at.kv_slots)[row] = 0;
    At<int32_t>(input, at.lengths)[row] = 0;
    At<int32_t>(input, at.segment_begin)[row] = step.segments_sum;
    At<int32_t>(input, at.gather)[row] = row;
    At<SampleRow>(input, at.sample_rows)[row] = {.logits_row = -1};
  }
}

}  // namespace fathom::worker
