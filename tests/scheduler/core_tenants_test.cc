// Tenants in the core: a tenant runs only so many sequences, what waits for it says so, and a new
// table counts at once.
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <string>
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

// Whatever comes and goes, the counts hold (CheckInvariants after each event), no tenant runs more
// than it may, and everything ends.
TEST(CoreTenants, LimitsHoldUnderRandomEvents) {
  const uint64_t seed = sim::TestSeed(21);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  const std::string tenants[] = {"a", "b", "c"};
  for (int round = 0; round < 30; ++round) {
    CoreHarness harness({.policy = std::string(Policies()[rng() % Policies().size()].name),
                         .waiting_requests_max = 6});
    TenantTable table;
    const auto change = [&] {
      for (const std::string& tenant : tenants) {
        table.tenants[tenant] = {.weight = 1 + static_cast<int32_t>(rng() % 5),
                                 .running_max = static_cast<int32_t>(rng() % 3),
                                 .queued_max = static_cast<int32_t>(rng() % 5),
                                 .queued_tokens_max = static_cast<int64_t>(rng() % 40),
                                 .tokens_per_minute = static_cast<int64_t>(rng() % 2000)};
      }
    };
    change();
    harness.Step(TenantsChanged{table});
    uint64_t epoch = 1, attempt = 0;
    harness.Up();
    auto runner = std::make_unique<Runner>(harness, harness.UpEvent(CoreHarness::Limits()));
    int64_t accepted = 0, refused = 0;
    std::vector<std::pair<SessionKey, uint64_t>> sent;
    const auto take = [&](const Actions& actions) {
      accepted += std::ssize(actions.accepted);
      refused += std::ssize(actions.refused);
      runner->Take(actions);
    };
    for (int i = 0; i < 400; ++i) {
      harness.now += static_cast<TimeUs>(rng() % 50'000);
      switch (rng() % 8) {
        case 0:
        case 1:
        case 2: {
          const std::string& tenant = tenants[rng() % 3];
          Record record = OfTenant(tenant, std::to_string(i), 1 + static_cast<int32_t>(rng() % 9));
          record.priority = static_cast<int32_t>(rng() % 3);
          sent.emplace_back(record.key, ++attempt);
          take(harness.Submit(record, attempt));
          break;
        }
        case 3:
          if (sent.empty()) break;
          take(harness.Step(
              Routed<Suspend>{kRouter, {AttemptId{sent.back().second}, sent.back().first}}));
          sent.pop_back();
          break;
        case 4:
          if (rng() % 10 != 0) break;
          change();
          take(harness.Step(TenantsChanged{table}));
          break;
        case 5:
          if (rng() % 20 != 0) break;
          take(harness.Step(GroupLost{kGroup, EpochId{epoch}}));
          ++epoch;
          runner = std::make_unique<Runner>(harness, harness.UpEvent(CoreHarness::Limits(), epoch));
          take(harness.Up(CoreHarness::Limits(), epoch));
          break;
        default:
          runner->RunOne();
      }
    }
    runner->RunAll();
    const CoreStats stats = harness.core.Stats();
    EXPECT_EQ(stats.requests_running, 0);
    EXPECT_GT(accepted, 20);
    EXPECT_EQ(static_cast<uint64_t>(refused), stats.refused_total);
    uint64_t by_limit = 0;
    for (const uint64_t count : stats.refused_by) by_limit += count;
    EXPECT_EQ(by_limit, stats.refused_total);
  }
}

}  // namespace
}  // namespace fathom::scheduler
