#include "cli/serve/timeline.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

namespace fathom::client {
namespace {

int64_t Sum(const std::vector<Part>& parts) {
  int64_t us = 0;
  for (const Part& part : parts) us += part.us;
  return us;
}

TEST(TimelineTest, PartsOfAStart) {
  std::vector<Interval> intervals = {{"check", 100, 110}, {"scheduler", 112, 150}};
  for (const Interval& part :
       ProcessIntervals("worker 0", 150, {{"load", 30, 200}, {"pack", 40, 250}})) {
    intervals.push_back(part);
  }
  intervals.push_back({"group", 250, 300});
  const auto parts = CutTimeline(100, 300, intervals);
  ASSERT_EQ(parts.size(), 7u);
  EXPECT_EQ(parts[2].name, "worker 0: process");
  EXPECT_EQ(parts[2].us, 20);
  EXPECT_EQ(parts[3].us, 30);
  EXPECT_EQ(parts[4].us, 50);
  EXPECT_EQ(parts.back().name, "other");
  EXPECT_EQ(parts.back().us, 2);
  EXPECT_EQ(Sum(parts), 200);
}

TEST(TimelineTest, PropertyPartsAlwaysAddUp) {
  const char* text = std::getenv("FATHOM_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : 13;
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  std::mt19937_64 rng(seed);
  for (int round = 0; round < 2000; ++round) {
    const auto begin = static_cast<TimeUs>(rng() % 100);
    const TimeUs end = begin + static_cast<TimeUs>(rng() % 1000);
    std::vector<Interval> intervals;
    for (size_t i = 0; i < rng() % 8; ++i) {  // Overlapping, outside, backwards.
      intervals.push_back({std::to_string(rng() % 3), static_cast<TimeUs>(rng() % 1200),
                           static_cast<TimeUs>(rng() % 1200)});
    }
    const auto parts = CutTimeline(begin, end, intervals);
    ASSERT_EQ(Sum(parts), end - begin);
    for (const Part& part : parts) ASSERT_GE(part.us, 0);
  }
}

TEST(Timeline, ASlowProcessSaysItsLastPart) {
  EXPECT_EQ(SlowText("worker-1", 1'000'000, {}, 8'000'000),
            "worker-1 for 7.0 s, before its first part");
  EXPECT_EQ(SlowText("worker-1", 1'000'000, {{"config", 1, 2'000'000}, {"headers", 1, 3'500'000}},
                     8'000'000),
            "worker-1 for 7.0 s, 4.5 s since headers");
}

}  // namespace
}  // namespace fathom::client
