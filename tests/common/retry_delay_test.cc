#include "common/retry_delay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

namespace fathom {
namespace {

TEST(RetryDelay, JitterStaysWithinAQuarterAndDiffers) {
  for (const int64_t ms : {int64_t{100}, int64_t{1000}, int64_t{20'000}}) {
    std::set<int64_t> seen;
    for (uint64_t salt = 0; salt < 1000; ++salt) {
      const int64_t delay = JitteredRetryMs(ms, salt);
      EXPECT_GE(delay, ms - ms / 4);
      EXPECT_LE(delay, ms + ms / 4);
      EXPECT_EQ(delay, JitteredRetryMs(ms, salt)) << "pure";
      seen.insert(delay);
    }
    EXPECT_GT(seen.size(), 40u) << ms;  // Of 51 values for the shortest delays.
  }
  for (const int64_t ms : {int64_t{-5}, int64_t{0}, int64_t{1}}) {
    EXPECT_GE(JitteredRetryMs(ms, 3), kRetryMinMs);
  }
  EXPECT_LE(JitteredRetryMs(INT64_MAX, 3), kRetryMaxMs);
}

TEST(RetryDelay, WhatIsLongAwayIsAskedForLessOften) {
  EXPECT_LE(RetryWhileAwayMs(0, 1), 125);
  EXPECT_GE(RetryWhileAwayMs(2'000'000, 1), 1500);
  EXPECT_LE(RetryWhileAwayMs(int64_t{3600} * 1'000'000, 1), 6250);
}

// 100 clients are refused at once, and a place becomes free every 20 ms. They come back at the rate
// of the places, neither all at once nor long after the last place was free.
TEST(RetryDelay, ALineComesBackAsFastAsPlacesBecomeFree) {
  RetryLine line;
  TimeUs now = 1'000'000;
  for (int i = 0; i < 200; ++i) line.OnFreed(now += 20'000);
  std::vector<int64_t> delays;
  for (int i = 0; i < 100; ++i) delays.push_back(line.OnRefused(now));
  std::sort(delays.begin(), delays.end());
  for (int i = 10; i < 100; ++i) {
    EXPECT_NEAR(static_cast<double>(delays[i]), 20.0 * (i + 1), 20.0 * (i + 1) * 0.26 + 20) << i;
  }
  // When all have come back, the line is as short as at first.
  EXPECT_LE(line.OnRefused(now + 10'000'000), kRetryMinMs * 5 / 4);
}

TEST(RetryDelay, ALineIsBoundedWhateverHappens) {
  RetryLine stuck;
  for (int i = 0; i < 100'000; ++i) {
    const int64_t delay = stuck.OnRefused(5);
    ASSERT_GE(delay, kRetryMinMs);
    ASSERT_LE(delay, kRetryMaxMs);
  }
}

}  // namespace
}  // namespace fathom
