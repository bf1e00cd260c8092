// common/clock.h: time is an argument. Only main.cc files and transports make a RealClock; all
// other code gets `now` or a Clock&. Thread: any thread may call Now().
#pragma once

#include <atomic>
#include <chrono>

#include "common/types.h"

namespace fathom {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual TimeUs Now() const = 0;
};

class RealClock final : public Clock {
 public:
  TimeUs Now() const override {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

// A clock for tests that moves only when Advance is called.
class ManualClock final : public Clock {
 public:
  TimeUs Now() const override { return now_us_.load(); }
  void Advance(int64_t delta_us) { now_us_ += delta_us; }

 private:
  std::atomic<TimeUs> now_us_{1};
};

}  // namespace fathom
