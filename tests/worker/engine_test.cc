// The engine against a naive model that computes each sequence alone: the tokens and
// log-probabilities of a sequence do not depend on the batch, the chunks, the blocks and the order
// of admission.
#include "worker/engine/engine.h"

#include <gtest/gtest.h>

#include <string>

#include "tests/worker/engine_world.h"
#include "tests/worker/random_run.h"

namespace fathom::worker {
namespace {

TEST(Engine, EverySequenceIsAsIfAlone) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (uint64_t i = 0; i < 20; ++i) RandomRun(TestSeed() * 1000 + i).Run(200);
}

// The tokens, log-probabilities and scores of sequences whose rows have drafts, right and wrong,
// are those of the sequences alone.
TEST(Engine, EverySequenceWithDraftsIsAsIfAlone) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  for (uint64_t i = 0; i < 20; ++i) {
    RandomRun run(TestSeed() * 1000 + i, /*draft_max=*/1 + static_cast<int32_t>(i % 5));
    run.Run(200);
    EXPECT_GT(run.kept(), run.proposed() / 5);
    EXPECT_LT(run.kept(), run.proposed());
  }
}

TEST(Engine, AStepWithMoreScoredRowsThanTheModelTakesIsCutAndExact) {
  World world;
  Request request = World::Greedy();
  request.output.prompt_logprobs = 0;
  std::vector<TokenId> ids;
  for (int32_t i = 0; i < 30; ++i) ids.push_back(i);
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, ids, request);
  plan.chunks = {{{1}, 30, true}};
  const auto result = world.Execute(plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  EXPECT_EQ(world.decoder->forwards, 4);  // 29 scored rows and the sampled one, 8 at a time.
  const PromptLogprobs& scored = result->rows[0].prompt_logprobs.value();
  ASSERT_EQ(scored.logprobs.size(), 29u);
  for (size_t i = 0; i < 29; ++i) {
    EXPECT_EQ(scored.logprobs[i].logprob, NaiveLogprob(std::span(ids).first(i + 1), ids[i + 1]));
  }
}

TEST(Engine, ACopiedBlockGoesOnAsItsOriginal) {
  World world;
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {5, 6, 7, 8});
  plan.chunks = {{{1}, 4, true}};
  ASSERT_TRUE(world.Execute(plan).ok());
  plan = world.Plan();
  world.Seat1(&plan, 2, {5, 6, 7, 8});
  // The first block of slot 1 to that of slot 2.
  plan.copies = {{CopyOperation::kInPool, {1}, {7}}};
  plan.admits[0].computed_tokens = 3;
  plan.chunks = {{{2}, 1, true}, {{1}, DecodeRow{{0}}, true}};
  const auto result = world.Execute(plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  const Naive naive{World::Greedy(), 0, 4, {5, 6, 7, 8}};
  EXPECT_EQ(result->rows[0].ids, std::vector{naive.Next()});
}

TEST(Engine, RanksOtherThanZeroAnswerWithoutRows) {
  World world;
  Progress progress;
  EpochComm comm(1, 2, &world.clock, &progress);
  struct Pretend final : Comm {  // Gives what the fake decoder expects from rank 0.
    int rank() const override { return 1; }
    int size() const override { return 2; }
    absl::Status AllReduceSum(std::span<float> values) override {
      for (float& value : values) value = 3;
      return absl::OkStatus();
    }
    absl::Status AllGather(std::span<const float>, std::span<float>) override {
      return absl::OkStatus();
    }
  } pretend;
  comm.SetTarget(&pretend);
  FakeDecoder decoder(world.kv.get(), &comm, kLogitsRows);
  GroupSeat seat;
  seat.term = {3};
  seat.epoch = {5};
  seat.rank = 1;
  seat.tp = 2;
  seat.limits = kLimits;
  CpuDevice device({&decoder, world.kv.get(), &comm, &world.clock, kLimits, kLogitsRows});
  Engine engine(&device, seat);
  StepPlan plan = world.Plan();
  world.Seat1(&plan, 1, {1, 2, 3});
  plan.chunks = {{{1}, 3, true}};
  auto result = Execute(&engine, plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  EXPECT_EQ(result->rank, 1);
  EXPECT_TRUE(result->rows.empty());
  EXPECT_EQ(result->collectives, 1u);
  // This rank sampled the token too, so its next step computes it, at position 3 of block 1.
  plan = world.Plan();
  plan.chunks = {{{1}, DecodeRow{{0}}, true}};
  result = Execute(&engine, plan);
  ASSERT_TRUE(result.ok()) << ToString(result.status());
  EXPECT_EQ(result->collectives, 2u);
  const KvCache& kv = *world.kv;
  const float* const computed = world.kv->Plane(0, 0) + kv.BlockFloats(0, 0) + 3 * 16;
  EXPECT_EQ(static_cast<TokenId>(*computed), (Naive{World::Greedy(), 0, 3, {1, 2, 3}}.Next()));
}

}  // namespace
}  // namespace fathom::worker
