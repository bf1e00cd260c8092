// scheduler/core/token_bucket.h: a limit of tokens per minute. The bucket holds the tokens of one
// minute at most. Whoever takes tokens may take more than there are; then nothing is left until the
// rate has paid the debt. So over any T minutes at most (T + 1) * rate tokens are taken, and those
// of one request. Exact integer arithmetic; pure: time is an argument. Thread: the owner's.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/types.h"

namespace fathom::scheduler {

class TokenBucket {
 public:
  // 0: no limit. A bucket that gets its first limit is full.
  void SetRate(int64_t tokens_per_minute, TimeUs now) {
    Fill(now);
    if (rate_ == 0) level_ = tokens_per_minute * kMinuteUs;
    rate_ = tokens_per_minute;
    Fill(now);
  }
  int64_t rate() const { return rate_; }

  // May be negative, for tokens that are given back.
  void Take(int64_t tokens, TimeUs now) {
    if (rate_ == 0) return;
    Fill(now);
    level_ = std::min(level_ - tokens * kMinuteUs, rate_ * kMinuteUs);
  }
  // The time until there is a token; 0: there is one.
  int64_t EmptyForUs(TimeUs now) {
    if (rate_ == 0) return 0;
    Fill(now);
    return level_ >= kMinuteUs ? 0 : (kMinuteUs - level_) / rate_ + 1;
  }
  // Whole tokens; negative: the debt.
  int64_t Tokens(TimeUs now) {
    Fill(now);
    return level_ >= 0 ? level_ / kMinuteUs : -(-level_ / kMinuteUs) - 1;
  }
  int64_t UsOf(int64_t tokens) const { return rate_ == 0 ? 0 : tokens * kMinuteUs / rate_; }
  bool Full(TimeUs now) {
    Fill(now);
    return level_ >= rate_ * kMinuteUs;
  }

 private:
  static constexpr int64_t kMinuteUs = 60'000'000;

  void Fill(TimeUs now) {
    const int64_t full = rate_ * kMinuteUs;
    // More time than is missing, or than the product can hold, fills the bucket.
    const int64_t missing_us = rate_ == 0 ? 0 : (full - level_) / rate_ + 1;
    const int64_t us = std::min<int64_t>(now - since_us_, missing_us);
    level_ = std::min(level_ + us * rate_, full);
    since_us_ = now;
  }

  int64_t rate_ = 0;   // Tokens per minute.
  int64_t level_ = 0;  // In tokens times the microseconds of a minute.
  TimeUs since_us_ = 0;
};

}  // namespace fathom::scheduler
