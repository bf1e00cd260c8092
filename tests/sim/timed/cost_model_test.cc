// The cost model against the floors of cli/plan/roofline.h, and against steps that were measured.
#include <gtest/gtest.h>

#include <cmath>

#include "cli/plan/roofline.h"
#include "modeling/architectures/architecture.h"
#include "modeling/config/model_config.h"
#include "tests/sim/timed/cost_model.h"
#include "tests/sim/timed/shapes.h"

namespace fathom::sim {
namespace {

ModelSpec Shape(const std::string& name) {
  return SpecOf(
      *ReadModelConfig(std::string(FATHOM_SOURCE_DIR) + "/models/shapes/" + name + ".json"));
}

StepWork Decodes(int32_t rows, double context) {
  return {.rows = rows, .sampled = rows, .decode_context = rows * context};
}
StepWork Prompt(int32_t tokens) {
  return {.rows = tokens,
          .sampled = 1,
          .chunk_context = static_cast<double>(tokens),
          .chunk_pairs = tokens * (tokens + 1.0) / 2};
}

TEST(CostModel, IsTheFloorOfTheRooflineAtFullEfficiency) {
  const client::CardLimits h200 = *client::LimitsOf("h200");
  for (const char* name : {"deepseek-llm-7b", "deepseek-coder-33b"}) {
    SCOPED_TRACE(name);
    const ModelSpec spec = Shape(name);
    GroupCosts costs = MakeGroupShape(name, "h200", 1, 0)->costs;
    costs.efficiency = 1;
    for (const int32_t rows : {1, 8, 64, 128}) {
      const double floor_ms = client::StepFloorMs(spec, h200, rows, 290);
      EXPECT_NEAR(StepUs(costs, Decodes(rows, 290)) / 1e3, floor_ms, 0.01 * floor_ms) << rows;
    }
    for (const int32_t tokens : {512, 2048}) {
      const double floor_ms = client::PrefillFloorMs(spec, h200, tokens);
      EXPECT_NEAR(StepUs(costs, Prompt(tokens)) / 1e3, floor_ms, 0.01 * floor_ms) << tokens;
    }
  }
}

// docs/PERFORMANCE.md, one H200, the 7B shape: at the client, so with router and scheduler.
TEST(CostModel, GivesTheMeasuredSteps) {
  const GroupCosts costs = MakeGroupShape("deepseek-llm-7b", "h200", 1, 0)->costs;
  const auto expect = [&](const StepWork& work, double measured_ms) {
    EXPECT_NEAR(StepUs(costs, work) / 1e3, measured_ms, 0.04 * measured_ms);
  };
  expect(Decodes(1, 100), 3.56);
  expect(Decodes(8, 290), 3.92);
  expect(Decodes(64, 290), 6.22);
  expect(Decodes(128, 290), 8.86);
  expect(Prompt(2048), 43.4);
}

TEST(CostModel, ExpertsAreReadByTheRowsThatUseThem) {
  const ShapeCosts v3 = V3Costs();
  EXPECT_NEAR(v3.weight_bytes + v3.expert_bytes * v3.experts, 670e9, 5e9);  // Without embedding.
  EXPECT_NEAR(v3.row_flops + v3.head_flops, 2 * 37e9, 2e9);
  const GroupCosts costs = MakeGroupShape("v3", "h200", 8, 0)->costs;
  const double one = StepUs(costs, Decodes(1, 0)), many = StepUs(costs, Decodes(256, 0));
  const double read = costs.read_tbs * 1e6 * costs.tp * costs.efficiency;
  EXPECT_NEAR(one - costs.sums_us - costs.sums_row_us,
              (v3.weight_bytes + 8 * v3.expert_bytes) / read, 1);
  EXPECT_LT(one * 10, many);
  EXPECT_LT(many, (v3.weight_bytes + v3.expert_bytes * 256) / read + costs.sums_us +
                      256 * costs.sums_row_us + 1);
}

TEST(CostModel, CopiesToTheHostTakeTheirTime) {
  const GroupCosts costs = MakeGroupShape("deepseek-llm-7b", "h200", 1, 0)->costs;
  EXPECT_NEAR(CopyUs(costs, 64), 64 * costs.shape.kv_token_bytes / 50e3, 1e-6);
}

}  // namespace
}  // namespace fathom::sim
