#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>

#include "scheduler/core/policy.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

constexpr std::string_view kTenants[] = {"", "a", "b"};

SequenceFacts RandomFacts(std::mt19937_64& rng, uint64_t number) {
  return {.number = number,
          .tenant = kTenants[rng() % 3],
          .arrival_us = static_cast<TimeUs>(rng() % 4),
          .resumed = rng() % 2 == 0,
          .prompt_tokens = 1 + static_cast<int32_t>(rng() % 3),
          .max_tokens = 1 + static_cast<int32_t>(rng() % 3),
          .generated_tokens = 0};
}

TEST(Policy, TheDefaultIsFirst) {
  EXPECT_EQ(Policies().front().name, "fcfs");
  EXPECT_NE(MakePolicy("fcfs"), nullptr);
  EXPECT_EQ(MakePolicy("no-such"), nullptr);
}

// The properties that the core relies on, for every policy.
TEST(Policy, KeysDifferAndResumedComeFirstAndTheEvictionOrderNeverChanges) {
  const uint64_t seed = sim::TestSeed(2);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  std::set<std::string> names;
  for (const PolicyRow& row : Policies()) {
    SCOPED_TRACE(std::string(row.name));
    EXPECT_TRUE(names.emplace(row.name).second);
    const std::unique_ptr<Policy> policy = row.make();
    for (uint64_t i = 1; i <= 2000; ++i) {
      SequenceFacts a = RandomFacts(rng, 2 * i), b = RandomFacts(rng, 2 * i + 1);
      const OrderKey of_a = policy->Push(a), of_b = policy->Push(b);
      ASSERT_NE(of_a, of_b);
      ASSERT_NE(policy->EvictionOrder(a), policy->EvictionOrder(b));
      ASSERT_TRUE(!a.resumed || b.resumed || of_a < of_b);
      const OrderKey eviction = policy->EvictionOrder(a);
      policy->Pop(a, true);
      policy->Pop(b, false);
      a.resumed = !a.resumed;
      a.generated_tokens += 5;
      ASSERT_EQ(policy->EvictionOrder(a), eviction);
    }
  }
}

TEST(Policy, FcfsIsByArrival) {
  const std::unique_ptr<Policy> fcfs = MakePolicy("fcfs");
  const SequenceFacts early{.number = 9, .arrival_us = 1, .prompt_tokens = 100};
  const SequenceFacts late{.number = 3, .arrival_us = 2, .prompt_tokens = 1};
  EXPECT_LT(fcfs->Push(early), fcfs->Push(late));
  EXPECT_LT(fcfs->EvictionOrder(early), fcfs->EvictionOrder(late));
}

TEST(Policy, ShortestFirstOvertakesWithinItsLengthOnly) {
  const std::unique_ptr<Policy> shortest = MakePolicy("shortest-first");
  const SequenceFacts lengthy{
      .number = 1, .arrival_us = 0, .prompt_tokens = 900, .max_tokens = 100};
  SequenceFacts brief{.number = 2, .arrival_us = 989'999, .prompt_tokens = 5, .max_tokens = 5};
  EXPECT_LT(shortest->Push(brief), shortest->Push(lengthy));
  brief.arrival_us = 990'001;
  EXPECT_LT(shortest->Push(lengthy), shortest->Push(brief));
  EXPECT_LT(shortest->EvictionOrder(lengthy), shortest->EvictionOrder(brief));
}

// The queue of the core: the sequence with the least key is admitted.
TEST(Policy, FairShareTakesTurnsByTokens) {
  const std::unique_ptr<Policy> fair = MakePolicy("fair-share");
  std::map<OrderKey, SequenceFacts> queue;
  uint64_t number = 0;
  const auto push = [&](std::string_view tenant, int32_t tokens) {
    const SequenceFacts facts{
        .number = ++number, .tenant = tenant, .prompt_tokens = tokens - 1, .max_tokens = 1};
    queue.emplace(fair->Push(facts), facts);
  };
  std::map<std::string_view, int64_t> served;
  const auto admit = [&] {
    const SequenceFacts facts = queue.begin()->second;
    queue.erase(queue.begin());
    fair->Pop(facts, true);
    served[facts.tenant] += facts.prompt_tokens + facts.max_tokens;
    return facts.tenant;
  };
  // A flood of one tenant, and two tenants that come later with requests of other sizes.
  for (int i = 0; i < 1000; ++i) push("flood", 100);
  for (int i = 0; i < 30; ++i) push("a", 100);
  for (int i = 0; i < 15; ++i) push("b", 200);
  while (served["a"] < 3000 || served["b"] < 3000) {
    admit();
    // The difference never exceeds the largest request.
    ASSERT_LE(std::abs(served["a"] - served["b"]), 200);
    ASSERT_LE(std::abs(served["a"] - served["flood"]), 200);
  }
  // A tenant that was idle has no credit: its requests take turns with those of the flood.
  for (int i = 0; i < 100; ++i) admit();
  for (int i = 0; i < 10; ++i) push("a", 100);
  int of_a = 0;
  for (int i = 0; i < 10; ++i) of_a += admit() == "a" ? 1 : 0;
  EXPECT_EQ(of_a, 5);
}

}  // namespace
}  // namespace fathom::scheduler
