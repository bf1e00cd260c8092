#include "modeling/layout/cuda_draft_plan.h"

#include <algorithm>

#include "common/check.h"
#include "common/status.h"

namespace fathom {
namespace {

double GibOf(int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

// The plan of the draft model with the limits of the target. `kv_bytes` 0: with what it could have
// alone.
absl::StatusOr<CudaMemoryPlan> DraftPlan(const ModelSpec& draft, CudaMemoryRequest request,
                                         const EngineLimits& limits, int64_t kv_bytes) {
  request.tp = 1;
  request.draft_max = 0;
  request.slots = limits.slots;
  request.step_tokens = limits.step_tokens;
  request.context_tokens = std::min(limits.context_tokens, draft.context);
  request.kv_cache_bytes = kv_bytes;
  auto plan = PlanCudaMemory(draft, request);
  return plan.ok() ? plan : Annotate(plan.status(), "the draft model alone");
}

}  // namespace

absl::StatusOr<CudaPlansWithDraft> PlanCudaWithDraft(const ModelSpec& spec, const ModelSpec& draft,
                                                     const CudaMemoryRequest& request) {
  FATHOM_CHECK(request.stages == 1);
  FATHOM_ASSIGN_OR_RETURN(const std::vector<CudaMemoryPlan> alone, PlanCudaStages(spec, request));
  const CudaMemoryPlan& first = alone.front();
  EngineLimits limits = first.limits;
  // What the draft needs besides its KV.
  FATHOM_ASSIGN_OR_RETURN(const CudaMemoryPlan measured, DraftPlan(draft, request, limits, 0));
  const int64_t draft_block = measured.kv_bytes_per_block;
  const int64_t draft_rest = measured.total_bytes - measured.Bytes("kv");
  const int64_t rest = first.total_bytes - first.Bytes("kv") + draft_rest;
  const int64_t block = first.kv_bytes_per_block + draft_block;
  int64_t blocks = (first.budget_bytes - rest) / block;
  if (request.kv_cache_bytes > 0) {
    if (blocks < limits.pool_blocks) {
      return Exhausted(
          "the model with its draft model needs {:.2f} GiB besides KV and {} bytes for each block "
          "of {} tokens; --kv-cache-memory asks for {} blocks, and the {:.2f} GiB that are left "
          "hold {}: give --kv-cache-memory {} (of the model's own blocks), or drop "
          "--speculative-model",
          GibOf(rest), block, limits.block_tokens, limits.pool_blocks,
          GibOf(first.budget_bytes - rest), std::max<int64_t>(blocks, 0),
          std::max<int64_t>(blocks, 0) * first.kv_bytes_per_block);
    }
    blocks = limits.pool_blocks;
  }
  blocks = std::min<int64_t>(blocks, limits.pool_blocks);
  if (blocks < 2) {
    return Exhausted(
        "the model with its draft model needs {:.2f} GiB besides KV, and the GPU has {:.2f} GiB "
        "for this worker: use a smaller draft model, or --speculative-method ngram",
        GibOf(rest), GibOf(first.budget_bytes));
  }
  CudaMemoryRequest shared = request;
  shared.slots = limits.slots;
  shared.step_tokens = limits.step_tokens;
  shared.kv_cache_bytes = blocks * first.kv_bytes_per_block;
  CudaPlansWithDraft plans;
  FATHOM_ASSIGN_OR_RETURN(plans.target, PlanCudaStages(spec, shared));
  for (CudaMemoryPlan& plan : plans.target) {
    // A step with decode rows keeps the limit that was chosen by the card.
    plan.limits.mixed_step_tokens = first.limits.mixed_step_tokens;
  }
  limits = plans.target.front().limits;
  FATHOM_ASSIGN_OR_RETURN(plans.draft,
                          DraftPlan(draft, request, limits, limits.pool_blocks * draft_block));
  return plans;
}

}  // namespace fathom
