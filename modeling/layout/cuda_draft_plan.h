// modeling/layout/cuda_draft_plan.h: the memory of a GPU that runs a model and its draft model
// (worker/engine/draft_model.h). Both have the same slots and the same block ids, so what is left
// for KV is divided into blocks that have planes of both. Pure; any thread.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "modeling/layout/cuda_memory_plan.h"

namespace fathom {

struct CudaPlansWithDraft {
  std::vector<CudaMemoryPlan> target;  // One for each stage; with a draft there is one.
  CudaMemoryPlan draft;                // The same on every rank; its own rank is alone.
};

// The plans of `spec` under `request` beside the whole of `draft` on each rank. Errors: those of
// PlanCudaStages; RESOURCE_EXHAUSTED if both do not fit, with the way out. REQUIRES: as
// PlanCudaStages; one stage.
absl::StatusOr<CudaPlansWithDraft> PlanCudaWithDraft(const ModelSpec& spec, const ModelSpec& draft,
                                                     const CudaMemoryRequest& request);

}  // namespace fathom
