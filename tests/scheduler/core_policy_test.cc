#include <gtest/gtest.h>

#include <random>
#include <set>
#include <string>

#include "scheduler/core/policy.h"
#include "tests/sim/model.h"

namespace fathom::scheduler {
namespace {

SequenceFacts RandomFacts(std::mt19937_64& rng, uint64_t number) {
  return {.number = number,
          .arrival_us = static_cast<TimeUs>(rng() % 4),
          .resumed = rng() % 2 == 0,
          .prompt_tokens = 1 + static_cast<int32_t>(rng() % 3),
          .max_tokens = 1 + static_cast<int32_t>(rng() % 3),
          .generated_tokens = 0};
}

TEST(Policy, TheDefaultIsFirst) {
  EXPECT_EQ(Policies().front().name, "fcfs");
  EXPECT_EQ(FindPolicy("fcfs"), &Policies().front());
  EXPECT_EQ(FindPolicy("no-such"), nullptr);
}

// What the core rests on, for every row.
TEST(Policy, KeysDifferAndResumedComeFirstAndKeepNeverChanges) {
  const uint64_t seed = sim::TestSeed(2);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  std::set<std::string> names;
  for (const Policy& policy : Policies()) {
    SCOPED_TRACE(std::string(policy.name));
    EXPECT_TRUE(names.emplace(policy.name).second);
    for (int i = 0; i < 2000; ++i) {
      SequenceFacts a = RandomFacts(rng, 1), b = RandomFacts(rng, 2);
      ASSERT_NE(policy.admit(a), policy.admit(b));
      ASSERT_NE(policy.keep(a), policy.keep(b));
      ASSERT_TRUE(!a.resumed || b.resumed || policy.admit(a) < policy.admit(b));
      const OrderKey keep = policy.keep(a);
      a.resumed = !a.resumed;
      a.generated_tokens += 5;
      ASSERT_EQ(policy.keep(a), keep);
    }
  }
}

TEST(Policy, FcfsIsByArrival) {
  const Policy& fcfs = *FindPolicy("fcfs");
  const SequenceFacts early{.number = 9, .arrival_us = 1, .prompt_tokens = 100};
  const SequenceFacts late{.number = 3, .arrival_us = 2, .prompt_tokens = 1};
  EXPECT_LT(fcfs.admit(early), fcfs.admit(late));
  EXPECT_LT(fcfs.keep(early), fcfs.keep(late));
}

TEST(Policy, ShortestFirstOvertakesWithinItsLengthOnly) {
  const Policy& shortest = *FindPolicy("shortest-first");
  const SequenceFacts lengthy{
      .number = 1, .arrival_us = 0, .prompt_tokens = 900, .max_tokens = 100};
  SequenceFacts brief{.number = 2, .arrival_us = 989'999, .prompt_tokens = 5, .max_tokens = 5};
  EXPECT_LT(shortest.admit(brief), shortest.admit(lengthy));
  brief.arrival_us = 990'001;
  EXPECT_LT(shortest.admit(lengthy), shortest.admit(brief));
  EXPECT_LT(shortest.keep(lengthy), shortest.keep(brief));
}

}  // namespace
}  // namespace fathom::scheduler
