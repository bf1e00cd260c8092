// cli/plan/cpu_plan_report.h: the report of `fathom plan` for a model on the CPU, from config.json
// alone: what a rank of each stage holds, and how many tokens fit. Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "cli/plan/plan_report.h"
#include "common/engine_limits.h"
#include "common/status.h"
#include "modeling/config/model_config.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/stages.h"

namespace fathom::client {

struct CpuPlanReport {
  std::string model;  // As the user typed it.
  PlanFlags flags;
  EngineLimits limits;             // Of the group; pool_blocks is that of every rank.
  std::vector<LayerRange> layers;  // Of each stage.
  std::vector<MemoryPlan> stages;  // Of one of its ranks.
};

// The plan that workers with these flags make. INVALID_ARGUMENT: the flags fit no model, or not
// this one. RESOURCE_EXHAUSTED: the KV pool is too small. The messages say what would fit.
absl::StatusOr<CpuPlanReport> MakeCpuPlanReport(const std::string& model, const ModelConfig& config,
                                                const PlanFlags& flags);

std::string ToText(const CpuPlanReport& report);
nlohmann::ordered_json ToJson(const CpuPlanReport& report);

}  // namespace fathom::client
