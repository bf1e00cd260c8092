// common/retry_delay.h: computes the delay after which a refused client should try again. The delay
// is never a constant, because all clients that are refused at one time must not come back at one
// time. Pure: time is an argument. Thread: the owner's.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace fathom {

inline constexpr int64_t kRetryMinMs = 50;
inline constexpr int64_t kRetryMaxMs = 30'000;

// `ms` changed by up to a quarter in either direction, depending on `salt` (a number that differs
// from call to call), within [kRetryMinMs, kRetryMaxMs].
int64_t JitteredRetryMs(int64_t ms, uint64_t salt);

// A number that depends on `salt` without a visible pattern (SplitMix64).
uint64_t ScrambledSalt(uint64_t salt);

// For a missing part whose return cannot be predicted: the delay grows with the time that it has
// been missing, from 100 ms to 5 s.
int64_t RetryWhileAwayMs(int64_t away_us, uint64_t salt);

// For places of which there are few (a stream, a place in a queue). The class measures how often a
// place becomes free, and gives the refused clients consecutive places in a virtual line, of which
// it stores only the end.
class RetryLine {
 public:
  void OnFreed(TimeUs now);
  // The delay for the client that is refused now.
  int64_t OnRefused(TimeUs now);

 private:
  static constexpr double kWeight = 0.1;  // The weight of the newest interval in the mean.
  double interval_us_ = 100'000;          // The time between two places that become free.
  TimeUs freed_us_ = 0;                   // When the last place became free; 0: none yet.
  TimeUs end_us_ = 0;                     // When the last client of the line should come back.
  uint64_t refused_ = 0;
};

}  // namespace fathom
