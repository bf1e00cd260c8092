// Speculative decoding in the core: which rows get drafts, what a result of several tokens changes,
// and when drafts are given up and tried again.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "scheduler/core/speculation.h"
#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

GroupLimits Drafting(int32_t draft_max) {
  GroupLimits limits = CoreHarness::Limits();
  limits.draft_max = draft_max;
  return limits;
}

int32_t DraftsOf(const Chunk& chunk) {
  const auto* decode = std::get_if<DecodeRow>(&chunk.work);
  return decode == nullptr ? 0 : decode->draft_max;
}

TEST(CoreSpeculation, TheTokensAreThoseOfPlainDecodingAndUsageCountsDrafts) {
  for (int32_t draft_max : {0, 1, 3, 16}) {
    for (int32_t max_tokens : {1, 2, 3, 7, 40}) {
      CoreHarness harness;
      harness.Up(Drafting(draft_max));
      Runner runner(harness, harness.UpEvent(Drafting(draft_max)));
      const Record record = MakeRecord("r", 5, max_tokens);
      runner.Follow(1);
      runner.Take(harness.Submit(record, 1));
      runner.RunAll();
      EXPECT_EQ(runner.ledger(1).ids, Expected(record)) << draft_max << ", " << max_tokens;
      ASSERT_TRUE(runner.ledger(1).end.has_value());
      const Usage& usage = runner.ledger(1).end->usage;
      const CoreStats stats = harness.core.Stats();
      EXPECT_EQ(stats.blocks_used, 0);
      EXPECT_EQ(stats.tokens_dropped_total, 0u);
      EXPECT_EQ(static_cast<uint64_t>(usage.drafted_tokens), stats.drafted_tokens_total);
      EXPECT_EQ(static_cast<uint64_t>(usage.accepted_draft_tokens),
                stats.accepted_draft_tokens_total);
      EXPECT_EQ(usage.drafted_tokens > 0, draft_max > 0 && max_tokens > 2);
      EXPECT_LE(usage.accepted_draft_tokens, max_tokens);
    }
  }
}

TEST(CoreSpeculation, ARowWithDraftsIsTheOnlyPlanInFlight) {
  CoreHarness harness;
  harness.Up(Drafting(4));
  Runner runner(harness, harness.UpEvent(Drafting(4)));
  runner.Take(harness.Submit(MakeRecord("a", 3, 30), 1));
  // The prompt's sample is to come, and the row after it would have drafts.
  ASSERT_EQ(runner.plans().size(), 1u);
  ASSERT_TRUE(runner.RunOne());
  ASSERT_EQ(runner.plans().size(), 1u);
  EXPECT_EQ(runner.plans()[0].chunks,
            (std::vector<Chunk>{{SlotId{1}, DecodeRow{StepId{0}, 4}, true}}));
  // A request that comes now waits for the result too.
  runner.Take(harness.Submit(MakeRecord("b", 3, 30), 2));
  ASSERT_EQ(runner.plans().size(), 1u);
  ASSERT_TRUE(runner.RunOne());
  ASSERT_EQ(runner.plans().size(), 1u);
  EXPECT_EQ(runner.plans()[0].chunks.size(), 2u);
  EXPECT_EQ(DraftsOf(runner.plans()[0].chunks[0]), 4);
  runner.RunAll();
}

TEST(CoreSpeculation, DraftsTakeWhatTheStepAndTheBlocksLeave) {
  CoreHarness harness;
  GroupLimits limits = Drafting(6);
  limits.slots = 4;
  limits.step_tokens = 16;
  limits.mixed_step_tokens = 9;
  limits.blocks = 11;
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  for (uint64_t i = 1; i <= 4; ++i) {
    runner.Follow(i);
    runner.Take(harness.Submit(MakeRecord(fmt::format("r{}", i), 3, 20), i));
  }
  std::set<int32_t> granted;
  while (!runner.plans().empty()) {
    const StepPlan& plan = runner.plans()[0];
    int32_t rows = 0;
    for (const Chunk& chunk : plan.chunks) {
      const auto* count = std::get_if<int32_t>(&chunk.work);
      rows += count != nullptr ? *count : 1 + DraftsOf(chunk);
      granted.insert(DraftsOf(chunk));
    }
    EXPECT_LE(rows, 16);
    ASSERT_TRUE(runner.RunOne());
  }
  EXPECT_GT(granted.size(), 2u) << "rows with no, some and all drafts";
  for (uint64_t i = 1; i <= 4; ++i) {
    EXPECT_EQ(runner.ledger(i).ids, Expected(MakeRecord(fmt::format("r{}", i), 3, 20))) << i;
  }
}

TEST(CoreSpeculation, AResultBeyondItsGrantEndsTheEpoch) {
  for (const int fault : {0, 1, 2}) {
    CoreHarness harness;
    harness.Up(Drafting(2));
    sim::FakeGroup group(harness.UpEvent(Drafting(2)));
    Actions actions = harness.Submit(MakeRecord("a", 3, 30), 1);
    actions = harness.Answer(group, actions.plans.at(0).plan);
    ASSERT_EQ(DraftsOf(actions.plans.at(0).plan.chunks[0]), 2);
    StepResult result = *group.Execute(actions.plans[0].plan);
    ResultRow& row = result.rows[0];
    row.logprobs.clear();
    row.ids.resize(fault == 0 ? 4 : 2, TokenId{5});
    row.drafted = fault == 1 ? 0 : fault == 2 ? 3 : 2;
    EXPECT_EQ(harness.Step(StepDone{kGroup, result}).aborts.size(), 1u) << fault;
  }
}

// ---- The decision

DecodeStep StepOf(bool drafts, int64_t us, int32_t tokens, int32_t rows = 1) {
  return {.rows = rows, .drafts = drafts, .us = us, .tokens = tokens};
}

// Runs steps that take `drafts_us` and give `tokens` with drafts, and take 100 us without. Returns
// the share of steps with drafts.
double ShareOf(Speculation& speculation, int steps, int64_t drafts_us, int32_t tokens) {
  int with = 0;
  for (int i = 0; i < steps; ++i) {
    const bool drafts = speculation.Grant(1) > 0;
    with += drafts ? 1 : 0;
    speculation.Learn(drafts ? StepOf(true, drafts_us, tokens) : StepOf(false, 100, 1));
  }
  return static_cast<double>(with) / steps;
}

TEST(Speculation, DraftsRunWhereTheyGainAndTheOtherModeIsTriedRarely) {
  Speculation gains(4);
  EXPECT_GT(ShareOf(gains, 5000, 150, 3), 0.95);
  EXPECT_NEAR(gains.Gain(1), 2.0, 1e-9);
  Speculation loses(4);
  EXPECT_LT(ShareOf(loses, 5000, 150, 1), 0.05);
  EXPECT_LT(loses.Gain(1), 1);
}

TEST(Speculation, AChangeOfTheTextIsNoticed) {
  Speculation speculation(4);
  EXPECT_GT(ShareOf(speculation, 3000, 150, 3), 0.9);
  EXPECT_LT(ShareOf(speculation, 3000, 150, 1), 0.1);
  // The interval has doubled up to its limit at most.
  ShareOf(speculation, 1100, 150, 3);
  EXPECT_GT(ShareOf(speculation, 3000, 150, 3), 0.9);
}

TEST(Speculation, EachBatchSizeDecidesForItself) {
  Speculation speculation(4);
  for (int i = 0; i < 4000; ++i) {
    const int32_t rows = i % 2 == 0 ? 1 : 64;
    const bool drafts = speculation.Grant(rows) > 0;
    // At 64 rows a step with drafts takes five times as long.
    const int64_t us = !drafts ? 100 : rows == 1 ? 110 : 500;
    speculation.Learn(StepOf(drafts, us, drafts ? 3 * rows : rows, rows));
  }
  EXPECT_GT(speculation.Gain(1), 1);
  EXPECT_LT(speculation.Gain(64), 1);
  EXPECT_EQ(speculation.Grant(1), 4);
  EXPECT_EQ(Speculation(0).Grant(1), 0);
  EXPECT_EQ(speculation.Grant(0), 0);
}

}  // namespace
}  // namespace fathom::scheduler
