#include "modeling/layout/memory_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "tests/modeling/model_files.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

ModelConfig Shape(const char* name) {
  const auto config =
      ReadModelConfig(testing::BundledModel("shapes") / (std::string(name) + ".json"));
  EXPECT_TRUE(config.ok()) << ToString(config.status());
  return *config;
}

MemoryRequest Request(int32_t tp) {
  return {.tp = tp,
          .stored_type = StoredType::kBf16,
          .block_tokens = 16,
          .step_tokens = 512,
          .logits_rows = 64,
          .kv_cache_bytes = int64_t{4} << 30};
}

TEST(MemoryPlan, FiguresOfPublishedModels) {
  const auto llm = PlanMemory(SpecOf(Shape("deepseek-llm-67b")), Request(1));
  ASSERT_TRUE(llm.ok()) << ToString(llm.status());
  const int64_t norms = (2 * 95 + 1) * 8192;  // In fp32; all else in bf16.
  EXPECT_EQ(llm->weights_bytes, 2 * 67'425'001'472 + 2 * norms);
  EXPECT_EQ(llm->kv_bytes_per_token, 2 * 95 * 8 * 128 * 4);  // K and V, layers, heads, fp32.
  EXPECT_EQ(llm->kv_bytes_per_block, 16 * llm->kv_bytes_per_token);
  const auto mha = PlanMemory(SpecOf(Shape("deepseek-llm-7b")), Request(1));
  EXPECT_EQ(mha->kv_bytes_per_token, 2 * 30 * 32 * 128 * 4);
}

TEST(MemoryPlan, PoolIsTheLargestThatFits) {
  for (const char* name : {"deepseek-llm-7b", "deepseek-coder-33b", "r1-distill-qwen-7b"}) {
    MemoryRequest request = Request(1);
    for (const int32_t block_tokens : {16, 32, 64, 128}) {
      request.block_tokens = block_tokens;
      const auto plan = PlanMemory(SpecOf(Shape(name)), request);
      ASSERT_TRUE(plan.ok()) << ToString(plan.status());
      EXPECT_LE(plan->kv_bytes, request.kv_cache_bytes);
      EXPECT_GT(plan->kv_bytes + plan->kv_bytes_per_block, request.kv_cache_bytes);
      EXPECT_EQ(plan->total_bytes, plan->weights_bytes + plan->activation_bytes + plan->kv_bytes);
    }
  }
}

TEST(MemoryPlan, RanksShareWeightsAndKvHeads) {
  const ModelConfig config = Shape("deepseek-coder-33b");  // 56 heads, 8 kv heads.
  const int64_t shared = [&] {
    int64_t bytes = 0;
    for (const Parameter& spec : ExpectedTensors(SpecOf(config))) {
      const int64_t element = spec.shape.size() > 1 ? 2 : 4;
      if (spec.split == Split::kWhole) bytes += spec.elements() * element;
    }
    return bytes;
  }();
  const auto one = PlanMemory(SpecOf(config), Request(1));
  for (const int32_t tp : {2, 4, 8}) {
    const auto plan = PlanMemory(SpecOf(config), Request(tp));
    ASSERT_TRUE(plan.ok()) << ToString(plan.status());
    EXPECT_EQ((plan->weights_bytes - shared) * tp, one->weights_bytes - shared);
    EXPECT_EQ(plan->kv_bytes_per_token * tp, one->kv_bytes_per_token);
  }
  // With more ranks than kv heads, several ranks hold the same head.
  ModelConfig few = config;
  few.kv_heads = 2;
  EXPECT_EQ(PlanMemory(SpecOf(few), Request(2))->kv_bytes_per_token,
            PlanMemory(SpecOf(few), Request(8))->kv_bytes_per_token);
}

TEST(MemoryPlan, Refuses) {
  const ModelConfig config = Shape("deepseek-llm-7b");
  EXPECT_THAT(std::string(Message(PlanMemory(SpecOf(config), Request(3)).status())),
              HasSubstr("use one of 1, 2, 4"));
  MemoryRequest request = Request(1);
  const int64_t block = 2 * 30 * 32 * 128 * 4 * 16;
  request.kv_cache_bytes = 2 * block - 1;
  const auto small = PlanMemory(SpecOf(config), request);
  EXPECT_EQ(small.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(
      std::string(Message(small.status())),
      AllOf(HasSubstr("holds 1 blocks"), HasSubstr(fmt::format("give {} bytes", 2 * block))));
  request.kv_cache_bytes = 2 * block;
  EXPECT_EQ(PlanMemory(SpecOf(config), request)->blocks, 2);
}

TEST(MemoryPlan, TiedEmbeddingsCountTheirHead) {
  ModelConfig config = Shape("deepseek-llm-7b");
  const int64_t untied = PlanMemory(SpecOf(config), Request(1))->weights_bytes;
  config.tied_embeddings = true;
  EXPECT_EQ(PlanMemory(SpecOf(config), Request(1))->weights_bytes, untied);
}

}  // namespace
}  // namespace fathom
