// tests/sim/timed/shapes.h: the groups that are simulated: a model's shape on cards. The limits
// of a group of a dense shape are those that its workers would have on these cards
// (PlanCudaMemory), so a simulated group has the blocks, slots and step sizes of a real one.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "modeling/spec/model_spec.h"
#include "scheduler/core/events.h"
#include "tests/sim/timed/cost_model.h"

namespace fathom::sim {

ShapeCosts CostsOf(const std::string& name, const ModelSpec& spec);

// The shape of DeepSeek-V3 with FP8 weights: 61 layers (58 with 256 routed experts, of which a row
// uses 8), a latent of 576 elements in bf16 for each token and layer. 671e9 parameters, 37e9 for
// each row.
ShapeCosts V3Costs();

struct SimGroupShape {
  GroupCosts costs;
  scheduler::GroupLimits limits;
};

// `model`: a name of models/shapes, or "v3". `card`: of modeling/layout/gpu_cards.h.
// `context_tokens`: 0: the model's.
absl::StatusOr<SimGroupShape> MakeGroupShape(const std::string& model, const std::string& card,
                                             int32_t tp, int32_t context_tokens);

}  // namespace fathom::sim
