#include "tests/sim/timed/shapes.h"

#include <algorithm>

#include "cli/plan/roofline.h"
#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/config/model_config.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/layout/gpu_cards.h"

namespace fathom::sim {
namespace {

constexpr int32_t kV3Layers = 61, kV3ExpertLayers = 58, kV3Hidden = 7168, kV3Heads = 128;
constexpr double kV3Expert = 3.0 * kV3Hidden * 2048;

scheduler::GroupLimits LimitsFrom(const EngineLimits& from) {
  return {.blocks = from.pool_blocks,
          .block_tokens = from.block_tokens,
          .slots = from.slots,
          .step_tokens = from.step_tokens,
          .context_tokens = from.context_tokens,
          .plans_in_flight = 2,
          .mixed_step_tokens = from.mixed_step_tokens};
}

// The vendor's bandwidth is about 1.08 times what a kernel reaches (gpu_cards.cc).
double ReadTbs(const GpuCard& card) { return card.measured ? card.read_tbs : card.read_tbs / 1.08; }

void SetSums(int32_t layers, int32_t hidden, GroupCosts* costs) {
  ModelSpec spec;
  spec.hidden = hidden;
  spec.layers.resize(static_cast<size_t>(layers));
  costs->sums_us = 1e3 * client::RankSumsMs(spec, costs->tp, 0);
  costs->sums_row_us = 1e3 * client::RankSumsMs(spec, costs->tp, 1) - costs->sums_us;
}

// No architecture of Fathom has this shape yet, so its plan is made here: the memory of a rank
// less its weights and 4 GB, and the rows of a step that take 40 ms.
scheduler::GroupLimits V3Limits(const GroupCosts& costs, const GpuCard& card, int32_t context) {
  const double stored =
      (costs.shape.weight_bytes + costs.shape.expert_bytes * costs.shape.experts) / costs.tp;
  const double room = 0.92 * static_cast<double>(card.memory_bytes) - stored - 4e9;
  scheduler::GroupLimits limits{.block_tokens = 64,
                                .slots = 256,
                                .context_tokens = context > 0 ? context : 16'384,
                                .plans_in_flight = 2};
  limits.blocks = std::max(0, static_cast<int32_t>(room / costs.shape.kv_token_bytes / 64));
  int32_t rows = 256;
  while (rows < 8192 && StepUs(costs, {.rows = rows + 256, .sampled = 1}) < 40'000) rows += 256;
  limits.mixed_step_tokens = rows;
  limits.step_tokens = std::min(2 * rows, 8192);
  return limits;
}

}  // namespace

ShapeCosts CostsOf(const std::string& name, const ModelSpec& spec) {
  ShapeCosts costs{.name = name};
  costs.weight_bytes = static_cast<double>(client::StepWeightBytes(spec));
  costs.row_flops = 2 * static_cast<double>(LayerMatrixElements(spec));
  costs.head_flops = 2 * static_cast<double>(HeadMatrixElements(spec));
  costs.kv_token_bytes = static_cast<double>(client::KvBytesPerToken(spec));
  for (const LayerSpec& layer : spec.layers) {
    costs.decode_pair_flops += 4 * static_cast<double>(layer.attention.q_rows());
  }
  costs.chunk_pair_flops = costs.decode_pair_flops;
  return costs;
}

ShapeCosts V3Costs() {
  // q_a, q_b, kv_a, kv_b and o of the latent attention; three dense MLPs; the shared expert and the
  // router of each layer with experts.
  const double attention = kV3Hidden * 1536.0 + 1536.0 * kV3Heads * 192 + kV3Hidden * 576.0 +
                           512.0 * kV3Heads * 256 + kV3Heads * 128.0 * kV3Hidden;
  const double dense = kV3Layers * attention + 3 * 3.0 * kV3Hidden * 18'432 +
                       kV3ExpertLayers * (kV3Expert + kV3Hidden * 256.0);
  const double head = kV3Hidden * 129'280.0;
  return {.name = "v3",
          .weight_bytes = dense + head,
          .row_flops = 2 * (dense + 8 * kV3Expert * kV3ExpertLayers),
          .head_flops = 2 * head,
          .kv_token_bytes = 2.0 * 576 * kV3Layers,
          .kv_is_split = false,
          .decode_pair_flops = 2.0 * kV3Heads * (576 + 512) * kV3Layers,
          .chunk_pair_flops = 2.0 * kV3Heads * (192 + 128) * kV3Layers,
          .expert_bytes = kV3Expert * kV3ExpertLayers,
          .experts = 256,
          .experts_of_row = 8,
          .product_rate = 2};
}

absl::StatusOr<SimGroupShape> MakeGroupShape(const std::string& model, const std::string& card,
                                             int32_t tp, int32_t context_tokens) {
  const GpuCard* found = FindGpuCard(card);
  if (found == nullptr) return Invalid("no card '{}'; there are {}", card, GpuCardNames());
  SimGroupShape shape;
  GroupCosts& costs = shape.costs;
  costs.read_tbs = ReadTbs(*found);
  costs.matrix_tflops = found->matrix_tflops;
  costs.tp = tp;
  if (model == "v3") {
    costs.shape = V3Costs();
    SetSums(kV3Layers, kV3Hidden, &costs);
    shape.limits = V3Limits(costs, *found, context_tokens);
  } else {
    FATHOM_ASSIGN_OR_RETURN(
        const ModelConfig config,
        ReadModelConfig(std::string(FATHOM_SOURCE_DIR) + "/models/shapes/" + model + ".json"));
    const ModelSpec spec = SpecOf(config);
    costs.shape = CostsOf(model, spec);
    SetSums(static_cast<int32_t>(spec.layers.size()), spec.hidden, &costs);
    CudaMemoryRequest request{
        .capacity_bytes = found->memory_bytes, .tp = tp, .context_tokens = context_tokens};
    SetCard(*found, &request);
    FATHOM_ASSIGN_OR_RETURN(const CudaMemoryPlan plan, PlanCudaMemory(spec, request));
    shape.limits = LimitsFrom(plan.limits);
  }
  if (shape.limits.blocks < 2) return Invalid("{} does not fit on {} of {}", model, tp, card);
  return shape;
}

}  // namespace fathom::sim
