#include "modeling/layout/memory_plan.h"

#include <algorithm>
#include <charconv>
#include <system_error>

#include "common/check.h"
#include "common/status.h"
#include "modeling/layout/swap_space.h"
#include "modeling/spec/device_kinds.h"
#include "modeling/spec/rank_model.h"
#include "modeling/spec/stages.h"

namespace fathom {
namespace {

constexpr int64_t kFloatBytes = 4;
constexpr int32_t kContextMin = 2;

int64_t ContextOf(const ModelSpec& spec, const MemoryRequest& request) {
  return request.context_tokens > 0 ? request.context_tokens : spec.context;
}

// The fp32 arrays of one step (worker/cpu/decoder.cc). Per token: the residual, a norm or GEMM of
// it, q, k and v, the result of attention, gate and up; in a later stage also what it received. Per
// row with logits: the vocabulary, and with several ranks also this rank's part and the parts of
// all ranks; only in the last stage. Then the rotary tables, which end with the pool of
// `pool_tokens`.
int64_t ActivationBytes(const RankModel& model, const MemoryRequest& request, int64_t pool_tokens) {
  const LayerWidths widest = WidestOf(model);
  const int64_t per_token = (model.is_first_stage() ? 2 : 3) * int64_t{model.hidden} +
                            widest.qkv_rows + widest.q_rows + widest.gate_up_rows;
  int64_t per_row = 0;
  if (model.is_last_stage()) {
    per_row = model.vocab;
    if (request.tp > 1) per_row += (request.tp + 1) * int64_t{model.vocab_rows};
  }
  const int64_t context = request.context_tokens > 0 ? request.context_tokens : model.context;
  return kFloatBytes * (request.step_tokens * per_token + request.logits_rows * per_row +
                        std::min(context, pool_tokens) * model.rope_dim);
}

// Matrices are stored as in the checkpoint, vectors are widened.
int64_t WeightsBytes(const RankModel& model, const MemoryRequest& request) {
  const int64_t matrix_element = BytesOf(request.stored_type);
  int64_t bytes = 0;
  for (const RankParameter* one : model.Parameters()) {
    // A later stage has only the packed rows of a tied LM head.
    if (one->parameter.role == ParameterRole::kEmbedding && !model.is_first_stage()) continue;
    const bool is_matrix = one->parameter.precision == Precision::kMatrix;
    bytes += one->slice.elements() * (is_matrix ? matrix_element : kFloatBytes);
  }
  if (model.tied()) {  // The LM head uses a packed copy of its rows.
    bytes += int64_t{model.vocab_rows} * model.hidden * matrix_element;
  }
  return bytes;
}

MemoryPlan PlanOf(const RankModel& model, const MemoryRequest& request, int32_t blocks,
                  int32_t host_blocks) {
  MemoryPlan plan;
  plan.weights_bytes = WeightsBytes(model, request);
  plan.kv_bytes_per_token = KvBytes(model, kFloatBytes, 1);
  plan.kv_bytes_per_block = KvBytes(model, kFloatBytes, request.block_tokens);
  plan.blocks = blocks;
  plan.kv_bytes = plan.blocks * plan.kv_bytes_per_block;
  plan.activation_bytes =
      ActivationBytes(model, request, int64_t{plan.blocks - 1} * request.block_tokens);
  plan.host_blocks = host_blocks;
  plan.swap_bytes = host_blocks > 0 ? (int64_t{host_blocks} + 1) * plan.kv_bytes_per_block : 0;
  plan.total_bytes = plan.weights_bytes + plan.activation_bytes + plan.kv_bytes + plan.swap_bytes;
  return plan;
}

}  // namespace

int32_t LogitsRows(const EngineLimits& limits) {
  constexpr int32_t kScoredRows = 64;
  return std::min(limits.step_tokens, std::max(limits.slots, kScoredRows));
}

absl::StatusOr<int32_t> ParseContextTokens(const std::string& text) {
  if (text == "auto" || text == "0") return 0;
  int32_t tokens = 0;
  const char* const end = text.data() + text.size();
  const auto [last, error] = std::from_chars(text.data(), end, tokens);
  if (error == std::errc() && last == end && tokens >= kContextMin && tokens <= kContextMax) {
    return tokens;
  }
  return Invalid(
      "--max-model-len {}: give a number of tokens from {} (one of a prompt, one of an answer) to "
      "{}, or auto",
      text, kContextMin, kContextMax);
}

absl::StatusOr<std::vector<MemoryPlan>> PlanStages(const ModelSpec& spec,
                                                   const MemoryRequest& request) {
  FATHOM_CHECK(request.block_tokens > 0 && request.step_tokens > 0 && request.logits_rows > 0);
  FATHOM_RETURN_IF_ERROR(CheckDeviceRuns(spec, CpuKinds()));
  FATHOM_RETURN_IF_ERROR(CheckTensorParallel(spec, request.tp));
  FATHOM_RETURN_IF_ERROR(CheckStages(spec, request.stages));
  std::vector<RankModel> models;
  int64_t block_bytes = 0;  // Of the stage with the largest blocks.
  for (int32_t stage = 0; stage < request.stages; ++stage) {
    models.push_back(RankOf(spec, {.tp = request.tp, .stage = stage, .stages = request.stages}));
    block_bytes = std::max(block_bytes, KvBytes(models.back(), kFloatBytes, request.block_tokens));
  }
  const int64_t blocks = request.kv_cache_bytes / block_bytes;
  if (blocks < kPoolBlocksMin) {
    return Exhausted(
        "--kv-cache-memory {} holds {} blocks of {} tokens ({} bytes each); at least {} are "
        "needed: give {} bytes or more",
        request.kv_cache_bytes, std::max<int64_t>(blocks, 0), request.block_tokens, block_bytes,
        kPoolBlocksMin, kPoolBlocksMin * block_bytes);
  }
  int64_t most = INT32_MAX;
  if (request.slots > 0) {
    const int64_t of_one =
        (ContextOf(spec, request) + request.block_tokens - 1) / request.block_tokens;
    most = std::min(most, request.slots * of_one + 1);
  }
  FATHOM_ASSIGN_OR_RETURN(const int32_t host_blocks, SwapBlocks(request.swap_bytes, block_bytes));
  std::vector<MemoryPlan> plans;
  plans.reserve(models.size());
  for (const RankModel& model : models) {
    plans.push_back(
        PlanOf(model, request, static_cast<int32_t>(std::min(blocks, most)), host_blocks));
  }
  return plans;
}

absl::StatusOr<MemoryPlan> PlanMemory(const ModelSpec& spec, const MemoryRequest& request) {
  FATHOM_ASSIGN_OR_RETURN(const std::vector<MemoryPlan> plans, PlanStages(spec, request));
  return *std::ranges::max_element(plans, {}, &MemoryPlan::total_bytes);
}

}  // namespace fathom
