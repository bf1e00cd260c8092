// A wrong plan ends the epoch; an error in one sequence is a fault of its row only.
#include "worker/engine/engine.h"

#include <gtest/gtest.h>

#include <string>

#include "common/request_limits.h"
#include "tests/worker/engine_world.h"

namespace fathom::worker {
namespace {

TEST(Engine, AFaultHarmsItsRowOnly) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, kPoison, 2});     // Logits that are not finite.
  world.Seat1(&plan, 2, {1, kFakeVocab, 2});  // No such token.
  world.Seat1(&plan, 3, {1, 2, 3});           // A block outside of the pool.
  plan.extends[2].block_ids[0] = {kLimits.pool_blocks};
  world.Seat1(&plan, 4, std::vector<TokenId>(20, 1));  // Too few blocks.
  plan.extends[3].block_ids.resize(1);
  world.Seat1(&plan, 5, {4, 5, 6});
  plan.chunks = {{{1}, 3, true}, {{2}, 3, true}, {{3}, 3, true}, {{4}, 20, true}, {{5}, 3, true}};
  const auto first = world.Execute(plan);
  ASSERT_TRUE(first.ok()) << ToString(first.status());
  // This plan was made before the faults were known. The engine ignores its rows and reports the
  // same faults again.
  plan = world.Plan();
  for (int32_t slot = 1; slot <= 5; ++slot) plan.chunks.push_back({{slot}, DecodeRow{{0}}, true});
  const auto second = world.Execute(plan);
  ASSERT_TRUE(second.ok()) << ToString(second.status());
  Naive naive{World::Greedy(), 0, 3, {4, 5, 6}};
  const RowFault faults[] = {RowFault::kNonFiniteLogits, RowFault::kTokenOutOfRange,
                             RowFault::kBlockOutOfRange, RowFault::kBlockOutOfRange,
                             RowFault::kNone};
  for (const auto* result : {&first, &second}) {
    for (size_t i = 0; i < 5; ++i) {
      EXPECT_EQ((*result)->rows[i].fault, faults[i]) << i;
      EXPECT_EQ((*result)->rows[i].ids.empty(), faults[i] != RowFault::kNone) << i;
    }
    EXPECT_EQ((*result)->rows[4].ids, std::vector{naive.Next()});
    naive.ids.push_back(naive.Next());
  }
  // Other sequences can use the slots again.
  plan = world.Plan();
  for (int32_t slot = 1; slot <= 4; ++slot) plan.releases.push_back({slot});
  for (int32_t slot = 1; slot <= 4; ++slot) {
    world.Seat1(&plan, slot, {4, 5, 6});
    plan.chunks.push_back({{slot}, 3, true});
  }
  const auto third = world.Execute(plan);
  ASSERT_TRUE(third.ok());
  for (const ResultRow& row : third->rows) {
    EXPECT_EQ(row.ids, std::vector{(Naive{World::Greedy(), 0, 3, {4, 5, 6}}.Next())});
  }
}

TEST(Engine, ASequenceThatReachesTheContextFaultsAndNothingElse) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, std::vector<TokenId>(48, 1));
  plan.chunks = {{{1}, 48, true}};
  ASSERT_TRUE(world.Execute(plan).ok());
  int32_t tokens = 1;
  while (true) {
    plan = world.Plan();
    plan.chunks = {{{1}, DecodeRow{{world.step - 2}}, true}};
    const auto result = world.Execute(plan);
    ASSERT_TRUE(result.ok()) << ToString(result.status());
    if (result->rows[0].fault != RowFault::kNone) break;
    ++tokens;
  }
  EXPECT_EQ(48 + tokens,
            kLimits.context_tokens + 1);  // The last one is sampled and never computed.
}

TEST(Engine, NothingLeftToDrawIsAFault) {
  World world;
  Request request = World::Greedy();
  request.stop.min_tokens = 1;
  for (TokenId id = 0; id < kFakeVocab; ++id) request.stop.stop_token_ids.push_back(id);
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, 2}, request);
  plan.chunks = {{{1}, 2, true}};
  const auto result = world.Execute(plan);
  ASSERT_TRUE(result.ok());
  EXPECT_EQ(result->rows[0].fault, RowFault::kTokenOutOfRange);
}

// Changes a plan into a wrong one. Before the plan, the engine has slot 1, which step 0 computed
// and sampled, and slot 2 with 3 of its 5 ids.
struct WrongPlan {
  const char* name;
  void (*spoil)(StepPlan* plan);
};
class WrongPlans : public testing::TestWithParam<WrongPlan> {};

TEST_P(WrongPlans, EndTheEpoch) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, 2, 3});
  world.Seat1(&plan, 2, {1, 2, 3, 4, 5});
  plan.admits[1].ids.resize(3);
  plan.admits[1].more = true;
  plan.chunks = {{{1}, 3, true}};
  ASSERT_TRUE(world.Execute(plan).ok());
  plan = world.Plan();
  GetParam().spoil(&plan);
  const auto result = world.Execute(plan);
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument)
      << ToString(result.status());
}

Admit SomeAdmit(int32_t slot) {
  Admit admit;
  admit.slot = {slot};
  admit.prompt_tokens = 2;
  admit.ids = {1, 2};
  return admit;
}

INSTANTIATE_TEST_SUITE_P(
    Engine, WrongPlans,
    testing::Values(WrongPlan{"Term", [](StepPlan* p) { p->term = {2}; }},
                    WrongPlan{"Epoch", [](StepPlan* p) { p->epoch = {6}; }},
                    WrongPlan{"StepGap", [](StepPlan* p) { p->step = {2}; }},
                    WrongPlan{"StepAgain", [](StepPlan* p) { p->step = {0}; }},
                    WrongPlan{"CopyFromPadding",
                              [](StepPlan* p) {
                                p->copies = {{CopyOperation::kInPool, {0}, {1}}};
                              }},
                    WrongPlan{"CopyOutside",
                              [](StepPlan* p) {
                                p->copies = {{CopyOperation::kInPool, {1}, {kLimits.pool_blocks}}};
                              }},
                    WrongPlan{"CopyByAnUnknownOperation",
                              [](StepPlan* p) {
                                p->copies = {{static_cast<CopyOperation>(7), {1}, {2}}};
                              }},
                    WrongPlan{"CopyOfAnUnknownKind",
                              [](StepPlan* p) {
                                p->copies = {{.from = {1},
                                              .to = {2},
                                              .block_kind = static_cast<BlockKind>(7)}};
                              }},
                    WrongPlan{"ExtendOfAnUnknownKind",
                              [](StepPlan* p) {
                                p->extends = {{{1}, {{4}}, static_cast<BlockKind>(7)}};
                              }},
                    WrongPlan{"ReleaseEmpty", [](StepPlan* p) { p->releases = {{3}}; }},
                    WrongPlan{"ReleasePadding", [](StepPlan* p) { p->releases = {{0}}; }},
                    WrongPlan{"ReleaseOutside", [](StepPlan* p) { p->releases = {{9}}; }},
                    WrongPlan{"AdmitTaken", [](StepPlan* p) { p->admits = {SomeAdmit(1)}; }},
                    WrongPlan{"AdmitPadding", [](StepPlan* p) { p->admits = {SomeAdmit(0)}; }},
                    WrongPlan{"AdmitOutside", [](StepPlan* p) { p->admits = {SomeAdmit(-1)}; }},
                    WrongPlan{"AdmitAllComputed",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].computed_tokens = 2;
                              }},
                    WrongPlan{"AdmitShort",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].prompt_tokens = 3;
                              }},
                    WrongPlan{"AdmitWithTooManyBiases",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].request.sampling.logit_bias.resize(kLogitBiasMax + 1);
                              }},
                    WrongPlan{"AdmitWithTooManyEndTokens",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].request.stop.end_token_ids.resize(kEndTokensMax + 1);
                              }},
                    WrongPlan{"AdmitWithTooManyStopTokens",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].request.stop.stop_token_ids.resize(kStopTokensMax + 1);
                              }},
                    WrongPlan{"AdmitBeyondContext",
                              [](StepPlan* p) {
                                p->admits = {SomeAdmit(3)};
                                p->admits[0].ids.resize(97);
                              }},
                    WrongPlan{"ExtendEmpty",
                              [](StepPlan* p) {
                                p->extends = {{{3}, {{1}}}};
                              }},
                    WrongPlan{"ExtendBeyondPool",
                              [](StepPlan* p) {
                                p->extends = {{{1}, std::vector<BlockId>(64, BlockId{1})}};
                              }},
                    WrongPlan{"ChunkEmptySlot",
                              [](StepPlan* p) {
                                p->chunks = {{{3}, 1, false}};
                              }},
                    WrongPlan{"ChunkOfNothing",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 0, false}};
                              }},
                    WrongPlan{"ChunkNegative",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, -1, false}};
                              }},
                    WrongPlan{"ChunkBeyondIds",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 4, false}};
                              }},
                    WrongPlan{"SampleBeforeTheEnd",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 2, true}};
                              }},
                    WrongPlan{"SampleWhileMoreIsToCome",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 3, true}};
                              }},
                    WrongPlan{"FedByAnother",
                              [](StepPlan* p) {
                                p->chunks = {{{1}, DecodeRow{{1}}, true}};
                              }},
                    WrongPlan{"FedByNothing",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, DecodeRow{{0}}, true}};
                              }},
                    WrongPlan{"SlotTwice",
                              [](StepPlan* p) {
                                p->chunks = {{{2}, 1, false}, {{2}, 1, false}};
                              }}),
    [](const auto& param) { return std::string(param.param.name); });

}  // namespace
}  // namespace fathom::worker
