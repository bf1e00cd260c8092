#include "modeling/layout/cuda_step_buffers.h"

#include <algorithm>
#include <bit>

#include "common/request_limits.h"
#include "modeling/layout/cuda_step_layout.h"
#include "modeling/layout/device_weight_layout.h"

namespace fathom {
namespace {

constexpr int64_t kWordBytes = 4;
constexpr int32_t kScoredRows = 64;    // Rows with logits that a step always has room for.
constexpr int32_t kDraftedRows = 256;  // Rows of steps with drafts that one pass of the head takes.
constexpr int64_t kRowGroup = 64;      // Rows of activations that a kernel may read at once.
// Thread blocks of an all-reduce. All of them must be on the device at once, beside kernels that
// wait for them.
constexpr int kPeerBlocksMax = 64;
// Rows of an all-reduce that ranks may write into each other's memory (worker/comm/select_comm.h
// says when they do).
constexpr int64_t kPushRowsMax = 32;
constexpr int64_t kEndsMax = kStopTokensMax + kEndTokensMax;

int64_t Aligned(int64_t bytes) {
  return (bytes + kCudaBufferAlignment - 1) / kCudaBufferAlignment * kCudaBufferAlignment;
}

// The segments of 512 tokens of all decode rows of a step. No block belongs to two sequences, so
// all full segments are in the pool, and each sequence has at most one segment that is not full.
// The row of a draft has those of its sequence once more.
int64_t SegmentsMax(const EngineLimits& limits) {
  const int64_t each = (int64_t{limits.context_tokens} + kSegmentTokens - 1) / kSegmentTokens;
  const int64_t of_sequences = int64_t{limits.pool_blocks} / kBlocksPerSegment + limits.slots + 1;
  return std::min(of_sequences * (1 + limits.draft_max), DecodeRowsMax(limits) * each);
}

// The most rows with logits of a step: every token of a scored prompt may be one.
int64_t SamplesMax(const EngineLimits& limits) { return limits.step_tokens; }

// A power of two (kernels/cuda/comm/peer_region.h).
int32_t SamplePlaces(int32_t stages) {
  return static_cast<int32_t>(std::bit_ceil(static_cast<uint32_t>(StepsAhead(stages))));
}

// The messages of samples that are on their way: the last stage packs one, and the first one has
// room for as many as may have been sent.
int64_t SampleMessagesBytes(const RankModel& model, const EngineLimits& limits) {
  if (model.place.stages == 1) return 0;
  const int64_t places = model.is_first_stage()  ? SamplePlaces(model.place.stages)
                         : model.is_last_stage() ? 1
                                                 : 0;
  return places * SamplesMax(limits) * kSlotSampleBytes;
}

}  // namespace

int32_t CudaLogitsRows(const EngineLimits& limits) {
  return std::min(limits.step_tokens, std::max({limits.slots, kScoredRows,
                                                std::min(DecodeRowsMax(limits), kDraftedRows)}));
}

std::vector<CudaBuffer> CudaStepBuffers(const RankModel& model, const EngineLimits& limits) {
  const LayerWidths widest = WidestOf(model);
  const int64_t tokens = limits.step_tokens;
  const int64_t logits_rows = CudaLogitsRows(limits);
  const int64_t slots = int64_t{limits.slots} + 1;  // Ids begin at 1.
  const int64_t segments = SegmentsMax(limits);
  const int64_t rope = int64_t{limits.context_tokens} * model.rope_dim / 2 * kWordBytes;
  // GEMMs of up to 128 rows read activations in groups of rows (kernels/cuda/linear/medium.h), up
  // to the end of the last group.
  const int64_t grouped = (tokens + kRowGroup - 1) / kRowGroup * kRowGroup;
  const auto rows = [&](int64_t width) { return grouped * width * kCudaElementBytes; };
  // Ranks that share the layers write partial sums and logits to memory that the others read
  // (PeerSizesOf).
  const bool alone = model.place.tp == 1;
  const bool last = model.is_last_stage(), staged = model.place.stages > 1;
  const auto in_last = [&](int64_t bytes) { return last ? bytes : 0; };
  // Behind the rows of a message are their fault words.
  const int64_t x_tail = staged ? tokens * kWordBytes : 0;
  std::vector<CudaBuffer> buffers = {
      {"activations", "x", rows(model.hidden) + x_tail},
      {"activations", "normed", rows(model.hidden)},
      {"activations", "qkv", rows(widest.qkv_rows)},
      {"activations", "q", rows(widest.q_rows)},
      {"activations", "attended", rows(widest.q_rows)},
      {"activations", "gate_up", rows(widest.gate_up_rows)},
      {"activations", "ffn", rows(widest.mlp)},
      {"activations", "product", alone ? rows(model.hidden) : 0},
      {"activations", "norm_counters", kCudaBufferAlignment},
      {"activations", "rope_cos", rope},
      {"activations", "rope_sin", rope},
      {"logits", "logits",
       in_last(alone ? logits_rows * HeadRows(model.vocab_rows) * kWordBytes : 0)},
      {"attention", "partial_o", segments * widest.q_rows * kWordBytes},
      {"attention", "partial_ml", segments * widest.heads * 2 * kWordBytes},
      {"attention", "arrived",
       (int64_t{std::max(limits.slots, DecodeRowsMax(limits))} + 1) * widest.kv_heads * kWordBytes},
      {"attention", "work_counter", kCudaBufferAlignment},
      {"sampler", "seen", in_last(slots * model.vocab * 2)},
      {"sampler", "seen_ids", in_last(kAdmitIdsMax * kWordBytes)},
      {"sampler", "slot_params", in_last(slots * kSamplerSlotBytes)},
      {"sampler", "bias_ids", in_last(slots * kLogitBiasMax * kWordBytes)},
      {"sampler", "bias_values", in_last(slots * kLogitBiasMax * kWordBytes)},
      {"sampler", "end_ids", in_last(slots * kEndsMax * kWordBytes)},
      {"sampler", "slot_thinking", in_last(slots * kThinkingSlotBytes)},
      {"sampler", "slot_tokens", slots * kWordBytes},
      {"sampler", "slot_faults", slots * kWordBytes},
      {"sampler", "slot_since", staged && model.is_first_stage() ? slots * kWordBytes : 0},
      {"sampler", "slot_samples", SampleMessagesBytes(model, limits)},
      // One copy on the device is enough: the stream orders the steps in flight.
      {"inputs", "step_inputs", CudaStepBytesMax(limits)},
      {"inputs", "step_masks", in_last(slots * ((int64_t{model.vocab} + 31) / 32) * kWordBytes)},
      {"inputs", "step_outputs", tokens * kSampleOutBytes},
      {"inputs", "gathered_outputs",
       alone ? 0 : in_last(model.place.tp * logits_rows * kSampleOutBytes)},
      {"inputs", "diagnosis", tokens * kWordBytes},
  };
  std::erase_if(buffers, [](const CudaBuffer& buffer) { return buffer.bytes == 0; });
  return buffers;
}

kernels::cuda::PeerRegionSizes PeerSizesOf(const RankModel& model, const EngineLimits& limits) {
  const int64_t logits_rows = CudaLogitsRows(limits);
  const int64_t rows = (int64_t{limits.step_tokens} + kRowGroup - 1) / kRowGroup * kRowGroup;
  const bool last = model.is_last_stage();
  return {.ranks = model.place.tp,
          .blocks_max = kPeerBlocksMax,
          .rows_max = rows,
          .row_bytes_max = model.hidden * kCudaElementBytes,
          .gather_bytes = last ? logits_rows * kSampleOutBytes : 0,
          .exchange_bytes = last ? logits_rows * HeadRows(model.vocab_rows) * kWordBytes : 0,
          .push_rows = std::min(rows, kPushRowsMax)};
}

StagePeerSizes StageSizesOf(const RankModel& model, const EngineLimits& limits) {
  // The rank before a rank is the only one that sends to it.
  const kernels::cuda::PeerRegionSizes common{
      .ranks = model.place.stages, .blocks_max = 1, .mail_senders = 1};
  StagePeerSizes sizes{common, common};
  sizes.rows.mail_bytes = StageRowsBytes(limits.step_tokens, model.hidden);
  sizes.samples.mail_bytes = SamplesMax(limits) * kSlotSampleBytes;
  sizes.samples.mail_places = SamplePlaces(model.place.stages);
  return sizes;
}

int64_t PeerBytes(const RankModel& model, const EngineLimits& limits) {
  return model.place.tp == 1 ? 0 : LayoutOf(PeerSizesOf(model, limits)).bytes;
}

int64_t StageBytes(const RankModel& model, const EngineLimits& limits) {
  if (model.place.stages == 1) return 0;
  const StagePeerSizes sizes = StageSizesOf(model, limits);
  return LayoutOf(sizes.rows).bytes + LayoutOf(sizes.samples).bytes;
}

int64_t SumOf(const std::vector<CudaBuffer>& buffers, std::string_view arena) {
  int64_t bytes = 0;
  for (const CudaBuffer& buffer : buffers) {
    if (arena.empty() || buffer.arena == arena) bytes += Aligned(buffer.bytes);
  }
  return bytes;
}

}  // namespace fathom
