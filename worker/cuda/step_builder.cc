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

absl::Status StepBuilder::Build(const StepPlan& plan, Slots* slots, std::byte* input,
                                BuiltStep* step) {
  FATHOM_RETURN_IF_ERROR(BeginChunks(plan, slots, step));
  std::stable_partition(works_.begin(), works_.end(),
                        [](const Work& work) { return work.chunk.count == 1; });
  FATHOM_RETURN_IF_ERROR(Measure(plan, step));
  FillRows(input, step);
  FillSamples(input, step);
  FillPadding(input, *step);
  for (const Work& work : works_) {
    if (work.chunk.sample) Slots::Sampled(plan.step, 0, work.chunk.slot);
  }
  return absl::OkStatus();
}

absl::Status StepBuilder::BeginChunks(const StepPlan& plan, Slots* slots, BuiltStep* step) {
  works_.clear();
  step->rows.clear();
  for (const Chunk& chunk : plan.chunks) {
    FATHOM_ASSIGN_OR_RETURN(const ChunkWork work, slots->Begin(plan.step, chunk));
    PlannedRow& planned = step->rows.emplace_back();
    planned.slot = chunk.slot.value;
    planned.row.row = static_cast<int32_t>(step->rows.size()) - 1;
    planned.row.sequence = work.slot->sequence;
    planned.row.position = work.slot->position();
    planned.row.fault = work.fault;
    if (work.fault != RowFault::kNone) {
      if (work.sample) Slots::Failed(plan.step, work.fault, work.slot);
      continue;
    }
    works_.push_back({work, planned.row.row, 0, std::holds_alternative<DecodeRow>(chunk.work)});
  }
  return absl::OkStatus();
}

// The step's shape, before anything is written.
absl::Status StepBuilder::Measure(const StepPlan& plan, BuiltStep* step) const {
  CudaStepShape shape;
  int32_t segments_sum = 0, blocks_max = 1;
  bool scores = false;
  for (const Work& work : works_) {
    shape.rows += work.chunk.count;
    shape.samples += work.samples();
    scores |= work.scores() > 0;
    blocks_max = std::max(blocks_max, BlocksOf(work.chunk.end()));
    if (work.chunk.count > 1) {
      ++shape.chunks;
      continue;
    }
    ++shape.decode_rows;
    shape.segments = std::max(shape.segments, SegmentsOf(work.chunk.end()));
    segments_sum += SegmentsOf(work.chunk.end());
  }
  if (shape.rows > limits_.step_tokens) {
    return Invalid("step {} has {} rows; this group computes at most {} in a step", plan.step.value,
                   shape.rows, limits_.step_tokens);
  }
  FATHOM_CHECK(segments_sum <= partial_segments_, "{} segments of {}", segments_sum,
               partial_segments_);
  step->live_rows = shape.rows;
  step->graphable = graphs_ && shape.chunks == 0 && !scores && shape.rows > 0;
  shape.table_stride = (blocks_max + 7) / 8 * 8;
  if (step->graphable) {
    shape.rows = shape.decode_rows = shape.samples =
        RowBucket(shape.rows, std::min(limits_.slots, limits_.step_tokens));
    shape.segments = SegmentBucket(shape.segments);
    shape.table_stride = shape.segments * kBlocksPerSegment;
  }
  step->shape = shape;
  step->layout = LayoutOf(shape);
  return absl::OkStatus();
}

void StepBuilder::FillRows(std::byte* input, BuiltStep* step) {
  const CudaStepLayout& at = step->layout;
  auto* tokens = At<int32_t>(input, at.tokens);
  auto* positions = At<int32_t>(input, at.positions);
  auto* kv_slots = At<int32_t>(input, at.kv_slots);
  step->chunks.clear();
  int32_t row = 0, sequence = 0, segments = 0;
  for (Work& work : works_) {
    const Slot& slot = *work.chunk.slot;
    work.first_row = row;
    step->rows[static_cast<size_t>(work.planned)].first_row = row;
    step->rows[static_cast<size_t>(work.planned)].row_count = work.chunk.count;
    const int32_t blocks = BlocksOf(work.chunk.end());
    std::memcpy(At<int32_t>(input, at.tables) + int64_t{sequence} * step->shape.table_stride,
                slot.blocks.data(), static_cast<size_t>(blocks) * sizeof(int32_t));
    if (work.chunk.count == 1) {
      At<int32_t>(input, at.lengths)[sequence] = work.chunk.end();
      At<int32_t>(input, at.segment_begin)[sequence] = segments;
      segments += SegmentsOf(work.chunk.end());
    } else {
      step->chunks.push_back({row, work.chunk.count, work.chunk.start, sequence});
    }
    for (int32_t position = work.chunk.start; position < work.chunk.end(); ++position, ++row) {
      const auto block = static_cast<size_t>(position / kCudaBlockTokens);
      tokens[row] = work.fed ? -1 - step->rows[static_cast<size_t>(work.planned)].slot
                             : slot.ids[static_cast<size_t>(position)];
      positions[row] = position;
      kv_slots[row] = slot.blocks[block].value * kCudaBlockTokens + position % kCudaBlockTokens;
    }
    ++sequence;
  }
  step->segments_sum = segments;
  std::memset(input + at.faults, 0, static_cast<size_t>(step->shape.rows) * sizeof(int32_t));
  if (!step->chunks.empty()) {
    std::memcpy(input + at.chunks, step->chunks.data(), step->chunks.size() * kPrefillChunkBytes);
  }
}

void StepBuilder::FillSamples(std::byte* input, BuiltStep* step) const {
  auto* gather = At<int32_t>(input, step->layout.gather);
  auto* samples = At<SampleRow>(input, step->layout.sample_rows);
  int32_t next = 0;
  for (const Work& work : works_) {
    PlannedRow& planned = step->rows[static_cast<size_t>(work.planned)];
    const OutputParams& output = work.chunk.slot->request.output;
    planned.score_begin = next;
    planned.score_count = work.scores();
    planned.score_start = work.chunk.prompt_logprobs_first();
    planned.score_top = output.prompt_logprobs.value_or(0);
    for (int32_t i = 0; i < planned.score_count; ++i, ++next) {
      const int32_t scored = planned.score_start + i;
      const int32_t row = work.first_row + scored - 1 - work.chunk.start;
      gather[next] = row;
      samples[next] = {next % logits_rows_,
                       row,
                       planned.slot,
                       0,
                       work.chunk.slot->ids[static_cast<size_t>(scored)],
                       planned.score_top};
    }
    if (work.chunk.sample) {
      planned.sample = next;
      planned.logprobs = output.logprobs ? *output.logprobs : -1;
    }
    // In a graph every row has its own logits, drawn from or not.
    if (!work.chunk.sample && !step->graphable) continue;
    const int32_t row = work.first_row + work.chunk.count - 1;
    gather[next] = row;
    samples[next] = {work.chunk.sample ? next % logits_rows_ : -1,
                     row,
                     planned.slot,
                     planned.row.position,
                     -1,
                     planned.logprobs};
    ++next;
  }
}

// Padding rows compute in block 0, which no sequence has, attend to nothing and draw nothing.
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
