// The copies between the KV pool and the swap space, on the CPU.
#include <gtest/gtest.h>

#include "tests/worker/engine_world.h"

namespace fathom::worker {
namespace {

EngineLimits WithSwapSpace(int32_t host_blocks) {
  EngineLimits limits = kLimits;
  limits.host_blocks = host_blocks;
  return limits;
}

Chunk Prefill(int32_t slot, int32_t tokens, bool sample) { return {{slot}, tokens, sample}; }

// Runs `plan` and appends the token of its only row to `ids`.
void RunStep(World& world, const StepPlan& plan, std::vector<TokenId>* ids) {
  const auto result = world.Execute(plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  ASSERT_EQ(result->rows.size(), 1u);
  ASSERT_EQ(result->rows[0].fault, RowFault::kNone);
  ids->insert(ids->end(), result->rows[0].ids.begin(), result->rows[0].ids.end());
}

// A sequence leaves its blocks, another one writes them, and the first one continues in others from
// the swap space. It gets the tokens of a sequence that stayed.
TEST(Swap, ASequenceContinuesFromTheSwapSpace) {
  const std::vector<TokenId> prompt = {5, 9, 11, 2, 7, 13, 3,  5, 9, 11,
                                       2, 7, 13, 3, 5, 9,  11, 2, 7};
  Naive naive;
  naive.request = World::Greedy();
  naive.prompt_tokens = static_cast<int32_t>(prompt.size());
  naive.ids = prompt;
  World world(WithSwapSpace(4));
  std::vector<TokenId> ids = prompt;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, prompt);  // Blocks 1 to 6.
  plan.chunks = {Prefill(1, static_cast<int32_t>(prompt.size()), true)};
  ASSERT_NO_FATAL_FAILURE(RunStep(world, plan, &ids));
  const auto decode = [&](int32_t slot) {
    StepPlan next = world.Plan();
    next.chunks = {{{slot}, DecodeRow{StepId{next.step.value - 1}}, true}};
    return next;
  };
  for (int i = 0; i < 4; ++i) ASSERT_NO_FATAL_FAILURE(RunStep(world, decode(1), &ids));
  const auto computed = static_cast<int32_t>(ids.size()) - 1;  // 23 tokens in blocks 1 and 2.

  // Out, and the plan gives its slot and its blocks to another sequence at once.
  plan = world.Plan();
  plan.copies = {{CopyOperation::kSwapOut, {1}, {4}}, {CopyOperation::kSwapOut, {2}, {1}}};
  plan.releases = {{1}};
  world.Seat1(&plan, 1, std::vector<TokenId>(40, 6));
  plan.chunks = {Prefill(1, 40, true)};
  std::vector<TokenId> others;
  ASSERT_NO_FATAL_FAILURE(RunStep(world, plan, &others));

  // In, to blocks 7 and 8 of slot 2.
  plan = world.Plan();
  plan.copies = {{CopyOperation::kSwapIn, {4}, {7}}, {CopyOperation::kSwapIn, {1}, {8}}};
  plan.releases = {{1}};
  world.Seat1(&plan, 2, ids);
  plan.admits[0].prompt_tokens = static_cast<int32_t>(prompt.size());
  plan.admits[0].computed_tokens = computed;
  plan.chunks = {Prefill(2, 1, true)};
  ASSERT_NO_FATAL_FAILURE(RunStep(world, plan, &ids));
  for (int i = 0; i < 10; ++i) ASSERT_NO_FATAL_FAILURE(RunStep(world, decode(2), &ids));
  while (naive.ids.size() < ids.size()) naive.ids.push_back(naive.Next());
  EXPECT_EQ(ids, naive.ids);
}

TEST(Swap, ABlockOutsideOfTheSwapSpaceEndsTheEpoch) {
  for (const BlockCopy& copy :
       {BlockCopy{CopyOperation::kSwapOut, {1}, {5}}, BlockCopy{CopyOperation::kSwapOut, {1}, {0}},
        BlockCopy{CopyOperation::kSwapOut, {0}, {1}}, BlockCopy{CopyOperation::kSwapIn, {5}, {1}},
        BlockCopy{CopyOperation::kSwapIn, {1}, {kLimits.pool_blocks}}}) {
    World world(WithSwapSpace(4));
    StepPlan plan = world.Plan();
    plan.copies = {copy};
    const auto result = world.Execute(plan);
    ASSERT_FALSE(result.ok());
    EXPECT_NE(Message(result.status()).find("this group has blocks 1 to"), std::string::npos);
  }
  World without(WithSwapSpace(0));
  StepPlan plan = without.Plan();
  plan.copies = {{CopyOperation::kSwapOut, {1}, {1}}};
  EXPECT_FALSE(without.Execute(plan).ok());
}

}  // namespace
}  // namespace fathom::worker
