// cli/plan/plan_report.h: the report of `fathom plan` for a model on a GPU, from config.json alone:
// where every byte goes, how many tokens and sequences fit, and the least time of a decode step.
// Pure.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "common/status.h"
#include "modeling/config/model_config.h"
#include "modeling/layout/cuda_memory_plan.h"
#include "modeling/layout/gpu_cards.h"
#include "modeling/spec/stages.h"

namespace fathom::client {

// The flags of the command; zeros and "auto" mean the worker's defaults.
struct PlanFlags {
  std::string device = "auto";  // "cuda", "cpu"; auto: cuda.
  std::string gpu = "h100";     // A name of modeling/layout/gpu_cards.h, or bytes: "80G".
  std::string dtype = "auto";
  int32_t tp = 1;
  int32_t pp = 1;
  double gpu_memory_utilization = 0.92;
  int64_t kv_cache_bytes = 0;
  int64_t swap_bytes = 0;
  int32_t block_tokens = 0;
  std::string context = "auto";  // Or tokens.
  int32_t slots = 0;
  int32_t step_tokens = 0;

  bool on_cpu() const { return device == "cpu"; }
};

struct PlanReport {
  std::string model;              // As the user typed it.
  const GpuCard* card = nullptr;  // Null: the GPU was given as bytes.
  CudaMemoryRequest request;
  std::vector<CudaMemoryPlan> plans;  // Of a rank in each stage.
  std::vector<LayerRange> layers;     // Of each stage.
  const CudaMemoryPlan& plan() const { return LargestOf(plans); }
  // Tokens of each sequence in the floors below: 1,024, or the context if it is shorter.
  int32_t floor_context = 0;
  struct Floor {
    int32_t sequences = 0;
    double ms = 0;
  };
  std::vector<Floor> floors;  // For 1, 8 and 64 sequences that fit; empty without a card.
};

// INVALID_ARGUMENT: the flags fit no model or no memory at all. RESOURCE_EXHAUSTED: the model does
// not fit; the message says what would. REQUIRES: CheckTensorParallel of the model and flags.tp is
// OK, and CheckStages of flags.pp; not flags.on_cpu().
absl::StatusOr<PlanReport> MakePlanReport(const std::string& model, const ModelConfig& config,
                                          const PlanFlags& flags);

std::string ToText(const PlanReport& report);
nlohmann::ordered_json ToJson(const PlanReport& report);

}  // namespace fathom::client
