#include "cli/plan/plan_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/plan/roofline.h"
#include "common/flag_names.h"
#include "common/group_shape.h"
#include "modeling/architectures/architecture.h"
#include "modeling/layout/memory_plan.h"

namespace fathom::client {
namespace {

constexpr int32_t kFloorContext = 1024;
constexpr int32_t kFloorSequences[] = {1, 8, 64};
constexpr int64_t kGpuBytesMin = int64_t{1} << 30;
constexpr int64_t kGpuBytesMax = int64_t{1} << 42;

absl::StatusOr<kernels::DType> DTypeOf(const std::string& dtype, const ModelConfig& config) {
  if (dtype == "bfloat16") return kernels::DType::kBf16;
  if (dtype == "half") return kernels::DType::kF16;
  if (dtype == "float") {
    return Invalid("--dtype float: a GPU computes in bfloat16 or half; use one of them");
  }
  return config.stored_type == StoredType::kF16 ? kernels::DType::kF16 : kernels::DType::kBf16;
}

absl::Status SetDevice(const std::string& gpu, PlanReport* report) {
  if ((report->card = FindGpuCard(gpu)) != nullptr) {
    SetCard(*report->card, &report->request);
    report->request.capacity_bytes = report->card->memory_bytes;
    return absl::OkStatus();
  }
  const auto bytes = ParseBytes(gpu);
  if (!bytes || *bytes < kGpuBytesMin || *bytes > kGpuBytesMax) {
    return Invalid("--gpu {}: one of {}, or its memory in bytes, e.g. 80G", gpu, GpuCardNames());
  }
  report->request.capacity_bytes = *bytes;
  return absl::OkStatus();
}

// Work is divided among the ranks of a stage, and the sums between them are added. A step passes
// through the stages one after the other, so they make no step shorter.
void AddFloors(const ModelSpec& spec, PlanReport* report) {
  report->floor_context = std::min(kFloorContext, report->plan().limits.context_tokens);
  if (report->card == nullptr) return;
  const CardLimits card{.read_tbs = report->card->read_tbs,
                        .matrix_tflops = report->card->matrix_tflops};
  for (const int32_t sequences : kFloorSequences) {
    if (sequences > report->plan().limits.slots) continue;
    if (int64_t{sequences} * report->floor_context > report->plan().pool_tokens()) continue;
    const int32_t ranks = report->request.tp;
    report->floors.push_back(
        {sequences, StepFloorMs(spec, card, sequences, report->floor_context) / ranks +
                        RankSumsMs(spec, ranks, sequences)});
  }
}

double SequencesAtFullContext(const CudaMemoryPlan& plan) {
  return static_cast<double>(plan.pool_tokens()) / plan.limits.context_tokens;
}

int32_t RanksOf(const PlanReport& report) { return report.request.tp * report.request.stages; }

std::string StageLine(const PlanReport& report, size_t stage) {
  const LayerRange& layers = report.layers[stage];
  return fmt::format("stage {}: layers {} to {}{}{}\n", stage, layers.begin, layers.end - 1,
                     stage == 0 ? ", embedding" : "",
                     stage + 1 == report.plans.size() ? ", LM head" : "");
}

// Arenas and buffers.
void AddMemory(const CudaMemoryPlan& plan, nlohmann::ordered_json* json) {
  for (const CudaArena& arena : plan.arenas) {
    nlohmann::ordered_json one = {{"name", arena.name}, {"bytes", arena.bytes}};
    if (!arena.ours) one["predicted"] = true;
    (*json)["arenas"].push_back(std::move(one));
  }
  for (const CudaBuffer& buffer : plan.buffers) {
    (*json)["buffers"].push_back(
        {{"arena", buffer.arena}, {"name", buffer.name}, {"bytes", buffer.bytes}});
  }
}

}  // namespace

absl::StatusOr<PlanReport> MakePlanReport(const std::string& model, const ModelConfig& config,
                                          const PlanFlags& flags) {
  PlanReport report;
  report.model = model;
  FATHOM_RETURN_IF_ERROR(CheckGroupShape({flags.tp, flags.pp}));
  CudaMemoryRequest& request = report.request;
  FATHOM_RETURN_IF_ERROR(SetDevice(flags.gpu, &report));
  FATHOM_ASSIGN_OR_RETURN(request.dtype, DTypeOf(flags.dtype, config));
  FATHOM_ASSIGN_OR_RETURN(request.context_tokens, ParseContextTokens(flags.context));
  request.tp = flags.tp;
  request.stages = flags.pp;
  request.utilization = flags.gpu_memory_utilization;
  request.kv_cache_bytes = flags.kv_cache_bytes;
  request.swap_bytes = flags.swap_bytes;
  if (flags.block_tokens > 0) request.block_tokens = flags.block_tokens;
  request.slots = flags.slots;
  request.step_tokens = flags.step_tokens;
  const ModelSpec spec = SpecOf(config);
  FATHOM_ASSIGN_OR_RETURN(report.plans, PlanCudaStages(spec, request));
  report.layers = StagesOf(spec, flags.tp, flags.pp);
  AddFloors(spec, &report);
  return report;
}

std::string ToText(const PlanReport& report) {
  std::string text = fmt::format(
      "{} in {}, {} of {} rank{}, on {} of {:.2f} GiB\n", report.model,
      kernels::NameOf(report.request.dtype), RanksOf(report) > 1 ? "each" : "all", RanksOf(report),
      RanksOf(report) > 1 ? "s" : "", report.card != nullptr ? report.card->name : "a GPU",
      static_cast<double>(report.request.capacity_bytes) / (1 << 30));
  for (size_t i = 0; i < report.plans.size(); ++i) {
    if (report.plans.size() > 1) text += StageLine(report, i);
    text += ToTable(report.plans[i]);
  }
  if (report.card == nullptr) return text;
  text += fmt::format(
      "  a decode step of sequences of {} tokens takes {}at least (reads at {} TB/s, products at "
      "{} TFLOP/s, {}{}):\n",
      report.floor_context, report.plans.size() > 1 ? "in all stages " : "", report.card->read_tbs,
      report.card->matrix_tflops, report.card->measured ? "measured" : "the vendor's numbers",
      report.request.tp > 1 ? "; sums between ranks as over NVLink" : "");
  for (const PlanReport::Floor& floor : report.floors) {
    text += fmt::format("    {:>3} at once {:>8.2f} ms {:>9.0f} tokens/s\n", floor.sequences,
                        floor.ms, floor.sequences * 1000 / floor.ms);
  }
  if (report.floors.size() < std::size(kFloorSequences)) {
    text += "    more of them do not fit\n";
  }
  return text;
}

nlohmann::ordered_json ToJson(const PlanReport& report) {
  const CudaMemoryPlan& plan = report.plan();
  nlohmann::ordered_json json = {
      {"model", report.model},
      {"gpu", report.card != nullptr ? std::string(report.card->name) : std::string()},
      {"dtype", kernels::NameOf(report.request.dtype)},
      {"tp", report.request.tp},
      {"pp", report.request.stages},
      {"gpu_memory_utilization", report.request.utilization},
      {"capacity_bytes", plan.capacity_bytes},
      {"budget_bytes", plan.budget_bytes},
      {"total_bytes", plan.total_bytes},
      {"kv_bytes_per_block", plan.kv_bytes_per_block},
      {"pool_blocks", plan.limits.pool_blocks},
      {"pool_tokens", plan.pool_tokens()},
      {"swap_bytes", plan.swap_bytes},
      {"swap_blocks", plan.limits.host_blocks},
      {"context_tokens", plan.limits.context_tokens},
      {"model_context_tokens", plan.model_context_tokens},
      {"sequences_at_full_context", SequencesAtFullContext(plan)},
      {"block_tokens", plan.limits.block_tokens},
      {"max_num_seqs", plan.limits.slots},
      {"max_num_batched_tokens", plan.limits.step_tokens},
      {"mixed_step_tokens", plan.limits.mixed_step_tokens}};
  AddMemory(plan, &json);
  for (size_t i = 0; report.plans.size() > 1 && i < report.plans.size(); ++i) {
    nlohmann::ordered_json stage = {{"first_layer", report.layers[i].begin},
                                    {"layers", report.layers[i].size()},
                                    {"total_bytes", report.plans[i].total_bytes},
                                    {"kv_bytes_per_block", report.plans[i].kv_bytes_per_block}};
    AddMemory(report.plans[i], &stage);
    json["stages"].push_back(std::move(stage));
  }
  json["floor_context_tokens"] = report.floor_context;
  json["step_floors"] = nlohmann::ordered_json::array();
  for (const PlanReport::Floor& floor : report.floors) {
    json["step_floors"].push_back({{"sequences", floor.sequences}, {"ms", floor.ms}});
  }
  return json;
}

}  // namespace fathom::client
