// Tenants in the core: a tenant runs only so many sequences, what waits for it says so, and a new
// table counts at once.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/core/policy.h"
#include "tests/scheduler/core_harness.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

Record OfTenant(const std::string& tenant, const std::string& id, int32_t max_tokens = 4) {
  Record record = MakeRecord(id, 5, max_tokens);
  record.key.tenant = tenant;
  return record;
}

int32_t WaitingFor(const CoreHarness& harness, WaitLimit limit) {
  return harness.core.Stats().waiting_by_limit[static_cast<size_t>(limit)];
}

TEST(CoreTenants, RunsSoManySequencesOnly) {
  for (const PolicyRow& row : Policies()) {
    SCOPED_TRACE(std::string(row.name));
    CoreHarness harness({.policy = std::string(row.name)});
    TenantTable table;
    table.tenants["t"] = {.running_max = 2};
    harness.Step(TenantsChanged{table});
    harness.Up();
    Runner runner(harness, harness.UpEvent(CoreHarness::Limits()));
    for (uint64_t i = 1; i <= 5; ++i) {
      runner.Follow(i);
      runner.Take(harness.Submit(OfTenant("t", std::to_string(i)), i));
    }
    runner.Follow(6);
    runner.Take(harness.Submit(OfTenant("u", "6"), 6));
    runner.RunOne();
    runner.RunOne();
    EXPECT_EQ(harness.core.Stats().requests_running, 3);  // The other tenant is not kept waiting.
    EXPECT_EQ(WaitingFor(harness, WaitLimit::kTenantRunning), 3);
    harness.now += 500;
    const Explained explained = harness.core.Explain({"t", "5"}, harness.now);
    EXPECT_EQ(explained.timings.queue_behind_us[static_cast<size_t>(WaitLimit::kTenantRunning)],
              explained.timings.queue_us);
    EXPECT_GE(explained.timings.queue_us, 500);
    runner.RunAll();
    for (uint64_t i = 1; i <= 6; ++i) EXPECT_TRUE(runner.ledger(i).end.has_value()) << i;
    EXPECT_EQ(SumUs(runner.ledger(5).timings->queue_behind_us), runner.ledger(5).timings->queue_us);
  }
}

TEST(CoreTenants, ANewTableCountsAtOnce) {
  CoreHarness harness;
  TenantTable table;
  table.defaults = {.running_max = 1};
  harness.Step(TenantsChanged{table});
  harness.Up();
  Runner runner(harness, harness.UpEvent(CoreHarness::Limits()));
  for (uint64_t i = 1; i <= 3; ++i) {
    runner.Take(harness.Submit(OfTenant("t", std::to_string(i), 40), i));
  }
  runner.RunOne();
  EXPECT_EQ(harness.core.Stats().requests_running, 1);
  table.defaults.running_max = 0;
  runner.Take(harness.Step(TenantsChanged{table}));
  for (int i = 0; i < 3; ++i) runner.RunOne();
  EXPECT_EQ(harness.core.Stats().requests_running, 3);
  table.defaults.running_max = 2;  // Those that run go on.
  runner.Take(harness.Step(TenantsChanged{table}));
  runner.Take(harness.Submit(OfTenant("t", "4"), 4));
  runner.RunOne();
  EXPECT_EQ(harness.core.Stats().requests_running, 3);
  EXPECT_EQ(WaitingFor(harness, WaitLimit::kTenantRunning), 1);
  runner.RunAll();
  EXPECT_EQ(harness.core.Stats().finished_total, 4u);
}

// Random requests, hang-ups, losses of the group and new tables.
class RandomTenants {
 public:
  explicit RandomTenants(std::mt19937_64* rng)
      : rng_(*rng),
        harness_({.policy = std::string(Policies()[Draw(Policies().size())].name),
                  .waiting_requests_max = 6}) {
    Change();
    harness_.Up();
    runner_ = std::make_unique<Runner>(harness_, harness_.UpEvent(CoreHarness::Limits()));
  }

  void One(int number) {
    harness_.now += static_cast<TimeUs>(Draw(50'000));
    switch (Draw(8)) {
      case 0:
      case 1:
      case 2:
        return Submit(number);
      case 3:
        return HangUp();
      case 4:
        if (Draw(10) == 0) Change();
        return;
      case 5:
        if (Draw(20) == 0) LoseGroup();
        return;
      default:
        runner_->RunOne();
    }
  }
  void End() {
    runner_->RunAll();
    const CoreStats stats = harness_.core.Stats();
    EXPECT_EQ(stats.requests_running, 0);
    EXPECT_GT(accepted_, 20);
    EXPECT_EQ(refused_, stats.refused_total);
    uint64_t by_limit = 0;
    for (const uint64_t count : stats.refused_by) by_limit += count;
    EXPECT_EQ(by_limit, stats.refused_total);
  }

 private:
  uint64_t Draw(uint64_t below) { return rng_() % below; }
  void Take(const Actions& actions) {
    accepted_ += actions.accepted.size();
    refused_ += actions.refused.size();
    if (runner_) runner_->Take(actions);
  }
  void Submit(int number) {
    Record record =
        OfTenant(kTenants[Draw(3)], std::to_string(number), 1 + static_cast<int32_t>(Draw(9)));
    record.priority = static_cast<int32_t>(Draw(3));
    sent_.emplace_back(record.key, ++attempt_);
    Take(harness_.Submit(record, attempt_));
  }
  void HangUp() {
    if (sent_.empty()) return;
    const auto [key, attempt] = sent_.back();
    sent_.pop_back();
    Take(harness_.Step(Routed<Suspend>{kRouter, {AttemptId{attempt}, key}}));
  }
  void Change() {
    TenantTable table;
    for (const std::string& tenant : kTenants) {
      table.tenants[tenant] = {.weight = 1 + static_cast<int32_t>(Draw(5)),
                               .running_max = static_cast<int32_t>(Draw(3)),
                               .queued_max = static_cast<int32_t>(Draw(5)),
                               .queued_tokens_max = static_cast<int64_t>(Draw(40)),
                               .tokens_per_minute = static_cast<int64_t>(Draw(2000))};
    }
    Take(harness_.Step(TenantsChanged{table}));
  }
  void LoseGroup() {
    Take(harness_.Step(GroupLost{kGroup, EpochId{epoch_}}));
    ++epoch_;
    runner_ = std::make_unique<Runner>(harness_, harness_.UpEvent(CoreHarness::Limits(), epoch_));
    Take(harness_.Up(CoreHarness::Limits(), epoch_));
  }

  const std::string kTenants[3] = {"a", "b", "c"};
  std::mt19937_64& rng_;
  CoreHarness harness_;
  std::unique_ptr<Runner> runner_;
  uint64_t epoch_ = 1, attempt_ = 0, accepted_ = 0, refused_ = 0;
  std::vector<std::pair<SessionKey, uint64_t>> sent_;
};

// Whatever comes and goes, the counts hold (CheckInvariants after each event) and everything ends.
TEST(CoreTenants, LimitsHoldUnderRandomEvents) {
  const uint64_t seed = sim::TestSeed(21);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (int round = 0; round < 30; ++round) {
    RandomTenants tenants(&rng);
    for (int i = 0; i < 400; ++i) tenants.One(i);
    tenants.End();
  }
}

}  // namespace
}  // namespace fathom::scheduler
