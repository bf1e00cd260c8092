#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "scheduler/sessions/stamps.h"
#include "tests/sim/model.h"
#include "tests/sim/timings_check.h"

namespace fathom::scheduler {
namespace {

// A random life of one sequence, and the same facts kept in the plainest way.
class Life {
 public:
  explicit Life(uint64_t seed) : rng_(seed) {
    earlier_us_ = Draw(3) == 0 ? static_cast<int64_t>(Draw(1000)) : 0;
    stamps_.Begin(now_, earlier_us_);
  }

  void Run() {
    Enqueue();
    const int changes = 1 + static_cast<int>(Draw(60));
    for (int i = 0; i < changes; ++i) {
      Pass();
      if (i % 7 == 0) Check(stamps_.At(now_, Behind()));
      switch (place_) {
        case kAway:
          Enqueue();
          break;
        case kWaiting:
          Draw(4) == 0 ? LeaveQueue() : Seat();
          break;
        case kSeated:
          Work();
          break;
      }
    }
    if (place_ == kWaiting) stamps_.Waited(Behind());
    stamps_.Leave(now_, StayEnd::kFinished);
    stamps_.End(now_);
    const RequestTimings end = stamps_.At(now_);
    Check(end);
    EXPECT_EQ(end.phase, RequestPhase::kEnded);
    now_ += 1000;
    EXPECT_EQ(stamps_.At(now_), end);  // Nothing is added after the end.
  }

 private:
  enum Place { kAway, kWaiting, kSeated };

  uint64_t Draw(uint64_t below) { return rng_() % below; }
  void Pass() {
    const auto us = static_cast<int64_t>(Draw(4) == 0 ? 0 : Draw(500));
    now_ += us;
    if (place_ == kWaiting) behind_us_[Draw(kWaitLimits)] += us;
  }
  WaitTimes Behind() const { return place_ == kWaiting ? behind_us_ : WaitTimes{}; }
  void Enqueue() {
    stamps_.Wait(now_, stays_ == 0);
    behind_us_ = {};
    place_ = kWaiting;
  }
  void LeaveQueue() {
    stamps_.Waited(behind_us_);
    stamps_.Leave(now_, StayEnd::kClientLeft);
    place_ = kAway;
  }
  void Seat() {
    stamps_.Waited(behind_us_);
    stamps_.Seat(now_, GroupId{1}, EpochId{static_cast<uint64_t>(stays_ + 1)}, stays_ == 0);
    ++stays_;
    place_ = kSeated;
    for (uint64_t i = Draw(20); i > 0; --i) {
      Pass();
      stamps_.PlanChunk(now_, 3);
      ++chunks_;
      if (Draw(3) != 0) stamps_.EndChunk(now_);
    }
  }
  void Work() {
    if (Draw(5) == 0) {
      const bool preempted = Draw(2) == 0;
      stamps_.Leave(now_, preempted ? StayEnd::kPreempted : StayEnd::kGroupLost);
      preemptions_ += preempted ? 1 : 0;
      place_ = kAway;
      if (Draw(4) != 0) Enqueue();
      return;
    }
    stamps_.Token(now_, tokens_);
    if (last_us_ >= 0 && now_ > last_us_) gaps_.push_back(now_ - last_us_);
    if (first_us_ < 0) first_us_ = now_;
    last_us_ = now_;
    ++tokens_;
  }
  void Check(const RequestTimings& timings) {
    EXPECT_EQ(sim::WrongTimings(timings), "");
    EXPECT_EQ(timings.WholeUs(), earlier_us_ + now_ - kStartUs);
    EXPECT_EQ(timings.stays_total, stays_);
    EXPECT_EQ(timings.chunks_total, chunks_);
    EXPECT_EQ(timings.preemptions, preemptions_);
    EXPECT_EQ(timings.first_token_us, first_us_ < 0 ? -1 : first_us_ - kStartUs);
    EXPECT_EQ(timings.last_token_us, last_us_ < 0 ? -1 : last_us_ - kStartUs);
    std::ranges::sort(gaps_, std::greater<>());
    std::vector<int64_t> largest;
    for (const TokenGap& gap : timings.gaps) largest.push_back(gap.us);
    EXPECT_EQ(largest, std::vector<int64_t>(
                           gaps_.begin(),
                           gaps_.begin() + std::min<ptrdiff_t>(std::ssize(gaps_), kTokenGapsMax)));
  }

  static constexpr TimeUs kStartUs = 77;
  std::mt19937_64 rng_;
  Stamps stamps_;
  TimeUs now_ = kStartUs;
  Place place_ = kAway;
  WaitTimes behind_us_ = {};
  int64_t earlier_us_ = 0;
  int32_t stays_ = 0, chunks_ = 0, preemptions_ = 0, tokens_ = 0;
  TimeUs first_us_ = -1, last_us_ = -1;
  std::vector<int64_t> gaps_;
};

TEST(Stamps, ThePartsAddUpInRandomHistories) {
  const uint64_t seed = sim::TestSeed(11);
  SCOPED_TRACE("FATHOM_SEED=" + std::to_string(seed));
  for (uint64_t i = 0; i < 5000 && !testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE("life " + std::to_string(i));
    Life(seed + i).Run();
  }
}

TEST(Stamps, AFullListOfStaysEndsWithTheLatestOne) {
  Stamps stamps;
  stamps.Begin(0, 0);
  for (int32_t i = 0; i < 20; ++i) {
    stamps.Wait(i * 10, i == 0);
    stamps.Seat(i * 10 + 1, GroupId{0}, EpochId{static_cast<uint64_t>(i)}, i == 0);
    stamps.Leave(i * 10 + 5, StayEnd::kPreempted);
  }
  const RequestTimings timings = stamps.At(200);
  ASSERT_EQ(timings.stays.size(), kStaysMax);
  EXPECT_EQ(timings.stays.front().epoch, EpochId{0});
  EXPECT_EQ(timings.stays.back().epoch, EpochId{19});
  EXPECT_EQ(timings.stays_total, 20);
  EXPECT_EQ(timings.preemptions, 20);
}

TEST(Stamps, TheTimeBetweenTwoStaysIsAGapOfTheTokens) {
  Stamps stamps;
  stamps.Begin(0, 0);
  stamps.Wait(0, true);
  stamps.Seat(0, GroupId{0}, EpochId{1}, true);
  stamps.Token(10, 0);
  stamps.Token(11, 1);
  stamps.Leave(12, StayEnd::kPreempted);
  stamps.Wait(12, false);
  stamps.Seat(90, GroupId{0}, EpochId{1}, false);
  stamps.Token(111, 2);
  const RequestTimings timings = stamps.At(120);
  EXPECT_EQ(timings.gaps, (std::vector<TokenGap>{{100, 2}, {1, 1}}));
  EXPECT_EQ(timings.prefill_us, 10);
  EXPECT_EQ(timings.decode_us, 2 + 9);
  EXPECT_EQ(timings.suspended_us, 78);
  EXPECT_EQ(timings.replay_us, 21);
}

}  // namespace
}  // namespace fathom::scheduler
