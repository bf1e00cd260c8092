#include "cli/serve/rank_watch.h"

#include <gtest/gtest.h>

namespace fathom::client {
namespace {

constexpr TimeUs kSecond = 1'000'000;

TEST(RankWatchTest, WorkersAreAskedInTurn) {
  RankWatch watch({.limit_us = 60 * kSecond, .every_us = 4 * kSecond}, 4);
  EXPECT_EQ(watch.Due(0), 0);
  EXPECT_EQ(watch.Due(1), std::nullopt);
  EXPECT_EQ(watch.WaitMs(1), 1000);
  EXPECT_EQ(watch.Due(kSecond - 1), std::nullopt);
  for (int i = 1; i < 9; ++i) EXPECT_EQ(watch.Due(i * kSecond), i % 4);
}

TEST(RankWatchTest, AShortLimitIsAskedMoreOften) {
  RankWatch watch({.limit_us = 3 * kSecond, .every_us = 5 * kSecond, .failures_min = 3}, 1);
  EXPECT_EQ(watch.Due(0), 0);
  EXPECT_EQ(watch.Due(kSecond), 0);
}

TEST(RankWatchTest, OnlyALongSilenceEndsAWorker) {
  RankWatch watch({.limit_us = 10 * kSecond, .failures_min = 3}, 2);
  for (const int bad : {0, 503}) {
    EXPECT_FALSE(watch.Take(1, 7, bad, 100 * kSecond));
    EXPECT_FALSE(watch.Take(1, 7, bad, 105 * kSecond));
    EXPECT_FALSE(watch.Take(1, 7, bad, 109 * kSecond));
    EXPECT_FALSE(watch.Take(0, 7, bad, 110 * kSecond)) << "another worker";
    EXPECT_TRUE(watch.Take(1, 7, bad, 110 * kSecond));
    EXPECT_FALSE(watch.Take(1, 7, bad, 111 * kSecond)) << "counted from the beginning";
    EXPECT_FALSE(watch.Take(1, 7, 200, 112 * kSecond));
    EXPECT_FALSE(watch.Take(0, 7, 200, 112 * kSecond));
  }
}

TEST(RankWatchTest, FewAnswersInALongTimeAreNotEnough) {
  RankWatch watch({.limit_us = kSecond, .failures_min = 3}, 1);
  EXPECT_FALSE(watch.Take(0, 7, 503, 0));
  EXPECT_FALSE(watch.Take(0, 7, 503, 100 * kSecond));
  EXPECT_TRUE(watch.Take(0, 7, 503, 101 * kSecond));
}

TEST(RankWatchTest, AGoodAnswerAndANewLifeForgetTheBadOnes) {
  RankWatch watch({.limit_us = 10 * kSecond, .failures_min = 2}, 1);
  for (const int good : {200, 404}) {  // 404: a program without the path.
    EXPECT_FALSE(watch.Take(0, 7, 503, 0));
    EXPECT_FALSE(watch.Take(0, 7, good, 5 * kSecond));
    EXPECT_FALSE(watch.Take(0, 7, 503, 11 * kSecond));
    EXPECT_FALSE(watch.Take(0, 7, good, 12 * kSecond));
  }
  EXPECT_FALSE(watch.Take(0, 7, 503, 0));
  EXPECT_FALSE(watch.Take(0, 8, 503, 20 * kSecond));
}

TEST(RankWatchTest, NothingIsWatchedWithoutALimit) {
  RankWatch watch({.limit_us = 0}, 2);
  EXPECT_EQ(watch.WaitMs(5), -1);
  EXPECT_EQ(watch.Due(5), std::nullopt);
}

}  // namespace
}  // namespace fathom::client
