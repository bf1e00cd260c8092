// Preempted sequences whose KV goes to the swap space and comes back.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "scheduler/core/group.h"
#include "scheduler/core/swap_cost.h"
#include "tests/scheduler/core_harness.h"

namespace fathom::scheduler {
namespace {

GroupLimits SmallPool(int32_t host_blocks) {
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 9;  // 32 tokens.
  limits.host_blocks = host_blocks;
  return limits;
}

// A core with one group, and the ledgers of three requests that the pool cannot hold at a time.
struct Three {
  explicit Three(const GroupLimits& limits) : runner(harness, harness.UpEvent(limits)) {
    harness.Up(limits);
    for (uint64_t i = 1; i <= 3; ++i) {
      harness.now += 10;
      records.push_back(MakeRecord("r" + std::to_string(i), 8, 20));
      runner.Follow(i);
      runner.Take(harness.Submit(records.back(), i));
    }
  }
  void RunUntilSwapped() {
    while (stats().swap_blocks_used == 0) ASSERT_TRUE(runner.RunOne());
  }
  CoreStats stats() const { return harness.core.Stats(); }

  CoreHarness harness{{.prefix_caching = false}};
  Runner runner;
  std::vector<Record> records;
};

TEST(CoreSwap, APreemptedSequenceContinuesWhereItWas) {
  Three three(SmallPool(16));
  three.RunUntilSwapped();
  const StepPlan& out = three.runner.plans().back();
  ASSERT_FALSE(out.copies.empty());
  EXPECT_EQ(out.copies.front().operation, CopyOperation::kSwapOut);
  bool back = false;
  while (!three.runner.plans().empty()) {
    for (const StepPlan& plan : three.runner.plans()) {
      for (const BlockCopy& copy : plan.copies) {
        if (copy.operation != CopyOperation::kSwapIn || plan.admits.empty()) continue;
        back = true;
        EXPECT_GT(plan.admits.front().computed_tokens, 0);
      }
    }
    three.runner.RunOne();
  }
  EXPECT_TRUE(back);
  for (uint64_t i = 1; i <= 3; ++i) {
    EXPECT_EQ(three.runner.ledger(i).ids, Expected(three.records[i - 1]));
  }
  EXPECT_GT(three.stats().swapped_in_blocks_total, 0u);
  EXPECT_EQ(three.stats().swap_blocks_used, 0);
  EXPECT_EQ(three.stats().blocks_used, 0);
}

// Its ids do not fit one plan, so the first plan computes none of its tokens.
TEST(CoreSwap, ASequenceOfMoreIdsThanAPlanCarries) {
  GroupLimits limits{.blocks = 5628,  // 90,032 tokens.
                     .block_tokens = 16,
                     .slots = 4,
                     .step_tokens = 50'000,
                     .context_tokens = 100'000,
                     .plans_in_flight = 2,
                     .host_blocks = 4000};
  CoreHarness harness({.prefix_caching = false});
  harness.Up(limits);
  Runner runner(harness, harness.UpEvent(limits));
  const Record first = MakeRecord("first", 40'000, 30), second = MakeRecord("second", 50'000, 30);
  runner.Follow(1);
  runner.Follow(2);
  runner.Take(harness.Submit(first, 1));
  ++harness.now;
  runner.Take(harness.Submit(second, 2));
  int32_t computed = 0;
  while (!runner.plans().empty()) {
    for (const Admit& admit : runner.plans().front().admits) {
      computed = std::max(computed, admit.computed_tokens);
    }
    runner.RunOne();
  }
  EXPECT_GT(computed, kAdmitIdsMax);
  EXPECT_GT(harness.core.Stats().swapped_in_blocks_total, 3000u);
  EXPECT_EQ(runner.ledger(1).ids, Expected(first));
  EXPECT_EQ(runner.ledger(2).ids, Expected(second));
}

TEST(CoreSwap, WithoutSpaceItIsComputedAgain) {
  for (const int32_t host_blocks : {0, 1}) {
    Three three(SmallPool(host_blocks));
    three.runner.RunAll();
    EXPECT_GT(three.stats().preemptions_total, 0u);
    EXPECT_EQ(three.stats().swaps_total, 0u);
    for (uint64_t i = 1; i <= 3; ++i) {
      EXPECT_EQ(three.runner.ledger(i).ids, Expected(three.records[i - 1]));
    }
  }
}

TEST(CoreSwap, TheSpaceIsFreeWhenTheClientLeavesAndWhenTheGroupIsLost) {
  for (const bool group_lost : {false, true}) {
    Three three(SmallPool(16));
    three.RunUntilSwapped();
    if (group_lost) {
      three.harness.Step(GroupLost{kGroup, EpochId{1}});
      EXPECT_EQ(three.stats().requests_waiting, 3);
    } else {
      for (uint64_t i = 1; i <= 3; ++i) {
        three.runner.Take(
            three.harness.Step(Routed<Suspend>{kRouter, {AttemptId{i}, three.records[i - 1].key}}));
      }
    }
    EXPECT_EQ(three.stats().swap_blocks_used, 0);
  }
}

// The pool holds one request and no more, so every other one is preempted for it.
TEST(CoreSwap, EveryRequestEndsAsIfAloneInAPoolOfTheLeastSize) {
  const uint64_t seed = sim::TestSeed(1);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  uint64_t swapped_in = 0, computed_again = 0;
  for (int round = 0; round < 30; ++round) {
    GroupLimits limits = CoreHarness::Limits();
    limits.block_tokens = 1 + static_cast<int32_t>(rng() % 5);
    constexpr int32_t kLongest = 40;  // Tokens that need room.
    limits.blocks = 1 + (kLongest + limits.block_tokens - 1) / limits.block_tokens;
    limits.host_blocks = static_cast<int32_t>(rng() % (2 * static_cast<uint64_t>(limits.blocks)));
    limits.lanes = 1 + static_cast<int32_t>(rng() % 3);
    limits.plans_in_flight = limits.lanes + static_cast<int32_t>(rng() % 3);
    limits.step_tokens = 4 + static_cast<int32_t>(rng() % 20);
    CoreHarness harness({.prefix_caching = rng() % 2 == 0});
    harness.Up(limits);
    Runner runner(harness, harness.UpEvent(limits));
    std::vector<Record> records;
    for (uint64_t i = 1; i <= 12; ++i) {
      harness.now += static_cast<TimeUs>(rng() % 3);
      const auto prompt = 1 + static_cast<int32_t>(rng() % 20);
      const auto most = kLongest + 1 - prompt;
      records.push_back(
          MakeRecord("r" + std::to_string(i), prompt, 1 + static_cast<int32_t>(rng() % most)));
      records.back().priority = static_cast<int32_t>(rng() % 2);
      if (rng() % 4 == 0) records.back().request.output.prompt_logprobs = 0;
      runner.Follow(i);
      runner.Take(harness.Submit(records.back(), i));
      for (uint64_t steps = rng() % 3; steps > 0; --steps) runner.RunOne();
    }
    runner.RunAll();
    for (uint64_t i = 1; i <= records.size(); ++i) {
      const Record& record = records[i - 1];
      ASSERT_EQ(runner.ledger(i).ids, Expected(record)) << "round " << round;
      if (record.request.output.prompt_logprobs) {
        EXPECT_EQ(runner.ledger(i).prompt_logprobs.size(), record.prompt_ids.size() - 1);
      }
    }
    const CoreStats stats = harness.core.Stats();
    EXPECT_EQ(stats.blocks_used, 0);
    EXPECT_EQ(stats.swap_blocks_used, 0);
    swapped_in += stats.swapped_in_blocks_total;
    computed_again += stats.preemptions_total - stats.swaps_total;
  }
  EXPECT_GT(swapped_in, 100u);
  EXPECT_GT(computed_again, 100u);
}

// ---- The choice

FlightStep StepOf(int32_t prompt_rows, bool decodes, int32_t swapped_blocks) {
  FlightStep step;
  step.swapped_blocks = swapped_blocks;
  if (prompt_rows > 0) step.rows.push_back({.tokens = prompt_rows, .prefill = true});
  if (decodes) step.rows.push_back({.tokens = 1});
  return step;
}

TEST(SwapCost, TheFasterWayByTheTimesOfTheSteps) {
  SwapCost cost;
  EXPECT_TRUE(cost.SwapIsFaster(1, 1));  // Nothing is measured: the first swap measures.
  cost.Note(StepOf(0, true, 0), {.compute_us = 1000});
  cost.Note(StepOf(200, true, 0), {.compute_us = 5000});  // 1,000 of them for the decode row.
  EXPECT_TRUE(cost.SwapIsFaster(1, 1));
  cost.Note(StepOf(0, true, 10), {.compute_us = 1000, .swap_us = 400});
  EXPECT_DOUBLE_EQ(cost.us_per_token(), 20);
  EXPECT_DOUBLE_EQ(cost.us_per_block(), 40);
  // Out and in take 80 us for a block; 16 tokens of a block take 320 us to compute.
  EXPECT_TRUE(cost.SwapIsFaster(10, 160));
  EXPECT_FALSE(cost.SwapIsFaster(10, 40));  // Equal.
  EXPECT_TRUE(cost.SwapIsFaster(10, 41));
  // Slow copies weigh in, and the latest measurement most.
  for (int i = 0; i < 50; ++i) cost.Note(StepOf(0, true, 10), {.swap_us = 4000});
  EXPECT_NEAR(cost.us_per_block(), 400, 4);
  EXPECT_FALSE(cost.SwapIsFaster(10, 160));
  EXPECT_DOUBLE_EQ(cost.us_per_token(), 20);
}

}  // namespace
}  // namespace fathom::scheduler
