// Tenants over their share: who they are, and that they leave room for the others.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "scheduler/core/tenant_shares.h"
#include "tests/scheduler/core_harness.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

constexpr TimeUs kLater = 20'000'000;

class Shares : public testing::Test {
 protected:
  void Run(const std::string& tenant, int32_t sequences) {
    for (int32_t i = 0; i < sequences; ++i) shares_.Runs(tenant);
  }
  void Wait(const std::string& tenant, int32_t sequences) {
    for (int32_t i = 0; i < sequences; ++i) shares_.Waits(tenant);
  }
  TenantTable table_;
  TenantShares shares_{&table_, true};
};

TEST_F(Shares, ATenantIsOverIfItHasAQueueAndRunsMoreThanItsShare) {
  shares_.SetSlots(16);
  Run("a", 8);
  Wait("a", 2);
  EXPECT_FALSE(shares_.IsOver("a"));  // Nobody else is there.
  Run("b", 8);
  Wait("b", 2);
  EXPECT_FALSE(shares_.IsOver("a"));  // Half of them.
  EXPECT_FALSE(shares_.IsOver("nobody"));
  Run("a", 1);
  EXPECT_FALSE(shares_.IsOver("a"));  // Its queue is short.
  Wait("a", 1);
  EXPECT_TRUE(shares_.IsOver("a"));
  EXPECT_FALSE(shares_.IsOver("b"));
  table_.tenants["a"].weight = 3;
  shares_.TableChanged();
  EXPECT_FALSE(shares_.IsOver("a"));
}

TEST_F(Shares, FewSequencesAreNeverOverAShare) {
  shares_.SetSlots(64);  // Three eighths of a share of the slots are 12.
  Run("a", 12);
  Wait("a", 9);
  Wait("b", 1);
  EXPECT_FALSE(shares_.IsOver("a"));
  Run("a", 1);
  EXPECT_TRUE(shares_.IsOver("a"));
  EXPECT_TRUE(shares_.OthersAreThere("a"));
}

TEST_F(Shares, ATenantIsPresentForAWhileAfterItsLastSequence) {
  shares_.SetSlots(16);
  Run("a", 16);
  Wait("a", 4);
  Run("b", 1);
  shares_.RunsNoMore("b");
  EXPECT_TRUE(shares_.IsOver("a"));
  EXPECT_FALSE(shares_.OthersAreThere("a"));
  shares_.SetTime(kLater);
  EXPECT_FALSE(shares_.IsOver("a"));
  EXPECT_TRUE(shares_.Check(4, 16).ok());
}

TEST_F(Shares, WhatIsKeptGrowsWithTheOthersUpToAnEighth) {
  Run("a", 100);
  EXPECT_EQ(shares_.KeptSlots("a", 256, 1), 2);
  Run("b", 20);
  EXPECT_EQ(shares_.KeptSlots("a", 256, 1), 12);
  EXPECT_EQ(shares_.KeptSlots("a", 256, 4), 4);
  EXPECT_EQ(shares_.KeptSlots("a", 7, 1), 0);
  Run("b", 200);
  EXPECT_EQ(shares_.KeptSlots("a", 256, 1), 32);
}

TEST_F(Shares, TheCountsHoldUnderRandomEvents) {
  const uint64_t seed = sim::TestSeed(41);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  std::map<std::string, std::pair<int32_t, int32_t>> counts;  // Waiting and running.
  int64_t waiting = 0, running = 0;
  TimeUs now = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string tenant = "t" + std::to_string(rng() % 3000);
    auto& [waits, runs] = counts[tenant];
    switch (rng() % 5) {
      case 0:
      case 1:
        shares_.Waits(tenant);
        ++waits, ++waiting;
        break;
      case 2:
        if (waits == 0) break;
        shares_.WaitsNoMore(tenant);
        shares_.Runs(tenant);
        --waits, --waiting, ++runs, ++running;
        break;
      case 3:
        if (runs == 0) break;
        shares_.RunsNoMore(tenant);
        --runs, --running;
        break;
      default:
        shares_.SetTime(now += static_cast<TimeUs>(rng() % 100'000));
    }
    if (i % 100 == 0) {
      const absl::Status status = shares_.Check(waiting, running);
      ASSERT_TRUE(status.ok()) << ToString(status);
    }
  }
}

// ---- In the core

Record OfTenant(const std::string& tenant, uint64_t id, int32_t prompt, int32_t max_tokens) {
  Record record = MakeRecord(std::to_string(id), prompt, max_tokens);
  record.key.tenant = tenant;
  return record;
}

class SharesInCore {
 public:
  explicit SharesInCore(const std::string& policy, const GroupLimits& limits)
      : harness({.policy = policy, .prefix_caching = false}),
        runner(harness, harness.UpEvent(limits)) {
    runner.Take(harness.Up(limits));
  }
  uint64_t Send(const std::string& tenant, int32_t prompt, int32_t max_tokens) {
    runner.Follow(++sent_);
    runner.Take(harness.Submit(OfTenant(tenant, sent_, prompt, max_tokens), sent_));
    return sent_;
  }
  CoreHarness harness;
  Runner runner;

 private:
  uint64_t sent_ = 0;
};

GroupLimits Sixteen() {
  GroupLimits limits = CoreHarness::Limits();
  limits.blocks = 600;
  limits.slots = 16;
  limits.step_tokens = 64;
  return limits;
}

// A flood leaves a free slot for the tenant that was there a moment ago, and takes all slots when
// that one does not come back.
TEST(SharesInCore, AFloodLeavesSlotsFree) {
  for (const std::string policy : {"fair", "fcfs"}) {
    SCOPED_TRACE(policy);
    SharesInCore core(policy, Sixteen());
    core.Send("b", 4, 1);
    core.runner.RunAll();
    for (int i = 0; i < 30; ++i) core.Send("a", 4, 100);
    for (int i = 0; i < 8; ++i) core.runner.RunOne();
    const int32_t running = core.harness.core.Stats().requests_running;
    EXPECT_EQ(running, policy == "fair" ? 14 : 16);
    const uint64_t other = core.Send("b", 4, 1);
    for (int i = 0; i < 4; ++i) core.runner.RunOne();
    EXPECT_EQ(core.runner.ledger(other).end.has_value(), policy == "fair");
    for (int i = 0; i < 4; ++i) core.runner.RunOne();
    core.runner.Take(core.harness.Tick(kLater));
    for (int i = 0; i < 4; ++i) core.runner.RunOne();
    EXPECT_EQ(core.harness.core.Stats().requests_running, 16);
    core.runner.RunAll();
    EXPECT_EQ(core.harness.core.Stats().finished_total, 32u);
  }
}

// Blocks likewise. Each sequence of the flood has five blocks at first, and is admitted if there is
// one more. Of 63 blocks, two sixteenths are kept.
TEST(SharesInCore, AFloodLeavesBlocksFree) {
  GroupLimits limits = Sixteen();
  limits.blocks = 64;
  limits.step_tokens = 512;
  for (const std::string policy : {"fair", "fcfs"}) {
    SCOPED_TRACE(policy);
    SharesInCore core(policy, limits);
    core.Send("b", 4, 1);
    core.runner.RunAll();
    for (int i = 0; i < 16; ++i) core.Send("a", 17, 20);
    core.runner.RunOne();
    const CoreStats stats = core.harness.core.Stats();
    const int32_t free = stats.blocks_total - stats.blocks_used;
    if (policy == "fair") {
      EXPECT_GE(free, 7);
    } else {
      EXPECT_LT(free, 6);
    }
    core.runner.RunAll();
    EXPECT_EQ(core.harness.core.Stats().finished_total, 17u);
  }
}

// While another tenant is there, the prompts of one over its share have an eighth of a step.
TEST(SharesInCore, PromptsOfAFloodLeaveRowsOfEachStep) {
  for (const std::string policy : {"fair", "fcfs"}) {
    SCOPED_TRACE(policy);
    SharesInCore core(policy, Sixteen());
    for (int i = 0; i < 12; ++i) core.Send("a", 4, 120);
    for (int i = 0; i < 8; ++i) core.runner.RunOne();
    core.Send("b", 4, 120);
    for (int i = 0; i < 4; ++i) core.runner.RunOne();
    for (int i = 0; i < 4; ++i) core.Send("a", 100, 2);
    const uint64_t other = core.Send("b", 40, 2);
    int32_t steps = 0, of_flood_max = 0;
    for (; !core.runner.ledger(other).end && steps < 100; ++steps) {
      const StepPlan plan = core.runner.plans().front();
      int32_t rows = 0;
      for (const Chunk& chunk : plan.chunks) {
        if (const auto* tokens = std::get_if<int32_t>(&chunk.work)) rows += *tokens;
      }
      if (steps > 2) of_flood_max = std::max(of_flood_max, rows);
      core.runner.RunOne();
    }
    if (policy == "fair") {
      EXPECT_LT(steps, 8);
      EXPECT_LE(of_flood_max, 8 + 40);
    } else {
      EXPECT_GE(steps, 8);  // Behind the prompts of the flood.
      EXPECT_GT(of_flood_max, 40);
    }
    core.runner.RunAll();
    EXPECT_EQ(core.harness.core.Stats().finished_total, 18u);
  }
}

}  // namespace
}  // namespace fathom::scheduler
