#include "scheduler/membership/rank_times.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

namespace fathom::scheduler {
namespace {

uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed != nullptr ? std::strtoull(seed, nullptr, 10) : 20261201;
}

StepTimings Step(int64_t whole_us, int64_t collective_us) {
  return {.read_to_write_us = whole_us, .compute_us = whole_us, .collective_us = collective_us};
}

std::vector<uint64_t> Stragglers(const RankTimes& times) {
  std::vector<uint64_t> counts;
  for (const RankTime& time : times.ranks()) counts.push_back(time.straggler_steps_total);
  return counts;
}

TEST(RankTimes, TheRankThatWaitsLeastIsTheStraggler) {
  RankTimes times({3, 1});
  for (const int64_t collective_us : {600, 100, 700}) {
    times.Add(collective_us == 600 ? 0 : collective_us == 100 ? 1 : 2, Step(1000, collective_us));
  }
  EXPECT_EQ(Stragglers(times), (std::vector<uint64_t>{0, 1, 0}));
  // The next least wait is less than half of the step more.
  times.Add(0, Step(1000, 599));
  times.Add(1, Step(1000, 100));
  times.Add(2, Step(1000, 900));
  EXPECT_EQ(Stragglers(times), (std::vector<uint64_t>{0, 1, 0}));
  EXPECT_EQ(times.ranks()[0].collective_us_total, 1199);
}

TEST(RankTimes, StagesAreApartAndASingleRankIsNone) {
  RankTimes alone({1, 2});
  alone.Add(0, Step(100, 0));
  alone.Add(1, Step(100, 90));
  EXPECT_EQ(Stragglers(alone), (std::vector<uint64_t>{0, 0}));
  RankTimes times({2, 2});
  times.Add(2, Step(100, 0));
  times.Add(3, Step(100, 60));  // The second stage is complete before the first one.
  EXPECT_EQ(Stragglers(times), (std::vector<uint64_t>{0, 0, 1, 0}));
}

// Whatever the order in which the ranks' results come: the counts are those of each step alone.
TEST(RankTimes, TheOrderOfResultsDoesNotMatter) {
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(TestSeed()));
  std::mt19937_64 random(TestSeed());
  for (int round = 0; round < 200; ++round) {
    const GroupShape shape{static_cast<int32_t>(1 + random() % 4),
                           static_cast<int32_t>(1 + random() % 3)};
    const size_t ranks = static_cast<size_t>(shape.ranks()), steps = 20;
    std::vector<std::vector<StepTimings>> all(ranks);
    for (auto& of_rank : all) {
      for (size_t i = 0; i < steps; ++i) {
        of_rank.push_back(Step(1000, static_cast<int64_t>(random() % 1000)));
      }
    }
    RankTimes in_order(shape), shuffled(shape);
    for (size_t i = 0; i < steps; ++i) {
      for (size_t r = 0; r < ranks; ++r) in_order.Add(static_cast<int32_t>(r), all[r][i]);
    }
    std::vector<size_t> next(ranks, 0), order;
    for (size_t r = 0; r < ranks; ++r) order.insert(order.end(), steps, r);
    std::shuffle(order.begin(), order.end(), random);
    for (const size_t r : order) shuffled.Add(static_cast<int32_t>(r), all[r][next[r]++]);
    EXPECT_EQ(Stragglers(in_order), Stragglers(shuffled));
    for (size_t r = 0; r < ranks; ++r) {
      EXPECT_EQ(in_order.ranks()[r].step_us, shuffled.ranks()[r].step_us);
    }
  }
}

}  // namespace
}  // namespace fathom::scheduler
