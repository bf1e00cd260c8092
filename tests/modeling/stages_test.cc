// The division of layers into stages against every division there is, and what follows from it: the
// parameters of each stage, and its memory.
#include "modeling/spec/stages.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <string>

#include "common/status.h"
#include "modeling/architectures/architecture.h"
#include "modeling/layout/memory_plan.h"
#include "modeling/spec/rank_model.h"
#include "tests/modeling/model_files.h"
#include "tests/modeling/toy_spec.h"

namespace fathom {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 1;
}

// The sizes of the stages that end at `ends`.
std::vector<int64_t> SizesOf(const std::vector<int64_t>& layers, int64_t first, int64_t last,
                             const std::vector<LayerRange>& ranges) {
  std::vector<int64_t> sizes;
  for (const LayerRange& range : ranges) {
    int64_t& size = sizes.emplace_back(0);
    for (int32_t i = range.begin; i < range.end; ++i) size += layers[static_cast<size_t>(i)];
  }
  sizes.front() += first;
  sizes.back() += last;
  return sizes;
}

int64_t Squares(const std::vector<int64_t>& sizes) {
  int64_t sum = 0;
  for (const int64_t size : sizes) sum += size * size;
  return sum;
}

// Calls `visit` with every division of `count` layers into `stages`, in the order of their ends.
template <class Visit>
void ForEachDivision(int32_t count, int32_t stages, std::vector<LayerRange>* ranges, Visit visit) {
  const int32_t begin = ranges->empty() ? 0 : ranges->back().end;
  const auto left = stages - static_cast<int32_t>(ranges->size());
  if (left == 0) {
    if (begin == count) visit(*ranges);
    return;
  }
  for (int32_t end = begin + 1; end <= count; ++end) {
    ranges->push_back({begin, end});
    ForEachDivision(count, stages, ranges, visit);
    ranges->pop_back();
  }
}

TEST(Stages, NoDivisionHasASmallerLargestStage) {
  std::mt19937_64 rng(TestSeed());
  for (int round = 0; round < 400; ++round) {
    const auto count = static_cast<int32_t>(1 + rng() % 9);
    const auto stages = static_cast<int32_t>(1 + rng() % static_cast<uint64_t>(count));
    const uint64_t most = rng() % 2 == 0 ? 3 : 1000;  // Few sizes: many divisions are as good.
    std::vector<int64_t> layers;
    for (int32_t i = 0; i < count; ++i) layers.push_back(static_cast<int64_t>(rng() % most));
    const auto first = static_cast<int64_t>(rng() % (2 * most));
    const auto last = static_cast<int64_t>(rng() % (2 * most));
    std::vector<LayerRange> best, tried;
    std::pair<int64_t, int64_t> least{INT64_MAX, INT64_MAX};
    ForEachDivision(count, stages, &tried, [&](const std::vector<LayerRange>& ranges) {
      const std::vector<int64_t> sizes = SizesOf(layers, first, last, ranges);
      const std::pair cost{*std::ranges::max_element(sizes), Squares(sizes)};
      if (cost >= least) return;
      least = cost;
      best = ranges;
    });
    EXPECT_EQ(DivideLayers(layers, first, last, stages), best)
        << "FATHOM_SEED=" << TestSeed() << ", round " << round;
  }
}

TEST(Stages, EmbeddingAndHeadCountAsLayersDo) {
  const auto sizes = [](const ModelSpec& spec, int32_t tp, int32_t stages) {
    std::vector<int32_t> counts;
    for (const LayerRange& range : StagesOf(spec, tp, stages)) counts.push_back(range.size());
    return counts;
  };
  ModelSpec spec = testing::ToySpec(std::vector(12, testing::ToyLayerSizes{2, 2, 64}));
  EXPECT_EQ(sizes(spec, 1, 3), (std::vector{4, 4, 4}));
  // A layer has about 20,000 elements. The embedding of 61 x 64 is less than half of one.
  spec.vocab = 1024;
  spec.embedding.shape[0] = spec.lm_head->shape[0] = 1024;  // About three layers each.
  EXPECT_EQ(sizes(spec, 1, 3), (std::vector{3, 6, 3}));
  spec.lm_head.reset();  // Tied: the last stage has the rows too.
  EXPECT_EQ(sizes(spec, 1, 3), (std::vector{3, 6, 3}));
  // The embedding is whole on each of two ranks, the head and the layers are halves.
  EXPECT_EQ(sizes(spec, 2, 3), (std::vector{1, 7, 4}));
}

TEST(Stages, MoreThanLayersAreRefusedWithWhatIsPossible) {
  const ModelSpec spec = testing::ToySpec(std::vector(5, testing::ToyLayerSizes{2, 2, 64}));
  for (const int32_t stages : {1, 2, 5}) EXPECT_TRUE(CheckStages(spec, stages).ok());
  for (const int32_t stages : {-1, 0, 6}) EXPECT_FALSE(CheckStages(spec, stages).ok());
  EXPECT_THAT(std::string(Message(CheckStages(spec, 6))),
              AllOf(HasSubstr("--pipeline-parallel-size 6"), HasSubstr("use 1 to 5")));
  EXPECT_THAT(
      std::string(Message(
          PlanMemory(spec,
                     {.stages = 6, .step_tokens = 8, .logits_rows = 8, .kv_cache_bytes = 1 << 20})
              .status())),
      HasSubstr("use 1 to 5"));
}

// Over all stages each byte of weights is counted once, but for the rows of a tied LM head.
TEST(Stages, MemoryOfTheStagesIsThatOfTheModel) {
  for (const bool tied : {false, true}) {
    auto config = ReadModelConfig(testing::BundledModel("shapes") / "deepseek-llm-7b.json");
    ASSERT_TRUE(config.ok()) << ToString(config.status());
    config->tied_embeddings = tied;
    const ModelSpec spec = SpecOf(*config);
    MemoryRequest request{
        .step_tokens = 512, .logits_rows = 64, .kv_cache_bytes = int64_t{8} << 30};
    const auto whole = PlanMemory(spec, request);
    ASSERT_TRUE(whole.ok()) << ToString(whole.status());
    for (const int32_t stages : {2, 4, 7}) {
      request.stages = stages;
      const auto plans = PlanStages(spec, request);
      ASSERT_TRUE(plans.ok()) << ToString(plans.status());
      ASSERT_EQ(plans->size(), static_cast<size_t>(stages));
      int64_t weights = 0, kv = 0, most = 0, block_most = 0;
      for (const MemoryPlan& plan : *plans) {
        weights += plan.weights_bytes;
        kv += plan.kv_bytes_per_block;
        most = std::max(most, plan.total_bytes);
        block_most = std::max(block_most, plan.kv_bytes_per_block);
        EXPECT_EQ(plan.blocks, plans->front().blocks);
      }
      EXPECT_EQ(weights, whole->weights_bytes);
      EXPECT_EQ(kv, whole->kv_bytes_per_block);
      EXPECT_EQ(plans->front().blocks, request.kv_cache_bytes / block_most);
      // Only the last stage has logits. A later stage also has the rows that it received.
      EXPECT_LT(plans->front().activation_bytes, whole->activation_bytes);
      EXPECT_EQ(plans->back().activation_bytes,
                whole->activation_bytes + int64_t{request.step_tokens} * spec.hidden * 4);
      EXPECT_EQ(PlanMemory(spec, request)->total_bytes, most);
    }
  }
}

}  // namespace
}  // namespace fathom
