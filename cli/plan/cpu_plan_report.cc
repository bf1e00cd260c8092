#include "cli/plan/cpu_plan_report.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/flag_names.h"
#include "common/group_shape.h"
#include "modeling/architectures/architecture.h"

namespace fathom::client {
namespace {

int64_t PoolTokens(const CpuPlanReport& report) {
  return int64_t{report.limits.pool_blocks - 1} * report.limits.block_tokens;
}

int64_t LargestTotal(const CpuPlanReport& report) {
  return std::ranges::max(report.stages, {}, &MemoryPlan::total_bytes).total_bytes;
}

// What the stage has besides its layers.
std::string EndsOf(const CpuPlanReport& report, size_t stage) {
  std::string ends;
  if (stage == 0) ends += ", embedding";
  if (stage + 1 == report.stages.size()) ends += ", LM head";
  return ends;
}

}  // namespace

absl::StatusOr<CpuPlanReport> MakeCpuPlanReport(const std::string& model, const ModelConfig& config,
                                                const PlanFlags& flags) {
  CpuPlanReport report;
  report.model = model;
  report.flags = flags;
  FATHOM_RETURN_IF_ERROR(CheckGroupShape({flags.tp, flags.pp}));
  if (flags.dtype != "auto") {
    return Invalid("--dtype {}: on the CPU weights stay as stored and everything else is float",
                   flags.dtype);
  }
  EngineLimits& limits = report.limits;
  FATHOM_ASSIGN_OR_RETURN(limits.context_tokens, ParseContextTokens(flags.context));
  if (limits.context_tokens == 0) limits.context_tokens = config.context;
  limits.block_tokens = flags.block_tokens > 0 ? flags.block_tokens : kCpuBlockTokens;
  limits.step_tokens =
      flags.step_tokens > 0 ? flags.step_tokens : std::max(kCpuStepTokens, flags.slots);
  limits.slots = flags.slots > 0 ? flags.slots : std::min(kCpuSlots, limits.step_tokens);
  MemoryRequest request;
  request.tp = flags.tp;
  request.stages = flags.pp;
  request.stored_type = config.stored_type.value_or(StoredType::kBf16);
  request.block_tokens = limits.block_tokens;
  request.step_tokens = limits.step_tokens;
  request.logits_rows = LogitsRows(limits);
  request.context_tokens = limits.context_tokens;
  request.kv_cache_bytes = flags.kv_cache_bytes > 0 ? flags.kv_cache_bytes : kCpuKvCacheBytes;
  request.swap_bytes = flags.swap_bytes;
  request.slots = limits.slots;
  const ModelSpec spec = SpecOf(config);
  FATHOM_ASSIGN_OR_RETURN(report.stages, PlanStages(spec, request));
  report.layers = StagesOf(spec, flags.tp, flags.pp);
  limits.pool_blocks = report.stages.front().blocks;
  limits.host_blocks = report.stages.front().host_blocks;
  return report;
}

std::string ToText(const CpuPlanReport& report) {
  const PlanFlags& flags = report.flags;
  std::string text = fmt::format("{} on the CPU, tp {} x pp {}: bytes of each rank\n", report.model,
                                 flags.tp, flags.pp);
  text += fmt::format("  {:<7} {:>10} {:>10} {:>10} {:>10}  {}\n", "stage", "weights", "KV", "work",
                      "total", "has");
  for (size_t i = 0; i < report.stages.size(); ++i) {
    const MemoryPlan& plan = report.stages[i];
    const LayerRange& layers = report.layers[i];
    text += fmt::format("  {:<7} {:>10} {:>10} {:>10} {:>10}  layers {} to {}{}\n", i,
                        FormatBytes(plan.weights_bytes), FormatBytes(plan.kv_bytes),
                        FormatBytes(plan.activation_bytes), FormatBytes(plan.total_bytes),
                        layers.begin, layers.end - 1, EndsOf(report, i));
  }
  text += fmt::format(
      "  {} blocks of {} tokens hold {} tokens; {} sequences at once, {} tokens in a step\n",
      report.limits.pool_blocks - 1, report.limits.block_tokens, PoolTokens(report),
      report.limits.slots, report.limits.step_tokens);
  if (report.limits.host_blocks > 0) {
    text += fmt::format("  swap space: {} of each rank, {} blocks; part of the total\n",
                        FormatBytes(report.stages.front().swap_bytes), report.limits.host_blocks);
  }
  return text;
}

nlohmann::ordered_json ToJson(const CpuPlanReport& report) {
  nlohmann::ordered_json json = {{"model", report.model},
                                 {"device", "cpu"},
                                 {"tp", report.flags.tp},
                                 {"pp", report.flags.pp},
                                 {"total_bytes_of_largest_rank", LargestTotal(report)},
                                 {"pool_blocks", report.limits.pool_blocks},
                                 {"pool_tokens", PoolTokens(report)},
                                 {"swap_blocks", report.limits.host_blocks},
                                 {"context_tokens", report.limits.context_tokens},
                                 {"block_tokens", report.limits.block_tokens},
                                 {"max_num_seqs", report.limits.slots},
                                 {"max_num_batched_tokens", report.limits.step_tokens}};
  for (size_t i = 0; i < report.stages.size(); ++i) {
    const MemoryPlan& plan = report.stages[i];
    json["stages"].push_back({{"first_layer", report.layers[i].begin},
                              {"layers", report.layers[i].size()},
                              {"weights_bytes", plan.weights_bytes},
                              {"kv_bytes", plan.kv_bytes},
                              {"swap_bytes", plan.swap_bytes},
                              {"work_bytes", plan.activation_bytes},
                              {"total_bytes", plan.total_bytes}});
  }
  return json;
}

}  // namespace fathom::client
