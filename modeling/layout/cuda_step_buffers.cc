#include "modeling/layout/cuda_step_buffers.h"

#include <algorithm>

#include "common/request_limits.h"
#include "modeling/layout/cuda_step_layout.h"
#include "modeling/layout/device_weight_layout.h"

namespace fathom {
namespace {

constexpr int64_t kWordBytes = 4;
constexpr int32_t kScoredRows = 64;  // Rows with logits that a step always has room for.
constexpr int64_t kRowGroup = 64;    // Rows of activations that a kernel may read at once.
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
int64_t SegmentsMax(const EngineLimits& limits) {
  const int64_t each = (int64_t{limits.context_tokens} + kSegmentTokens - 1) / kSegmentTokens;
  return std::min(int64_t{limits.pool_blocks} / kBlocksPerSegment + limits.slots + 1,
                  limits.slots * each);
}

}  // namespace

int32_t CudaLogitsRows(const EngineLimits& limits) {
  return std::min(limits.step_tokens, std::max(limits.slots, kScoredRows));
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
  std::vector<CudaBuffer> buffers = {
      {"activations", "x", rows(model.hidden)},
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
      {"logits", "logits", alone ? logits_rows * HeadRows(model.vocab_rows) * kWordBytes : 0},
      {"attention", "partial_o", segments * widest.q_rows * kWordBytes},
      {"attention", "partial_ml", segments * widest.heads * 2 * kWordBytes},
      {"attention", "arrived", slots * widest.kv_heads * kWordBytes},
      {"attention", "work_counter", kCudaBufferAlignment},
      {"sampler", "seen", slots * model.vocab * 2},
      {"sampler", "seen_ids", kAdmitIdsMax * kWordBytes},
      {"sampler", "slot_params", slots * kSamplerSlotBytes},
      {"sampler", "bias_ids", slots * kLogitBiasMax * kWordBytes},
      {"sampler", "bias_values", slots * kLogitBiasMax * kWordBytes},
      {"sampler", "end_ids", slots * kEndsMax * kWordBytes},
      {"sampler", "slot_tokens", slots * kWordBytes},
      {"sampler", "slot_faults", slots * kWordBytes},
      // One copy on the device is enough: the stream orders the steps in flight.
      {"inputs", "step_inputs", CudaStepBytesMax(limits)},
      {"inputs", "step_outputs", tokens * kSampleOutBytes},
      {"inputs", "gathered_outputs", alone ? 0 : model.place.tp * logits_rows * kSampleOutBytes},
      {"inputs", "diagnosis", tokens * kWordBytes},
  };
  std::erase_if(buffers, [](const CudaBuffer& buffer) { return buffer.bytes == 0; });
  return buffers;
}

kernels::cuda::PeerRegionSizes PeerSizesOf(const RankModel& model, const EngineLimits& limits) {
  const int64_t logits_rows = CudaLogitsRows(limits);
  const int64_t rows = (int64_t{limits.step_tokens} + kRowGroup - 1) / kRowGroup * kRowGroup;
  return {.ranks = model.place.tp,
          .blocks_max = kPeerBlocksMax,
          .rows_max = rows,
          .row_bytes_max = model.hidden * kCudaElementBytes,
          .gather_bytes = logits_rows * kSampleOutBytes,
          .exchange_bytes = logits_rows * HeadRows(model.vocab_rows) * kWordBytes,
          .push_rows = std::min(rows, kPushRowsMax)};
}

int64_t SumOf(const std::vector<CudaBuffer>& buffers, std::string_view arena) {
  int64_t bytes = 0;
  for (const CudaBuffer& buffer : buffers) {
    if (arena.empty() || buffer.arena == arena) bytes += Aligned(buffer.bytes);
  }
  return bytes;
}

}  // namespace fathom
