#include "modeling/layout/cuda_draft_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/config/model_config.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

constexpr int64_t kGibibyte = int64_t{1} << 30;

ModelSpec SpecOfShape(const std::string& name) {
  const auto config = ReadModelConfig(testing::BundledModel("shapes") / (name + ".json"));
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  return SpecOf(*config);
}

TEST(CudaDraftPlan, BothModelsFitWithTheSameBlocksAndSlots) {
  const ModelSpec target = SpecOfShape("deepseek-llm-67b"), draft = SpecOfShape("deepseek-llm-7b");
  for (const int32_t draft_max : {1, 4, 16}) {
    for (const int64_t kv_cache_bytes : {int64_t{0}, 4 * kGibibyte}) {
      CudaMemoryRequest request;
      request.capacity_bytes = 139 * kGibibyte;
      request.tp = 4;
      request.draft_max = draft_max;
      request.kv_cache_bytes = kv_cache_bytes;
      const auto plans = PlanCudaWithDraft(target, draft, request);
      ASSERT_TRUE(plans.ok()) << ToString(plans.status());
      ASSERT_EQ(plans->target.size(), 1u);
      const CudaMemoryPlan& of_target = plans->target.front();
      const EngineLimits& limits = of_target.limits;
      EXPECT_EQ(limits.draft_max, draft_max);
      EXPECT_EQ(plans->draft.limits.draft_max, 0);
      EXPECT_EQ(plans->draft.limits.pool_blocks, limits.pool_blocks);
      EXPECT_EQ(plans->draft.limits.slots, limits.slots);
      EXPECT_EQ(plans->draft.limits.step_tokens, limits.step_tokens);
      EXPECT_LE(of_target.total_bytes + plans->draft.total_bytes, of_target.budget_bytes);
      // The default of a mixed step does not change.
      CudaMemoryRequest alone = request;
      alone.draft_max = 0;
      EXPECT_EQ(limits.mixed_step_tokens,
                PlanCudaStages(target, alone)->front().limits.mixed_step_tokens);
      if (kv_cache_bytes > 0) {
        EXPECT_EQ(limits.pool_blocks, kv_cache_bytes / of_target.kv_bytes_per_block);
        continue;
      }
      // No room for one block more is left.
      EXPECT_GT(of_target.total_bytes + plans->draft.total_bytes +
                    2 * (of_target.kv_bytes_per_block + plans->draft.kv_bytes_per_block) +
                    256 * kGibibyte / 1024,
                of_target.budget_bytes);
    }
  }
}

TEST(CudaDraftPlan, TooLittleMemoryIsRefusedWithAWayOut) {
  const ModelSpec model = SpecOfShape("deepseek-llm-7b");
  CudaMemoryRequest request;
  request.capacity_bytes = 24 * kGibibyte;
  request.draft_max = 4;
  // The model alone fits, twice it does not.
  ASSERT_TRUE(PlanCudaStages(model, request).ok());
  auto plans = PlanCudaWithDraft(model, model, request);
  ASSERT_FALSE(plans.ok());
  EXPECT_THAT(std::string(Message(plans.status())), ::testing::HasSubstr("ngram"));
  request.capacity_bytes = 40 * kGibibyte;
  request.kv_cache_bytes = 12 * kGibibyte;
  plans = PlanCudaWithDraft(model, model, request);
  ASSERT_FALSE(plans.ok());
  EXPECT_THAT(std::string(Message(plans.status())), ::testing::HasSubstr("--kv-cache-memory"));
}

TEST(CudaDraftPlan, DraftsTakeMemoryOnlyWhereTheyAreAskedFor) {
  const ModelSpec model = SpecOfShape("deepseek-llm-7b");
  CudaMemoryRequest request;
  request.capacity_bytes = 79 * kGibibyte;
  const CudaMemoryPlan plain = PlanCudaStages(model, request)->front();
  request.draft_max = 4;
  const CudaMemoryPlan drafting = PlanCudaStages(model, request)->front();
  EXPECT_GT(drafting.Bytes("attention"), plain.Bytes("attention"));
  EXPECT_GT(drafting.Bytes("inputs"), plain.Bytes("inputs"));
  EXPECT_EQ(drafting.Bytes("weights"), plain.Bytes("weights"));
  EXPECT_LE(drafting.total_bytes, drafting.budget_bytes);
}

}  // namespace
}  // namespace fathom
