// common/retry_delay.h: when somebody who is refused for now should come back, as computed numbers
// and never a constant: all who are refused at one time must not come back at one time. Pure: time
// is an argument. Thread: the owner's.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace fathom {

inline constexpr int64_t kRetryMinMs = 50;
inline constexpr int64_t kRetryMaxMs = 30'000;

// `ms` moved by up to a quarter either way, as `salt` says (any number that differs from call to
// call), within [kRetryMinMs, kRetryMaxMs].
int64_t JitteredRetryMs(int64_t ms, uint64_t salt);

// For something that is away and whose return nobody can tell: the wait grows with how long it has
// been away, from 100 ms to 5 s.
int64_t RetryWhileAwayMs(int64_t away_us, uint64_t salt);

// A place of which there are few (a stream, a seat in a queue). It learns from those that are given
// back how often one becomes free, and gives those who are refused a place one after another in a
// line of which it remembers only the end.
class RetryLine {
 public:
  void OnFreed(TimeUs now);
  // The delay to tell the one who is refused now.
  int64_t OnRefused(TimeUs now);

 private:
  static constexpr double kWeight = 0.1;  // Of the newest interval in the mean.
  double interval_us_ = 100'000;          // Between two places that become free.
  TimeUs freed_us_ = 0;                   // The last one; 0: none yet.
  TimeUs end_us_ = 0;                     // When the last in the line is to come back.
  uint64_t refused_ = 0;
};

}  // namespace fathom
